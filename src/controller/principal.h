// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "controller/resource_kind.h"

namespace vallum::controller {

// Who makes a request, as its token says.
struct Principal {
  std::string name;  // the token's name; goes into operations and events as `user`
  v1::Role role = v1::ROLE_UNSPECIFIED;
  std::string tenant;  // with ROLE_TENANT
};

enum class Verb {
  kRead,  // get, list, watch
  kCreate,
  kUpdate,
  kDelete,
  kOperate,  // start, stop, reboot, pause, resume
  kConsole,
  kExplain,  // POST /v1/schedule/explain
};

// Decides whether the principal may do this to a resource of the kind that belongs to the tenant.
//   tenant: metadata.tenant of the resource; for kCreate, of the one to be made; for lists, the
//   principal's own (and show only what Visible() lets through).
// Errors: kDenied, saying which role it takes. Pure; thread-safe.
Result<void> Authorize(const Principal& principal, Verb verb, Kind kind, std::string_view tenant);

// Whether a resource is shown in a list to the principal: tenants see their own instances,
// snapshots and operations, and all images, flavors, pools and key sets. Pure; thread-safe.
bool Visible(const Principal& principal, Kind kind, std::string_view tenant);

}  // namespace vallum::controller

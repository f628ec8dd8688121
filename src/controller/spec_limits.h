// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.h"
#include "controller/principal.h"
#include "controller/view.h"
#include "vallum/v1/resources.pb.h"

// What a spec of an instance may say, whoever wrote it: a request, or what a snapshot brings along.
namespace vallum::controller {

// Networks that there can be, a seed and networks within their limits; and of a tenant nothing that
// only an operator may choose: where an instance runs, what it is connected to, sizes.
// Errors: kInvalidInput, kDenied, naming the field. Pure; thread-safe.
Result<void> CheckLimits(const v1::InstanceSpec& spec, const Principal& principal);

// A tenant's instance has the sizes of its flavor, not those that its snapshot brings along.
// Errors: kInvalidInput (there is no flavor).
Result<void> TakeFlavorSizes(v1::InstanceSpec& spec);

// The spec that somebody wants to import as that of a snapshot: as CheckLimits, but sizes of a
// tenant count for nothing and are dropped, and what it says of keys is there for the tenant.
//   tenant: of the snapshot.
// Errors: as CheckLimits; kNotFound (key set, or its version).
Result<void> CheckImported(const View& view, const std::string& tenant, const Principal& principal,
                           v1::InstanceSpec& spec);

}  // namespace vallum::controller

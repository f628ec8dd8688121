// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string_view>

#include "base/result.h"

namespace vallum::vtpm {

struct UserIds {
  uid_t uid = 0;
  gid_t gid = 0;
};
// "1000:1000". Errors: kInvalidInput (also for 0: dropping to root drops nothing).
Result<UserIds> ParseUserIds(std::string_view text);

// No core dumps, no tracing by others, no new privileges; for this process and its children.
Result<void> HardenProcess();
// Becomes the user for good, without supplementary groups.
Result<void> DropPrivileges(UserIds user);
// From here on only the system calls of the relay are possible; any other kills the process.
// Sanitizers need more calls than that: their builds leave it out.
Result<void> RestrictSystemCalls();

}  // namespace vallum::vtpm

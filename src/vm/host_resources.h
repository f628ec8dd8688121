// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/result.h"
#include "vm/process.h"
#include "vm/vm_spec.h"

namespace vallum::vm {

// Says whether a directory is a cgroup v2 that we may make children in.
// Errors: kNotFound (no such directory, or no cgroup v2), kDenied; in words for people.
Result<void> CheckCgroupParent(const std::string& parent);

// Makes the cgroup of an instance with its limits, below limits.cgroup_parent.
// Returns its directory. Errors: as CheckCgroupParent; the errno of the limit that was refused.
Result<std::string> MakeCgroup(const VmSpec& spec);
// Removes it when no process is in it any more.
void RemoveCgroup(const VmSpec& spec);

// Makes a tap device that lives as long as the descriptor, and adds it to a bridge.
// Errors: kDenied (CAP_NET_ADMIN is missing), kNotFound (no such bridge, no /dev/net/tun).
Result<UniqueFd> MakeTap(const std::string& bridge);

}  // namespace vallum::vm

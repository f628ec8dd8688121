// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/boot_keys.h"
#include "agent/config.h"
#include "agent/launch_plan.h"
#include "base/clock.h"
#include "base/result.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// What an instance has on this host's disk, as far as it can be read.
struct StoredInstance {
  std::optional<v1::DesiredInstance> desired;
  std::optional<v1::InstanceStatus> status;
  std::string problem;  // why a file that is there cannot be used
};

// Reads instance.pb and status.pb. Never fails: damage is told in words.
StoredInstance LoadInstance(const InstancePaths& paths, const std::string& uid);

Result<void> StoreDesired(const InstancePaths& paths, const v1::DesiredInstance& desired);
Result<void> StoreStatus(const InstancePaths& paths, const v1::InstanceStatus& status);

// The kernel boot in which the instance was last started, "" if not known.
std::string LoadBootId(const InstancePaths& paths);
Result<void> StoreBootId(const InstancePaths& paths);
// Of the host's kernel, now.
std::string CurrentBootId();

// The generation whose start or resume was refused for want of a lease, if there is one.
std::optional<int64_t> LoadLeaseRefusal(const InstancePaths& paths);
// Nothing: removes the note.
Result<void> StoreLeaseRefusal(const InstancePaths& paths, std::optional<int64_t> generation);

// The keys that the running guest was started with; nothing when the controller sent none.
std::optional<AssignedKeys> LoadAssignedKeys(const InstancePaths& paths);

// Makes what a start needs and is not there yet: directories, the empty overlay, the variable
// store (see instance_variables.h), the seed. Files that the guest writes are given to its user.
// Returns sentences on what was kept and rebuilt, for the user; usually none.
Result<std::vector<std::string>> PrepareFiles(const InstancePaths& paths,
                                              const v1::DesiredInstance& desired,
                                              const LaunchPlan& plan, WallTime now,
                                              const std::optional<vm::RunAs>& user);

// Removes every trace of an instance's files.
Result<void> RemoveFiles(const InstancePaths& paths);

}  // namespace vallum::agent

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "agent/config.h"
#include "agent/launch_plan.h"
#include "base/clock.h"
#include "base/result.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// Makes the variable store that a start needs, or changes the one that is there.
//   Made for the same key set (name, version, content) and boot mode, it stays as it is, with what
//   the guest wrote, its own dbx update too.
//   Made for another, it gets the keys of the new one and keeps the rest. When nothing can be kept
//   (another layout, damage) it is made anew.
//   Taken from a snapshot, it gets the keys whatever it has, and what shim was told to trust in it
//   goes.
//   plan: of the same instance; without keys of the controller's the store is the template.
//   now: stored with the keys; a signed update must be newer.
// Returns sentences on what was kept and what was rebuilt; none when nothing changed.
// Errors: kCorrupt (the store is damaged, and no change of keys or mode asks for another);
// kInvalidInput (a key set that does not parse); kExhausted (it does not fit); those of the file
// system.
Result<std::vector<std::string>> PrepareVariables(const InstancePaths& paths,
                                                  const v1::DesiredInstance& desired,
                                                  const LaunchPlan& plan, WallTime now);

// What the variable store was made from, in the agent's words; "" if not known.
std::string LoadVariableOrigin(const InstancePaths& paths);
Result<void> StoreVariableOrigin(const InstancePaths& paths, const std::string& origin);
// Of a store that comes from outside, whatever it is said to be made for.
inline constexpr const char* kPlacedOrigin = "a snapshot";

}  // namespace vallum::agent

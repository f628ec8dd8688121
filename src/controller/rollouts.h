// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "controller/instance_keys.h"
#include "controller/resource_store.h"
#include "controller/view.h"
#include "vallum/v1/resources.pb.h"

// How a roll-out brings instances to a version of a key set; docs/key-sets.md, "Roll-out".
namespace vallum::controller {

// Another key set for one instance, unless somebody gave it yet another meanwhile.
struct KeySetChange {
  std::string instance;
  std::string from_key_set;
  int32_t from_version = 0;
  std::string key_set;
  int32_t version = 0;
};
struct RolloutStep {
  v1::RolloutStatus status;           // as it is once `changes` are made
  std::vector<KeySetChange> changes;  // each may be made twice
};
// What is to be done next, from what is there alone.
//   find: the instance of a name, nullptr when there is none.
// Pure; thread-safe.
RolloutStep AdvanceRollout(
    const v1::Rollout& rollout,
    const std::function<std::shared_ptr<const v1::Instance>(const std::string&)>& find);

// Chooses the instances, the canaries and those that are skipped, and judges each image once.
//   rollout: spec is completed (version, instances); status is replaced.
// Errors: kNotFound (key set, version, instance), kInvalidInput (an instance that was named and
// cannot have the key set; canaries asked for and none can be verified), kConflict (an instance is
// in another roll-out that is under way; nothing is left to do).
Result<void> PlanRollout(const View& view, const Preflight& preflight, v1::Rollout& rollout);
// Stores a planned roll-out; the reconciler does the rest. When it returns, the view has seen it.
// Errors: kConflict (the name is taken; the key set changed meanwhile), and the store's.
Result<void> CreateRollout(ResourceStore& resources, const View& view, v1::Rollout& rollout);
// Nothing more is set and nothing is taken back. Errors: kNotFound, kConflict (it has ended).
Result<v1::Rollout> StopRollout(ResourceStore& resources, const View& view, const std::string& name,
                                const std::string& user);

}  // namespace vallum::controller

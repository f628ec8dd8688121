// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/result.h"
#include "controller/metrics.h"
#include "controller/resource_store.h"
#include "controller/view.h"

namespace vallum::controller {

// Places instances. The claim is one Txn that writes the instance and its host and compares both
// revisions with those that the decision was made from, so two controllers cannot promise the same
// memory twice. Thread-safe; calls block on the store.
class Scheduler {
 public:
  Scheduler(ResourceStore& resources, const View& view, Metrics& metrics)
      : resources_(resources), view_(view), metrics_(metrics) {}

  // Chooses and claims a host for an instance that has none; returns the instance as stored.
  // Errors: kExhausted (no host fits; the message has the reasons), kNotFound (instance, image,
  // flavor), kConflict (lost too many races), and the store's.
  Result<v1::Instance> Place(const std::string& name);

  // Deletes an instance and gives its claim back, in one Txn. Errors: kNotFound, and the store's.
  Result<void> Release(const std::string& name);

 private:
  ResourceStore& resources_;
  const View& view_;
  Metrics& metrics_;
};

// Sets status.allocated_* and status.instances of a host from the instances that are placed on it.
// Returns whether anything changed. Pure.
bool Recount(v1::Host& host, const std::vector<std::shared_ptr<const v1::Instance>>& instances);

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "controller/metrics.h"
#include "controller/placement_book.h"
#include "controller/resource_store.h"
#include "controller/view.h"

namespace vallum::controller {

// Places instances. It follows the view and decides from its PlacementBook, so a decision does not
// look at every host. The claim is one Txn that writes the instance and its host and compares both
// revisions with those that the decision was made from: two controllers cannot promise the same
// memory twice, nor put two instances that are to be apart on one host. Thread-safe; calls block on
// the store and on one another.
class Scheduler {
 public:
  // The references outlive it.
  Scheduler(ResourceStore& resources, View& view, Metrics& metrics);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Chooses and claims a host for an instance that has none; returns the instance as stored.
  // Errors: kExhausted (no host fits; the message has the reasons), kNotFound (instance),
  // kInvalidInput (its spec), kConflict (lost too many races), and the store's.
  Result<v1::Instance> Place(const std::string& name);

  // Takes an instance from its host, to be placed elsewhere with a snapshot.
  //   change: makes of the instance what it becomes, without a host; false: it stays as it is.
  // Returns whether it was changed. Errors: kNotFound, kConflict (it or the snapshot changes too
  // often, or the snapshot is gone), the store's.
  Result<bool> Unplace(const std::string& name, const v1::Snapshot& origin,
                       const std::function<bool(v1::Instance&)>& change);

  // Deletes an instance and gives its claim back, in one Txn. Errors: kNotFound, and the store's.
  Result<void> Release(const std::string& name);

  // Calls `look` with the book as a whole revision has it. It must not call the scheduler.
  template <typename Look>
  auto WithBook(Look look) const {
    const std::lock_guard lock(mutex_);
    return look(std::as_const(*book_));
  }

 private:
  // Two resources, of one revision, that a claim or its end changes.
  struct Claim {
    std::shared_ptr<const v1::Instance> instance;
    std::shared_ptr<const v1::Host> host;  // nullptr: the instance is on none that there is
    PlacementBook::Claims claims;          // on the host, without the instance
  };
  void Hear(const Change& change);
  Result<Claim> Decide(const std::string& name) const;
  Result<store::TxnResult> Commit(const Claim& claim, const v1::Instance& placed);
  Result<Claim> FindClaim(const std::string& name) const;

  ResourceStore& resources_;
  View& view_;
  Metrics& metrics_;
  View::SubscriptionId subscription_ = 0;
  // Held from a decision to its claim: what one controller places does not race with itself.
  std::mutex placing_;

  mutable std::mutex mutex_;  // taken after placing_; guards the members below
  std::unique_ptr<PlacementBook> book_;
  std::vector<Change> unfinished_;  // of a revision of which more is to come
};

}  // namespace vallum::controller

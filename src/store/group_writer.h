// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/result.h"
#include "store/journal.h"
#include "store/store.h"
#include "store/store_state.h"

namespace vallum::store {

struct LocalStoreOptions {
  // How often leases are checked for expiry, while there are any.
  std::chrono::milliseconds lease_check_interval{200};
  // The most commits that share one durable write.
  size_t max_group = 256;
};

// The one thread that changes a StoreState. Takes what waits as a group, applies each operation in
// turn, makes the group durable with one Journal::Write, publishes it, and answers.
class GroupWriter {
 public:
  struct Commit {
    const Txn* txn;
  };
  struct Grant {
    std::chrono::seconds ttl;
  };
  struct Revoke {
    LeaseId lease;
  };
  struct Compact {
    Revision revision;
  };
  using Operation = std::variant<Commit, Grant, Revoke, Compact>;
  struct Outcome {
    TxnResult txn;      // of Commit
    LeaseId lease = 0;  // of Grant
  };

  GroupWriter(std::shared_ptr<StoreState> state, std::unique_ptr<Journal> journal,
              const Clock& clock, const LocalStoreOptions& options);
  // Answers what waits with kUnavailable.
  ~GroupWriter();
  GroupWriter(const GroupWriter&) = delete;
  GroupWriter& operator=(const GroupWriter&) = delete;

  // Waits until the operation is durable and visible. Thread-safe. Errors: see Store.
  Result<Outcome> Submit(const Operation& operation);

 private:
  struct Request {
    Operation operation;
    std::optional<Result<Outcome>> outcome;  // guarded by queue_mutex_
    std::condition_variable done;
  };
  // A group under way: what to tell each caller, and what to write.
  struct Group {
    std::vector<Request*> requests;
    std::vector<Result<Outcome>> outcomes;
    JournalGroup journal;
  };

  void Run();
  bool TakeRequests(std::vector<Request*>& requests);
  void RunGroup(std::vector<Request*> requests);
  void Answer(const std::vector<Request*>& requests, std::vector<Result<Outcome>> outcomes);

  void ApplyAll(Group& group);
  void RevokeExpired(Group& group);
  Result<Outcome> Apply(const Operation& operation, JournalGroup& journal);
  Result<Outcome> ApplyCommit(const Txn& txn, JournalGroup& journal);
  Outcome ApplyGrant(std::chrono::seconds ttl, JournalGroup& journal);
  void ApplyRevoke(LeaseId lease, JournalGroup& journal);
  void ApplyWrites(const std::vector<Write>& writes, JournalGroup& journal);

  Result<void> Persist(const JournalGroup& journal);
  void Publish(const JournalGroup& journal);
  void RollBack(const JournalGroup& journal);
  Result<void> RunCompact(Revision revision);

  const std::shared_ptr<StoreState> state_;
  const std::unique_ptr<Journal> journal_;
  const Clock& clock_;
  const LocalStoreOptions options_;

  std::mutex queue_mutex_;
  std::condition_variable wake_;
  std::deque<Request*> queue_;
  bool stop_ = false;

  // These two belong to the thread.
  std::optional<Error> broken_;  // what ended all writing
  std::chrono::steady_clock::time_point next_lease_check_;

  std::thread thread_;  // last: started when all else is there
};

// Rebuilds which keys belong to which lease from the newest version of each key.
void AttachLeasedKeys(StoreState& state);

}  // namespace vallum::store

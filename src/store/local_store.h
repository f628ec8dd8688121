// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>

#include "base/clock.h"
#include "base/result.h"
#include "store/group_writer.h"
#include "store/journal.h"
#include "store/lease_table.h"
#include "store/mvcc_index.h"
#include "store/store.h"
#include "store/store_state.h"

namespace vallum::store {

// A Store of one process. All state is in memory: an MvccIndex and a LeaseTable under one mutex,
// changed by one writer thread. That thread takes all commits that wait, applies each as a revision
// of its own, makes them durable together through the journal, and only then lets reads and watches
// see them and answers the callers. A watch has no queue: it reads the shared log at its own pace,
// and is dropped (kExhausted) when Compact forgets what it has not read, so slow watchers cost no
// memory. Compact is therefore what bounds memory, and its caller keeps some history for watches.
class LocalStore : public Store {
 public:
  ~LocalStore() override;
  LocalStore(const LocalStore&) = delete;
  LocalStore& operator=(const LocalStore&) = delete;

  Result<ReadResult> Read(const ReadRequest& request) override;
  Result<TxnResult> Commit(const Txn& txn) override;
  Result<std::unique_ptr<Watch>> StartWatch(const KeyRange& range, Revision from) override;
  Result<void> Compact(Revision revision) override;
  Result<LeaseId> GrantLease(std::chrono::seconds ttl) override;
  Result<void> KeepAlive(LeaseId lease) override;
  Result<void> RevokeLease(LeaseId lease) override;

 protected:
  //   journal: where commits are made durable.
  //   index, leases: what the journal already holds.
  LocalStore(std::unique_ptr<Journal> journal, MvccIndex index, LeaseTable leases,
             const Clock& clock, const LocalStoreOptions& options);

 private:
  const Clock& clock_;
  const std::shared_ptr<StoreState> state_;  // outlives the store in watches
  GroupWriter writer_;
};

}  // namespace vallum::store

// SPDX-License-Identifier: Apache-2.0
#include "store/local_store.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/result.h"
#include "store/local_watch.h"

namespace vallum::store {
namespace {

constexpr std::chrono::seconds kMaxTtl{9'000'000'000};

std::shared_ptr<StoreState> MakeState(MvccIndex index, LeaseTable leases) {
  auto state = std::make_shared<StoreState>();
  state->index = std::move(index);
  state->leases = std::move(leases);
  state->visible = state->index.revision();
  AttachLeasedKeys(*state);
  return state;
}

Error Compacted(Revision revision, const MvccIndex& index) {
  return NotFound("revision " + std::to_string(revision) + " is gone: the store was compacted to " +
                  std::to_string(index.compacted()))
      .WithFix("read the latest revision");
}

}  // namespace

LocalStore::LocalStore(std::unique_ptr<Journal> journal, MvccIndex index, LeaseTable leases,
                       const Clock& clock, const LocalStoreOptions& options)
    : clock_(clock),
      state_(MakeState(std::move(index), std::move(leases))),
      writer_(state_, std::move(journal), clock, options) {}

LocalStore::~LocalStore() {
  const std::lock_guard lock(state_->mutex);
  state_->closing = true;
  state_->published.notify_all();
}

Result<ReadResult> LocalStore::Read(const ReadRequest& request) {
  if (request.revision < 0 || request.limit < 0) {
    return InvalidInput("a read has revision " + std::to_string(request.revision) + " and limit " +
                        std::to_string(request.limit) + "; neither may be negative");
  }
  ReadResult result;
  MvccIndex::Slice slice;
  {
    const std::lock_guard lock(state_->mutex);
    result.revision = request.revision == 0 ? state_->visible : request.revision;
    if (result.revision > state_->visible) {
      return InvalidInput("revision " + std::to_string(request.revision) +
                          " is in the future: the store is at revision " +
                          std::to_string(state_->visible));
    }
    if (result.revision < state_->index.compacted()) {
      return Compacted(request.revision, state_->index);
    }
    slice = state_->index.Read(request.range, result.revision, request.limit);
  }
  // The versions never change, so the values are copied without the mutex.
  result.more = slice.more;
  result.items.reserve(slice.versions.size());
  for (const VersionPtr& version : slice.versions) result.items.push_back(version->kv);
  return result;
}

Result<TxnResult> LocalStore::Commit(const Txn& txn) {
  RETURN_IF_ERROR(ValidateTxn(txn));
  ASSIGN_OR_RETURN(const GroupWriter::Outcome outcome, writer_.Submit(GroupWriter::Commit{&txn}));
  return outcome.txn;
}

Result<std::unique_ptr<Watch>> LocalStore::StartWatch(const KeyRange& range, Revision from) {
  if (from < 0) return InvalidInput("a watch from revision " + std::to_string(from));
  const std::lock_guard lock(state_->mutex);
  if (from == 0) from = state_->visible + 1;
  if (from < state_->index.compacted()) return Compacted(from, state_->index);
  // Revision 1 is the empty store; there is nothing to deliver.
  from = std::max(from, MvccIndex::kEmptyRevision + 1);
  return std::unique_ptr<Watch>(std::make_unique<LocalWatch>(state_, range, from));
}

Result<void> LocalStore::Compact(Revision revision) {
  RETURN_IF_ERROR(writer_.Submit(GroupWriter::Compact{revision}));
  return Ok();
}

Result<LeaseId> LocalStore::GrantLease(std::chrono::seconds ttl) {
  if (ttl < std::chrono::seconds(1) || ttl > kMaxTtl) {
    return InvalidInput("a lease of " + std::to_string(ttl.count()) + " seconds; it must be 1 to " +
                        std::to_string(kMaxTtl.count()));
  }
  ASSIGN_OR_RETURN(const GroupWriter::Outcome outcome, writer_.Submit(GroupWriter::Grant{ttl}));
  return outcome.lease;
}

Result<void> LocalStore::KeepAlive(LeaseId lease) {
  const std::lock_guard lock(state_->mutex);
  return state_->leases.KeepAlive(lease, clock_.Monotonic());
}

Result<void> LocalStore::RevokeLease(LeaseId lease) {
  RETURN_IF_ERROR(writer_.Submit(GroupWriter::Revoke{lease}));
  return Ok();
}

}  // namespace vallum::store

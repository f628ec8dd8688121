// SPDX-License-Identifier: Apache-2.0
#include "store/group_writer.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/result.h"

namespace vallum::store {
namespace {

// Random, so that an id of a lease that is gone never names a later one.
LeaseId NewLeaseId() {
  uint64_t id = 0;
  const Bytes random = RandomBytes(sizeof(id));
  std::memcpy(&id, random.data(), sizeof(id));
  return static_cast<LeaseId>((id >> 1U) | 1U);
}

bool IsCompact(const GroupWriter::Operation& operation) {
  return std::holds_alternative<GroupWriter::Compact>(operation);
}

}  // namespace

void AttachLeasedKeys(StoreState& state) {
  state.leases.DetachAll();
  const auto slice = state.index.Read(KeyRange::Prefix(""), state.index.revision(), 0);
  for (const VersionPtr& version : slice.versions) {
    if (version->kv.lease != 0) state.leases.Attach(version->kv.lease, version->kv.key);
  }
}

GroupWriter::GroupWriter(std::shared_ptr<StoreState> state, std::unique_ptr<Journal> journal,
                         const Clock& clock, const LocalStoreOptions& options)
    : state_(std::move(state)),
      journal_(std::move(journal)),
      clock_(clock),
      options_(options),
      thread_([this] { Run(); }) {}

GroupWriter::~GroupWriter() {
  {
    const std::lock_guard lock(queue_mutex_);
    stop_ = true;
    wake_.notify_one();
  }
  thread_.join();
}

Result<GroupWriter::Outcome> GroupWriter::Submit(const Operation& operation) {
  Request request{operation, std::nullopt, {}};
  std::unique_lock lock(queue_mutex_);
  if (stop_) return Unavailable("the store is closing");
  queue_.push_back(&request);
  wake_.notify_one();
  request.done.wait(lock, [&] { return request.outcome.has_value(); });
  return *std::move(request.outcome);
}

void GroupWriter::Run() {
  std::vector<Request*> requests;
  while (TakeRequests(requests)) {
    if (requests.size() == 1 && IsCompact(requests.front()->operation)) {
      const Revision revision = std::get<Compact>(requests.front()->operation).revision;
      auto result = RunCompact(revision);
      Answer(requests, {result ? Result<Outcome>(Outcome{}) : Result<Outcome>(result.error())});
    } else {
      RunGroup(requests);
    }
  }
}

// Takes what waits up to the next compaction, which runs alone. May return nothing when it is time
// to look at the leases. False when the store closes.
bool GroupWriter::TakeRequests(std::vector<Request*>& requests) {
  requests.clear();
  std::unique_lock lock(queue_mutex_);
  const auto ready = [&] { return stop_ || !queue_.empty(); };
  // The number of leases is changed by this thread alone.
  if (state_->leases.empty()) {
    wake_.wait(lock, ready);
  } else {
    wake_.wait_until(lock, next_lease_check_, ready);
  }
  const bool open = !stop_;
  while (!queue_.empty() && requests.size() < options_.max_group) {
    if (IsCompact(queue_.front()->operation) && !requests.empty()) break;
    requests.push_back(queue_.front());
    queue_.pop_front();
    if (IsCompact(requests.back()->operation)) break;
  }
  if (open) return true;
  for (Request* request : queue_) requests.push_back(request);
  queue_.clear();
  for (Request* request : requests) {
    request->outcome = Unavailable("the store is closing");
    request->done.notify_one();
  }
  return false;
}

void GroupWriter::RunGroup(std::vector<Request*> requests) {
  if (broken_) {
    std::vector<Result<Outcome>> outcomes(requests.size(), Result<Outcome>(*broken_));
    Answer(requests, std::move(outcomes));
    // Without this, expired leases would be tried again without a pause.
    next_lease_check_ = std::chrono::steady_clock::now() + options_.lease_check_interval;
    return;
  }
  Group group;
  group.requests = std::move(requests);
  ApplyAll(group);
  const Result<void> written = Persist(group.journal);
  if (written) {
    Publish(group.journal);
  } else {
    RollBack(group.journal);
    // Even a failed comparison may have seen what was rolled back.
    for (auto& outcome : group.outcomes) outcome = written.error();
  }
  Answer(group.requests, std::move(group.outcomes));
}

void GroupWriter::Answer(const std::vector<Request*>& requests,
                         std::vector<Result<Outcome>> outcomes) {
  const std::lock_guard lock(queue_mutex_);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i]->outcome = std::move(outcomes[i]);
    // Under the mutex: the caller owns the request and may end it as soon as it sees the outcome.
    requests[i]->done.notify_one();
  }
}

void GroupWriter::ApplyAll(Group& group) {
  const std::lock_guard lock(state_->mutex);
  RevokeExpired(group);
  group.outcomes.reserve(group.requests.size());
  for (const Request* request : group.requests) {
    group.outcomes.push_back(Apply(request->operation, group.journal));
  }
}

void GroupWriter::RevokeExpired(Group& group) {
  const auto now = std::chrono::steady_clock::now();
  if (state_->leases.empty() || now < next_lease_check_) return;
  next_lease_check_ = now + options_.lease_check_interval;
  for (const LeaseId lease : state_->leases.Expired(clock_.Monotonic())) {
    ApplyRevoke(lease, group.journal);
  }
}

Result<GroupWriter::Outcome> GroupWriter::Apply(const Operation& operation, JournalGroup& journal) {
  if (const auto* commit = std::get_if<Commit>(&operation)) {
    return ApplyCommit(*commit->txn, journal);
  }
  if (const auto* grant = std::get_if<Grant>(&operation)) return ApplyGrant(grant->ttl, journal);
  const LeaseId lease = std::get<Revoke>(operation).lease;
  RETURN_IF_ERROR(state_->leases.CheckLive(lease, clock_.Monotonic()));
  ApplyRevoke(lease, journal);
  return Outcome{};
}

Result<GroupWriter::Outcome> GroupWriter::ApplyCommit(const Txn& txn, JournalGroup& journal) {
  for (const Compare& compare : txn.compares) {
    const VersionPtr version = state_->index.Latest(compare.key);
    if ((version ? version->kv.mod_revision : 0) != compare.mod_revision) {
      return Outcome{{false, state_->index.revision()}, 0};
    }
  }
  const MonotonicTime now = clock_.Monotonic();
  for (const Write& write : txn.writes) {
    if (write.kind != Write::Kind::kPut || write.lease == 0) continue;
    RETURN_IF_ERROR(state_->leases.CheckLive(write.lease, now));
  }
  ApplyWrites(txn.writes, journal);
  return Outcome{{true, state_->index.revision()}, 0};
}

void GroupWriter::ApplyWrites(const std::vector<Write>& writes, JournalGroup& journal) {
  for (const Write& write : writes) {
    const VersionPtr before = state_->index.Latest(write.key);
    if (before && before->kv.lease != 0) state_->leases.Detach(before->kv.lease, write.key);
    if (write.kind == Write::Kind::kPut && write.lease != 0) {
      state_->leases.Attach(write.lease, write.key);
    }
  }
  for (VersionPtr& version : state_->index.Apply(writes)) {
    journal.versions.push_back(std::move(version));
  }
}

// The lease exists for others only when it is published: nobody knows its id before.
GroupWriter::Outcome GroupWriter::ApplyGrant(std::chrono::seconds ttl, JournalGroup& journal) {
  const LeaseId lease = NewLeaseId();
  journal.granted.emplace_back(lease, ttl);
  return {{}, lease};
}

void GroupWriter::ApplyRevoke(LeaseId lease, JournalGroup& journal) {
  std::vector<Write> deletions;
  for (const std::string& key : state_->leases.Keys(lease)) {
    deletions.push_back(Write::Delete(key));
  }
  ApplyWrites(deletions, journal);
  state_->leases.MarkRevoked(lease);
  journal.revoked.push_back(lease);
}

Result<void> GroupWriter::Persist(const JournalGroup& journal) {
  if (journal.versions.empty() && journal.granted.empty() && journal.revoked.empty()) return Ok();
  Result<void> result = journal_->Write(journal);
  if (!result && result.error().code() != ErrorCode::kExhausted) {
    broken_ = Error(result.error()).Context("the store takes no more writes until it is reopened");
  }
  return result;
}

void GroupWriter::Publish(const JournalGroup& journal) {
  const std::lock_guard lock(state_->mutex);
  const MonotonicTime now = clock_.Monotonic();
  for (const auto& [lease, ttl] : journal.granted) state_->leases.Add(lease, ttl, now);
  for (const LeaseId lease : journal.revoked) state_->leases.Remove(lease);
  if (state_->visible == state_->index.revision()) return;
  state_->visible = state_->index.revision();
  state_->published.notify_all();
}

void GroupWriter::RollBack(const JournalGroup& journal) {
  const std::lock_guard lock(state_->mutex);
  state_->index.RollBack(state_->visible);
  for (const LeaseId lease : journal.revoked) state_->leases.Restore(lease);
  AttachLeasedKeys(*state_);
}

Result<void> GroupWriter::RunCompact(Revision revision) {
  if (broken_) return *broken_;
  const MvccIndex& index = state_->index;
  if (revision <= 0 || revision > index.revision()) {
    return InvalidInput("revision " + std::to_string(revision) +
                        " cannot be compacted: the store is at revision " +
                        std::to_string(index.revision()));
  }
  if (revision <= index.compacted()) {
    return NotFound("revision " + std::to_string(revision) +
                    " is gone: the store was compacted to " + std::to_string(index.compacted()));
  }
  const Result<void> written = journal_->Compact(revision, index.RowsForgottenBy(revision));
  if (!written) {
    if (written.error().code() != ErrorCode::kExhausted) broken_ = written.error();
    return written;
  }
  const std::lock_guard lock(state_->mutex);
  state_->index.Compact(revision);
  // A watch that waits has read everything; one that does not learns of it at its next call.
  return Ok();
}

}  // namespace vallum::store

// SPDX-License-Identifier: Apache-2.0
#include "controller/event_log.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/ids.h"
#include "base/text.h"
#include "controller/resource_kind.h"
#include "controller/resource_store.h"

namespace vallum::controller {
namespace {

constexpr const char* kHeadKey = "/vallum/event-head";
// The last event that was dropped, in the form of the head: where the chain now begins.
constexpr const char* kBaseKey = "/vallum/event-base";
constexpr int64_t kTrimBatch = 100;
constexpr int kAttempts = 50;
constexpr size_t kMessageLimit = 1000;

std::string SequenceName(int64_t sequence) {
  char text[32];
  std::snprintf(text, sizeof text, "%020lld", static_cast<long long>(sequence));
  return text;
}

std::string ChainDigest(const v1::Event& event) {
  v1::Event bare = event;
  bare.clear_digest();
  const std::string input = event.previous_digest() + EncodeResource(bare);
  const Sha256Digest digest = Sha256(AsBytes(input));
  return std::string(AsText(digest));
}

// A mark's value is itself an Event that has only sequence and digest.
std::string EncodeMark(int64_t sequence, const std::string& digest) {
  v1::Event head;
  head.set_sequence(sequence);
  head.set_digest(digest);
  return head.SerializeAsString();
}

}  // namespace

Result<EventLog::Mark> EventLog::ReadMark(const char* key) {
  store::ReadRequest request;
  request.range = store::KeyRange::Single(key);
  ASSIGN_OR_RETURN(const store::ReadResult found, store_.Read(request));
  Mark mark;
  if (found.items.empty()) {
    return mark;
  }
  v1::Event stored;
  if (!stored.ParseFromString(found.items.front().value)) {
    return Corrupt(std::string(key) + " of the event log is not readable");
  }
  mark.sequence = stored.sequence();
  mark.digest = stored.digest();
  mark.revision = found.items.front().mod_revision;
  return mark;
}

Result<v1::Event> EventLog::Append(const Entry& entry) {
  const std::lock_guard lock(mutex_);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const Mark head, ReadMark(kHeadKey));
    v1::Event event;
    event.set_sequence(head.sequence + 1);
    event.mutable_metadata()->set_name(SequenceName(event.sequence()));
    event.mutable_metadata()->set_uid(NewUid());
    event.mutable_metadata()->set_tenant(entry.tenant);
    *event.mutable_time() = ToTimestamp(clock_.Now());
    event.set_kind(entry.kind);
    event.set_severity(entry.severity);
    event.set_object(Printable(entry.object));
    event.set_user(Printable(entry.user));
    event.set_message(Printable(entry.message, kMessageLimit));
    event.set_previous_digest(head.digest);
    event.set_digest(ChainDigest(event));
    const std::string key = KeyOf(Kind::kEvent, event.metadata().name());
    store::Txn txn;
    txn.compares.push_back({.key = kHeadKey, .mod_revision = head.revision});
    txn.compares.push_back({.key = key, .mod_revision = 0});
    txn.writes.push_back(store::Write::Put(key, EncodeResource(event)));
    txn.writes.push_back(store::Write::Put(kHeadKey, EncodeMark(event.sequence(), event.digest())));
    ASSIGN_OR_RETURN(const store::TxnResult done, store_.Commit(txn));
    if (done.succeeded) {
      event.mutable_metadata()->set_revision(done.revision);
      // What is written is written; trimming goes on at the next event if it fails now.
      if (event.sequence() % kTrimBatch == 0) (void)Trim(event.sequence() - kept_);
      return event;
    }
  }
  return Conflict("the event log is being written by too many others at once");
}

Result<std::vector<v1::Event>> EventLog::Read(int64_t after, int64_t limit) {
  store::ReadRequest request;
  request.range.begin = KeyOf(Kind::kEvent, SequenceName(std::max<int64_t>(after, 0) + 1));
  request.range.end = store::KeyRange::Prefix(KeyPrefix(Kind::kEvent)).end;
  request.limit = std::clamp<int64_t>(limit, 1, 1000);
  ASSIGN_OR_RETURN(const store::ReadResult found, store_.Read(request));
  std::vector<v1::Event> events;
  for (const store::KeyValue& item : found.items) {
    ASSIGN_OR_RETURN(const auto message,
                     DecodeResource(Kind::kEvent, item.value, item.mod_revision));
    events.push_back(static_cast<const v1::Event&>(*message));
  }
  return events;
}

Result<void> EventLog::Trim(int64_t last) {
  ASSIGN_OR_RETURN(Mark base, ReadMark(kBaseKey));
  while (base.sequence < last) {
    ASSIGN_OR_RETURN(const std::vector<v1::Event> oldest,
                     Read(base.sequence, std::min(kTrimBatch, last - base.sequence)));
    if (oldest.empty()) return Ok();
    store::Txn txn;
    txn.compares.push_back({.key = kBaseKey, .mod_revision = base.revision});
    for (const v1::Event& event : oldest) {
      txn.writes.push_back(store::Write::Delete(KeyOf(Kind::kEvent, event.metadata().name())));
    }
    txn.writes.push_back(
        store::Write::Put(kBaseKey, EncodeMark(oldest.back().sequence(), oldest.back().digest())));
    ASSIGN_OR_RETURN(const store::TxnResult done, store_.Commit(txn));
    if (!done.succeeded) return Ok();  // another controller trims
    base = {.sequence = oldest.back().sequence(),
            .digest = oldest.back().digest(),
            .revision = done.revision};
  }
  return Ok();
}

Result<int64_t> EventLog::Verify() {
  ASSIGN_OR_RETURN(const Mark head, ReadMark(kHeadKey));
  ASSIGN_OR_RETURN(const Mark base, ReadMark(kBaseKey));
  int64_t sequence = base.sequence;
  std::string digest = base.digest;
  while (sequence < head.sequence) {
    ASSIGN_OR_RETURN(const std::vector<v1::Event> events, Read(sequence, 1000));
    if (events.empty()) {
      return Corrupt("event " + std::to_string(sequence + 1) + " is missing from the event log");
    }
    for (const v1::Event& event : events) {
      if (event.sequence() != sequence + 1) {
        return Corrupt("event " + std::to_string(sequence + 1) + " is missing from the event log");
      }
      if (event.previous_digest() != digest || event.digest() != ChainDigest(event)) {
        return Corrupt("event " + std::to_string(event.sequence()) + " was changed");
      }
      sequence = event.sequence();
      digest = event.digest();
      if (sequence == head.sequence && digest != head.digest) {
        return Corrupt("event " + std::to_string(sequence) + " is not the one that was appended");
      }
    }
  }
  return head.sequence - base.sequence;
}

}  // namespace vallum::controller

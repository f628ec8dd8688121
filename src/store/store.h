// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace vallum::store {

// Counts the commits of the whole store. An empty store is at 1 and its first commit makes 2, as in
// etcd; so 0 is free to mean "none" or, in reads, "latest".
using Revision = int64_t;
// 0 is "no lease".
using LeaseId = int64_t;

struct KeyValue {
  std::string key;
  std::string value;
  Revision create_revision = 0;
  Revision mod_revision = 0;
  int64_t version = 0;  // writes since the key was made; 1 for the first
  LeaseId lease = 0;
};

// The limits of every implementation; they fit etcd's defaults.
inline constexpr size_t kMaxKeyBytes = 1024;
inline constexpr size_t kMaxValueBytes = size_t{1} << 20U;
// Comparisons and writes are counted apart.
inline constexpr size_t kMaxTxnOperations = 128;
// Keys and values of one Txn together.
inline constexpr size_t kMaxTxnBytes = (size_t{1} << 20U) + (size_t{1} << 18U);

// The keys from `begin` up to, not including, `end`; an empty end is no upper bound.
struct KeyRange {
  std::string begin;
  std::string end;

  static KeyRange Single(std::string key);
  // Every key that begins with the prefix; an empty prefix is every key.
  static KeyRange Prefix(std::string prefix);
  bool Contains(const std::string& key) const;
};

struct ReadRequest {
  KeyRange range;
  Revision revision = 0;  // 0: latest
  int64_t limit = 0;      // 0: no limit
};
struct ReadResult {
  std::vector<KeyValue> items;  // in key order
  bool more = false;            // the limit cut the result short
  Revision revision = 0;        // the revision that was read
};

// A condition on the mod_revision of one key; 0 means "does not exist".
struct Compare {
  std::string key;
  Revision mod_revision = 0;
};

struct Write {
  enum class Kind { kPut, kDelete };
  Kind kind = Kind::kPut;
  std::string key;
  std::string value;
  LeaseId lease = 0;

  static Write Put(std::string key, std::string value, LeaseId lease = 0);
  static Write Delete(std::string key);
};

// All writes happen in one revision if every comparison holds, none otherwise. A key is written at
// most once.
struct Txn {
  std::vector<Compare> compares;
  std::vector<Write> writes;
};
// Checks the limits above, that each key is written once, and that no revision is negative.
// Errors: kInvalidInput, naming the key or the count. Pure; for implementations.
Result<void> ValidateTxn(const Txn& txn);

// A Txn that only deletes what does not exist writes nothing and makes no revision.
struct TxnResult {
  bool succeeded = false;  // false: a comparison did not hold
  Revision revision = 0;   // of this commit; of the store if nothing was written
};

struct WatchEvent {
  enum class Kind { kPut, kDelete };
  Kind kind = Kind::kPut;
  KeyValue kv;  // for kDelete: only key and mod_revision (that of the deletion)
};
// All events of one revision, in key order; never split.
struct WatchBatch {
  Revision revision = 0;
  std::vector<WatchEvent> events;
};

// One watcher's queue. Next is called by one thread; Cancel by any.
class Watch {
 public:
  virtual ~Watch() = default;
  // Waits for the next batch. Empty when the timeout passed without one.
  // Errors: kExhausted (this watcher is too slow and was dropped: read again and watch from there);
  // kUnavailable (cancelled or the store is closing).
  virtual Result<std::optional<WatchBatch>> Next(std::chrono::milliseconds timeout) = 0;
  virtual void Cancel() = 0;
};

// A small transactional key-value space with etcd's meaning (etcd v3 API: KV, Watch, Lease). Every
// implementation passes store_contract_test.cc. Thread-safe; all calls may block.
class Store {
 public:
  virtual ~Store() = default;

  // Reads a range at one revision.
  // Errors: kInvalidInput (future revision), kNotFound (revision was compacted), kUnavailable.
  virtual Result<ReadResult> Read(const ReadRequest& request) = 0;

  // Commits; when it returns, the commit is durable and visible to reads and watches.
  // Errors: kInvalidInput (limits, a key written twice), kNotFound (lease expired), kUnavailable,
  // kExhausted (disk full). After an error other than kInvalidInput and kNotFound the commit may or
  // may not have happened.
  virtual Result<TxnResult> Commit(const Txn& txn) = 0;

  // Delivers every batch of the range with revision >= from, in order, without gaps; from 0 means
  // "from now on". Errors: kInvalidInput (negative), kNotFound (from was compacted).
  virtual Result<std::unique_ptr<Watch>> StartWatch(const KeyRange& range, Revision from) = 0;

  // Forgets history before the revision; the value that each key had then stays, so reads and
  // watches from the revision itself still work.
  // Errors: kInvalidInput (future), kNotFound (already compacted to it or past it).
  virtual Result<void> Compact(Revision revision) = 0;

  // A lease; its keys are deleted, in one revision, when it is not kept alive for the TTL. A key
  // belongs to the lease of its last write.
  //   ttl: 1 second to 9,000,000,000 seconds (etcd's limit).
  // Errors: kInvalidInput (ttl), kUnavailable, kExhausted.
  virtual Result<LeaseId> GrantLease(std::chrono::seconds ttl) = 0;
  // Errors: kNotFound (expired or revoked).
  virtual Result<void> KeepAlive(LeaseId lease) = 0;
  // Deletes the lease and its keys. Errors: kNotFound.
  virtual Result<void> RevokeLease(LeaseId lease) = 0;
};

}  // namespace vallum::store

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "store/store.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// The audit log: events at /vallum/events/<20-digit sequence>, each holding the digest of the one
// before, and a head at /vallum/event-head that holds the last sequence and digest, so that
// removing the newest events shows as well. The oldest are dropped once there are more than
// kEventsKept, and /vallum/event-base then holds the last one dropped: the chain goes on from its
// digest. Several controllers may append. Thread-safe.
inline constexpr int64_t kEventsKept = 200'000;

class EventLog {
 public:
  //   kept: how many events stay; up to 100 more may be there at any moment.
  EventLog(store::Store& store, const Clock& clock, int64_t kept = kEventsKept)
      : store_(store), clock_(clock), kept_(kept) {}

  struct Entry {
    std::string kind;           // "instance.started", "token.denied", ...
    std::string severity = {};  // "info", "warning", "error"
    std::string object = {};    // "instances/web1"
    std::string user = {};      // empty: the system itself
    std::string message = {};   // one sentence; no secrets
    std::string tenant = {};    // whose object it is
  };
  // Errors: the store's; kConflict (too many others append). Returns the event as stored.
  Result<v1::Event> Append(const Entry& entry);
  // Events with sequence > after, oldest first, at most limit (1 to 1000). Errors: the store's.
  Result<std::vector<v1::Event>> Read(int64_t after, int64_t limit);
  // Recomputes the whole chain that is kept. Returns the number of events.
  // Errors: kCorrupt, naming the first event that is missing or was changed; the store's.
  Result<int64_t> Verify();

 private:
  // A place in the chain: the newest event, or the newest that was dropped.
  struct Mark {
    int64_t sequence = 0;
    std::string digest;
    store::Revision revision = 0;
  };
  Result<Mark> ReadMark(const char* key);
  // Drops the events up to and with a sequence number.
  Result<void> Trim(int64_t last);

  store::Store& store_;
  const Clock& clock_;
  const int64_t kept_;
  std::mutex mutex_;  // one append at a time in this process; others meet in the Txn
};

}  // namespace vallum::controller

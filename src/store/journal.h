// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/result.h"
#include "store/mvcc_index.h"
#include "store/store.h"

namespace vallum::store {

// What a group of commits changes.
struct JournalGroup {
  std::vector<VersionPtr> versions;  // in the order of their rows
  std::vector<std::pair<LeaseId, std::chrono::seconds>> granted;
  std::vector<LeaseId> revoked;
};

// Where a LocalStore keeps what must survive the process. Used by its one writer thread.
class Journal {
 public:
  virtual ~Journal() = default;
  // Writes the whole group or nothing; durable when it returns.
  // Errors: kExhausted (nothing was written, later calls may succeed); any other means that what is
  // on disk is unknown, and the store takes no further commit.
  virtual Result<void> Write(const JournalGroup& group) = 0;
  // Records the compaction and forgets the rows. Errors: as Write.
  virtual Result<void> Compact(Revision revision, const std::vector<int64_t>& rows) = 0;
};

}  // namespace vallum::store

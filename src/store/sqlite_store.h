// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>

#include "base/clock.h"
#include "base/result.h"
#include "base/units.h"
#include "store/local_store.h"

namespace vallum::store {

struct SqliteStoreOptions {
  // The database; "-wal", "-shm" and ".lock" are added for the files beside it.
  std::filesystem::path path;
  // Commits that would make the database larger are refused with kExhausted.
  ByteCount max_size = ByteCount::GiB(2);
  LocalStoreOptions local{};
};

// A Store in one SQLite file: write-ahead log, full sync, mode 0600. SQLite only makes the commits
// durable; reads and watches are served from memory, which Open fills from the file. docs/store.md.
class SqliteStore final : public LocalStore {
 public:
  // Opens or creates the store. Its directory must exist.
  //   clock: decides when leases expire; outlives the store. Leases found get their whole TTL anew.
  // Errors: kConflict (another process has it open; names its pid), kInvalidInput (not a Vallum
  // store, or made by a newer Vallum), kCorrupt, kNotFound (no directory), kDenied, kExhausted.
  static Result<std::unique_ptr<SqliteStore>> Open(const SqliteStoreOptions& options,
                                                   const Clock& clock);

 private:
  using LocalStore::LocalStore;
};

}  // namespace vallum::store

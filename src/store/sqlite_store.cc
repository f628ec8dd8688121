// SPDX-License-Identifier: Apache-2.0
#include "store/sqlite_store.h"

#include <memory>
#include <utility>

#include "base/clock.h"
#include "base/result.h"
#include "store/lease_table.h"
#include "store/mvcc_index.h"
#include "store/sqlite_journal.h"

namespace vallum::store {
namespace {

struct Loaded {
  std::unique_ptr<SqliteJournal> journal;
  MvccIndex index;
  LeaseTable leases;
};

Result<Loaded> Load(const SqliteStoreOptions& options, const Clock& clock) {
  Loaded loaded;
  ASSIGN_OR_RETURN(loaded.journal, SqliteJournal::Open(options.path, options.max_size));
  ASSIGN_OR_RETURN(loaded.index, loaded.journal->LoadIndex());
  ASSIGN_OR_RETURN(const auto leases, loaded.journal->LoadLeases());
  for (const auto& [lease, ttl] : leases) loaded.leases.Add(lease, ttl, clock.Monotonic());
  return loaded;
}

}  // namespace

Result<std::unique_ptr<SqliteStore>> SqliteStore::Open(const SqliteStoreOptions& options,
                                                       const Clock& clock) {
  ASSIGN_OR_RETURN_CONTEXT(Loaded loaded, Load(options, clock),
                           "opening the store " + options.path.string());
  return std::unique_ptr<SqliteStore>(
      new SqliteStore(std::move(loaded.journal), std::move(loaded.index), std::move(loaded.leases),
                      clock, options.local));
}

}  // namespace vallum::store

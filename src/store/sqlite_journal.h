// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "store/file.h"
#include "store/journal.h"
#include "store/mvcc_index.h"
#include "store/sqlite_db.h"

namespace vallum::store {

// A Journal in one SQLite file: a row for each version of a key, a row for each lease.
class SqliteJournal final : public Journal {
 public:
  static constexpr int64_t kApplicationId = 0x56616c6c;  // "Vall"
  static constexpr int64_t kSchemaVersion = 1;

  // Locks and opens the file, or creates it with mode 0600. Errors: as SqliteStore::Open.
  static Result<std::unique_ptr<SqliteJournal>> Open(const std::filesystem::path& path,
                                                     ByteCount max_size);

  // Everything that is there. Errors: kCorrupt.
  Result<MvccIndex> LoadIndex();
  Result<std::vector<std::pair<LeaseId, std::chrono::seconds>>> LoadLeases();

  Result<void> Write(const JournalGroup& group) override;
  Result<void> Compact(Revision revision, const std::vector<int64_t>& rows) override;

 private:
  SqliteJournal(FileLock lock, SqliteDb db) : lock_(std::move(lock)), db_(std::move(db)) {}
  Result<void> CheckSchema(const std::filesystem::path& path);
  Result<void> Configure(ByteCount max_size);
  Result<void> PrepareStatements();
  Result<void> WriteRows(const JournalGroup& group);
  Result<void> ForgetRows(Revision revision, const std::vector<int64_t>& rows);
  Result<void> EndTransaction(Result<void> written);

  FileLock lock_;  // released last
  SqliteDb db_;
  SqliteStatement begin_;
  SqliteStatement commit_;
  SqliteStatement insert_version_;
  SqliteStatement insert_lease_;
  SqliteStatement delete_lease_;
  SqliteStatement delete_version_;
};

}  // namespace vallum::store

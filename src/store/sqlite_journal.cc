// SPDX-License-Identifier: Apache-2.0
#include "store/sqlite_journal.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "base/units.h"
#include "store/file.h"
#include "store/mvcc_index.h"
#include "store/sqlite_db.h"

namespace vallum::store {
namespace {

// A value that is NULL is a deletion. Rows of one revision are in key order.
constexpr char kSchema[] =
    "CREATE TABLE version("
    "row INTEGER PRIMARY KEY, revision INTEGER NOT NULL, key BLOB NOT NULL, value BLOB,"
    "create_revision INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER NOT NULL) STRICT;"
    "CREATE TABLE lease(id INTEGER PRIMARY KEY, ttl_seconds INTEGER NOT NULL) STRICT;"
    "CREATE TABLE compaction(id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL)"
    " STRICT;"
    "INSERT INTO compaction VALUES (1, 0);";

std::filesystem::path WithSuffix(std::filesystem::path path, const char* suffix) {
  path += suffix;
  return path;
}

// SQLite gives its own files the mode of the database, so it is made before SQLite sees it.
Result<void> MakePrivateFile(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT));
  if (::fchmod(fd.get(), 0600) != 0) return ErrnoError(errno, "chmod " + path.string());
  return SyncDirectory(std::filesystem::absolute(path).parent_path());
}

}  // namespace

Result<std::unique_ptr<SqliteJournal>> SqliteJournal::Open(const std::filesystem::path& path,
                                                           ByteCount max_size) {
  ASSIGN_OR_RETURN(FileLock lock, FileLock::Acquire(WithSuffix(path, ".lock")));
  RETURN_IF_ERROR(MakePrivateFile(path));
  ASSIGN_OR_RETURN(SqliteDb db, SqliteDb::Open(path));
  std::unique_ptr<SqliteJournal> journal(new SqliteJournal(std::move(lock), std::move(db)));
  RETURN_IF_ERROR(journal->CheckSchema(path));
  RETURN_IF_ERROR(journal->Configure(max_size));
  RETURN_IF_ERROR(journal->PrepareStatements());
  return journal;
}

// Comes before anything that could change the file, so that a refused file stays as it was.
Result<void> SqliteJournal::CheckSchema(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const int64_t application, db_.QueryInt("PRAGMA application_id"));
  ASSIGN_OR_RETURN(const int64_t version, db_.QueryInt("PRAGMA user_version"));
  ASSIGN_OR_RETURN(const int64_t tables, db_.QueryInt("SELECT count(*) FROM sqlite_schema"));
  const bool empty = application == 0 && version == 0 && tables == 0;
  if (!empty && application != kApplicationId) {
    return InvalidInput(path.string() + " is an SQLite database of another program")
        .WithFix("name another file");
  }
  if (version > kSchemaVersion) {
    return InvalidInput(path.string() + " has schema version " + std::to_string(version) +
                        ", this program knows versions up to " + std::to_string(kSchemaVersion))
        .WithFix("use the newer Vallum that wrote it, or a backup made before the upgrade");
  }
  if (empty) return Ok();
  ASSIGN_OR_RETURN(const std::string verdict, db_.QueryText("PRAGMA quick_check(1)"));
  if (verdict == "ok") return Ok();
  return Corrupt(path.string() + " is damaged: " + verdict).WithFix("restore it from a backup");
}

Result<void> SqliteJournal::Configure(ByteCount max_size) {
  ASSIGN_OR_RETURN(const std::string mode, db_.QueryText("PRAGMA journal_mode = WAL"));
  if (mode != "wal") {
    return Unavailable("SQLite cannot use a write-ahead log here (journal mode " + mode + ")")
        .WithFix("keep the store on a local file system");
  }
  RETURN_IF_ERROR(db_.Exec("PRAGMA synchronous = FULL"));
  ASSIGN_OR_RETURN(const int64_t version, db_.QueryInt("PRAGMA user_version"));
  if (version == 0) {
    RETURN_IF_ERROR(db_.Exec("BEGIN IMMEDIATE;" + std::string(kSchema) +
                             "PRAGMA application_id = " + std::to_string(kApplicationId) +
                             ";PRAGMA user_version = " + std::to_string(kSchemaVersion) +
                             ";COMMIT"));
  }
  ASSIGN_OR_RETURN(const int64_t page_size, db_.QueryInt("PRAGMA page_size"));
  const auto pages = static_cast<int64_t>(max_size.bytes() / static_cast<uint64_t>(page_size));
  RETURN_IF_ERROR(db_.QueryInt("PRAGMA max_page_count = " +
                               std::to_string(std::clamp<int64_t>(pages, 1, 0x7fffffff))));
  return Ok();
}

Result<void> SqliteJournal::PrepareStatements() {
  ASSIGN_OR_RETURN(begin_, db_.Prepare("BEGIN IMMEDIATE"));
  ASSIGN_OR_RETURN(commit_, db_.Prepare("COMMIT"));
  ASSIGN_OR_RETURN(insert_version_,
                   db_.Prepare("INSERT INTO version VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"));
  ASSIGN_OR_RETURN(insert_lease_, db_.Prepare("INSERT INTO lease VALUES (?1, ?2)"));
  ASSIGN_OR_RETURN(delete_lease_, db_.Prepare("DELETE FROM lease WHERE id = ?1"));
  ASSIGN_OR_RETURN(delete_version_, db_.Prepare("DELETE FROM version WHERE row = ?1"));
  return Ok();
}

Result<MvccIndex> SqliteJournal::LoadIndex() {
  ASSIGN_OR_RETURN(const Revision compacted,
                   db_.QueryInt("SELECT revision FROM compaction WHERE id = 1"));
  MvccIndex::Loader loader(compacted);
  ASSIGN_OR_RETURN(SqliteStatement rows,
                   db_.Prepare("SELECT row, revision, key, value, create_revision, version, lease"
                               " FROM version ORDER BY row"));
  while (true) {
    ASSIGN_OR_RETURN(const SqliteStatement::Row row, rows.Step());
    if (row == SqliteStatement::Row::kDone) return std::move(loader).Finish();
    Version version;
    version.row = rows.Int(0);
    version.kv.mod_revision = rows.Int(1);
    version.kv.key = rows.Blob(2);
    version.kv.value = rows.Blob(3);
    version.kv.create_revision = rows.Int(4);
    version.kv.version = rows.Int(5);
    version.kv.lease = rows.Int(6);
    RETURN_IF_ERROR(loader.Add(std::move(version)));
  }
}

Result<std::vector<std::pair<LeaseId, std::chrono::seconds>>> SqliteJournal::LoadLeases() {
  std::vector<std::pair<LeaseId, std::chrono::seconds>> leases;
  ASSIGN_OR_RETURN(SqliteStatement rows, db_.Prepare("SELECT id, ttl_seconds FROM lease"));
  while (true) {
    ASSIGN_OR_RETURN(const SqliteStatement::Row row, rows.Step());
    if (row == SqliteStatement::Row::kDone) return leases;
    leases.emplace_back(rows.Int(0), std::chrono::seconds(rows.Int(1)));
  }
}

Result<void> SqliteJournal::Write(const JournalGroup& group) {
  return EndTransaction(WriteRows(group));
}

Result<void> SqliteJournal::Compact(Revision revision, const std::vector<int64_t>& rows) {
  return EndTransaction(ForgetRows(revision, rows));
}

Result<void> SqliteJournal::WriteRows(const JournalGroup& group) {
  RETURN_IF_ERROR(begin_.Run());
  for (const VersionPtr& version : group.versions) {
    const KeyValue& kv = version->kv;
    insert_version_.BindInt(1, version->row).BindInt(2, kv.mod_revision).BindBlob(3, kv.key);
    if (version->deleted()) {
      insert_version_.BindNull(4);
    } else {
      insert_version_.BindBlob(4, kv.value);
    }
    insert_version_.BindInt(5, kv.create_revision).BindInt(6, kv.version).BindInt(7, kv.lease);
    RETURN_IF_ERROR(insert_version_.Run());
  }
  for (const auto& [lease, ttl] : group.granted) {
    RETURN_IF_ERROR(insert_lease_.BindInt(1, lease).BindInt(2, ttl.count()).Run());
  }
  for (const LeaseId lease : group.revoked) {
    RETURN_IF_ERROR(delete_lease_.BindInt(1, lease).Run());
  }
  return commit_.Run();
}

Result<void> SqliteJournal::ForgetRows(Revision revision, const std::vector<int64_t>& rows) {
  RETURN_IF_ERROR(begin_.Run());
  for (const int64_t row : rows) RETURN_IF_ERROR(delete_version_.BindInt(1, row).Run());
  RETURN_IF_ERROR(
      db_.Exec("UPDATE compaction SET revision = " + std::to_string(revision) + " WHERE id = 1"));
  return commit_.Run();
}

Result<void> SqliteJournal::EndTransaction(Result<void> written) {
  if (!written) db_.RollBack();
  return written;
}

}  // namespace vallum::store

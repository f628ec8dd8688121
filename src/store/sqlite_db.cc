// SPDX-License-Identifier: Apache-2.0
#include "store/sqlite_db.h"

#include <sqlite3.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/result.h"

namespace vallum::store {

Error SqliteError(sqlite3* db, int code, std::string_view what) {
  const std::string message = std::string(what) + ": " +
                              (db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(code)) +
                              " (SQLite code " + std::to_string(code) + ")";
  switch (code & 0xff) {
    case SQLITE_FULL:
      return Exhausted(message).WithFix(
          "free space on the file system, compact the store, or raise its size limit");
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Corrupt(message).WithFix("restore the store from a backup");
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
      return Denied(message).WithFix(
          "let the service's user own the store's files and their directory");
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Unavailable(message).WithFix("end other programs that have the database open");
    case SQLITE_IOERR:
      return Unavailable(message).WithFix("look for disk errors in the kernel's log");
    default:
      return Internal(message);
  }
}

void SqliteStatement::Finalize::operator()(sqlite3_stmt* statement) const {
  sqlite3_finalize(statement);
}

// Binding fails only for a wrong index or a reset that is missing, which are our bugs; SQLite then
// makes the step fail with SQLITE_MISUSE or leaves a NULL that the schema refuses.
SqliteStatement& SqliteStatement::BindInt(int index, int64_t value) {
  sqlite3_bind_int64(statement_.get(), index, value);
  return *this;
}

SqliteStatement& SqliteStatement::BindBlob(int index, std::string_view value) {
  // An empty view may have no address, and SQLite reads that as NULL.
  const char* data = value.empty() ? "" : value.data();
  sqlite3_bind_blob64(statement_.get(), index, data, value.size(), SQLITE_STATIC);
  return *this;
}

SqliteStatement& SqliteStatement::BindNull(int index) {
  sqlite3_bind_null(statement_.get(), index);
  return *this;
}

Result<SqliteStatement::Row> SqliteStatement::Step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return Row::kRow;
  if (code == SQLITE_DONE) {
    Reset();
    return Row::kDone;
  }
  Error error = SqliteError(sqlite3_db_handle(statement_.get()), code, "database");
  Reset();
  return error;
}

Result<void> SqliteStatement::Run() {
  while (true) {
    ASSIGN_OR_RETURN(const Row row, Step());
    if (row == Row::kDone) return Ok();
  }
}

void SqliteStatement::Reset() {
  sqlite3_reset(statement_.get());
  sqlite3_clear_bindings(statement_.get());
}

int64_t SqliteStatement::Int(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

std::string SqliteStatement::Blob(int column) const {
  const void* data = sqlite3_column_blob(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  if (data == nullptr || size <= 0) return {};
  return {static_cast<const char*>(data), static_cast<size_t>(size)};
}

void SqliteDb::Close::operator()(sqlite3* db) const { sqlite3_close_v2(db); }

Result<SqliteDb> SqliteDb::Open(const std::filesystem::path& path) {
  sqlite3* raw = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  SqliteDb db(raw);
  if (code != SQLITE_OK) return SqliteError(raw, code, "open " + path.string());
  sqlite3_extended_result_codes(raw, 1);
  sqlite3_busy_timeout(raw, 5000);
  return db;
}

Result<void> SqliteDb::Exec(const std::string& sql) {
  const int code = sqlite3_exec(db_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return SqliteError(db_.get(), code, sql.substr(0, sql.find('\n')));
  return Ok();
}

Result<SqliteStatement> SqliteDb::Prepare(const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v3(db_.get(), sql.c_str(), -1, SQLITE_PREPARE_PERSISTENT,
                                      &statement, nullptr);
  if (code != SQLITE_OK) return SqliteError(db_.get(), code, sql);
  return SqliteStatement(statement);
}

Result<int64_t> SqliteDb::QueryInt(const std::string& sql) {
  ASSIGN_OR_RETURN(SqliteStatement statement, Prepare(sql));
  ASSIGN_OR_RETURN(const SqliteStatement::Row row, statement.Step());
  if (row == SqliteStatement::Row::kDone) return Corrupt("no row for: " + sql);
  return statement.Int(0);
}

Result<std::string> SqliteDb::QueryText(const std::string& sql) {
  ASSIGN_OR_RETURN(SqliteStatement statement, Prepare(sql));
  ASSIGN_OR_RETURN(const SqliteStatement::Row row, statement.Step());
  if (row == SqliteStatement::Row::kDone) return Corrupt("no row for: " + sql);
  return statement.Blob(0);
}

void SqliteDb::RollBack() {
  if (sqlite3_get_autocommit(db_.get()) == 0) {
    sqlite3_exec(db_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
  }
}

}  // namespace vallum::store

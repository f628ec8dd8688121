// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace vallum::store {

// The error of an SQLite result code: FULL is kExhausted, CORRUPT and NOTADB kCorrupt, PERM,
// READONLY and CANTOPEN kDenied, BUSY, LOCKED and IOERR kUnavailable, the rest kInternal.
Error SqliteError(sqlite3* db, int code, std::string_view what);

// A prepared statement. Binding starts at 1, columns at 0, as in SQLite.
class SqliteStatement {
 public:
  SqliteStatement() = default;  // only to be assigned to
  SqliteStatement& BindInt(int index, int64_t value);
  // Does not copy: the text must live until the statement is reset.
  SqliteStatement& BindBlob(int index, std::string_view value);
  SqliteStatement& BindNull(int index);

  enum class Row { kRow, kDone };
  // One step. After kDone or an error the statement is reset and can be bound again.
  Result<Row> Step();
  // Steps to the end.
  Result<void> Run();

  int64_t Int(int column) const;
  std::string Blob(int column) const;

 private:
  friend class SqliteDb;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  explicit SqliteStatement(sqlite3_stmt* statement) : statement_(statement) {}
  void Reset();
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

// One connection, used by one thread at a time.
class SqliteDb {
 public:
  // Opens an existing file. Errors: see SqliteError.
  static Result<SqliteDb> Open(const std::filesystem::path& path);
  Result<void> Exec(const std::string& sql);
  Result<SqliteStatement> Prepare(const std::string& sql);
  // The first column of the first row.
  Result<int64_t> QueryInt(const std::string& sql);
  Result<std::string> QueryText(const std::string& sql);
  // Ends a transaction that failed, if SQLite has not done so itself.
  void RollBack();

 private:
  struct Close {
    void operator()(sqlite3* db) const;
  };
  explicit SqliteDb(sqlite3* db) : db_(db) {}
  std::unique_ptr<sqlite3, Close> db_;
};

}  // namespace vallum::store

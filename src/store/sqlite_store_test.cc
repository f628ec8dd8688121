// SPDX-License-Identifier: Apache-2.0
// What a SqliteStore does beyond the contract: it lasts, and it says what is wrong with its file.
#include "store/sqlite_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "base/clock.h"
#include "store/store.h"
#include "store/test_support.h"

namespace vallum::store {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

class SqliteStoreTest : public ::testing::Test {
 protected:
  SqliteStoreOptions options() const {
    SqliteStoreOptions options{.path = dir_.path() / "store.db"};
    options.local.lease_check_interval = std::chrono::milliseconds(2);
    return options;
  }
  std::unique_ptr<SqliteStore> Open() { return SqliteStore::Open(options(), clock_).value(); }
  Error OpenError() {
    const auto result = SqliteStore::Open(options(), clock_);
    EXPECT_FALSE(result.has_value());
    return result ? Internal("opened") : result.error();
  }
  // What another program does to the file.
  void Sql(const std::string& sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(options().path.c_str(), &db), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK)
        << sqlite3_errmsg(db);
    sqlite3_close(db);
  }

  TempDir dir_;
  FakeClock clock_;
};

Revision Put(Store& store, const std::string& key, const std::string& value, LeaseId lease = 0) {
  return store.Commit({{}, {Write::Put(key, value, lease)}}).value().revision;
}

std::string Contents(Store& store, Revision revision = 0) {
  std::string out;
  const ReadResult all = store.Read({KeyRange::Prefix(""), revision, 0}).value();
  for (const KeyValue& kv : all.items) {
    out += kv.key + "=" + kv.value + " ";
  }
  return out;
}

TEST_F(SqliteStoreTest, KeepsKeysHistoryAndCompactionOverAReopening) {
  auto store = Open();
  Put(*store, "a", "1");
  const Revision two = Put(*store, "a", "2");
  Put(*store, "b", std::string("\0x", 2));
  const Revision last = store->Commit({{}, {Write::Delete("b"), Write::Put("c", "")}})->revision;
  ASSERT_TRUE(store->Compact(two).has_value());
  store.reset();
  store = Open();
  EXPECT_EQ(Contents(*store), "a=2 c= ");
  EXPECT_EQ(Contents(*store, last - 1), "a=2 b=" + std::string("\0x", 2) + " ");
  EXPECT_EQ(store->Read({KeyRange::Prefix(""), two - 1, 0}).error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(store->Compact(two).error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(Put(*store, "a", "3"), last + 1);
  const auto kv = store->Read({KeyRange::Single("a"), 0, 0})->items.at(0);
  EXPECT_EQ(kv.version, 3);
  const auto watch = store->StartWatch(KeyRange::Prefix(""), two).value();
  EXPECT_EQ(watch->Next(std::chrono::milliseconds(0)).value().value().revision, two);
}

TEST_F(SqliteStoreTest, LeaseGetsItsWholeTtlAgainAfterAReopening) {
  auto store = Open();
  const LeaseId lease = store->GrantLease(seconds(10)).value();
  const LeaseId revoked = store->GrantLease(seconds(10)).value();
  Put(*store, "a", "1", lease);
  ASSERT_TRUE(store->RevokeLease(revoked).has_value());
  clock_.Advance(seconds(9));
  store.reset();
  clock_.Advance(seconds(100));  // while nothing runs, no lease runs out
  store = Open();
  clock_.Advance(seconds(9));
  ASSERT_TRUE(store->KeepAlive(lease).has_value());
  EXPECT_EQ(store->KeepAlive(revoked).error().code(), ErrorCode::kNotFound);
  const auto watch = store->StartWatch(KeyRange::Prefix(""), 0).value();
  clock_.Advance(seconds(11));
  const auto batch = watch->Next(std::chrono::seconds(20));
  ASSERT_TRUE(batch.has_value() && batch->has_value());
  EXPECT_EQ((*batch)->events.at(0).kind, WatchEvent::Kind::kDelete);
  store.reset();
  EXPECT_EQ(Contents(*Open()), "");
}

TEST_F(SqliteStoreTest, FilesAreForTheOwnerAlone) {
  std::ofstream(options().path).flush();
  ASSERT_EQ(::chmod(options().path.c_str(), 0644), 0);
  const auto store = Open();
  Put(*store, "a", "1");
  for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
    struct stat status{};
    ASSERT_EQ(::stat(entry.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U) << entry.path();
  }
}

TEST_F(SqliteStoreTest, SecondOpeningIsRefusedWithThePidOfTheFirst) {
  const auto store = Open();
  const Error error = OpenError();
  EXPECT_EQ(error.code(), ErrorCode::kConflict);
  EXPECT_THAT(error.message(), HasSubstr("process " + std::to_string(::getpid())));
  EXPECT_FALSE(error.fix().empty());
}

TEST_F(SqliteStoreTest, NewerSchemaIsRefusedAndLeftAlone) {
  Open().reset();
  Sql("PRAGMA user_version = 2");
  const Error error = OpenError();
  EXPECT_EQ(error.code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(error.message(), HasSubstr("schema version 2"));
  Sql("PRAGMA user_version = 1");
  EXPECT_NE(Open(), nullptr);
}

TEST_F(SqliteStoreTest, DatabaseOfAnotherProgramIsRefused) {
  Sql("CREATE TABLE cats(name)");
  EXPECT_THAT(OpenError().message(), HasSubstr("another program"));
}

TEST_F(SqliteStoreTest, FileThatIsNoDatabaseIsCorrupt) {
  std::ofstream(options().path) << std::string(8192, 'x');
  const Error error = OpenError();
  EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  EXPECT_THAT(error.fix(), HasSubstr("backup"));
}

TEST_F(SqliteStoreTest, DamagedPageIsFoundAtOpening) {
  auto store = Open();
  for (int i = 0; i < 100; ++i) Put(*store, "key" + std::to_string(i), std::string(500, 'v'));
  store.reset();
  std::fstream file(options().path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(4096 * 6);
  file << std::string(4096, '\xee');
  file.close();
  EXPECT_EQ(OpenError().code(), ErrorCode::kCorrupt);
}

TEST_F(SqliteStoreTest, MissingRevisionIsFoundAtOpening) {
  auto store = Open();
  for (const char* key : {"a", "b", "c"}) Put(*store, key, "1");
  store.reset();
  Sql("DELETE FROM version WHERE key = CAST('b' AS BLOB)");
  const Error error = OpenError();
  EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  EXPECT_THAT(error.message(), HasSubstr("revision 3 is missing"));
}

TEST_F(SqliteStoreTest, MissingDirectoryIsNamed) {
  const auto result = SqliteStore::Open({.path = dir_.path() / "none" / "store.db"}, clock_);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(result.error().Describe(), HasSubstr("none/store.db"));
}

// SQLite reports a full disk and a full quota alike.
TEST_F(SqliteStoreTest, FullStoreRefusesCommitsLosesNothingAndRecoversByCompaction) {
  SqliteStoreOptions small = options();
  small.max_size = ByteCount::KiB(256);
  auto store = SqliteStore::Open(small, clock_).value();
  const LeaseId lease = store->GrantLease(seconds(60)).value();
  Revision last = Put(*store, "leased", "1", lease);
  const std::string value(10'000, 'v');
  Result<TxnResult> result = TxnResult{};
  while ((result = store->Commit({{}, {Write::Put("a", value), Write::Put("leased", "2")}}))) {
    last = result->revision;
    ASSERT_LT(last, 100) << "the limit is not kept";
  }
  EXPECT_EQ(result.error().code(), ErrorCode::kExhausted);
  EXPECT_FALSE(result.error().fix().empty());
  EXPECT_EQ(store->Read({KeyRange::Prefix(""), 0, 0})->revision, last);
  ASSERT_TRUE(store->Compact(last).has_value());
  EXPECT_EQ(Put(*store, "a", value), last + 1);
  store.reset();
  store = SqliteStore::Open(small, clock_).value();
  EXPECT_EQ(Contents(*store), "a=" + value + " leased=2 ");
}

TEST_F(SqliteStoreTest, LeaseKeepsItsKeysWhenTheCommitThatTakesThemFails) {
  SqliteStoreOptions small = options();
  small.max_size = ByteCount::KiB(64);
  const auto store = SqliteStore::Open(small, clock_).value();
  const LeaseId lease = store->GrantLease(seconds(60)).value();
  Put(*store, "a", "1", lease);
  const auto result =
      store->Commit({{}, {Write::Put("a", "2"), Write::Put("b", std::string(200'000, 'v'))}});
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code(), ErrorCode::kExhausted);
  EXPECT_EQ(Contents(*store), "a=1 ");
  ASSERT_TRUE(store->RevokeLease(lease).has_value());
  EXPECT_EQ(Contents(*store), "");
}

TEST_F(SqliteStoreTest, BackupTakenWhileOpenIsAStore) {
  const auto store = Open();
  Put(*store, "a", "1");
  Sql("VACUUM INTO '" + (dir_.path() / "backup.db").string() + "'");
  const auto backup = SqliteStore::Open({.path = dir_.path() / "backup.db"}, clock_);
  ASSERT_TRUE(backup.has_value()) << backup.error().DebugString();
  EXPECT_EQ(Contents(**backup), "a=1 ");
}

}  // namespace
}  // namespace vallum::store

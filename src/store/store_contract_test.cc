// SPDX-License-Identifier: Apache-2.0
// What every Store must do. An implementation joins by a StoreUnderTest in the list at the end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "store/memory_store.h"
#include "store/sqlite_store.h"
#include "store/store.h"
#include "store/test_support.h"

namespace vallum::store {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::IsEmpty;

// Long enough for any machine; passes only when something is broken.
constexpr milliseconds kPatience{20'000};

class StoreUnderTest {
 public:
  virtual ~StoreUnderTest() = default;
  virtual Store& store() = 0;
  // Lets time pass for leases: really or by a fake clock.
  virtual void PassTime(milliseconds time) = 0;
};

class MemoryUnderTest final : public StoreUnderTest {
 public:
  Store& store() override { return store_; }
  void PassTime(milliseconds time) override { clock_.Advance(time); }

 private:
  FakeClock clock_;
  MemoryStore store_{clock_, {.lease_check_interval = milliseconds(2)}};
};

class SqliteUnderTest final : public StoreUnderTest {
 public:
  Store& store() override { return *store_; }
  void PassTime(milliseconds time) override { clock_.Advance(time); }

 private:
  TempDir dir_;
  FakeClock clock_;
  std::unique_ptr<Store> store_ =
      SqliteStore::Open(
          {.path = dir_.path() / "store.db", .local = {.lease_check_interval = milliseconds(2)}},
          clock_)
          .value();
};

struct Implementation {
  const char* name;
  std::function<std::unique_ptr<StoreUnderTest>()> make;
};

class StoreContract : public ::testing::TestWithParam<Implementation> {
 protected:
  Store& store() { return under_test_->store(); }

  Revision Put(const std::string& key, const std::string& value, LeaseId lease = 0) {
    return Must({{}, {Write::Put(key, value, lease)}});
  }
  Revision Delete(const std::string& key) { return Must({{}, {Write::Delete(key)}}); }
  Revision Must(const Txn& txn) {
    const auto result = store().Commit(txn);
    EXPECT_TRUE(result.has_value()) << result.error().DebugString();
    EXPECT_TRUE(result && result->succeeded);
    return result ? result->revision : 0;
  }
  ErrorCode CommitError(const Txn& txn) {
    const auto result = store().Commit(txn);
    EXPECT_FALSE(result.has_value());
    return result ? ErrorCode::kInternal : result.error().code();
  }

  ReadResult ReadAll(Revision revision = 0) {
    auto result = store().Read({KeyRange::Prefix(""), revision, 0});
    EXPECT_TRUE(result.has_value()) << result.error().DebugString();
    return result ? *std::move(result) : ReadResult{};
  }
  // "a=1 b=2"
  std::string Contents(Revision revision = 0) {
    std::string out;
    const ReadResult all = ReadAll(revision);
    for (const KeyValue& kv : all.items) {
      out += (out.empty() ? "" : " ") + kv.key + "=" + kv.value;
    }
    return out;
  }
  std::optional<KeyValue> Get(const std::string& key) {
    const auto result = store().Read({KeyRange::Single(key), 0, 0});
    EXPECT_TRUE(result.has_value());
    if (!result || result->items.empty()) return std::nullopt;
    return result->items.front();
  }
  Revision Now() { return ReadAll().revision; }

  std::unique_ptr<Watch> WatchFrom(Revision from, const std::string& prefix = "") {
    auto watch = store().StartWatch(KeyRange::Prefix(prefix), from);
    EXPECT_TRUE(watch.has_value()) << watch.error().DebugString();
    return *std::move(watch);
  }
  // "7: +a=1 -b"
  static std::string NextOf(Watch& watch) {
    const auto next = watch.Next(kPatience);
    if (!next) return "error " + std::string(ErrorCodeName(next.error().code()));
    if (!next->has_value()) return "timeout";
    std::string out = std::to_string((*next)->revision) + ":";
    for (const WatchEvent& event : (*next)->events) {
      EXPECT_EQ(event.kv.mod_revision, (*next)->revision);
      out += event.kind == WatchEvent::Kind::kPut ? " +" + event.kv.key + "=" + event.kv.value
                                                  : " -" + event.kv.key;
    }
    return out;
  }

  std::unique_ptr<StoreUnderTest> under_test_ = GetParam().make();
};

std::string At(Revision revision, const std::string& events) {
  return std::to_string(revision) + ": " + events;
}

// Transactions

TEST_P(StoreContract, EmptyStoreHasNoKeysAndAPositiveRevision) {
  const ReadResult all = ReadAll();
  EXPECT_THAT(all.items, IsEmpty());
  EXPECT_GT(all.revision, 0);
  EXPECT_FALSE(all.more);
}

TEST_P(StoreContract, EachCommitMakesTheNextRevision) {
  const Revision before = Now();
  EXPECT_EQ(Put("a", "1"), before + 1);
  EXPECT_EQ(Put("b", "1"), before + 2);
  EXPECT_EQ(Now(), before + 2);
}

TEST_P(StoreContract, KeyKeepsItsCreationAndCountsItsVersions) {
  const Revision first = Put("a", "1");
  const Revision second = Put("a", "2");
  const auto kv = Get("a");
  ASSERT_TRUE(kv.has_value());
  EXPECT_EQ(kv->value, "2");
  EXPECT_EQ(kv->create_revision, first);
  EXPECT_EQ(kv->mod_revision, second);
  EXPECT_EQ(kv->version, 2);
  EXPECT_EQ(kv->lease, 0);
}

TEST_P(StoreContract, KeyMadeAgainAfterDeletionStartsAnew) {
  Put("a", "1");
  Delete("a");
  EXPECT_FALSE(Get("a").has_value());
  const Revision again = Put("a", "2");
  EXPECT_EQ(Get("a")->create_revision, again);
  EXPECT_EQ(Get("a")->version, 1);
}

TEST_P(StoreContract, AllWritesOfATransactionShareOneRevision) {
  Put("gone", "1");
  const Revision revision =
      Must({{}, {Write::Put("b", "2"), Write::Put("a", "1"), Write::Delete("gone")}});
  EXPECT_EQ(Contents(), "a=1 b=2");
  EXPECT_EQ(Get("a")->mod_revision, revision);
  EXPECT_EQ(Get("b")->mod_revision, revision);
}

TEST_P(StoreContract, KeysAndValuesAreBytes) {
  const std::string key("k\0\xff\n", 4);
  const std::string value("\0\0\x80", 3);
  Put(key, value);
  Put("empty", "");
  EXPECT_EQ(Get(key)->value, value);
  EXPECT_EQ(Get("empty")->value, "");
}

TEST_P(StoreContract, FailedComparisonWritesNothing) {
  const Revision a = Put("a", "1");
  const Revision now = Put("b", "1");
  const auto result =
      store().Commit({{{"a", a}, {"b", now - 1}}, {Write::Put("a", "2"), Write::Put("c", "1")}});
  ASSERT_TRUE(result.has_value());
  EXPECT_FALSE(result->succeeded);
  EXPECT_EQ(result->revision, now);
  EXPECT_EQ(Contents(), "a=1 b=1");
}

TEST_P(StoreContract, ComparisonWithZeroMeansTheKeyDoesNotExist) {
  const Txn create{{{"a", 0}}, {Write::Put("a", "1")}};
  EXPECT_TRUE(store().Commit(create)->succeeded);
  EXPECT_FALSE(store().Commit(create)->succeeded);
  Delete("a");
  EXPECT_TRUE(store().Commit(create)->succeeded);
}

TEST_P(StoreContract, ComparisonsThatHoldLetTheWritesHappen) {
  const Revision a = Put("a", "1");
  const auto result = store().Commit({{{"a", a}, {"b", 0}}, {Write::Put("b", "2")}});
  ASSERT_TRUE(result.has_value());
  EXPECT_TRUE(result->succeeded);
  EXPECT_EQ(Contents(), "a=1 b=2");
}

TEST_P(StoreContract, TransactionThatChangesNothingMakesNoRevision) {
  const Revision now = Put("a", "1");
  EXPECT_EQ(Must({}), now);
  EXPECT_EQ(Must({{{"a", now}}, {}}), now);
  EXPECT_EQ(Delete("never"), now);
  EXPECT_EQ(Now(), now);
}

// Limits

TEST_P(StoreContract, KeysAreOneTo1024Bytes) {
  EXPECT_EQ(CommitError({{}, {Write::Put("", "v")}}), ErrorCode::kInvalidInput);
  EXPECT_EQ(CommitError({{}, {Write::Put(std::string(1025, 'k'), "v")}}), ErrorCode::kInvalidInput);
  EXPECT_EQ(CommitError({{{"", 0}}, {}}), ErrorCode::kInvalidInput);
  Put(std::string(1024, 'k'), "v");
}

TEST_P(StoreContract, ValuesAreUpToOneMebibyte) {
  EXPECT_EQ(CommitError({{}, {Write::Put("k", std::string((1U << 20U) + 1, 'v'))}}),
            ErrorCode::kInvalidInput);
  Put("k", std::string(1U << 20U, 'v'));
  EXPECT_EQ(Get("k")->value.size(), 1U << 20U);
}

TEST_P(StoreContract, TransactionsHaveUpTo128OperationsAndALimitOfBytes) {
  Txn txn;
  for (int i = 0; i < 128; ++i) txn.writes.push_back(Write::Put("k" + std::to_string(i), "v"));
  Must(txn);
  EXPECT_EQ(ReadAll().items.size(), 128U);
  txn.writes.push_back(Write::Put("one more", "v"));
  EXPECT_EQ(CommitError(txn), ErrorCode::kInvalidInput);
  EXPECT_EQ(CommitError({std::vector<Compare>(129, {"k", 0}), {}}), ErrorCode::kInvalidInput);
  const std::string large(kMaxTxnBytes / 2, 'v');
  EXPECT_EQ(CommitError({{}, {Write::Put("x", large), Write::Put("y", large)}}),
            ErrorCode::kInvalidInput);
}

TEST_P(StoreContract, KeyWrittenTwiceInOneTransactionIsRefused) {
  EXPECT_EQ(CommitError({{}, {Write::Put("a", "1"), Write::Put("a", "2")}}),
            ErrorCode::kInvalidInput);
  EXPECT_EQ(CommitError({{}, {Write::Put("a", "1"), Write::Delete("a")}}),
            ErrorCode::kInvalidInput);
  EXPECT_EQ(Contents(), "");
}

// Reads

TEST_P(StoreContract, ReadsSeeTheStoreAsItWasAtARevision) {
  const Revision one = Put("a", "1");
  const Revision two = Put("b", "1");
  const Revision three = Must({{}, {Write::Put("a", "2"), Write::Delete("b")}});
  const Revision four = Put("b", "3");
  EXPECT_EQ(Contents(one), "a=1");
  EXPECT_EQ(Contents(two), "a=1 b=1");
  EXPECT_EQ(Contents(three), "a=2");
  EXPECT_EQ(Contents(four), "a=2 b=3");
  EXPECT_EQ(ReadAll(two).revision, two);
  EXPECT_EQ(Contents(), "a=2 b=3");
}

TEST_P(StoreContract, ReadOfAFutureRevisionIsRefused) {
  const Revision now = Put("a", "1");
  const auto result = store().Read({KeyRange::Single("a"), now + 1, 0});
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code(), ErrorCode::kInvalidInput);
}

TEST_P(StoreContract, RangeIncludesItsBeginAndExcludesItsEnd) {
  Must({{}, {Write::Put("a", "1"), Write::Put("b", "2"), Write::Put("c", "3")}});
  const auto result = store().Read({{"a", "c"}, 0, 0});
  ASSERT_EQ(result->items.size(), 2U);
  EXPECT_EQ(result->items[0].key, "a");
  EXPECT_EQ(result->items[1].key, "b");
  EXPECT_THAT(store().Read({{"c", "a"}, 0, 0})->items, IsEmpty());
}

TEST_P(StoreContract, PrefixMatchesExactlyTheKeysThatBeginWithIt) {
  Must({{},
        {Write::Put("/a", "1"), Write::Put("/a/1", "2"), Write::Put("/a0", "3"),
         Write::Put("/b", "4"), Write::Put("/a/\xff\xff", "5"), Write::Put("\xff\xff", "6"),
         Write::Put("\xff\xff\x01", "7")}});
  EXPECT_EQ(store().Read({KeyRange::Prefix("/a/"), 0, 0})->items.size(), 2U);
  EXPECT_EQ(store().Read({KeyRange::Prefix("/a"), 0, 0})->items.size(), 4U);
  EXPECT_EQ(store().Read({KeyRange::Prefix("\xff\xff"), 0, 0})->items.size(), 2U);
  EXPECT_EQ(store().Read({KeyRange::Single("/a"), 0, 0})->items.size(), 1U);
}

TEST_P(StoreContract, LimitCutsAReadAndSaysThatThereIsMore) {
  for (const char* key : {"c", "a", "d", "b"}) Put(key, "v");
  Delete("b");
  const auto cut = store().Read({KeyRange::Prefix(""), 0, 2});
  ASSERT_EQ(cut->items.size(), 2U);
  EXPECT_EQ(cut->items[0].key, "a");
  EXPECT_EQ(cut->items[1].key, "c");
  EXPECT_TRUE(cut->more);
  const auto whole = store().Read({KeyRange::Prefix(""), 0, 3});
  EXPECT_EQ(whole->items.size(), 3U);
  EXPECT_FALSE(whole->more);
}

// Watches

TEST_P(StoreContract, WatchFromAnOldRevisionDeliversEveryBatchInOrder) {
  const Revision one = Put("a", "1");
  const Revision two = Must({{}, {Write::Put("c", "2"), Write::Put("b", "2")}});
  const Revision three = Delete("a");
  const auto watch = WatchFrom(one);
  EXPECT_EQ(NextOf(*watch), At(one, "+a=1"));
  EXPECT_EQ(NextOf(*watch), At(two, "+b=2 +c=2"));
  EXPECT_EQ(NextOf(*watch), At(three, "-a"));
  const Revision four = Put("d", "4");
  EXPECT_EQ(NextOf(*watch), At(four, "+d=4"));
}

TEST_P(StoreContract, WatchEventHasTheWholeKeyValue) {
  const Revision one = Put("a", "1");
  const Revision two = Put("a", "2");
  const auto watch = WatchFrom(two);
  const auto next = watch->Next(kPatience);
  ASSERT_TRUE(next.has_value() && next->has_value());
  const KeyValue& kv = (*next)->events.at(0).kv;
  EXPECT_EQ(kv.create_revision, one);
  EXPECT_EQ(kv.version, 2);
}

TEST_P(StoreContract, WatchFromZeroDeliversWhatComesAfterIt) {
  Put("a", "1");
  const auto watch = WatchFrom(0);
  const Revision two = Put("a", "2");
  EXPECT_EQ(NextOf(*watch), At(two, "+a=2"));
}

TEST_P(StoreContract, WatchFromAFutureRevisionWaitsForIt) {
  const Revision now = Put("a", "1");
  const auto watch = WatchFrom(now + 2);
  Put("a", "2");
  const Revision two = Put("a", "3");
  EXPECT_EQ(NextOf(*watch), At(two, "+a=3"));
}

TEST_P(StoreContract, WatchDeliversOnlyItsRange) {
  const auto watch = WatchFrom(0, "/b/");
  Put("/a/1", "x");
  const Revision both = Must({{}, {Write::Put("/a/2", "x"), Write::Put("/b/2", "x")}});
  Put("/c", "x");
  const Revision last = Put("/b/3", "x");
  EXPECT_EQ(NextOf(*watch), At(both, "+/b/2=x"));
  EXPECT_EQ(NextOf(*watch), At(last, "+/b/3=x"));
}

TEST_P(StoreContract, WatchWithNothingToDeliverTimesOut) {
  const auto watch = WatchFrom(0);
  const auto next = watch->Next(milliseconds(1));
  ASSERT_TRUE(next.has_value());
  EXPECT_FALSE(next->has_value());
}

TEST_P(StoreContract, CancelEndsAWatchThatWaits) {
  const auto watch = WatchFrom(0);
  std::thread canceller([&] { watch->Cancel(); });
  EXPECT_EQ(NextOf(*watch), "error unavailable");
  canceller.join();
  EXPECT_EQ(NextOf(*watch), "error unavailable");
}

TEST_P(StoreContract, WatchOutlivesItsStore) {
  const auto watch = WatchFrom(0);
  std::thread closer([&] { under_test_.reset(); });
  EXPECT_EQ(NextOf(*watch), "error unavailable");
  closer.join();
}

TEST_P(StoreContract, SlowWatchSeesNoGapOrIsToldThatItWasDropped) {
  const auto watch = WatchFrom(0);
  Revision expected = Now();
  for (int i = 0; i < 400; ++i) Put("a", std::to_string(i));
  ASSERT_TRUE(store().Compact(Now()).has_value());
  for (int seen = 0; seen < 400; ++seen) {
    const auto next = watch->Next(kPatience);
    if (!next) {
      EXPECT_EQ(next.error().code(), ErrorCode::kExhausted);
      return;
    }
    ASSERT_TRUE(next->has_value());
    ASSERT_EQ((*next)->revision, ++expected);
  }
}

// Compaction

TEST_P(StoreContract, CompactionKeepsTheStateAtItsRevisionAndForgetsOlder) {
  const Revision one = Put("a", "1");
  const Revision two = Must({{}, {Write::Put("a", "2"), Write::Put("b", "2")}});
  const Revision three = Must({{}, {Write::Put("a", "3"), Write::Delete("b")}});
  ASSERT_TRUE(store().Compact(two).has_value());
  const auto old = store().Read({KeyRange::Prefix(""), one, 0});
  ASSERT_FALSE(old.has_value());
  EXPECT_EQ(old.error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(Contents(two), "a=2 b=2");
  EXPECT_EQ(Contents(three), "a=3");
  ASSERT_TRUE(store().Compact(three).has_value());
  EXPECT_EQ(Contents(), "a=3");
  EXPECT_EQ(Now(), three);
  EXPECT_EQ(Get("a")->create_revision, one);
  EXPECT_EQ(Get("a")->version, 3);
}

TEST_P(StoreContract, CompactionOfTheFutureOrThePastIsRefused) {
  const Revision one = Put("a", "1");
  const Revision two = Put("a", "2");
  EXPECT_EQ(store().Compact(two + 1).error().code(), ErrorCode::kInvalidInput);
  ASSERT_TRUE(store().Compact(two).has_value());
  EXPECT_EQ(store().Compact(one).error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(store().Compact(two).error().code(), ErrorCode::kNotFound);
}

TEST_P(StoreContract, WatchFromACompactedRevisionIsRefusedAndFromTheCompactionWorks) {
  const Revision one = Put("a", "1");
  const Revision two = Put("a", "2");
  const Revision three = Put("a", "3");
  ASSERT_TRUE(store().Compact(two).has_value());
  const auto refused = store().StartWatch(KeyRange::Prefix(""), one);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), ErrorCode::kNotFound);
  const auto watch = WatchFrom(two);
  EXPECT_EQ(NextOf(*watch), At(two, "+a=2"));
  EXPECT_EQ(NextOf(*watch), At(three, "+a=3"));
}

TEST_P(StoreContract, CompactionDoesNotDisturbAWatchThatKeepsUp) {
  const auto watch = WatchFrom(0);
  for (int i = 0; i < 5; ++i) {
    const Revision revision = Put("a", std::to_string(i));
    EXPECT_EQ(NextOf(*watch), At(revision, "+a=" + std::to_string(i)));
    ASSERT_TRUE(store().Compact(revision).has_value());
  }
}

// Leases

TEST_P(StoreContract, RevokingALeaseDeletesItsKeysInOneRevision) {
  const LeaseId lease = *store().GrantLease(seconds(60));
  Put("a", "1", lease);
  Put("b", "1", lease);
  const Revision before = Put("c", "1");
  EXPECT_EQ(Get("a")->lease, lease);
  const auto watch = WatchFrom(before + 1);
  ASSERT_TRUE(store().RevokeLease(lease).has_value());
  EXPECT_EQ(NextOf(*watch), At(before + 1, "-a -b"));
  EXPECT_EQ(Contents(), "c=1");
  EXPECT_EQ(store().RevokeLease(lease).error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(store().KeepAlive(lease).error().code(), ErrorCode::kNotFound);
}

TEST_P(StoreContract, LeaseWithoutKeysEndsWithoutARevision) {
  const Revision before = Now();
  const LeaseId lease = *store().GrantLease(seconds(60));
  ASSERT_TRUE(store().RevokeLease(lease).has_value());
  EXPECT_EQ(Now(), before);
}

TEST_P(StoreContract, ExpiredLeaseDeletesItsKeysInOneRevision) {
  const LeaseId lease = *store().GrantLease(seconds(2));
  Put("a", "1", lease);
  const Revision before = Put("b", "1", lease);
  const auto watch = WatchFrom(before + 1);
  under_test_->PassTime(seconds(3));
  EXPECT_EQ(NextOf(*watch), At(before + 1, "-a -b"));
  EXPECT_EQ(store().KeepAlive(lease).error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(CommitError({{}, {Write::Put("a", "2", lease)}}), ErrorCode::kNotFound);
}

TEST_P(StoreContract, KeepAliveGivesTheWholeTtlAgain) {
  const LeaseId kept = *store().GrantLease(seconds(4));
  const LeaseId left = *store().GrantLease(seconds(4));
  Put("kept", "1", kept);
  const Revision before = Put("left", "1", left);
  const auto watch = WatchFrom(before + 1);
  under_test_->PassTime(seconds(2));
  ASSERT_TRUE(store().KeepAlive(kept).has_value());
  under_test_->PassTime(seconds(3));
  EXPECT_EQ(NextOf(*watch), At(before + 1, "-left"));
  EXPECT_EQ(Contents(), "kept=1");
  ASSERT_TRUE(store().KeepAlive(kept).has_value());
}

TEST_P(StoreContract, KeyBelongsToTheLeaseOfItsLastWrite) {
  const LeaseId first = *store().GrantLease(seconds(60));
  const LeaseId second = *store().GrantLease(seconds(60));
  for (const char* key : {"a", "b", "c"}) Put(key, "1", first);
  Put("a", "2");
  Put("b", "2", second);
  Delete("c");
  Put("c", "2");
  ASSERT_TRUE(store().RevokeLease(first).has_value());
  EXPECT_EQ(Contents(), "a=2 b=2 c=2");
  ASSERT_TRUE(store().RevokeLease(second).has_value());
  EXPECT_EQ(Contents(), "a=2 c=2");
}

TEST_P(StoreContract, WriteWithAnUnknownLeaseIsRefusedButNotIfTheComparisonFails) {
  EXPECT_EQ(CommitError({{}, {Write::Put("a", "1", 12345)}}), ErrorCode::kNotFound);
  const auto failed = store().Commit({{{"x", 7}}, {Write::Put("a", "1", 12345)}});
  ASSERT_TRUE(failed.has_value());
  EXPECT_FALSE(failed->succeeded);
  EXPECT_EQ(Contents(), "");
}

TEST_P(StoreContract, LeaseMayHaveMoreKeysThanATransactionHasWrites) {
  const LeaseId lease = *store().GrantLease(seconds(60));
  for (int i = 0; i < 300; ++i) Put("k" + std::to_string(i), "v", lease);
  const Revision before = Now();
  ASSERT_TRUE(store().RevokeLease(lease).has_value());
  EXPECT_EQ(Contents(), "");
  EXPECT_EQ(Now(), before + 1);
}

TEST_P(StoreContract, LeaseOfLessThanASecondIsRefused) {
  EXPECT_EQ(store().GrantLease(seconds(0)).error().code(), ErrorCode::kInvalidInput);
  EXPECT_EQ(store().GrantLease(seconds(-1)).error().code(), ErrorCode::kInvalidInput);
}

// Concurrency

TEST_P(StoreContract, ConcurrentIncrementsByComparisonLoseNoUpdate) {
  constexpr int kThreads = 8;
  constexpr int kIncrements = 40;
  const Revision start = Now();
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this] {
      for (int done = 0; done < kIncrements;) {
        const auto kv = Get("counter");
        const int value = kv ? std::stoi(kv->value) : 0;
        const auto result = store().Commit({{{"counter", kv ? kv->mod_revision : 0}},
                                            {Write::Put("counter", std::to_string(value + 1))}});
        ASSERT_TRUE(result.has_value()) << result.error().DebugString();
        done += result->succeeded ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Get("counter")->value, std::to_string(kThreads * kIncrements));
  EXPECT_EQ(Now(), start + kThreads * kIncrements);
}

TEST_P(StoreContract, ConcurrentWatchSeesEveryCommitOnceInOrder) {
  constexpr int kThreads = 4;
  constexpr int kCommits = 50;
  const auto watch = WatchFrom(0);
  Revision last = Now();
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < kCommits; ++i) Put("k" + std::to_string(t), std::to_string(i));
    });
  }
  for (int i = 0; i < kThreads * kCommits; ++i) {
    const auto next = watch->Next(kPatience);
    ASSERT_TRUE(next.has_value() && next->has_value());
    EXPECT_EQ((*next)->revision, ++last);
    EXPECT_EQ((*next)->events.size(), 1U);
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_P(StoreContract, AnsweredCommitIsVisibleToReads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      const std::string key = "k" + std::to_string(t);
      for (int i = 0; i < 40; ++i) {
        const Revision revision = Put(key, std::to_string(i));
        ASSERT_EQ(Get(key)->mod_revision, revision);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

INSTANTIATE_TEST_SUITE_P(
    All, StoreContract,
    ::testing::Values(Implementation{"Memory", [] { return std::make_unique<MemoryUnderTest>(); }},
                      Implementation{"Sqlite", [] { return std::make_unique<SqliteUnderTest>(); }}),
    [](const ::testing::TestParamInfo<Implementation>& each) { return each.param.name; });

}  // namespace
}  // namespace vallum::store

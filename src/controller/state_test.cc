// SPDX-License-Identifier: Apache-2.0
// Resources, view, operations, events, tokens and grants on a store in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "controller/console_hub.h"
#include "controller/content_claims.h"
#include "controller/event_log.h"
#include "controller/operations.h"
#include "controller/problem.h"
#include "controller/resource_store.h"
#include "controller/test_rig.h"
#include "controller/tokens.h"
#include "controller/view.h"
#include "store/memory_store.h"

namespace vallum::controller {
namespace {

using ::testing::HasSubstr;

class StateTest : public testing::Test {
 protected:
  StateTest() : store_(clock_), resources_(store_, clock_) {
    auto view = View::Create(store_);
    CHECK(view.has_value());
    view_ = *std::move(view);
  }
  v1::Pool MakePool(const std::string& name) {
    v1::Pool pool;
    pool.mutable_metadata()->set_name(name);
    return pool;
  }
  ShiftedClock clock_;
  store::MemoryStore store_;
  ResourceStore resources_;
  std::unique_ptr<View> view_;
};

TEST_F(StateTest, CreationFillsMetadata) {
  const Result<v1::Pool> pool = resources_.Create(MakePool("gold"));
  ASSERT_TRUE(pool.has_value());
  EXPECT_EQ(pool->metadata().generation(), 1);
  EXPECT_EQ(pool->metadata().uid().size(), 36U);
  EXPECT_GT(pool->metadata().revision(), 0);
  EXPECT_TRUE(pool->metadata().has_create_time());
  const Result<v1::Pool> read = resources_.Get<v1::Pool>("gold");
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->SerializeAsString(), pool->SerializeAsString());
}

TEST_F(StateTest, SecondCreationIsAConflict) {
  ASSERT_TRUE(resources_.Create(MakePool("gold")).has_value());
  const Result<v1::Pool> again = resources_.Create(MakePool("gold"));
  ASSERT_FALSE(again.has_value());
  EXPECT_EQ(again.error().code(), ErrorCode::kConflict);
  EXPECT_EQ(resources_.Create(MakePool("Not/A/Name")).error().code(), ErrorCode::kInvalidInput);
}

TEST_F(StateTest, GenerationRisesWithSpecOnly) {
  Result<v1::Pool> pool = resources_.Create(MakePool("gold"));
  pool->mutable_status()->set_hosts(3);
  pool = resources_.Update(*pool, 0);
  EXPECT_EQ(pool->metadata().generation(), 1);
  (*pool->mutable_metadata()->mutable_labels())["a"] = "b";
  pool = resources_.Update(*pool, 0);
  EXPECT_EQ(pool->metadata().generation(), 1);
  pool->mutable_spec()->set_cpu_overcommit(2);
  pool = resources_.Update(*pool, 0);
  EXPECT_EQ(pool->metadata().generation(), 2);
}

TEST_F(StateTest, UpdateKeepsWhatOnlyTheControllerWrites) {
  const Result<v1::Pool> pool = resources_.Create(MakePool("gold"));
  v1::Pool forged = *pool;
  forged.mutable_metadata()->set_uid("other");
  forged.mutable_metadata()->set_tenant("other");
  forged.mutable_metadata()->clear_create_time();
  const Result<v1::Pool> stored = resources_.Update(forged, 0);
  EXPECT_EQ(stored->metadata().uid(), pool->metadata().uid());
  EXPECT_EQ(stored->metadata().tenant(), "");
  EXPECT_TRUE(stored->metadata().has_create_time());
}

TEST_F(StateTest, IfMatchOfAnOldRevisionIsAConflict) {
  const Result<v1::Pool> pool = resources_.Create(MakePool("gold"));
  const store::Revision old = pool->metadata().revision();
  ASSERT_TRUE(resources_.Update(*pool, old).has_value());
  EXPECT_EQ(resources_.Update(*pool, old).error().code(), ErrorCode::kConflict);
  EXPECT_EQ(resources_.Delete(Kind::kPool, "gold", old).error().code(), ErrorCode::kConflict);
  EXPECT_TRUE(resources_.Delete(Kind::kPool, "gold", 0).has_value());
  EXPECT_EQ(resources_.Delete(Kind::kPool, "gold", 0).error().code(), ErrorCode::kNotFound);
}

TEST_F(StateTest, ConcurrentModificationsAreAllKept) {
  ASSERT_TRUE(resources_.Create(MakePool("gold")).has_value());
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 10; ++n) {
        const auto done =
            resources_.Modify<v1::Pool>("gold", [](v1::Pool& p) -> Result<ResourceStore::Change> {
              p.mutable_status()->set_hosts(p.status().hosts() + 1);
              return ResourceStore::Change::kWrite;
            });
        EXPECT_TRUE(done.has_value());
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(resources_.Get<v1::Pool>("gold")->status().hosts(), 40);
}

TEST_F(StateTest, ViewShowsWhatWasWrittenOnceItHasCaughtUp) {
  const Result<v1::Pool> pool = resources_.Create(MakePool("gold"));
  ASSERT_TRUE(view_->WaitFor(pool->metadata().revision()).has_value());
  ASSERT_NE(view_->Get<v1::Pool>("gold"), nullptr);
  EXPECT_EQ(view_->Get<v1::Pool>("gold")->metadata().revision(), pool->metadata().revision());
  const Result<store::Revision> deleted = resources_.Delete(Kind::kPool, "gold", 0);
  ASSERT_TRUE(view_->WaitFor(*deleted).has_value());
  EXPECT_EQ(view_->Get<v1::Pool>("gold"), nullptr);
}

TEST_F(StateTest, WaitingForAFutureRevisionEnds) {
  const Result<void> waited =
      view_->WaitFor(view_->revision() + 1000, std::chrono::milliseconds(1));
  ASSERT_FALSE(waited.has_value());
  EXPECT_EQ(waited.error().code(), ErrorCode::kUnavailable);
}

TEST_F(StateTest, ListGoesOnAfterAName) {
  for (const char* name : {"a", "b", "c", "d"}) {
    ASSERT_TRUE(resources_.Create(MakePool(name)).has_value());
  }
  ASSERT_TRUE(view_->WaitFor(resources_.Get<v1::Pool>("d")->metadata().revision()).has_value());
  const View::Listing page = view_->List(Kind::kPool, "b", 1);
  ASSERT_EQ(page.items.size(), 1U);
  EXPECT_EQ(MetadataOf(*page.items[0]).name(), "c");
}

TEST_F(StateTest, SubscriberGetsBacklogAndThenEachChangeOnce) {
  const Result<v1::Pool> first = resources_.Create(MakePool("a"));
  ASSERT_TRUE(view_->WaitFor(first->metadata().revision()).has_value());
  std::mutex mutex;
  std::vector<std::string> seen;
  const auto id = view_->Subscribe(first->metadata().revision(), [&](const Change& change) {
    const std::lock_guard lock(mutex);
    seen.push_back((change.what == Change::What::kPut ? "+" : "-") + change.name);
  });
  ASSERT_TRUE(id.has_value());
  ASSERT_TRUE(resources_.Create(MakePool("b")).has_value());
  const Result<store::Revision> deleted = resources_.Delete(Kind::kPool, "a", 0);
  ASSERT_TRUE(view_->WaitFor(*deleted).has_value());
  view_->Unsubscribe(*id);
  ASSERT_TRUE(resources_.Create(MakePool("c")).has_value());
  const std::lock_guard lock(mutex);
  EXPECT_EQ(seen, (std::vector<std::string>{"+a", "+b", "-a"}));
}

TEST_F(StateTest, SubscriptionOlderThanTheLogIsRefused) {
  const Result<v1::Pool> pool = resources_.Create(MakePool("a"));
  const auto second = View::Create(store_);
  const auto id = (*second)->Subscribe(pool->metadata().revision(), [](const Change&) {});
  ASSERT_FALSE(id.has_value());
  EXPECT_EQ(id.error().code(), ErrorCode::kNotFound);
}

TEST_F(StateTest, EndedOperationDoesNotChangeAnyMore) {
  Operations operations(resources_);
  const auto operation = operations.Create("instance.start", {.name = "web1"}, "me");
  ASSERT_TRUE(operation.has_value());
  const std::string& name = operation->metadata().name();
  ASSERT_TRUE(operations.Progress(name, 150, "nearly").has_value());
  EXPECT_EQ(resources_.Get<v1::Operation>(name)->progress_percent(), 100);
  ASSERT_TRUE(operations.Fail(name, Exhausted("no host fits").WithFix("add one")).has_value());
  ASSERT_TRUE(operations.Finish(name, "done").has_value());
  const auto stored = resources_.Get<v1::Operation>(name);
  EXPECT_EQ(stored->state(), v1::OPERATION_FAILED);
  EXPECT_EQ(stored->error().code(), "exhausted");
  EXPECT_EQ(stored->error().fix(), "add one");
  EXPECT_EQ(FromProblem(stored->error()).code(), ErrorCode::kExhausted);
}

TEST_F(StateTest, OldEndedOperationsAreCollected) {
  Operations operations(resources_);
  const auto ended = operations.Create("a", {.name = "x"}, "me");
  const auto running = operations.Create("b", {.name = "x"}, "me");
  ASSERT_TRUE(operations.Finish(ended->metadata().name(), "").has_value());
  const store::Revision now =
      resources_.Get<v1::Operation>(ended->metadata().name())->metadata().revision();
  ASSERT_TRUE(view_->WaitFor(now).has_value());
  EXPECT_EQ(operations.CollectGarbage(*view_, std::chrono::seconds(60)).value(), 0);
  clock_.Advance(std::chrono::seconds(61));
  EXPECT_EQ(operations.CollectGarbage(*view_, std::chrono::seconds(60)).value(), 1);
  EXPECT_TRUE(resources_.Get<v1::Operation>(running->metadata().name()).has_value());
}

TEST_F(StateTest, EventsMakeAChainThatVerifies) {
  EventLog one(store_, clock_);
  EventLog two(store_, clock_);
  std::thread other([&] {
    for (int i = 0; i < 10; ++i) {
      EXPECT_TRUE(two.Append({.kind = "b", .message = "two"}).has_value());
    }
  });
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(one.Append({.kind = "a", .message = "one"}).has_value());
  }
  other.join();
  EXPECT_EQ(one.Verify().value(), 20);
  const auto page = one.Read(15, 100);
  ASSERT_EQ(page->size(), 5U);
  EXPECT_EQ(page->front().sequence(), 16);
}

TEST_F(StateTest, OldestEventsAreDroppedAndTheRestStillVerifies) {
  EventLog log(store_, clock_, 50);
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(log.Append({.kind = "a", .message = "it happened"}).has_value());
  }
  EXPECT_EQ(log.Verify().value(), 50);
  EXPECT_EQ(log.Read(0, 10)->front().sequence(), 151);
  ASSERT_TRUE(
      store_
          .Commit({.compares = {},
                   .writes = {store::Write::Delete(KeyOf(Kind::kEvent, "00000000000000000151"))}})
          ->succeeded);
  EXPECT_THAT(log.Verify().error().message(), HasSubstr("event 151"));
}

TEST_F(StateTest, ContentIsKeptWhileAnUploadClaimsIt) {
  TempDir dir;
  const auto blobs = store::BlobStore::Open({.directory = dir.path() / "blobs"}, clock_).value();
  ContentClaims claims(*blobs, *view_);
  const auto publish = [&](const char* id) {
    const auto upload = blobs->BeginUpload(id).value();
    CHECK(upload->Append(upload->received(), AsBytes("content")).has_value());
    return claims.Publish(*upload, "").value();
  };
  auto refused = publish("one");
  const auto accepted = publish("two");
  const std::string digest = refused->digest();
  refused.reset();
  claims.RemoveUnused(digest);
  EXPECT_TRUE(blobs->Open(digest).has_value());
}

TEST_F(StateTest, ContentThatNothingNamesIsRemoved) {
  TempDir dir;
  const auto blobs = store::BlobStore::Open({.directory = dir.path() / "blobs"}, clock_).value();
  ContentClaims claims(*blobs, *view_);
  const auto upload = blobs->BeginUpload("one").value();
  ASSERT_TRUE(upload->Append(upload->received(), AsBytes("content")).has_value());
  const std::string digest = claims.Publish(*upload, "").value()->digest();
  claims.RemoveUnused(digest);
  EXPECT_FALSE(blobs->Open(digest).has_value());
}

TEST_F(StateTest, ChangedOrRemovedEventsAreFound) {
  for (const char* damage : {"change", "remove", "truncate"}) {
    SCOPED_TRACE(damage);
    store::MemoryStore store(clock_);
    EventLog log(store, clock_);
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(log.Append({.kind = "a", .message = "it happened"}).has_value());
    }
    const bool last = std::string(damage) == "truncate";
    const std::string key =
        KeyOf(Kind::kEvent, last ? "00000000000000000003" : "00000000000000000002");
    store::Txn txn;
    if (std::string(damage) == "change") {
      v1::Event event = log.Read(1, 1)->front();
      event.set_message("it never happened");
      txn.writes = {store::Write::Put(key, EncodeResource(event))};
    } else {
      txn.writes = {store::Write::Delete(key)};
    }
    ASSERT_TRUE(store.Commit(txn)->succeeded);
    const Result<int64_t> verified = log.Verify();
    ASSERT_FALSE(verified.has_value());
    EXPECT_EQ(verified.error().code(), ErrorCode::kCorrupt);
    EXPECT_THAT(verified.error().message(), HasSubstr(last ? "event 3" : "event 2"));
  }
}

TEST_F(StateTest, TokenSecretIsShownOnceAndStoredAsDigest) {
  Tokens tokens(resources_, *view_);
  v1::TokenSpec spec;
  spec.set_role(v1::ROLE_OPERATOR);
  const Result<v1::Token> token = tokens.Create("ops", spec);
  ASSERT_TRUE(token.has_value());
  EXPECT_EQ(token->status().secret().size(), 43U);
  const auto stored = store_.Read({.range = store::KeyRange::Prefix("")});
  for (const store::KeyValue& item : stored->items) {
    EXPECT_THAT(item.value, testing::Not(HasSubstr(token->status().secret())));
  }
  const Result<Principal> who = tokens.Authenticate(token->status().secret());
  ASSERT_TRUE(who.has_value());
  EXPECT_EQ(who->name, "ops");
  EXPECT_EQ(who->role, v1::ROLE_OPERATOR);
}

TEST_F(StateTest, UnknownExpiredDeletedAndJoinTokensAreDenied) {
  Tokens tokens(resources_, *view_);
  EXPECT_EQ(tokens.Authenticate("nonsense").error().code(), ErrorCode::kDenied);
  EXPECT_EQ(tokens.Authenticate("").error().code(), ErrorCode::kDenied);
  v1::TokenSpec spec;
  spec.set_role(v1::ROLE_ADMIN);
  *spec.mutable_expire_time() = ToTimestamp(clock_.Now() + std::chrono::seconds(60));
  const std::string brief = tokens.Create("brief", spec)->status().secret();
  EXPECT_TRUE(tokens.Authenticate(brief).has_value());
  clock_.Advance(std::chrono::seconds(61));
  EXPECT_FALSE(tokens.Authenticate(brief).has_value());
  v1::TokenSpec join;
  join.set_role(v1::ROLE_JOIN);
  EXPECT_FALSE(tokens.Authenticate(tokens.Create("j", join)->status().secret()).has_value());
  EXPECT_EQ(tokens.Create("late", spec).error().code(), ErrorCode::kInvalidInput);
}

TEST_F(StateTest, TokenWithoutRoleOrTenantIsRefused) {
  Tokens tokens(resources_, *view_);
  EXPECT_FALSE(tokens.Create("x", v1::TokenSpec()).has_value());
  v1::TokenSpec spec;
  spec.set_role(v1::ROLE_TENANT);
  EXPECT_FALSE(tokens.Create("x", spec).has_value());
}

TEST_F(StateTest, ConsoleGrantOpensOnceAndNotAfterTenMinutes) {
  ConsoleGrants grants(clock_);
  const auto grant = grants.Issue({.instance_name = "web1"});
  EXPECT_EQ(grants.Redeem(grant->token())->instance_name, "web1");
  EXPECT_EQ(grants.Redeem(grant->token()).error().code(), ErrorCode::kDenied);
  const auto late = grants.Issue({.instance_name = "web1"});
  clock_.Advance(std::chrono::seconds(601));
  EXPECT_FALSE(grants.Redeem(late->token()).has_value());
  EXPECT_FALSE(grants.Redeem("nonsense").has_value());
}

}  // namespace
}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#include "store/local_store.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "store/test_support.h"

namespace vallum::store {
namespace {

// A disk that fails once.
class FailingJournal final : public Journal {
 public:
  Result<void> Write(const JournalGroup&) override {
    if (++writes_ == 2) return Unavailable("I/O error");
    return Ok();
  }
  Result<void> Compact(Revision, const std::vector<int64_t>&) override { return Ok(); }

 private:
  int writes_ = 0;
};

class StoreOnFailingJournal final : public LocalStore {
 public:
  explicit StoreOnFailingJournal(const Clock& clock)
      : LocalStore(std::make_unique<FailingJournal>(), {}, {}, clock, {}) {}
};

TEST(LocalStore, TakesNoMoreWritesAfterAnUnknownFailureButStillReads) {
  const FakeClock clock;
  StoreOnFailingJournal store(clock);
  ASSERT_TRUE(store.Commit({{}, {Write::Put("a", "1")}}).has_value());
  for (int i = 0; i < 3; ++i) {
    const auto result = store.Commit({{}, {Write::Put("a", "2")}});
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code(), ErrorCode::kUnavailable);
  }
  const ReadResult all = store.Read({KeyRange::Prefix(""), 0, 0}).value();
  ASSERT_EQ(all.items.size(), 1U);
  EXPECT_EQ(all.items[0].value, "1");
}

}  // namespace
}  // namespace vallum::store

// SPDX-License-Identifier: Apache-2.0
#include "store/mvcc_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "store/store.h"

namespace vallum::store {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::string Contents(const MvccIndex& index, Revision revision) {
  std::string out;
  for (const VersionPtr& version : index.Read(KeyRange::Prefix(""), revision, 0).versions) {
    out += version->kv.key + "=" + version->kv.value + " ";
  }
  return out;
}

Version Row(int64_t row, Revision revision, const std::string& key, int64_t count = 1) {
  Version version;
  version.row = row;
  version.kv.key = key;
  version.kv.mod_revision = revision;
  version.kv.create_revision = count == 0 ? 0 : revision;
  version.kv.version = count;
  return version;
}

TEST(MvccIndex, RollBackLeavesNoTrace) {
  MvccIndex index;
  index.Apply({Write::Put("a", "1"), Write::Put("b", "1")});
  index.Apply({Write::Put("a", "2"), Write::Delete("b"), Write::Put("c", "2")});
  index.Apply({Write::Put("b", "3")});
  index.RollBack(2);
  EXPECT_EQ(index.revision(), 2);
  EXPECT_EQ(Contents(index, 2), "a=1 b=1 ");
  EXPECT_EQ(index.Latest("c"), nullptr);
  const auto again = index.Apply({Write::Put("a", "9")});
  ASSERT_EQ(again.size(), 1U);
  EXPECT_EQ(again[0]->row, 3);
  EXPECT_EQ(again[0]->kv.mod_revision, 3);
  EXPECT_EQ(again[0]->kv.version, 2);
}

TEST(MvccIndex, CompactionForgetsExactlyTheRowsThatItNames) {
  MvccIndex index;
  index.Apply({Write::Put("a", "1"), Write::Put("b", "1")});  // revision 2: rows 1, 2
  index.Apply({Write::Put("a", "2")});                        // 3: row 3
  index.Apply({Write::Delete("b")});                          // 4: row 4
  index.Apply({Write::Put("a", "4")});                        // 5: row 5
  EXPECT_THAT(index.RowsForgottenBy(2), IsEmpty());
  EXPECT_THAT(index.RowsForgottenBy(3), ElementsAre(1));
  EXPECT_THAT(index.RowsForgottenBy(4), ElementsAre(1, 2));
  EXPECT_THAT(index.RowsForgottenBy(5), ElementsAre(1, 3, 2, 4));
}

// Otherwise a watch from the compacted revision would miss the deletion.
TEST(MvccIndex, DeletionAtTheCompactedRevisionStaysUntilTheNextCompaction) {
  MvccIndex index;
  index.Apply({Write::Put("a", "1")});
  index.Apply({Write::Delete("a")});
  index.Apply({Write::Put("b", "1")});
  index.Compact(3);
  ASSERT_EQ(index.first_logged(), 3);
  ASSERT_EQ(index.Log(3).size(), 1U);
  EXPECT_TRUE(index.Log(3)[0]->deleted());
  EXPECT_THAT(index.RowsForgottenBy(4), ElementsAre(2));
  index.Compact(4);
  EXPECT_EQ(Contents(index, 4), "b=1 ");
}

TEST(MvccIndex, IsTheSameAfterCompactionAndLoading) {
  MvccIndex index;
  std::vector<VersionPtr> rows;
  const auto apply = [&](const std::vector<Write>& writes) {
    for (VersionPtr& version : index.Apply(writes)) rows.push_back(std::move(version));
  };
  apply({Write::Put("a", "1"), Write::Put("b", "1")});
  apply({Write::Put("a", "2"), Write::Delete("b")});
  apply({Write::Put("b", "3"), Write::Put("c", "3")});
  const auto forgotten = index.RowsForgottenBy(3);
  index.Compact(3);
  MvccIndex::Loader loader(3);
  for (const VersionPtr& row : rows) {
    if (std::find(forgotten.begin(), forgotten.end(), row->row) != forgotten.end()) continue;
    ASSERT_TRUE(loader.Add(*row).has_value());
  }
  const auto loaded = std::move(loader).Finish();
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->revision(), index.revision());
  EXPECT_EQ(loaded->first_logged(), index.first_logged());
  EXPECT_EQ(Contents(*loaded, 3), "a=2 ");
  EXPECT_EQ(Contents(*loaded, 4), Contents(index, 4));
  EXPECT_EQ(loaded->Log(3).size(), 2U);
}

TEST(MvccIndexLoader, RefusesRowsThatCannotFollowEachOther) {
  const std::vector<std::vector<Version>> bad = {
      {Row(1, 1, "a")},                                  // the empty store's revision
      {Row(1, 3, "a")},                                  // revision 2 is missing
      {Row(1, 2, "a"), Row(2, 4, "a")},                  // revision 3 is missing
      {Row(2, 2, "a"), Row(1, 3, "a")},                  // rows go back
      {Row(1, 2, "a"), Row(2, 3, "a"), Row(3, 2, "b")},  // revisions go back
      {Row(1, 2, "a"), Row(2, 2, "a", 2)},               // one key twice
  };
  for (const auto& rows : bad) {
    MvccIndex::Loader loader(0);
    Result<void> last = Ok();
    for (const Version& row : rows) last = loader.Add(row);
    ASSERT_FALSE(last.has_value());
    EXPECT_EQ(last.error().code(), ErrorCode::kCorrupt);
  }
  MvccIndex::Loader loader(5);
  ASSERT_TRUE(loader.Add(Row(1, 3, "a")).has_value());
  EXPECT_EQ(std::move(loader).Finish().error().code(), ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace vallum::store

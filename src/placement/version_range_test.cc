// SPDX-License-Identifier: Apache-2.0
#include "placement/version_range.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace vallum::placement {
namespace {

Version MakeVersion(const std::string& text) { return ReadVersion(text).value_or(Version()); }

struct Row {
  const char* range;
  const char* version;
  bool contains;
};

class VersionRangeTest : public testing::TestWithParam<Row> {};

TEST_P(VersionRangeTest, ContainsTheVersionsOfWhichEveryConditionHolds) {
  const auto range = VersionRange::Parse(GetParam().range);
  ASSERT_TRUE(range.has_value());
  EXPECT_EQ(range->Contains(MakeVersion(GetParam().version)), GetParam().contains);
}

INSTANTIATE_TEST_SUITE_P(Table, VersionRangeTest,
                         testing::Values(Row{">=7.2", "7.2", true}, Row{">=7.2", "7.2.22", true},
                                         Row{">=7.2", "7.1.99", false}, Row{">=10.0", "9.2", false},
                                         Row{">7.2", "7.2.0", false}, Row{">7.2", "7.2.1", true},
                                         Row{"<9", "8.2.4", true}, Row{"<9", "9.0.0", false},
                                         Row{"<=9", "9.0.0.1", false}, Row{"==7.2", "7.2.0", true},
                                         Row{"=7.2", "7.2", true}, Row{"!=8.1", "8.1", false},
                                         Row{"!=8.1", "8.2", true},
                                         Row{" >= 7.2 , < 9 ", "8.0", true},
                                         Row{">=7.2,<9", "9.1", false},
                                         Row{">=7.2,<9,!=8.1", "8.1.0", false}));

class BrokenVersionRangeTest : public testing::TestWithParam<const char*> {};

TEST_P(BrokenVersionRangeTest, IsRefusedWithAnExampleOfOne) {
  const auto range = VersionRange::Parse(GetParam());
  ASSERT_FALSE(range.has_value());
  EXPECT_EQ(range.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(range.error().fix(), testing::HasSubstr(">=7.2"));
}

INSTANTIATE_TEST_SUITE_P(Table, BrokenVersionRangeTest,
                         testing::Values("", "7.2", ">=", ">=x", ">=7.2,", ",>=7.2", ">=7.2 <9",
                                         "=>7.2", "~7.2", ">=7.", ">=7..2", ">=-1", ">=7.2beta",
                                         ">=1.2.3.4.5", ">=4294967296",
                                         ">1,>1,>1,>1,>1,>1,>1,>1,>1"));

TEST(VersionRangeTextTest, LongerThanTheLimitIsRefused) {
  EXPECT_TRUE(VersionRange::Parse(">=7" + std::string(kMaxVersionRangeSize - 3, ' ')).has_value());
  EXPECT_FALSE(VersionRange::Parse(">=7" + std::string(kMaxVersionRangeSize - 2, ' ')).has_value());
}

TEST(VersionRangeTextTest, WordsAreTheRangeWithoutItsSpaces) {
  EXPECT_EQ(VersionRange::Parse(" >= 7.2 , < 9 ")->words(), ">=7.2,<9");
}

TEST(VersionTest, IsReadFromTheStartOfWhatAHostReports) {
  EXPECT_EQ(MakeVersion("7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"), (Version{{7, 2, 22, 0}}));
  EXPECT_EQ(MakeVersion("9.0.50-rc1"), (Version{{9, 0, 50, 0}}));
  EXPECT_EQ(MakeVersion("8."), (Version{{8, 0, 0, 0}}));
  EXPECT_EQ(ReadVersion(""), std::nullopt);
  EXPECT_EQ(ReadVersion("v8.2"), std::nullopt);
}

}  // namespace
}  // namespace vallum::placement

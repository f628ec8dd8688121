// SPDX-License-Identifier: Apache-2.0
#include "firmware/sbat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace vallum::firmware {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using std::string_view_literals::operator""sv;

constexpr std::string_view kGrub =
    "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n"
    "grub,4,Free Software Foundation,grub,2.06,https://www.gnu.org/software/grub/\n"
    "grub.debian,4,Debian,grub2,2.06-13,https://tracker.debian.org/pkg/grub2\n\0\0\0"sv;

SbatLevel Level(std::string_view text) {
  const auto level = ParseSbatLevel(text);
  EXPECT_TRUE(level.has_value()) << level.error().Describe();
  return level.value_or(SbatLevel());
}

SbatVerdict Check(std::string_view section, std::string_view level) {
  return CheckSbat(AsBytes(section), Level(level), SbatNeed::kRequired);
}

TEST(Sbat, ComponentsAreReadUpToThePadding) {
  const auto components = ParseSbat(AsBytes(kGrub));
  ASSERT_TRUE(components.has_value()) << components.error().Describe();
  ASSERT_EQ(components->size(), 3U);
  EXPECT_EQ((*components)[2].name, "grub.debian");
  EXPECT_EQ((*components)[2].generation, 4U);
  EXPECT_EQ((*components)[2].vendor, "Debian");
  EXPECT_EQ((*components)[2].package, "grub2");
  EXPECT_EQ((*components)[2].version, "2.06-13");
  EXPECT_EQ((*components)[2].url, "https://tracker.debian.org/pkg/grub2");
}

TEST(Sbat, RowsEndAtEachLineEndAndZeroAsInShim) {
  EXPECT_EQ(
      ParseSbat(AsBytes("\xef\xbb\xbf\r\na,1,b,c,d,e\r\nb,2,b,c,d,e\0\0c,3,b,c,d,e"sv))->size(),
      3U);
  // A component that hides behind a zero counts.
  EXPECT_FALSE(Check("a,1,b,c,d,e\0grub,1,b,c,d,e"sv, "sbat,1,2025021800\ngrub,5\n").allowed);
}

TEST(Sbat, DamagedSectionsAreRefused) {
  for (const std::string_view text :
       {""sv, "\n\0"sv, "a,1,b,c,d"sv, "a,1,b,,d,e"sv, ",1,b,c,d,e"sv, "a,x,b,c,d,e"sv,
        "a,-1,b,c,d,e"sv, "a,1x,b,c,d,e"sv, "a,65536,b,c,d,e"sv, "a, 1,b,c,d,e"sv}) {
    EXPECT_FALSE(ParseSbat(AsBytes(text)).has_value()) << text;
  }
}

TEST(Sbat, MoreThanTheLimitsIsRefused) {
  std::string rows;
  for (size_t i = 0; i <= kMaxSbatRows; ++i) rows += "a,1,b,c,d,e\n";
  EXPECT_EQ(ParseSbat(AsBytes(rows)).error().code(), ErrorCode::kExhausted);
  EXPECT_EQ(ParseSbat(Bytes(kMaxSbatBytes + 1)).error().code(), ErrorCode::kExhausted);
}

TEST(SbatLevel, RowsAndDatestampAreRead) {
  const SbatLevel level = Level("sbat,1,2025021800\nshim,4\ngrub,5\n");
  EXPECT_EQ(level.datestamp, "2025021800");
  ASSERT_EQ(level.revocations.size(), 3U);
  EXPECT_EQ(level.revocations[2].name, "grub");
  EXPECT_EQ(level.revocations[2].generation, 5U);
  EXPECT_EQ(Level("sbat,1,2021030218").revocations.size(), 1U);
}

TEST(SbatLevel, WhatIsNoLevelIsRefused) {
  for (const std::string_view text :
       {""sv, "shim,4\n"sv, "sbat,1\n"sv, "sbat,1,202502180\n"sv, "sbat,1,20250218001\n"sv,
        "sbat,x,2025021800\n"sv, "sbat,1,2025021800\nshim\n"sv, "sbat,1,2025021800\nshim,\n"sv}) {
    EXPECT_FALSE(ParseSbatLevel(text).has_value()) << text;
  }
}

TEST(CheckSbat, GenerationAtTheLevelIsAllowedAndBelowIsNot) {
  EXPECT_TRUE(Check(kGrub, "sbat,1,2022111500\nshim,2\ngrub,3\n").allowed);
  EXPECT_TRUE(Check(kGrub, "sbat,1,2024010900\nshim,4\ngrub,4\n").allowed);
  const SbatVerdict verdict = Check(kGrub, "sbat,1,2025021800\nshim,4\ngrub,5\n");
  EXPECT_FALSE(verdict.allowed);
  EXPECT_THAT(verdict.reasons, ElementsAre(HasSubstr("grub has generation 4, revoked below 5")));
  EXPECT_FALSE(Check(kGrub, "sbat,1,2025021800\ngrub.debian,5\n").allowed);
  EXPECT_FALSE(Check(kGrub, "sbat,2,2025021800\n").allowed);
}

TEST(CheckSbat, FirstRowOfTheLevelThatNamesAComponentDecides) {
  EXPECT_TRUE(Check(kGrub, "sbat,1,2025021800\ngrub,3\ngrub,9\n").allowed);
}

TEST(CheckSbat, MissingSectionIsRefusedWhereItIsRequired) {
  const SbatLevel level = Level("sbat,1,2021030218\n");
  EXPECT_FALSE(CheckSbat(std::nullopt, level, SbatNeed::kRequired).allowed);
  EXPECT_FALSE(CheckSbat(ByteView(), level, SbatNeed::kRequired).allowed);
  EXPECT_TRUE(CheckSbat(std::nullopt, level, SbatNeed::kOptional).allowed);
  EXPECT_FALSE(CheckSbat(AsBytes("x"), level, SbatNeed::kOptional).allowed);
}

const std::vector<Bytes>& BuiltIn() {
  static const std::vector<Bytes> levels = {ToBytes(AsBytes("sbat,1,2024010900\nshim,4\n")),
                                            ToBytes(AsBytes("sbat,1,2025021800\nshim,4\n"))};
  return levels;
}

std::string Applied(std::string_view variable, SbatPolicy policy) {
  return AppliedSbatLevel(variable, BuiltIn(), policy).value_or("error");
}

TEST(AppliedSbatLevel, LaterDatestampWins) {
  using enum SbatPolicy;
  EXPECT_THAT(Applied("", kAutomatic), HasSubstr("2024010900"));
  EXPECT_THAT(Applied("", kLatest), HasSubstr("2025021800"));
  EXPECT_THAT(Applied("sbat,1,2021030218\n", kAutomatic), HasSubstr("2024010900"));
  EXPECT_EQ(Applied("sbat,1,2024010900\nmine,1\n", kAutomatic), "sbat,1,2024010900\nmine,1\n");
  EXPECT_THAT(Applied("sbat,1,2024010900\n", kLatest), HasSubstr("2025021800"));
  EXPECT_EQ(Applied("sbat,1,2029010100\n", kLatest), "sbat,1,2029010100\n");
  EXPECT_EQ(Applied("sbat,2,2021030218\n", kLatest), "sbat,2,2021030218\n");
}

TEST(AppliedSbatLevel, VariableThatIsNoLevelIsReplaced) {
  EXPECT_THAT(Applied("rubbish", SbatPolicy::kAutomatic), HasSubstr("2024010900"));
}

TEST(AppliedSbatLevel, ShimWithoutLevelsLeavesTheVariable) {
  EXPECT_EQ(*AppliedSbatLevel("sbat,1,2021030218\n", {}, SbatPolicy::kLatest),
            "sbat,1,2021030218\n");
}

}  // namespace
}  // namespace vallum::firmware

// SPDX-License-Identifier: Apache-2.0
#include "firmware/shim.h"

#include <gtest/gtest.h>

namespace vallum::firmware {
namespace {

Bytes MakeVendorSection(uint32_t allowed_offset, uint32_t allowed_size) {
  ByteWriter out;
  out.U32Le(allowed_size).U32Le(2).U32Le(allowed_offset).U32Le(19);
  return std::move(out.Raw(AsBytes("abcde"))).Take();
}

TEST(VendorCert, BothPartsAreFoundByOffset) {
  const auto parsed = ParseVendorCertSection(MakeVendorSection(16, 3));
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(AsText(parsed->allowed), "abc");
  EXPECT_EQ(AsText(parsed->forbidden), "de");
}

TEST(VendorCert, PartOutsideTheSectionIsRefused) {
  EXPECT_EQ(ParseVendorCertSection(MakeVendorSection(16, 6)).error().code(), ErrorCode::kCorrupt);
  EXPECT_EQ(ParseVendorCertSection(MakeVendorSection(22, 1)).error().code(), ErrorCode::kCorrupt);
  EXPECT_FALSE(ParseVendorCertSection(MakeVendorSection(0xfffffff0, 0x20)).has_value());
  EXPECT_FALSE(ParseVendorCertSection(Bytes(15)).has_value());
}

Bytes MakeLevelSection(uint32_t version, uint32_t first, uint32_t second, std::string_view text) {
  ByteWriter out;
  return std::move(out.U32Le(version).U32Le(first).U32Le(second).Raw(AsBytes(text))).Take();
}

TEST(SbatLevel, LevelsEndAtTheirZero) {
  using namespace std::string_view_literals;
  const auto levels = ParseSbatLevelSection(MakeLevelSection(0, 8, 11, "ab\0cd\0"sv));
  ASSERT_TRUE(levels.has_value());
  ASSERT_EQ(levels->size(), 2U);
  EXPECT_EQ(AsText((*levels)[0]), "ab");
  EXPECT_EQ(AsText((*levels)[1]), "cd");
}

TEST(SbatLevel, WrongOffsetVersionOrMissingEndIsRefused) {
  using namespace std::string_view_literals;
  EXPECT_FALSE(ParseSbatLevelSection(MakeLevelSection(0, 8, 14, "ab\0cd\0"sv)).has_value());
  EXPECT_FALSE(ParseSbatLevelSection(MakeLevelSection(1, 8, 11, "ab\0cd\0"sv)).has_value());
  EXPECT_FALSE(ParseSbatLevelSection(MakeLevelSection(0, 8, 11, "ab\0cd"sv)).has_value());
  EXPECT_FALSE(ParseSbatLevelSection(Bytes(11)).has_value());
}

}  // namespace
}  // namespace vallum::firmware

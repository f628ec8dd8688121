// SPDX-License-Identifier: Apache-2.0
#include "base/units.h"

#include <gtest/gtest.h>

namespace vallum {
namespace {

TEST(ByteCount, ParsesBinaryUnits) {
  EXPECT_EQ(ParseByteCount("1024")->bytes(), 1024U);
  EXPECT_EQ(ParseByteCount("512M")->mib(), 512U);
  EXPECT_EQ(ParseByteCount("2 GiB")->mib(), 2048U);
  EXPECT_EQ(ParseByteCount("1.5k")->bytes(), 1536U);
}

TEST(ByteCount, RefusesWordsNegativesAndOverflow) {
  EXPECT_FALSE(ParseByteCount("big").has_value());
  EXPECT_FALSE(ParseByteCount("-1").has_value());
  EXPECT_FALSE(ParseByteCount("1X").has_value());
  EXPECT_FALSE(ParseByteCount("99999999P").has_value());
  EXPECT_FALSE(ParseByteCount("nan").has_value());
}

TEST(ByteCount, FormatsForPeople) {
  EXPECT_EQ(FormatByteCount(ByteCount::Bytes(512)), "512 B");
  EXPECT_EQ(FormatByteCount(ByteCount::MiB(1536)), "1.50 GiB");
  EXPECT_EQ(FormatByteCount(ByteCount::GiB(2)), "2 GiB");
}

TEST(PcrIndex, EndsAt23) {
  EXPECT_TRUE(PcrIndex::Create(23).has_value());
  EXPECT_FALSE(PcrIndex::Create(24).has_value());
  EXPECT_EQ(PcrIndex::Of<7>().value(), 7U);
}

}  // namespace
}  // namespace vallum

// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.h"

#include <gtest/gtest.h>

namespace vallum {
namespace {

TEST(ByteCursor, ReadsIntegersInBothByteOrders) {
  const Bytes data = *FromHex("0102030405060708");
  EXPECT_EQ(ByteCursor(data).ReadU64Be().value(), 0x0102030405060708U);
  EXPECT_EQ(ByteCursor(data).ReadU64Le().value(), 0x0807060504030201U);
  EXPECT_EQ(ByteCursor(data).ReadU32Be().value(), 0x01020304U);
  EXPECT_EQ(ByteCursor(data).ReadU16Le().value(), 0x0201U);
}

TEST(ByteCursor, FailedReadLeavesTheCursorUnmoved) {
  const Bytes data = *FromHex("010203");
  ByteCursor cursor(data);
  ASSERT_TRUE(cursor.ReadU8().has_value());
  EXPECT_FALSE(cursor.ReadU32Le().has_value());
  EXPECT_EQ(cursor.offset(), 1U);
  EXPECT_EQ(cursor.ReadU16Be().value(), 0x0203U);
  EXPECT_TRUE(cursor.AtEnd());
}

TEST(ByteCursor, SkipOfHugeCountDoesNotWrap) {
  const Bytes data(4);
  ByteCursor cursor(data);
  ASSERT_TRUE(cursor.Skip(2).has_value());
  EXPECT_FALSE(cursor.Skip(SIZE_MAX).has_value());
  EXPECT_EQ(cursor.offset(), 2U);
}

TEST(ByteCursor, SeekPastTheEndIsRefused) {
  const Bytes data(4);
  ByteCursor cursor(data);
  EXPECT_TRUE(cursor.Seek(4).has_value());
  EXPECT_FALSE(cursor.Seek(5).has_value());
}

TEST(ByteWriter, WritesWhatTheCursorReads) {
  ByteWriter writer;
  writer.U8(1).U16Le(2).U16Be(3).U32Le(4).U32Be(5).U64Le(6).U64Be(7).Zeros(2);
  ByteCursor cursor(writer.bytes());
  EXPECT_EQ(cursor.ReadU8().value(), 1U);
  EXPECT_EQ(cursor.ReadU16Le().value(), 2U);
  EXPECT_EQ(cursor.ReadU16Be().value(), 3U);
  EXPECT_EQ(cursor.ReadU32Le().value(), 4U);
  EXPECT_EQ(cursor.ReadU32Be().value(), 5U);
  EXPECT_EQ(cursor.ReadU64Le().value(), 6U);
  EXPECT_EQ(cursor.ReadU64Be().value(), 7U);
  EXPECT_EQ(cursor.remaining(), 2U);
}

TEST(Hex, RefusesOddLengthAndForeignCharacters) {
  EXPECT_FALSE(FromHex("abc").has_value());
  EXPECT_FALSE(FromHex("zz").has_value());
  EXPECT_EQ(ToHex(*FromHex("00FFab")), "00ffab");
}

TEST(Base64, RoundTripsEveryLengthAndMatchesRfc4648) {
  EXPECT_EQ(ToBase64(AsBytes("foobar")), "Zm9vYmFy");
  EXPECT_EQ(ToBase64(AsBytes("fooba")), "Zm9vYmE=");
  EXPECT_EQ(ToBase64(AsBytes("foob")), "Zm9vYg==");
  EXPECT_EQ(AsText(*FromBase64("Zm9vYg")), "foob");
  for (size_t n = 0; n < 9; ++n) {
    Bytes data(n, std::byte{0xfb});
    EXPECT_EQ(*FromBase64(ToBase64(data)), data);
    EXPECT_EQ(*FromBase64(ToBase64Url(data)), data);
  }
}

TEST(Base64, RefusesForeignCharactersAndHalfBytes) {
  EXPECT_FALSE(FromBase64("ab*d").has_value());
  EXPECT_FALSE(FromBase64("abcde").has_value());
}

}  // namespace
}  // namespace vallum

// SPDX-License-Identifier: Apache-2.0
#include "formats/crc32c.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <random>

#include "base/bytes.h"

namespace vallum::formats {
namespace {

// RFC 3720, appendix B.4, and the check value of the CRC catalogue.
TEST(Crc32c, OfTheKnownVectorsIsTheKnownValue) {
  Bytes ascending;
  Bytes descending;
  for (unsigned i = 0; i < 32; ++i) {
    ascending.push_back(static_cast<std::byte>(i));
    descending.push_back(static_cast<std::byte>(31 - i));
  }
  for (const auto crc : {&Crc32c, &Crc32cByTable}) {
    EXPECT_EQ(crc(ByteView(), 0), 0U);
    EXPECT_EQ(crc(AsBytes("123456789"), 0), 0xe3069283U);
    EXPECT_EQ(crc(Bytes(32), 0), 0x8a9136aaU);
    EXPECT_EQ(crc(Bytes(32, std::byte{0xff}), 0), 0x62a8ab43U);
    EXPECT_EQ(crc(ascending, 0), 0x46dd794eU);
    EXPECT_EQ(crc(descending, 0), 0x113fdb5cU);
  }
}

TEST(Crc32c, IsTheSameByTableByInstructionAndInPieces) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 500; ++round) {
    Bytes data(random() % 200);
    for (std::byte& b : data) b = static_cast<std::byte>(random());
    const ByteView view(data);
    const size_t cut = random() % (data.size() + 1);
    const uint32_t whole = Crc32c(view);
    EXPECT_EQ(Crc32cByTable(view), whole);
    EXPECT_EQ(Crc32c(view.subspan(cut), Crc32c(view.first(cut))), whole);
    EXPECT_EQ(Crc32cByTable(view.subspan(cut), Crc32c(view.first(cut))), whole);
  }
}

}  // namespace
}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
#include "measure/pcr.h"

#include <gtest/gtest.h>

namespace vallum::measure {
namespace {

TEST(ReplayPcr, NoExtendLeavesZeros) {
  EXPECT_EQ(*ReplayPcr(HashAlgorithm::kSha256, {}), Bytes(32));
}

// PCR 2, 3 and 6 of every OVMF boot: the separator alone.
TEST(ReplayPcr, SeparatorAloneGivesTheWellKnownValue) {
  const std::vector<Bytes> digests = {Digest(HashAlgorithm::kSha256, Bytes(4))};
  EXPECT_EQ(ToHex(*ReplayPcr(HashAlgorithm::kSha256, digests)),
            "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969");
}

TEST(ReplayPcr, OrderMatters) {
  const Bytes a(20, std::byte{1});
  const Bytes b(20, std::byte{2});
  EXPECT_NE(*ReplayPcr(HashAlgorithm::kSha1, std::vector<Bytes>{a, b}),
            *ReplayPcr(HashAlgorithm::kSha1, std::vector<Bytes>{b, a}));
}

TEST(ReplayPcr, DigestOfAnotherBankIsRefused) {
  EXPECT_EQ(ReplayPcr(HashAlgorithm::kSha256, std::vector<Bytes>{Bytes(20)}).error().code(),
            ErrorCode::kInvalidInput);
}

}  // namespace
}  // namespace vallum::measure

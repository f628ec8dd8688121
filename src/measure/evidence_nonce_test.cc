// SPDX-License-Identifier: Apache-2.0
#include "measure/evidence_nonce.h"

#include <gtest/gtest.h>

#include <vector>

namespace vallum::measure {
namespace {

Bytes Nonce(char content, size_t size = 20) { return Bytes(size, static_cast<std::byte>(content)); }

TEST(EvidenceNonceTest, OneNonceIsTakenAsItIs) {
  EXPECT_EQ(EvidenceNonce(std::vector(1, Nonce('a'))).value(), Nonce('a'));
}

// printf 'vallum evidence nonces v1\0\0\0\2\0\24aaaaaaaaaaaaaaaaaaaa\0\24bbbbbbbbbbbbbbbbbbbb' |
// sha256sum
TEST(EvidenceNonceTest, SeveralAreHashedWithTheirCountAndLengths) {
  EXPECT_EQ(ToHex(EvidenceNonce(std::vector{Nonce('a'), Nonce('b')}).value()),
            "d1832fbc0534638638f1db2e14ed9b21c5437b5b5694e2ae8d6f11a7b8f8dc8c");
}

TEST(EvidenceNonceTest, OrderMatters) {
  EXPECT_NE(EvidenceNonce(std::vector{Nonce('a'), Nonce('b')}).value(),
            EvidenceNonce(std::vector{Nonce('b'), Nonce('a')}).value());
}

TEST(EvidenceNonceTest, BoundariesBetweenNoncesMatter) {
  EXPECT_NE(EvidenceNonce(std::vector{Nonce('a', 20), Nonce('a', 21)}).value(),
            EvidenceNonce(std::vector{Nonce('a', 21), Nonce('a', 20)}).value());
}

TEST(EvidenceNonceTest, NoneIsRefused) { EXPECT_FALSE(EvidenceNonce({})); }

TEST(EvidenceNonceTest, OneThatIsTooShortIsRefused) {
  EXPECT_FALSE(EvidenceNonce(std::vector(1, Nonce('a', 19))));
}

TEST(EvidenceNonceTest, OneThatIsTooLongIsRefused) {
  EXPECT_FALSE(EvidenceNonce(std::vector(1, Nonce('a', 33))));
}

TEST(EvidenceNonceTest, MoreThanTheLimitIsRefused) {
  EXPECT_FALSE(EvidenceNonce(std::vector(kMaxEvidenceNonces + 1, Nonce('a'))));
}

}  // namespace
}  // namespace vallum::measure

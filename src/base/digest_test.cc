// SPDX-License-Identifier: Apache-2.0
#include "base/digest.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace vallum {
namespace {

TEST(Digest, MatchesTheFipsExamples) {
  EXPECT_EQ(ToHex(Digest(HashAlgorithm::kSha1, AsBytes("abc"))),
            "a9993e364706816aba3e25717850c26c9cd0d89d");
  EXPECT_EQ(ToHex(Sha256(AsBytes("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Digest(HashAlgorithm::kSha384, {}).size(), DigestSize(HashAlgorithm::kSha384));
  EXPECT_EQ(Digest(HashAlgorithm::kSha512, {}).size(), DigestSize(HashAlgorithm::kSha512));
}

TEST(Hasher, PiecesGiveTheDigestOfTheWhole) {
  Hasher hasher(HashAlgorithm::kSha256);
  hasher.Update(AsBytes("a"));
  hasher.Update(AsBytes("bc"));
  EXPECT_EQ(hasher.Finish(), Digest(HashAlgorithm::kSha256, AsBytes("abc")));
}

}  // namespace
}  // namespace vallum

// SPDX-License-Identifier: Apache-2.0
#include "base/secret_bytes.h"

#include <gtest/gtest.h>

#include <utility>

#include "base/bytes.h"

namespace vallum {
namespace {

TEST(SecretBytes, TakeAndWipeLeavesNothingInTheSource) {
  Bytes source = ToBytes(AsBytes("secret"));
  const std::byte* old = source.data();
  const SecretBytes secret = SecretBytes::TakeAndWipe(source);
  EXPECT_TRUE(source.empty());
  EXPECT_EQ(old[0], std::byte{0});  // the vector keeps its memory after clear()
  EXPECT_EQ(AsText(secret.Reveal(SecretAccess("test"))), "secret");
}

TEST(SecretBytes, MovedFromIsEmpty) {
  SecretBytes a(AsBytes("x"));
  const SecretBytes b(std::move(a));
  EXPECT_TRUE(a.empty());  // NOLINT(bugprone-use-after-move): the rule under test
  EXPECT_EQ(b.size(), 1U);
}

TEST(SecretBytes, EqualsComparesContentAndSize) {
  EXPECT_TRUE(SecretBytes(AsBytes("ab")).Equals(SecretBytes(AsBytes("ab"))));
  EXPECT_FALSE(SecretBytes(AsBytes("ab")).Equals(SecretBytes(AsBytes("ac"))));
  EXPECT_FALSE(SecretBytes(AsBytes("ab")).Equals(SecretBytes(AsBytes("abc"))));
}

}  // namespace
}  // namespace vallum

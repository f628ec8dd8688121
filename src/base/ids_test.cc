// SPDX-License-Identifier: Apache-2.0
#include "base/ids.h"

#include <gtest/gtest.h>

#include <string>

namespace vallum {
namespace {

TEST(Uid, IsAVersion4UuidAndDiffersEachTime) {
  const std::string uid = NewUid();
  EXPECT_TRUE(IsUid(uid));
  EXPECT_EQ(uid[14], '4');
  EXPECT_NE(uid, NewUid());
  EXPECT_FALSE(IsUid("not-a-uid"));
}

TEST(Name, AcceptsWhatIsSafeInAPath) {
  EXPECT_TRUE(ValidateName("instance", "web1").has_value());
  EXPECT_TRUE(ValidateName("instance", "a-b.c").has_value());
}

TEST(Name, RefusesPathsUpperCaseAndOverlongNames) {
  EXPECT_FALSE(ValidateName("instance", "").has_value());
  EXPECT_FALSE(ValidateName("instance", "..").has_value());
  EXPECT_FALSE(ValidateName("instance", "a/b").has_value());
  EXPECT_FALSE(ValidateName("instance", "Web").has_value());
  EXPECT_FALSE(ValidateName("instance", std::string(64, 'a')).has_value());
}

}  // namespace
}  // namespace vallum

// SPDX-License-Identifier: Apache-2.0
#include "measure/event_digest.h"

#include <gtest/gtest.h>

namespace vallum::measure {
namespace {

// The values that every UEFI event log shows; see docs/boot-measurement.md.
TEST(EventDigest, SecureBootOnGivesTheWellKnownDigest) {
  EXPECT_EQ(ToHex(VariableEventDigest(HashAlgorithm::kSha256, "SecureBoot",
                                      firmware::kGlobalVariableGuid, Bytes{std::byte{1}})),
            "ccfc4bb32888a345bc8aeadaba552b627d99348c767681ab3141f5b01e40a40e");
  EXPECT_EQ(ToHex(VariableEventDigest(HashAlgorithm::kSha1, "SecureBoot",
                                      firmware::kGlobalVariableGuid, Bytes{std::byte{1}})),
            "d4fdd1f14d4041494deb8fc990c45343d2277d08");
}

TEST(EventDigest, VariableDataCountsCharactersNotBytes) {
  EXPECT_EQ(ToHex(EncodeVariableData("db", firmware::kSecurityDatabaseGuid, AsBytes("x"))),
            "cbb219d73a3d9645a3bcdad00e67656f"
            "0200000000000000"
            "0100000000000000"
            "64006200"
            "78");
}

TEST(EventDigest, SeparatorsOfSuccessAndFailureDiffer) {
  EXPECT_EQ(ToHex(SeparatorDigest(HashAlgorithm::kSha256)),
            "df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119");
  EXPECT_NE(SeparatorDigest(HashAlgorithm::kSha256), ErrorSeparatorDigest(HashAlgorithm::kSha256));
}

TEST(EventDigest, ActionHasNoClosingZero) {
  EXPECT_EQ(ToHex(ActionDigest(HashAlgorithm::kSha256, "Calling EFI Application from Boot Option")),
            "3d6772b4f84ed47595d72a2c4c5ffd15f5bb72c7507fe26f2aaee2c69d5633ba");
}

}  // namespace
}  // namespace vallum::measure

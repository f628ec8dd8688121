// SPDX-License-Identifier: Apache-2.0
// What a TPM makes of a credential: swtpm_test.cc.
#include "attest/credential.h"

#include <gtest/gtest.h>

#include "attest/quote_builder.h"

namespace vallum::attest {
namespace {

TpmPublic MakeEndorsementKey() {
  static const SoftwareKey key = SoftwareKey::MakeRsa(KeyScheme::kRsassa, HashAlgorithm::kSha256);
  TpmPublic ek = key.Parsed();
  ek.attributes = static_cast<uint32_t>(KeyAttribute::kRestricted) |
                  static_cast<uint32_t>(KeyAttribute::kDecrypt);
  ek.symmetric = SymmetricCipher{.algorithm = 0x0006, .key_bits = 128};
  return ek;
}

Result<Credential> Make(const TpmPublic& ek) {
  return MakeCredential(ek, Bytes(34), SecretBytes(Bytes(16, std::byte{1})));
}

TEST(MakeCredential, SealsTheSecretToAnEndorsementKey) {
  const auto credential = Make(MakeEndorsementKey());
  ASSERT_TRUE(credential.has_value()) << credential.error().Describe();
  EXPECT_EQ(credential->encrypted_secret.size(), 2U + 256U);
}

// A host sends its key's numbers as it likes.
TEST(MakeCredential, AnEvenModulusIsRefused) {
  TpmPublic ek = MakeEndorsementKey();
  std::get<RsaPublic>(ek.key).modulus.back() &= std::byte{0xFE};
  const auto credential = Make(ek);
  ASSERT_FALSE(credential.has_value());
  EXPECT_EQ(credential.error().code(), ErrorCode::kInvalidInput);
}

TEST(MakeCredential, AKeyThatSignsIsRefused) {
  TpmPublic ek = MakeEndorsementKey();
  ek.attributes |= static_cast<uint32_t>(KeyAttribute::kSign);
  EXPECT_EQ(Make(ek).error().code(), ErrorCode::kDenied);
}

}  // namespace
}  // namespace vallum::attest

// SPDX-License-Identifier: Apache-2.0
#include "firmware/authenticode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <utility>

#include "firmware/test_keys.h"
#include "formats/pe.h"

namespace vallum::firmware {
namespace {

using formats::PeImage;
using formats::testing::HasTool;
using formats::testing::MustRun;
using formats::testing::ReadFile;
using formats::testing::WriteFile;
using ::testing::HasSubstr;
using testing::MakeProgram;
using testing::TestKeys;

// A signed program, its first signature and its digest.
struct Signed {
  explicit Signed(Bytes bytes) : file(std::move(bytes)) {
    const auto image = PeImage::Parse(file);
    EXPECT_TRUE(image.has_value() && !image->certificates().empty());
    pkcs7 = ToBytes(image->certificates().front().data);
    digest = *image->AuthenticodeDigest(HashAlgorithm::kSha256);
  }
  Bytes file;
  Bytes pkcs7;
  Bytes digest;
};

bool Trusts(const Signed& program, const Bytes& anchor) {
  const auto signature = ParseAuthenticode(program.pkcs7);
  const auto certificate = Certificate::Parse(anchor);
  return signature.has_value() && certificate.has_value() &&
         IsTrusted(*signature, program.digest, *certificate);
}

TEST(Authenticode, PublishedSignaturesCoverTheirPrograms) {
  const std::string dir = formats::testing::VectorsDir();
  if (dir.empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
  for (const char* name : {"HelloWorld.efi.signed", "test.pecoff.signed"}) {
    const Signed program(ReadFile(dir + "/uefi/" + name));
    const auto signature = ParseAuthenticode(program.pkcs7);
    ASSERT_TRUE(signature.has_value()) << signature.error().Describe();
    EXPECT_EQ(signature->algorithm, HashAlgorithm::kSha256);
    EXPECT_EQ(signature->digest, program.digest);
    EXPECT_TRUE(VerifySignature(*signature, program.digest).has_value()) << name;
    ASSERT_EQ(signature->message.signers().size(), 1U);
    EXPECT_TRUE(Trusts(program, signature->message.signers().front())) << name;
  }
}

class AuthenticodeBySbsign : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!HasTool("sbsign")) GTEST_SKIP() << "no sbsign";
    root_ = keys_.MakeAuthority("root");
  }
  TestKeys keys_;
  Bytes root_;
};

TEST_F(AuthenticodeBySbsign, EachCertificateOfTheChainIsAnAnchorAndNoOther) {
  const Bytes signer = keys_.MakeSigner("signer", "root");
  const Bytes other = keys_.MakeAuthority("other");
  const Signed program(keys_.Sign(MakeProgram(), "signer"));
  EXPECT_TRUE(Trusts(program, root_));
  EXPECT_TRUE(Trusts(program, signer));
  EXPECT_FALSE(Trusts(program, other));
}

TEST_F(AuthenticodeBySbsign, AuthorityOfTheSameNameWithAnotherKeyIsNotTrusted) {
  keys_.MakeSigner("signer", "root");
  const Signed program(keys_.Sign(MakeProgram(), "signer"));
  EXPECT_FALSE(Trusts(program, TestKeys().MakeAuthority("root")));
}

TEST_F(AuthenticodeBySbsign, ChainNeedsTheCertificatesBetweenOrEndsAtThem) {
  WriteFile(keys_.File("ca.ext"), ToBytes(AsBytes("basicConstraints=critical,CA:TRUE\n")));
  const Bytes middle =
      keys_.MakeSigner("middle", "root", "-days 9 -extfile " + keys_.File("ca.ext"));
  keys_.MakeSigner("signer", "middle");
  const Signed without(keys_.Sign(MakeProgram(), "signer"));
  EXPECT_TRUE(Trusts(without, middle));
  EXPECT_FALSE(Trusts(without, root_));
  const Signed with(keys_.Sign(MakeProgram(), "signer", "--addcert " + keys_.File("middle.crt")));
  EXPECT_TRUE(Trusts(with, middle));
  EXPECT_TRUE(Trusts(with, root_));
}

TEST_F(AuthenticodeBySbsign, CertificateThatIssuesWithoutBeingAnAuthorityIsRefused) {
  keys_.MakeSigner("leaf", "root");
  keys_.MakeSigner("signer", "leaf");
  WriteFile(keys_.File("x509v3.ext"), ToBytes(AsBytes("basicConstraints=critical,CA:FALSE\n")));
  keys_.MakeSigner("leaf", "root", "-days 9 -extfile " + keys_.File("x509v3.ext"));
  keys_.MakeSigner("signer", "leaf");
  const Signed program(keys_.Sign(MakeProgram(), "signer", "--addcert " + keys_.File("leaf.crt")));
  EXPECT_FALSE(Trusts(program, root_));
}

TEST_F(AuthenticodeBySbsign, ExpiryAndKeyUsageDoNotCount) {
  WriteFile(keys_.File("mail.ext"), ToBytes(AsBytes("extendedKeyUsage=emailProtection\n")));
  keys_.MakeSigner("mail", "root", "-days 9 -extfile " + keys_.File("mail.ext"));
  EXPECT_TRUE(Trusts(Signed(keys_.Sign(MakeProgram(), "mail")), root_));
  keys_.MakeSigner("expired", "root", "-days -1");
  EXPECT_TRUE(Trusts(Signed(keys_.Sign(MakeProgram(), "expired")), root_));
}

TEST_F(AuthenticodeBySbsign, ChangedProgramIsSaidToBeChanged) {
  Signed program(keys_.Sign(MakeProgram(), "root"));
  program.digest.front() ^= std::byte{1};
  const auto signature = ParseAuthenticode(program.pkcs7);
  const auto valid = VerifySignature(*signature, program.digest);
  ASSERT_FALSE(valid.has_value());
  EXPECT_THAT(valid.error().message(), HasSubstr("changed after signing"));
  EXPECT_FALSE(Trusts(program, root_));
}

TEST_F(AuthenticodeBySbsign, SignatureWithAnotherDigestPutInIsRefused) {
  Signed program(keys_.Sign(MakeProgram(), "root"));
  const std::string_view text = AsText(program.pkcs7);
  const size_t at = text.find(AsText(program.digest));
  ASSERT_NE(at, std::string_view::npos);
  program.pkcs7[at] ^= std::byte{1};
  program.digest[0] ^= std::byte{1};
  const auto signature = ParseAuthenticode(program.pkcs7);
  ASSERT_TRUE(signature.has_value());
  EXPECT_FALSE(VerifySignature(*signature, program.digest).has_value());
  EXPECT_FALSE(Trusts(program, root_));
}

TEST_F(AuthenticodeBySbsign, DamageIsRefusedAndNeverTrusted) {
  const Signed program(keys_.Sign(MakeProgram(), "root"));
  const Bytes& whole = program.pkcs7;
  for (size_t size = 0; size < whole.size() - 8; size += 7) {
    EXPECT_FALSE(ParseAuthenticode(ByteView(whole).first(size)).has_value()) << size;
  }
  std::minstd_rand random(1);
  for (int i = 0; i < 300; ++i) {
    Signed damaged = program;
    const size_t at = random() % whole.size();
    damaged.pkcs7[at] ^= std::byte{static_cast<uint8_t>(1U << random() % 8)};
    const auto signature = ParseAuthenticode(damaged.pkcs7);
    if (signature.has_value() && Trusts(damaged, root_)) {
      EXPECT_EQ(signature->digest, program.digest) << at;  // what is damaged is not signed
    }
  }
}

TEST_F(AuthenticodeBySbsign, SignedDataWithoutItsHeaderIsNoSignature) {
  const Signed program(keys_.Sign(MakeProgram(), "root"));
  // 30 82 LL LL 06 09 ... a0 82 LL LL stand before the SignedData.
  EXPECT_FALSE(ParseAuthenticode(ByteView(program.pkcs7).subspan(19)).has_value());
}

TEST_F(AuthenticodeBySbsign, MessageOverOtherContentIsNoSignature) {
  WriteFile(keys_.File("text"), ToBytes(AsBytes("text")));
  MustRun("openssl smime -sign -binary -nodetach -outform der -in " + keys_.File("text") +
          " -signer " + keys_.File("root.crt") + " -inkey " + keys_.File("root.key") + " -out " +
          keys_.File("message"));
  const auto signature = ParseAuthenticode(ReadFile(keys_.File("message")));
  ASSERT_FALSE(signature.has_value());
  EXPECT_THAT(signature.error().message(), HasSubstr("another type"));
}

TEST_F(AuthenticodeBySbsign, CertificateKnowsWhatItIssuedAndItself) {
  const Bytes signer = keys_.MakeSigner("signer", "root");
  const auto root = Certificate::Parse(root_);
  ASSERT_TRUE(root.has_value());
  EXPECT_TRUE(root->Issued(signer));
  EXPECT_TRUE(root->Issued(root_));
  EXPECT_FALSE(root->Issued(keys_.MakeAuthority("other")));
  EXPECT_FALSE(root->Issued(Bytes(100)));
  EXPECT_EQ(root->CommonName(), "CN=root");
  EXPECT_EQ(Certificate::Parse(signer)->IssuerName(), "CN=root");
}

TEST_F(AuthenticodeBySbsign, SignedPartIsCutOutOfTheCertificate) {
  MustRun("openssl asn1parse -inform der -in " + keys_.File("root.der") + " -strparse 4 -out " +
          keys_.File("tbs") + " -noout");
  EXPECT_EQ(Certificate::Parse(root_)->ToBeSigned(), ReadFile(keys_.File("tbs")));
}

TEST_F(AuthenticodeBySbsign, CertificateForModulesIsKnown) {
  WriteFile(keys_.File("m.ext"), ToBytes(AsBytes("extendedKeyUsage=1.3.6.1.4.1.2312.16.1.2\n")));
  const Bytes modules = keys_.MakeSigner("m", "root", "-days 9 -extfile " + keys_.File("m.ext"));
  EXPECT_TRUE(Certificate::Parse(modules)->IsForModulesOnly());
  EXPECT_FALSE(Certificate::Parse(root_)->IsForModulesOnly());
}

}  // namespace
}  // namespace vallum::firmware

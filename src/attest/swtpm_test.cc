// SPDX-License-Identifier: Apache-2.0
// Quotes and credentials with a real TPM 2.0 implementation at the other end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "attest/credential.h"
#include "attest/ek_template.h"
#include "attest/quote.h"
#include "attest/quote_key.h"
#include "attest/serialized_pcrs.h"
#include "attest/tpm_under_test.h"

namespace vallum::attest {
namespace {

using ::testing::ElementsAre;

constexpr const char* kFlush = " && tpm2_flushcontext -t";
constexpr const char* kNonce = "00112233445566778899aabbccddeeff";

class SwtpmTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!TpmUnderTest::Available()) GTEST_SKIP() << "swtpm or tpm2-tools are absent";
  }

  // An EK by tpm2-tools' default template, and an attestation key below it.
  static void MakeKeys(TpmUnderTest& tpm, const std::string& ek, const std::string& ak,
                       const std::string& hash, const std::string& scheme) {
    tpm.Run("tpm2_createek -Q -c ek.ctx -G " + ek + " -u ek.pub" + kFlush);
    tpm.Run("tpm2_createak -Q -C ek.ctx -c ak.ctx -G " + ak + " -g " + hash + " -s " + scheme +
            " -u ak.pub -n ak.name" + kFlush);
  }

  static void Quote(TpmUnderTest& tpm, const std::string& pcrs, const std::string& hash,
                    const std::string& scheme) {
    tpm.Run("tpm2_quote -Q -c ak.ctx -l " + pcrs + " -q " + kNonce + " -g " + hash + " --scheme " +
            scheme + " -m quote.msg -s quote.sig -o quote.pcrs -F serialized" + kFlush);
  }

  static QuoteVerdict Verify(const TpmUnderTest& tpm, const PcrBanks& pcrs,
                             const QuoteExpectation& expectation) {
    const auto ak = ParseTpm2bPublic(tpm.Read("ak.pub"));
    EXPECT_TRUE(ak.has_value()) << ak.error().Describe();
    const auto key = QuoteKey::Create(*ak);
    EXPECT_TRUE(key.has_value()) << key.error().Describe();
    const Bytes message = tpm.Read("quote.msg");
    const Bytes signature = tpm.Read("quote.sig");
    return VerifyQuote(*key, {message, signature, SignatureFormat::kTpmt, pcrs}, expectation);
  }

  static PcrBanks Values(const TpmUnderTest& tpm) {
    const auto pcrs = ParseSerializedPcrs(tpm.Read("quote.pcrs"));
    EXPECT_TRUE(pcrs.has_value()) << pcrs.error().Describe();
    return *pcrs;
  }

  static QuoteExpectation Expect(const std::string& pcrs) {
    QuoteExpectation out;
    out.nonce = FromHex(kNonce).value();
    out.pcrs = measure::ParsePcrSelections(pcrs).value();
    return out;
  }

  static std::vector<QuoteReason> Reasons(const QuoteVerdict& verdict) {
    std::vector<QuoteReason> out;
    for (const QuoteFinding& each : verdict.rejections) out.push_back(each.reason);
    return out;
  }
};

struct QuoteCase {
  const char* key;
  const char* hash;
  const char* scheme;
  const char* pcrs;
};

TEST_F(SwtpmTest, QuotesOfEveryKindAreBelieved) {
  const QuoteCase cases[] = {
      {"rsa", "sha256", "rsassa", "sha256:0,1,2,3,4,5,6,7,8,9,10,17"},
      {"rsa", "sha256", "rsapss", "sha256:0,7+sha384:0,7,23"},
      {"rsa3072", "sha384", "rsapss", "sha384:0,1,2,3,4,5,6,7,8"},
      {"ecc", "sha256", "ecdsa", "sha1:10+sha256:0,7"},
      {"ecc384", "sha384", "ecdsa", "sha384:0,1,7+sha512:0"},
      {"ecc256", "sha384", "ecdsa", "sha256:0"},
  };
  for (const QuoteCase& each : cases) {
    SCOPED_TRACE(std::string(each.key) + " " + each.scheme + " " + each.hash);
    TpmUnderTest tpm;
    tpm.Run("tpm2_pcrextend 7:sha256=" + std::string(64, '7') + ",sha384=" + std::string(96, '8'));
    MakeKeys(tpm, "rsa", each.key, each.hash, each.scheme);
    Quote(tpm, each.pcrs, each.hash, each.scheme);
    QuoteExpectation expectation = Expect(each.pcrs);
    expectation.sha1 = Sha1Policy::kAccepted;
    const auto ek = ParseTpm2bPublic(tpm.Read("ek.pub"));
    const auto ak = ParseTpm2bPublic(tpm.Read("ak.pub"));
    ASSERT_TRUE(ek.has_value() && ak.has_value());
    EXPECT_EQ(ak->Name(), tpm.Read("ak.name"));
    expectation.signer =
        SignerNamed{QualifiedName(QualifiedName(Hierarchy::kEndorsement, *ek), *ak)};
    const QuoteVerdict verdict = Verify(tpm, Values(tpm), expectation);
    EXPECT_THAT(Reasons(verdict), ElementsAre());
    EXPECT_EQ(verdict.pcrs, Values(tpm));
  }
}

TEST_F(SwtpmTest, QuoteThatSelectsABankTwiceIsBelieved) {
  TpmUnderTest tpm;
  tpm.Run("tpm2_pcrextend 7:sha256=" + std::string(64, '7'));
  MakeKeys(tpm, "rsa", "ecc256", "sha256", "ecdsa");
  Quote(tpm, "sha256:7+sha256:0", "sha256", "ecdsa");
  const QuoteVerdict verdict = Verify(tpm, Values(tpm), Expect("sha256:0,7"));
  EXPECT_THAT(Reasons(verdict), ElementsAre());
  EXPECT_EQ(verdict.pcrs, Values(tpm));
}

TEST_F(SwtpmTest, LiesAreRejectedWithTheirReason) {
  TpmUnderTest tpm;
  MakeKeys(tpm, "ecc", "ecc", "sha256", "ecdsa");
  // Beyond a reset only persistent keys stay.
  for (const char* key : {"ak", "ek"}) {
    tpm.Run("tpm2_evictcontrol -Q -c " + std::string(key) + ".ctx -o handle && mv handle " + key +
            ".ctx" + kFlush);
  }
  Quote(tpm, "sha256:0,7", "sha256", "ecdsa");
  const PcrBanks honest = Values(tpm);
  QuoteExpectation expectation = Expect("sha256:0,7");
  const QuoteVerdict first = Verify(tpm, honest, expectation);
  ASSERT_TRUE(first.Accepted());

  PcrBanks changed = honest;
  changed[HashAlgorithm::kSha256][PcrIndex::Of<7>()][0] ^= std::byte{1};
  EXPECT_THAT(Reasons(Verify(tpm, changed, expectation)),
              ElementsAre(QuoteReason::kPcrDigestMismatch));

  // A replay answers another nonce than the one of today.
  QuoteExpectation fresh = expectation;
  fresh.nonce = Bytes(16, std::byte{7});
  EXPECT_THAT(Reasons(Verify(tpm, honest, fresh)), ElementsAre(QuoteReason::kNonceMismatch));

  const Bytes old_message = tpm.Read("quote.msg");
  const Bytes old_signature = tpm.Read("quote.sig");
  tpm.Reset();
  Quote(tpm, "sha256:0,7", "sha256", "ecdsa");
  expectation.previous = first.signed_quote->clock;
  const QuoteVerdict second = Verify(tpm, Values(tpm), expectation);
  EXPECT_THAT(Reasons(second), ElementsAre());
  EXPECT_TRUE(second.Has(QuoteNote::kRebooted));

  // The one of before the reset again.
  expectation.previous = second.signed_quote->clock;
  tpm.Write("quote.msg", old_message);
  tpm.Write("quote.sig", old_signature);
  EXPECT_THAT(Reasons(Verify(tpm, honest, expectation)),
              ElementsAre(QuoteReason::kResetCountWentBackwards));

  // Another key of the same TPM.
  tpm.Run("tpm2_createak -Q -C ek.ctx -c other.ctx -G ecc -g sha256 -s ecdsa -u ak.pub" +
          std::string(kFlush));
  EXPECT_THAT(Reasons(Verify(tpm, honest, Expect("sha256:0,7"))),
              ElementsAre(QuoteReason::kSignatureInvalid));
}

TEST_F(SwtpmTest, PlainSignaturesAndValuesAreBelieved) {
  for (const auto& [key, scheme] : {std::pair("rsa", "rsassa"), std::pair("ecc", "ecdsa")}) {
    TpmUnderTest tpm;
    MakeKeys(tpm, "rsa", key, "sha256", scheme);
    tpm.Run("tpm2_quote -Q -c ak.ctx -l sha256:0,7+sha384:1 -q " + std::string(kNonce) +
            " -m quote.msg -s quote.sig -f plain -o quote.pcrs -F values" + kFlush);
    const QuoteExpectation expectation = Expect("sha256:0,7+sha384:1");
    const auto pcrs = ParsePcrValues(tpm.Read("quote.pcrs"), expectation.pcrs);
    ASSERT_TRUE(pcrs.has_value()) << pcrs.error().Describe();
    const auto ready = QuoteKey::Create(ParseTpm2bPublic(tpm.Read("ak.pub")).value());
    const Bytes message = tpm.Read("quote.msg");
    const Bytes signature = tpm.Read("quote.sig");
    const QuoteVerdict verdict =
        VerifyQuote(*ready, {message, signature, SignatureFormat::kPlain, *pcrs}, expectation);
    EXPECT_THAT(Reasons(verdict), ElementsAre()) << key;
  }
}

TEST_F(SwtpmTest, DefaultTemplatesMakeTheKeysOfTheTools) {
  for (const auto& [kind, which] :
       {std::pair("rsa", EkTemplate::kRsa2048), std::pair("ecc", EkTemplate::kEcP256)}) {
    TpmUnderTest tpm;
    tpm.Run("tpm2_createek -Q -c ek.ctx -G " + std::string(kind) + " -u ek.pub" + kFlush);
    const auto ek = ParseTpm2bPublic(tpm.Read("ek.pub"));
    ASSERT_TRUE(ek.has_value()) << ek.error().Describe();
    EXPECT_THAT(CheckEkPublic(*ek), ElementsAre());
    const Bytes bytes = EkTemplateBytes(which);
    // All but the unique field.
    const size_t unique = which == EkTemplate::kRsa2048 ? 2 + 256 : 2 * (2 + 32);
    ASSERT_EQ(ek->encoded.size(), bytes.size());
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end() - static_cast<ptrdiff_t>(unique),
                           ek->encoded.begin()));
  }
}

class ActivationTest : public SwtpmTest {
 protected:
  // What the TPM decrypts; empty: it refuses.
  static Bytes Activate(TpmUnderTest& tpm, const Credential& credential) {
    ByteWriter file;  // tpm2-tools' header: magic, version
    file.U32Be(0xBADCC0DE).U32Be(1).Raw(credential.id_object).Raw(credential.encrypted_secret);
    tpm.Write("credential", file.bytes());
    tpm.Run(
        "rm -f out; tpm2_flushcontext -t; tpm2_startauthsession -Q --policy-session -S s.ctx && "
        "tpm2_policysecret -Q -S s.ctx -c e");
    tpm.Try("tpm2_activatecredential -Q -c ak.ctx -C ek.ctx -i credential -o out -P session:s.ctx");
    tpm.Run("tpm2_flushcontext s.ctx; tpm2_flushcontext -t");
    return tpm.Read("out");
  }
};

TEST_F(ActivationTest, TheTpmWithEkAndAkReadsTheSecret) {
  for (const char* kind : {"rsa", "ecc"}) {
    SCOPED_TRACE(kind);
    TpmUnderTest tpm;
    MakeKeys(tpm, kind, "ecc", "sha256", "ecdsa");
    const auto ek = ParseTpm2bPublic(tpm.Read("ek.pub"));
    const auto ak = ParseTpm2bPublic(tpm.Read("ak.pub"));
    for (const size_t size : {size_t{1}, size_t{20}, size_t{32}}) {
      const SecretBytes secret = SecretBytes::Random(size);
      const auto credential = MakeCredential(*ek, ak->Name(), secret);
      ASSERT_TRUE(credential.has_value()) << credential.error().Describe();
      EXPECT_EQ(ToHex(Activate(tpm, *credential)),
                ToHex(secret.Reveal(SecretAccess("comparing in a test"))));
    }
  }
}

TEST_F(ActivationTest, AnotherKeysNameIsRefused) {
  TpmUnderTest tpm;
  MakeKeys(tpm, "rsa", "ecc", "sha256", "ecdsa");
  const auto ek = ParseTpm2bPublic(tpm.Read("ek.pub"));
  Bytes name = ParseTpm2bPublic(tpm.Read("ak.pub"))->Name();
  name.back() ^= std::byte{1};
  const auto credential = MakeCredential(*ek, name, SecretBytes::Random(16));
  EXPECT_TRUE(Activate(tpm, *credential).empty());
}

TEST_F(ActivationTest, AnotherTpmIsRefused) {
  TpmUnderTest mine;
  TpmUnderTest other;
  MakeKeys(mine, "ecc", "ecc", "sha256", "ecdsa");
  MakeKeys(other, "ecc", "ecc", "sha256", "ecdsa");
  const auto ek = ParseTpm2bPublic(other.Read("ek.pub"));
  const auto ak = ParseTpm2bPublic(mine.Read("ak.pub"));
  EXPECT_TRUE(Activate(mine, *MakeCredential(*ek, ak->Name(), SecretBytes::Random(16))).empty());
}

TEST_F(ActivationTest, HighRangeEkOnP384ReadsTheSecret) {
  TpmUnderTest tpm;
  // As template H-3: SHA-384, P-384, AES 256; the empty password in place of its policy.
  tpm.Run(
      "tpm2_createprimary -Q -C e -g sha384 -G ecc384:null:aes256cfb -c ek.ctx -a "
      "'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt' && "
      "tpm2_readpublic -Q -c ek.ctx -o ek.pub && tpm2_flushcontext -t");
  tpm.Run(
      "tpm2_createprimary -Q -C e -g sha256 -G ecc:ecdsa-sha256:null -c ak.ctx -a "
      "'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign' && "
      "tpm2_readpublic -Q -c ak.ctx -o ak.pub && tpm2_flushcontext -t");
  const auto ek = ParseTpm2bPublic(tpm.Read("ek.pub"));
  ASSERT_TRUE(ek.has_value()) << ek.error().Describe();
  const auto ak = ParseTpm2bPublic(tpm.Read("ak.pub"));
  const SecretBytes secret = SecretBytes::Random(48);
  const auto credential = MakeCredential(*ek, ak->Name(), secret);
  ASSERT_TRUE(credential.has_value()) << credential.error().Describe();
  ByteWriter file;
  file.U32Be(0xBADCC0DE).U32Be(1).Raw(credential->id_object).Raw(credential->encrypted_secret);
  tpm.Write("credential", file.bytes());
  tpm.Run("tpm2_activatecredential -Q -c ak.ctx -C ek.ctx -i credential -o out");
  EXPECT_EQ(ToHex(tpm.Read("out")), ToHex(secret.Reveal(SecretAccess("comparing in a test"))));
}

}  // namespace
}  // namespace vallum::attest

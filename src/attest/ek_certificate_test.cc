// SPDX-License-Identifier: Apache-2.0
#include "attest/ek_certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/objects.h>
#include <openssl/pem.h>

#include <memory>
#include <string>
#include <utility>

#include "attest/ek_chain.h"
#include "attest/openssl.h"
#include "attest/quote_builder.h"
#include "base/check.h"
#include "base/digest.h"

namespace vallum::attest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using X509Ptr = std::unique_ptr<X509, Freer<X509_free>>;
using Reason = EkCertificateReason;

const TpmCertificate::Time kNow(std::chrono::seconds(1'700'000'000));

// Keys take long to make.
const SoftwareKey& RootKey() {
  static const SoftwareKey key = SoftwareKey::MakeEc(EcCurve::kP256, HashAlgorithm::kSha256);
  return key;
}
const SoftwareKey& MiddleKey() {
  static const SoftwareKey key = SoftwareKey::MakeEc(EcCurve::kP384, HashAlgorithm::kSha256);
  return key;
}
const SoftwareKey& EkKey() {
  static const SoftwareKey key = SoftwareKey::MakeRsa(KeyScheme::kRsassa, HashAlgorithm::kSha256);
  return key;
}

struct Recipe {
  std::string subject = "EK";
  std::string issuer = "Middle";
  const SoftwareKey* key = &EkKey();
  const SoftwareKey* signer = &MiddleKey();
  const char* not_before = "20200101000000Z";
  const char* not_after = "99991231235959Z";
  long serial = 7;
  const char* basic_constraints = "critical,CA:FALSE";
  const char* key_usage = "critical,keyEncipherment";
  const char* extended_key_usage = "2.23.133.8.1";
  bool named_oaep = false;
  bool with_maker = true;
  bool unknown_critical = false;
  const EVP_MD* hash = EVP_sha256();
};

Recipe MiddleRecipe() {
  return {.subject = "Middle",
          .issuer = "Root",
          .key = &MiddleKey(),
          .signer = &RootKey(),
          .basic_constraints = "critical,CA:TRUE,pathlen:0",
          .key_usage = "critical,keyCertSign",
          .extended_key_usage = nullptr,
          .with_maker = false};
}
Recipe RootRecipe() {
  Recipe recipe = MiddleRecipe();
  recipe.subject = "Root";
  recipe.key = &RootKey();
  recipe.basic_constraints = "critical,CA:TRUE";
  return recipe;
}

void SetName(X509_NAME* name, const std::string& common_name) {
  CHECK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                   reinterpret_cast<const unsigned char*>(common_name.data()),
                                   static_cast<int>(common_name.size()), -1, 0) == 1);
}

void AddExtension(X509* x509, int nid, const char* value) {
  if (value == nullptr) return;
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value);
  CHECK(extension != nullptr && X509_add_ext(x509, extension, -1) == 1);
  X509_EXTENSION_free(extension);
}

// A critical subject alternative name with TCG's attributes, as manufacturers have it.
void AddMaker(X509* x509) {
  X509_NAME* name = X509_NAME_new();
  for (const auto& [oid, value] :
       {std::pair("2.23.133.2.1", "id:49465800"), std::pair("2.23.133.2.2", "SLB9670"),
        std::pair("2.23.133.2.3", "id:00070055")}) {
    ASN1_OBJECT* object = OBJ_txt2obj(oid, 1);
    CHECK(X509_NAME_add_entry_by_OBJ(name, object, V_ASN1_UTF8STRING,
                                     reinterpret_cast<const unsigned char*>(value), -1, -1,
                                     0) == 1);
    ASN1_OBJECT_free(object);
  }
  GENERAL_NAME* general = GENERAL_NAME_new();
  GENERAL_NAME_set0_value(general, GEN_DIRNAME, name);
  GENERAL_NAMES* names = sk_GENERAL_NAME_new_null();
  sk_GENERAL_NAME_push(names, general);
  CHECK(X509_add1_ext_i2d(x509, NID_subject_alt_name, names, 1, X509V3_ADD_DEFAULT) == 1);
  GENERAL_NAMES_free(names);
}

void AddUnknownCritical(X509* x509) {
  ASN1_OBJECT* object = OBJ_txt2obj("1.3.6.1.4.1.99999.1", 1);
  ASN1_OCTET_STRING* content = ASN1_OCTET_STRING_new();
  X509_EXTENSION* extension = X509_EXTENSION_create_by_OBJ(nullptr, object, 1, content);
  CHECK(X509_add_ext(x509, extension, -1) == 1);
  X509_EXTENSION_free(extension);
  ASN1_OCTET_STRING_free(content);
  ASN1_OBJECT_free(object);
}

// RSAES-OAEP as the algorithm of the key: RFC 4055, section 4.
void NameOaep(X509* x509) {
  X509_PUBKEY* spki = X509_get_X509_PUBKEY(x509);
  const unsigned char* bits = nullptr;
  int size = 0;
  CHECK(X509_PUBKEY_get0_param(nullptr, &bits, &size, nullptr, spki) == 1);
  auto* copy = static_cast<unsigned char*>(OPENSSL_memdup(bits, static_cast<size_t>(size)));
  CHECK(X509_PUBKEY_set0_param(spki, OBJ_nid2obj(NID_rsaesOaep), V_ASN1_UNDEF, nullptr, copy,
                               size) == 1);
}

Bytes MakeDer(const Recipe& recipe) {
  const X509Ptr x509(X509_new());
  CHECK(X509_set_version(x509.get(), X509_VERSION_3) == 1);
  CHECK(ASN1_INTEGER_set(X509_get_serialNumber(x509.get()), recipe.serial) == 1);
  CHECK(ASN1_TIME_set_string_X509(X509_getm_notBefore(x509.get()), recipe.not_before) == 1);
  CHECK(ASN1_TIME_set_string_X509(X509_getm_notAfter(x509.get()), recipe.not_after) == 1);
  SetName(X509_get_subject_name(x509.get()), recipe.subject);
  SetName(X509_get_issuer_name(x509.get()), recipe.issuer);
  CHECK(X509_set_pubkey(x509.get(), recipe.key->get()) == 1);
  if (recipe.named_oaep) NameOaep(x509.get());
  AddExtension(x509.get(), NID_basic_constraints, recipe.basic_constraints);
  AddExtension(x509.get(), NID_key_usage, recipe.key_usage);
  AddExtension(x509.get(), NID_ext_key_usage, recipe.extended_key_usage);
  if (recipe.with_maker) AddMaker(x509.get());
  if (recipe.unknown_critical) AddUnknownCritical(x509.get());
  CHECK(X509_sign(x509.get(), recipe.signer->get(), recipe.hash) > 0);
  unsigned char* der = nullptr;
  const int size = i2d_X509(x509.get(), &der);
  CHECK(size > 0);
  Bytes out = ToBytes(ViewOf(der, static_cast<size_t>(size)));
  OPENSSL_free(der);
  return out;
}

TpmCertificate Make(const Recipe& recipe) {
  auto parsed = TpmCertificate::Parse(MakeDer(recipe));
  EXPECT_TRUE(parsed.has_value()) << parsed.error().Describe();
  return *std::move(parsed);
}

struct Case {
  Recipe ek;
  Recipe middle = MiddleRecipe();
  Recipe root = RootRecipe();
  TpmKeyRole role = TpmKeyRole::kEndorsement;
  TpmCertificate::Time now = kNow;
  Sha1Policy sha1 = Sha1Policy::kRefused;

  EkCertificateVerdict Verify() const {
    const EkTrust trust({Make(root)}, {Make(middle)});
    return VerifyTpmCertificate(Make(ek), role, trust, now, sha1);
  }
  std::vector<Reason> Reasons() const {
    std::vector<Reason> out;
    for (const auto& each : Verify().rejections) out.push_back(each.reason);
    return out;
  }
};

TEST(EkCertificate, IsBelievedWhenEverythingHolds) {
  const EkCertificateVerdict verdict = Case{}.Verify();
  EXPECT_THAT(verdict.rejections, IsEmpty());
  EXPECT_THAT(verdict.chain, ElementsAre("CN=EK", "CN=Middle", "CN=Root"));
}

TEST(EkCertificate, TellsWhoMadeTheTpm) {
  const TpmCertificate certificate = Make({});
  EXPECT_EQ(certificate.maker().manufacturer, "id:49465800");
  EXPECT_EQ(certificate.maker().vendor, "IFX");
  EXPECT_EQ(certificate.maker().model, "SLB9670");
  EXPECT_EQ(certificate.maker().version, "id:00070055");
  EXPECT_EQ(Make(MiddleRecipe()).maker().vendor, "");
}

TEST(EkCertificate, NeverEndingValidityIsRead) {
  const TpmCertificate certificate = Make({});
  EXPECT_EQ(certificate.not_after().time_since_epoch().count(), 253402300799);
  Case later;
  later.now = TpmCertificate::Time(std::chrono::seconds(250'000'000'000));
  EXPECT_THAT(later.Reasons(), IsEmpty());
}

TEST(EkCertificate, NegativeSerialNumberIsRead) {
  Case test;
  test.ek.serial = -47;
  EXPECT_EQ(Make(test.ek).serial_hex(), "-2f");
  EXPECT_THAT(test.Reasons(), IsEmpty());
}

TEST(EkCertificate, FillOfAnNvAreaIsReadOver) {
  const Bytes der = MakeDer({});
  for (const std::byte fill : {std::byte{0}, std::byte{0xFF}}) {
    Bytes filled = der;
    filled.resize(der.size() + 300, fill);
    const auto parsed = TpmCertificate::Parse(filled);
    ASSERT_TRUE(parsed.has_value());
    EXPECT_EQ(parsed->der(), der);
    EXPECT_EQ(parsed->FingerprintSha256(), ToHex(Sha256(der)));
    filled.back() = std::byte{1};
    EXPECT_EQ(TpmCertificate::Parse(filled).error().code(), ErrorCode::kInvalidInput);
  }
}

TEST(EkCertificate, CutOrOversizedIsRefused) {
  Bytes der = MakeDer({});
  EXPECT_EQ(TpmCertificate::Parse(Bytes(kMaxTpmCertificate + 1)).error().code(),
            ErrorCode::kExhausted);
  der.pop_back();
  EXPECT_EQ(TpmCertificate::Parse(der).error().code(), ErrorCode::kInvalidInput);
  EXPECT_EQ(TpmCertificate::Parse({}).error().code(), ErrorCode::kInvalidInput);
}

TEST(EkCertificate, KeyNamedRsaesOaepIsAnRsaKey) {
  Case test;
  test.ek.named_oaep = true;
  const TpmCertificate certificate = Make(test.ek);
  ASSERT_TRUE(certificate.key().has_value());
  EXPECT_EQ(*certificate.key(), PublicKey::FromTpm(EkKey().Parsed()).value());
  EXPECT_THAT(test.Reasons(), IsEmpty());
  test.ek.signer = &RootKey();
  EXPECT_THAT(test.Reasons(), ElementsAre(Reason::kSignatureInvalid));
}

TEST(EkCertificate, RootNeedNotBeSelfSigned) {
  const EkTrust trust({Make(MiddleRecipe())}, {});
  EXPECT_TRUE(
      VerifyTpmCertificate(Make({}), TpmKeyRole::kEndorsement, trust, kNow, Sha1Policy::kRefused)
          .Accepted());
}

TEST(EkCertificate, IntermediateIsNoRoot) {
  const EkTrust trust({}, {Make(MiddleRecipe()), Make(RootRecipe())});
  const auto verdict =
      VerifyTpmCertificate(Make({}), TpmKeyRole::kEndorsement, trust, kNow, Sha1Policy::kRefused);
  EXPECT_TRUE(verdict.Has(Reason::kIssuerUnknown));
  EXPECT_THAT(verdict.chain, IsEmpty());
}

TEST(EkCertificate, OfUnknownIssuerIsRejectedByItsName) {
  Case test;
  test.ek.issuer = "Nobody";
  const auto verdict = test.Verify();
  ASSERT_THAT(verdict.rejections, SizeIs(1));
  EXPECT_EQ(verdict.rejections[0].reason, Reason::kIssuerUnknown);
  EXPECT_EQ(verdict.rejections[0].actual, "CN=Nobody");
}

TEST(EkCertificate, OfAnImpostorIsRejected) {
  Case test;
  test.ek.signer = &RootKey();
  EXPECT_THAT(test.Reasons(), ElementsAre(Reason::kSignatureInvalid));
}

TEST(EkCertificate, SelfSignedIsRejected) {
  Case test;
  test.ek.issuer = test.ek.subject;
  test.ek.signer = test.ek.key;
  EXPECT_THAT(test.Reasons(), ElementsAre(Reason::kIssuerUnknown));
}

TEST(EkCertificate, ExpiredIsRejectedWithItsTimes) {
  Case test;
  test.ek.not_after = "20230101000000Z";
  const auto verdict = test.Verify();
  ASSERT_THAT(verdict.rejections, SizeIs(1));
  EXPECT_EQ(verdict.rejections[0].reason, Reason::kExpired);
  EXPECT_EQ(verdict.rejections[0].expected, "valid at 2023-11-14T22:13:20Z");
  EXPECT_EQ(verdict.rejections[0].actual,
            "valid from 2020-01-01T00:00:00Z to 2023-01-01T00:00:00Z");
}

TEST(EkCertificate, NotYetValidIsRejected) {
  Case test;
  test.ek.not_before = "20300101000000Z";
  EXPECT_THAT(test.Reasons(), ElementsAre(Reason::kNotYetValid));
}

TEST(EkCertificate, OfExpiredIssuerIsRejected) {
  Case test;
  test.middle.not_after = "20230101000000Z";
  EXPECT_THAT(test.Reasons(), ElementsAre(Reason::kIssuerExpired));
}

TEST(EkCertificate, OfIssuerThatMayNotIssueIsRejected) {
  Case no_ca;
  no_ca.middle.basic_constraints = "critical,CA:FALSE";
  EXPECT_THAT(no_ca.Reasons(), ElementsAre(Reason::kIssuerNotCa));
  Case no_signing;
  no_signing.middle.key_usage = "critical,digitalSignature";
  EXPECT_THAT(no_signing.Reasons(), ElementsAre(Reason::kIssuerNotCa));
}

TEST(EkCertificate, LongerPathThanAllowedIsRejected) {
  Case test;
  test.root.basic_constraints = "critical,CA:TRUE,pathlen:0";
  EXPECT_THAT(test.Reasons(), ElementsAre(Reason::kPathTooLong));
}

TEST(EkCertificate, UnknownCriticalExtensionIsRejected) {
  Case test;
  test.ek.unknown_critical = true;
  EXPECT_THAT(test.Reasons(), ElementsAre(Reason::kCriticalExtensionUnknown));
}

TEST(EkCertificate, WeakSignatureIsBelievedOnlyIfThePolicySaysSo) {
  Case test;
  test.ek.hash = EVP_sha1();
  EXPECT_THAT(test.Reasons(), ElementsAre(Reason::kWeakSignature));
  test.sha1 = Sha1Policy::kAccepted;
  EXPECT_THAT(test.Reasons(), IsEmpty());
}

TEST(EkCertificate, SignatureOfTheRootIsNotLookedAt) {
  Case test;
  test.root.hash = EVP_sha1();
  EXPECT_THAT(test.Reasons(), IsEmpty());
}

TEST(EkCertificate, OfAnIssuerIsNoKeysCertificate) {
  Case test;
  test.ek = MiddleRecipe();
  EXPECT_THAT(test.Reasons(), ElementsAre(Reason::kIsCa, Reason::kKeyUsage));
}

TEST(EkCertificate, OfAnAttestationKeyIsNoEndorsementKeys) {
  Case test;
  test.ek.key_usage = "critical,digitalSignature";
  EXPECT_THAT(test.Reasons(), ElementsAre(Reason::kKeyUsage));
  test.role = TpmKeyRole::kAttestation;
  EXPECT_THAT(test.Reasons(), IsEmpty());
  test.ek.extended_key_usage = "2.23.133.8.3";
  EXPECT_THAT(test.Reasons(), IsEmpty());
  test.role = TpmKeyRole::kEndorsement;
  EXPECT_THAT(test.Reasons(), ElementsAre(Reason::kKeyUsage, Reason::kExtendedKeyUsage));
}

TEST(EkCertificate, ForOtherUsesIsRejected) {
  Case test;
  test.ek.extended_key_usage = "serverAuth";
  EXPECT_THAT(test.Reasons(), ElementsAre(Reason::kExtendedKeyUsage));
}

TEST(EkCertificate, WithoutUsesIsBelieved) {
  Case test;
  test.ek.extended_key_usage = nullptr;
  test.ek.key_usage = nullptr;
  test.ek.basic_constraints = nullptr;
  EXPECT_THAT(test.Reasons(), IsEmpty());
}

TEST(EkCertificate, OfAWeakKeyIsRejected) {
  const SoftwareKey weak = SoftwareKey::MakeRsa(KeyScheme::kRsassa, HashAlgorithm::kSha256, 1024);
  Case test;
  test.ek.key = &weak;
  EXPECT_THAT(test.Reasons(), ElementsAre(Reason::kWeakKey));
}

TEST(EkCertificate, OfAnUnsupportedKeyIsRejected) {
  Bytes der = MakeDer({});
  // 1.2.840.113549.1.1.1, rsaEncryption, becomes ...1.9.
  const Bytes oid = FromHex("06092a864886f70d010101").value();
  const auto found = std::search(der.begin(), der.end(), oid.begin(), oid.end());
  ASSERT_NE(found, der.end());
  found[10] = std::byte{9};
  const TpmCertificate certificate = TpmCertificate::Parse(der).value();
  const EkTrust trust({Make(RootRecipe())}, {Make(MiddleRecipe())});
  EXPECT_TRUE(
      VerifyTpmCertificate(certificate, TpmKeyRole::kEndorsement, trust, kNow, Sha1Policy::kRefused)
          .Has(Reason::kKeyUnsupported));
}

TEST(EkCertificate, OfAnotherKeyThanTheHostsIsRejected) {
  const EkTrust trust({Make(RootRecipe())}, {Make(MiddleRecipe())});
  const auto verify = [&](const SoftwareKey& key) {
    return VerifyEkCertificate(Make({}), key.Parsed(), trust, kNow, Sha1Policy::kRefused);
  };
  EXPECT_TRUE(verify(EkKey()).Accepted());
  EXPECT_TRUE(verify(RootKey()).Has(Reason::kKeyMismatch));
}

TEST(EkCertificate, EveryChangedByteIsRejectedOrRefused) {
  const EkTrust trust({Make(RootRecipe())}, {Make(MiddleRecipe())});
  const Bytes der = MakeDer({});
  for (size_t i = 0; i < der.size(); ++i) {
    Bytes changed = der;
    changed[i] ^= std::byte{1};
    const auto parsed = TpmCertificate::Parse(changed);
    if (!parsed.has_value()) continue;
    EXPECT_FALSE(
        VerifyTpmCertificate(*parsed, TpmKeyRole::kEndorsement, trust, kNow, Sha1Policy::kRefused)
            .Accepted())
        << i;
  }
}

std::string ToPem(const Bytes& der) {
  return "-----BEGIN CERTIFICATE-----\n" + ToBase64(der) + "\n-----END CERTIFICATE-----\n";
}

std::string Wrapped(const std::string& pem) {
  std::string out;
  size_t column = 0;
  for (const char c : pem) {
    out += c;
    column = c == '\n' ? 0 : column + 1;
    if (column == 64 && !out.ends_with("-")) {
      out += '\n';
      column = 0;
    }
  }
  return out;
}

TEST(CertificateBundle, OneThatCannotBeReadDoesNotKeepTheOthersOut) {
  const std::string text = "roots\n" + Wrapped(ToPem(MakeDer(RootRecipe()))) +
                           Wrapped(ToPem(Bytes(100, std::byte{0x30}))) + "more\n" +
                           Wrapped(ToPem(MakeDer(MiddleRecipe())));
  const CertificateBundle bundle = ReadCertificateBundle(AsBytes(text));
  ASSERT_THAT(bundle.certificates, SizeIs(2));
  EXPECT_EQ(bundle.certificates[1].subject(), "CN=Middle");
  EXPECT_TRUE(bundle.certificates[1].SignedBy(bundle.certificates[0]));
  ASSERT_THAT(bundle.problems, SizeIs(1));
  EXPECT_THAT(bundle.problems[0], HasSubstr("certificate 2"));
}

TEST(CertificateBundle, OneDerCertificateIsRead) {
  EXPECT_THAT(ReadCertificateBundle(MakeDer({})).certificates, SizeIs(1));
  EXPECT_THAT(ReadCertificateBundle(AsBytes("nothing")).problems, SizeIs(1));
}

}  // namespace
}  // namespace vallum::attest

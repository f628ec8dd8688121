// SPDX-License-Identifier: Apache-2.0
#include "attest/platform_certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "attest/der.h"
#include "attest/platform_certificate_builder.h"
#include "attest/platform_verification.h"

namespace vallum::attest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Reason = PlatformCertificateReason;

const TpmCertificate::Time kNow(std::chrono::seconds(1'700'000'000));

// Keys take long to make.
const SoftwareKey& RootKey() {
  static const SoftwareKey key = SoftwareKey::MakeEc(EcCurve::kP256, HashAlgorithm::kSha256);
  return key;
}
const SoftwareKey& SignerKey() {
  static const SoftwareKey key = SoftwareKey::MakeEc(EcCurve::kP256, HashAlgorithm::kSha256);
  return key;
}
const SoftwareKey& OtherKey() {
  static const SoftwareKey key = SoftwareKey::MakeEc(EcCurve::kP256, HashAlgorithm::kSha256);
  return key;
}

PlatformRecipe MakeRecipe() {
  PlatformRecipe recipe;
  recipe.signer = &SignerKey();
  return recipe;
}

Result<PlatformCertificate> Parse(const PlatformRecipe& recipe) {
  return ParsePlatformCertificate(MakePlatformDer(recipe));
}

std::string ErrorOf(const PlatformRecipe& recipe) {
  const auto parsed = Parse(recipe);
  return parsed.has_value() ? "" : parsed.error().Describe();
}

TEST(PlatformCertificate, NamesItsHolderAndIssuer) {
  const auto certificate = Parse(MakeRecipe());
  ASSERT_TRUE(certificate.has_value()) << certificate.error().Describe();
  EXPECT_EQ(certificate->holder_issuer.text, "CN=Maker");
  EXPECT_EQ(certificate->holder_serial, "7");
  EXPECT_EQ(certificate->issuer.text, "CN=Signer");
  EXPECT_EQ(certificate->serial, "9");
  EXPECT_EQ(certificate->signature_algorithm, "ecdsa-with-SHA256");
  EXPECT_EQ(certificate->not_before.time_since_epoch().count(), 1577836800);
  EXPECT_EQ(certificate->not_after.time_since_epoch().count(), 2240611199);
}

TEST(PlatformCertificate, DescribesThePlatform) {
  const auto certificate = Parse(MakeRecipe());
  ASSERT_TRUE(certificate.has_value()) << certificate.error().Describe();
  EXPECT_EQ(certificate->manufacturer, "ACME");
  EXPECT_EQ(certificate->model, "Server 9");
  EXPECT_EQ(certificate->version, "rev A");
  EXPECT_EQ(certificate->platform_serial, "SN123");
  EXPECT_EQ(certificate->Kind(), PlatformCertificateKind::kBase);
  EXPECT_EQ(certificate->specification->version, (SpecificationVersion{2, 0, 1}));
  EXPECT_EQ(ToHex(certificate->specification->platform_class), "00000001");
  EXPECT_EQ(certificate->credential_specification, (SpecificationVersion{1, 1, 19}));
  EXPECT_EQ(certificate->configuration_uri, "https://c/");
  EXPECT_THAT(certificate->unread_attributes, ElementsAre("2.23.133.2.19"));
}

TEST(PlatformCertificate, ListsComponentsAndProperties) {
  const auto certificate = Parse(MakeRecipe());
  ASSERT_TRUE(certificate.has_value()) << certificate.error().Describe();
  ASSERT_EQ(certificate->components.size(), 2U);
  const PlatformComponent& disk = certificate->components[0];
  EXPECT_EQ(disk.class_registry, "2.23.133.18.3.1");
  EXPECT_EQ(ToHex(disk.class_value), "00060004");
  EXPECT_EQ(disk.manufacturer, "ACME");
  EXPECT_EQ(disk.model, "disk");
  EXPECT_EQ(disk.serial, "S1");
  EXPECT_EQ(disk.revision, "R2");
  EXPECT_EQ(disk.manufacturer_id, "1.3.6.1.4.1.343");
  EXPECT_EQ(disk.replaceable, FieldReplaceable::kYes);
  EXPECT_THAT(disk.addresses, ElementsAre(ComponentAddress{"2.23.133.17.1", "8C0F6F72C6C5"}));
  EXPECT_EQ(disk.change, PlatformChange::kModified);
  EXPECT_EQ(certificate->components[1].model, "board");
  EXPECT_EQ(certificate->components[1].replaceable, FieldReplaceable::kUnsaid);
  EXPECT_EQ(certificate->components_uri, "https://a/");
  EXPECT_THAT(certificate->properties, ElementsAre(PlatformProperty{"vPro", "true"}));
  EXPECT_EQ(certificate->properties_uri, "https://b/");
}

TEST(PlatformCertificate, IsReadFromPem) {
  const std::string text = "-----BEGIN ATTRIBUTE CERTIFICATE-----\n" +
                           ToBase64(MakePlatformDer(MakeRecipe())) +
                           "\n-----END ATTRIBUTE CERTIFICATE-----\n";
  std::string wrapped;
  for (size_t i = 0; i < text.size(); ++i) {
    wrapped += text[i];
    if (i > 40 && i % 64 == 0 && text[i] != '\n' && i + 40 < text.size()) wrapped += '\n';
  }
  const auto certificate = ReadPlatformCertificate(AsBytes(wrapped));
  ASSERT_TRUE(certificate.has_value()) << certificate.error().Describe();
  EXPECT_EQ(certificate->model, "Server 9");
}

TEST(PlatformCertificate, OtherPemIsRefused) {
  const auto certificate = ReadPlatformCertificate(
      AsBytes("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"));
  ASSERT_FALSE(certificate.has_value());
  EXPECT_THAT(certificate.error().Describe(), HasSubstr("ATTRIBUTE CERTIFICATE"));
}

TEST(PlatformCertificate, IsRefusedByNameWhereAKeysCertificateIsDue) {
  const auto certificate = TpmCertificate::Parse(MakePlatformDer(MakeRecipe()));
  ASSERT_FALSE(certificate.has_value());
  EXPECT_THAT(certificate.error().Describe(), HasSubstr("platform certificate"));
}

TEST(PlatformCertificate, EachCutIsRefused) {
  const Bytes der = MakePlatformDer(MakeRecipe());
  for (size_t size = 0; size < der.size(); ++size) {
    EXPECT_FALSE(ParsePlatformCertificate(ByteView(der).first(size)).has_value()) << size;
  }
}

TEST(PlatformCertificate, BytesBehindItAreRefused) {
  Bytes der = MakePlatformDer(MakeRecipe());
  der.push_back(std::byte{0});
  EXPECT_FALSE(ParsePlatformCertificate(der).has_value());
}

TEST(PlatformCertificate, LargeOneIsRefusedUnread) {
  const auto parsed = ParsePlatformCertificate(Bytes(kMaxPlatformCertificate + 1));
  EXPECT_EQ(parsed.error().code(), ErrorCode::kExhausted);
}

TEST(PlatformCertificate, OtherVersionIsRefused) {
  PlatformRecipe recipe = MakeRecipe();
  recipe.version = 0;
  EXPECT_THAT(ErrorOf(recipe), HasSubstr("version 2"));
}

TEST(PlatformCertificate, DateOfNoCalendarIsRefused) {
  PlatformRecipe recipe = MakeRecipe();
  recipe.not_after = "20230229000000Z";
  EXPECT_THAT(ErrorOf(recipe), HasSubstr("no date"));
}

TEST(PlatformCertificate, DateWithASignIsRefused) {
  PlatformRecipe recipe = MakeRecipe();
  recipe.not_after = "202301-1000000Z";
  EXPECT_THAT(ErrorOf(recipe), HasSubstr("no date"));
}

TEST(PlatformCertificate, TwoSignatureAlgorithmsAreRefused) {
  PlatformRecipe recipe = MakeRecipe();
  recipe.outer_algorithm = Der(der::kSequence, {DerOid("1.2.840.10045.4.1")});
  EXPECT_THAT(ErrorOf(recipe), HasSubstr("algorithms"));
}

TEST(PlatformCertificate, AttributeThatIsTwiceIsRefused) {
  PlatformRecipe recipe = MakeRecipe();
  recipe.attributes = MakeAttributes();
  recipe.attributes.push_back(recipe.attributes[0]);
  EXPECT_THAT(ErrorOf(recipe), HasSubstr("twice"));
}

TEST(PlatformCertificate, ConfigurationsOfTwoVersionsAreRefused) {
  PlatformRecipe recipe = MakeRecipe();
  recipe.attributes = MakeAttributes();
  recipe.attributes.push_back(DerAttribute("2.23.133.5.1.7.1", Der(der::kSequence, {})));
  EXPECT_THAT(ErrorOf(recipe), HasSubstr("twice"));
}

TEST(PlatformCertificate, ExtensionThatIsTwiceIsRefused) {
  PlatformRecipe recipe = MakeRecipe();
  recipe.extensions = MakeExtensions();
  recipe.extensions.push_back(recipe.extensions[0]);
  EXPECT_THAT(ErrorOf(recipe), HasSubstr("twice"));
}

TEST(PlatformCertificate, TooManyPropertiesAreRefused) {
  const Bytes property =
      Der(der::kSequence, {DerText(der::kUtf8String, "a"), DerText(der::kUtf8String, "b")});
  const std::vector<Bytes> many(kMaxPlatformProperties + 1, property);
  PlatformRecipe recipe = MakeRecipe();
  recipe.attributes = {
      DerAttribute("2.23.133.5.1.7.2", Der(der::kSequence, {Der(der::ContextOf(2), many)}))};
  EXPECT_EQ(Parse(recipe).error().code(), ErrorCode::kExhausted);
}

TEST(PlatformCertificate, LongTextIsRefused) {
  PlatformRecipe recipe = MakeRecipe();
  const Bytes property =
      Der(der::kSequence, {DerText(der::kUtf8String, std::string(kMaxPlatformText + 1, 'a')),
                           DerText(der::kUtf8String, "b")});
  recipe.attributes = {
      DerAttribute("2.23.133.5.1.7.2", Der(der::kSequence, {Der(der::ContextOf(2), {property})}))};
  EXPECT_EQ(Parse(recipe).error().code(), ErrorCode::kExhausted);
}

TEST(PlatformCertificate, ControlCharactersAreWrittenOut) {
  PlatformRecipe recipe = MakeRecipe();
  const Bytes name = DerName("2.23.133.5.1.4", "a\x1b[2J");
  recipe.extensions = {
      DerExtension("2.5.29.17", false, Der(der::kSequence, {Der(der::ContextOf(4), {name})}))};
  EXPECT_EQ(Parse(recipe)->model, "a\\x1b[2J");
}

// Version 1.0 of the profile: no class, and no URI between components and properties.
TEST(PlatformCertificate, ConfigurationOfVersion1IsRead) {
  PlatformRecipe recipe = MakeRecipe();
  const Bytes component =
      Der(der::kSequence, {DerText(der::kUtf8String, "ACME"), DerText(der::kUtf8String, "CPU")});
  const Bytes property =
      Der(der::kSequence, {DerText(der::kUtf8String, "AMT"), DerText(der::kUtf8String, "no")});
  recipe.attributes = {DerAttribute(
      "2.23.133.5.1.7.1",
      Der(der::kSequence, {Der(der::ContextOf(0), {component}), Der(der::ContextOf(1), {property}),
                           Der(der::ContextOf(2), {DerText(der::kIa5String, "u")})}))};
  const auto certificate = Parse(recipe);
  ASSERT_TRUE(certificate.has_value()) << certificate.error().Describe();
  EXPECT_EQ(certificate->components[0].model, "CPU");
  EXPECT_THAT(certificate->properties, ElementsAre(PlatformProperty{"AMT", "no"}));
  EXPECT_EQ(certificate->properties_uri, "u");
  EXPECT_EQ(certificate->Kind(), PlatformCertificateKind::kUnstated);
}

TEST(DerReader, LengthsThatAreNotTheShortestAreRefused) {
  for (const char* hex : {"0480", "048100", "04817f", "04820080", "0485000000000100", "1f0100"}) {
    const Bytes bytes = FromHex(hex).value();
    EXPECT_FALSE(DerReader(bytes).Read().has_value()) << hex;
  }
}

TEST(DerReader, ObjectIdentifiersAreOfWholeShortestArcs) {
  EXPECT_EQ(*OidFromDer(FromHex("6781050801").value()), "2.23.133.8.1");
  EXPECT_EQ(*OidFromDer(FromHex("883703").value()), "2.999.3");
  for (const char* hex : {"", "67", "678105088001", "6781", "67ffffffffffffffffffff7f"}) {
    if (std::string_view(hex) == "67") continue;  // an arc of two is one
    EXPECT_FALSE(OidFromDer(FromHex(hex).value()).has_value()) << hex;
  }
}

struct Case {
  PlatformRecipe platform = MakeRecipe();
  CertificateRecipe ek = {
      .subject = "", .issuer = "Maker", .key = &OtherKey(), .signer = &OtherKey()};
  CertificateRecipe signer = {.subject = "Signer",
                              .issuer = "Root",
                              .key = &SignerKey(),
                              .signer = &RootKey(),
                              .key_usage = "critical,digitalSignature"};
  CertificateRecipe root = {.subject = "Root",
                            .issuer = "Root",
                            .key = &RootKey(),
                            .signer = &RootKey(),
                            .basic_constraints = "critical,CA:TRUE",
                            .key_usage = "critical,keyCertSign"};
  TpmCertificate::Time now = kNow;
  Sha1Policy sha1 = Sha1Policy::kRefused;

  PlatformCertificateVerdict Verify() const {
    const auto parsed = Parse(platform);
    EXPECT_TRUE(parsed.has_value()) << parsed.error().Describe();
    const EkTrust trust({MakeCertificate(root)}, {MakeCertificate(signer)});
    return VerifyPlatformCertificate(*parsed, MakeCertificate(ek), trust, now, sha1);
  }
  std::vector<Reason> Reasons() const {
    std::vector<Reason> out;
    for (const auto& each : Verify().rejections) out.push_back(each.reason);
    return out;
  }
};

Bytes TargetExtension(const std::string& serial) {
  const Bytes name = Der(der::ContextOf(4), {DerName("2.5.4.5", serial)});
  const Bytes target = Der(der::ContextOf(0), {name});
  return DerExtension("2.5.29.55", true, Der(der::kSequence, {Der(der::kSequence, {target})}));
}

TEST(VerifyPlatformCertificate, BelievesWhenEverythingHolds) {
  const PlatformCertificateVerdict verdict = Case{}.Verify();
  EXPECT_THAT(verdict.rejections, IsEmpty());
  EXPECT_THAT(verdict.chain, ElementsAre("CN=Signer", "CN=Root"));
}

TEST(VerifyPlatformCertificate, RootMaySignItself) {
  Case given;
  given.platform.issuer = DerName("2.5.4.3", "Root");
  given.platform.signer = &RootKey();
  EXPECT_THAT(given.Reasons(), IsEmpty());
}

TEST(VerifyPlatformCertificate, AnotherSerialNumberIsAnotherHolder) {
  Case given;
  given.ek.serial = 8;
  EXPECT_THAT(given.Reasons(), ElementsAre(Reason::kHolderDiffers));
}

TEST(VerifyPlatformCertificate, AnotherIssuerIsAnotherHolder) {
  Case given;
  given.ek.issuer = "Another maker";
  EXPECT_THAT(given.Reasons(), ElementsAre(Reason::kHolderDiffers));
}

TEST(VerifyPlatformCertificate, DamagedSignatureIsRejected) {
  const Case given;
  auto parsed = Parse(given.platform);
  parsed->signed_part.back() ^= std::byte{1};
  const EkTrust trust({MakeCertificate(given.root)}, {MakeCertificate(given.signer)});
  const auto verdict = VerifyPlatformCertificate(*parsed, MakeCertificate(given.ek), trust, kNow,
                                                 Sha1Policy::kRefused);
  ASSERT_EQ(verdict.rejections.size(), 1U);
  EXPECT_EQ(verdict.rejections[0].reason, Reason::kSignatureInvalid);
}

TEST(VerifyPlatformCertificate, AnothersSignatureIsRejected) {
  Case given;
  given.platform.signer = &OtherKey();
  EXPECT_THAT(given.Reasons(), ElementsAre(Reason::kSignatureInvalid));
}

TEST(VerifyPlatformCertificate, UnknownIssuerIsRejected) {
  Case given;
  given.platform.issuer = DerName("2.5.4.3", "Nobody");
  EXPECT_THAT(given.Reasons(), ElementsAre(Reason::kIssuerUnknown));
}

TEST(VerifyPlatformCertificate, IssuerWithoutATrustedRootIsRejected) {
  Case given;
  given.root.key = &OtherKey();
  given.root.signer = &OtherKey();
  EXPECT_THAT(given.Reasons(), ElementsAre(Reason::kIssuerRejected));
}

TEST(VerifyPlatformCertificate, ExpiredIssuerIsRejected) {
  Case given;
  given.signer.not_after = "20210101000000Z";
  const auto verdict = given.Verify();
  ASSERT_EQ(verdict.rejections.size(), 1U);
  EXPECT_EQ(verdict.rejections[0].reason, Reason::kIssuerRejected);
  EXPECT_THAT(verdict.rejections[0].actual, HasSubstr("expired"));
}

TEST(VerifyPlatformCertificate, IssuerWhoseKeyIsNotForSigningIsRejected) {
  Case given;
  given.signer.key_usage = "critical,keyEncipherment";
  EXPECT_THAT(given.Reasons(), ElementsAre(Reason::kIssuerMayNotSign));
}

TEST(VerifyPlatformCertificate, Sha1NeedsThePolicyThatAcceptsIt) {
  Case given;
  given.platform.hash = "SHA1";
  EXPECT_THAT(given.Reasons(), ElementsAre(Reason::kWeakSignature));
  given.sha1 = Sha1Policy::kAccepted;
  EXPECT_THAT(given.Reasons(), IsEmpty());
}

TEST(VerifyPlatformCertificate, OutsideOfItsValidityItIsRejected) {
  Case given;
  given.platform.not_before = "20231114221321Z";  // a second after kNow
  EXPECT_THAT(given.Reasons(), ElementsAre(Reason::kNotYetValid));
  given.platform.not_before = "20200101000000Z";
  given.platform.not_after = "20231114221319Z";
  EXPECT_THAT(given.Reasons(), ElementsAre(Reason::kExpired));
}

TEST(VerifyPlatformCertificate, LastSecondOfItsValidityCounts) {
  Case given;
  given.platform.not_after = "20231114221320Z";
  EXPECT_THAT(given.Reasons(), IsEmpty());
}

TEST(VerifyPlatformCertificate, UnknownCriticalExtensionIsRejected) {
  Case given;
  given.platform.extensions = {DerExtension("1.3.6.1.4.1.99999.1", true, Bytes())};
  EXPECT_THAT(given.Reasons(), ElementsAre(Reason::kCriticalExtensionUnknown));
}

TEST(VerifyPlatformCertificate, UnknownExtensionThatIsNotCriticalIsReadOver) {
  Case given;
  given.platform.extensions = {DerExtension("1.3.6.1.4.1.99999.1", false, Bytes())};
  EXPECT_THAT(given.Reasons(), IsEmpty());
}

TEST(VerifyPlatformCertificate, TargetsNameTheEkInEitherBase) {
  Case given;
  given.ek.serial = 0x1f;
  given.platform.holder_serial = DerNumber(0x1f);
  for (const char* serial : {"1f", "1F", "001f", "31"}) {
    given.platform.extensions = {TargetExtension(serial)};
    EXPECT_THAT(given.Reasons(), IsEmpty()) << serial;
  }
}

TEST(VerifyPlatformCertificate, TargetOfAnotherEkIsRejected) {
  Case given;
  given.platform.extensions = {TargetExtension("8")};
  EXPECT_THAT(given.Reasons(), ElementsAre(Reason::kTargetDiffers));
}

TEST(VerifyPlatformCertificate, TargetOfAnotherKindIsRejected) {
  Case given;
  const Bytes group = Der(der::ContextOf(1), {DerText(der::Context(2), "example.org")});
  given.platform.extensions = {
      DerExtension("2.5.29.55", true, Der(der::kSequence, {Der(der::kSequence, {group})}))};
  EXPECT_THAT(given.Reasons(), ElementsAre(Reason::kTargetDiffers));
}

}  // namespace
}  // namespace vallum::attest

// SPDX-License-Identifier: Apache-2.0
// Platform certificates of the shared test vectors, against what another reader made of them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "attest/openssl.h"
#include "attest/platform_certificate.h"
#include "attest/platform_verification.h"
#include "attest/x509_text.h"
#include "base/text.h"

namespace vallum::attest {
namespace {

using Json = nlohmann::json;

std::string ReadVector(const std::string& name) {
  std::ifstream in(std::string(std::getenv("VALLUM_VECTORS")) + "/" + name, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// The number in decimal that stands behind a member's name: too large for JSON's numbers.
std::string DecimalBehind(const std::string& json, const std::string& member) {
  std::smatch found;
  const bool there = std::regex_search(json, found, std::regex("\"" + member + "\": ([0-9]+)"));
  return there ? found[1].str() : "";
}

std::string ToDecimal(const std::string& hex) {
  BIGNUM* number = nullptr;
  EXPECT_GT(BN_hex2bn(&number, hex.c_str()), 0) << hex;
  const BignumPtr owned(number);
  char* text = BN_bn2dec(number);
  std::string out(text);
  OPENSSL_free(text);
  return out;
}

void ExpectComponent(const PlatformComponent& component, const Json& expected) {
  EXPECT_EQ(Json(component.manufacturer), expected["Manufacturer"]);
  EXPECT_EQ(Json(component.model), expected["Model"]);
  EXPECT_EQ(Json(component.serial), expected["Serial"]);
  EXPECT_EQ(Json(component.revision), expected["Revision"]);
  EXPECT_EQ(Json(component.replaceable == FieldReplaceable::kYes), expected["FieldReplaceable"]);
  const Json& addresses = expected["Addresses"];
  ASSERT_EQ(component.addresses.size(), addresses.size());
  for (size_t i = 0; i < addresses.size(); ++i) {
    std::vector<std::string> arcs;
    for (const Json& arc : addresses[i]["AddressType"]) arcs.push_back(arc.dump());
    EXPECT_EQ(component.addresses[i].type, Join(arcs, "."));
    EXPECT_EQ(Json(component.addresses[i].value), addresses[i]["AddressValue"]);
  }
}

void ExpectPlatform(const PlatformCertificate& certificate, const Json& expected) {
  EXPECT_EQ(Json(certificate.manufacturer), expected["PlatformManufacturer"]);
  EXPECT_EQ(Json(certificate.model), expected["PlatformModel"]);
  EXPECT_EQ(Json(certificate.version), expected["PlatformVersion"]);
  EXPECT_EQ(Json(certificate.platform_serial), expected["PlatformSerial"]);
  const Json& version = expected["TCGPlatformSpecification"]["Version"];
  ASSERT_TRUE(certificate.specification.has_value());
  EXPECT_EQ(Json(certificate.specification->version.major), version["MajorVersion"]);
  EXPECT_EQ(Json(certificate.specification->version.minor), version["MinorVersion"]);
  EXPECT_EQ(Json(certificate.specification->version.revision), version["Revision"]);
  EXPECT_EQ(Json(certificate.properties_uri), expected["PropertiesURI"]);
  ASSERT_EQ(certificate.properties.size(), expected["Properties"].size());
  for (size_t i = 0; i < certificate.properties.size(); ++i) {
    EXPECT_EQ(Json(certificate.properties[i].name), expected["Properties"][i]["PropertyName"]);
    EXPECT_EQ(Json(certificate.properties[i].value), expected["Properties"][i]["PropertyValue"]);
  }
  ASSERT_EQ(certificate.components.size(), expected["Components"].size());
  for (size_t i = 0; i < certificate.components.size(); ++i) {
    ExpectComponent(certificate.components[i], expected["Components"][i]);
  }
}

TEST(PlatformCertificateVectors, AreReadAsByAnotherReader) {
  if (std::getenv("VALLUM_VECTORS") == nullptr) GTEST_SKIP() << "VALLUM_VECTORS is absent";
  size_t count = 0;
  for (const Json& entry : Json::parse(ReadVector("manifest.json"))) {
    if (entry["kind"] != "tcg_platform_attribute_certificate") continue;
    SCOPED_TRACE(entry["file"].get<std::string>());
    ++count;
    const std::string text = ReadVector(entry["expect"]["parsed"]);
    const Json expected = Json::parse(text);
    const auto certificate = ReadPlatformCertificate(AsBytes(ReadVector(entry["file"])));
    ASSERT_TRUE(certificate.has_value()) << certificate.error().Describe();
    ExpectPlatform(*certificate, expected);
    EXPECT_EQ(Json(TimeText(certificate->not_before)), expected["NotBefore"]);
    EXPECT_EQ(Json(TimeText(certificate->not_after)), expected["NotAfter"]);
    EXPECT_EQ(ToDecimal(certificate->serial), DecimalBehind(text, "SerialNumber"));
    EXPECT_EQ(ToDecimal(certificate->holder_serial), DecimalBehind(text, "Serial"));
    EXPECT_EQ(Json(ToBase64(certificate->signature)), expected["Signature"]);
    EXPECT_EQ(Json(ToBase64(certificate->signed_part)), expected["RawTBSAttributeCertificate"]);
    for (const Json& name : expected["Issuer"]["Names"]) {
      EXPECT_NE(certificate->issuer.text.find(name["Value"]), std::string::npos) << name;
    }
  }
  EXPECT_GE(count, 4U);
}

// The certificate names its issuer otherwise than the issuer's own certificate does.
TEST(PlatformCertificateVectors, ItsMakersSignatureIsGood) {
  if (std::getenv("VALLUM_VECTORS") == nullptr) GTEST_SKIP() << "VALLUM_VECTORS is absent";
  const std::string folder = "ekcerts/platform/";
  const auto signer =
      TpmCertificate::Parse(AsBytes(ReadVector(folder + "IntelSigningKey_20April2017.cer")));
  auto certificate = ReadPlatformCertificate(AsBytes(ReadVector(folder + "Intel_pc1.cer")));
  ASSERT_TRUE(signer.has_value() && certificate.has_value());
  const EkTrust trust({*signer}, {});
  const TpmCertificate::Time now(std::chrono::seconds(1'500'000'000));
  const auto verify = [&] {
    return VerifyPlatformCertificate(*certificate, *signer, trust, now, Sha1Policy::kAccepted);
  };
  EXPECT_TRUE(verify().Has(PlatformCertificateReason::kIssuerUnknown));
  unsigned char* der = nullptr;
  const int size = i2d_X509_NAME(X509_get_subject_name(signer->get()), &der);
  certificate->issuer.der = ToBytes(ViewOf(der, static_cast<size_t>(size)));
  OPENSSL_free(der);
  const auto verdict = verify();
  EXPECT_EQ(verdict.chain.size(), 1U);
  EXPECT_TRUE(verdict.Has(PlatformCertificateReason::kHolderDiffers));
  EXPECT_TRUE(verdict.Has(PlatformCertificateReason::kExpired));
  EXPECT_EQ(verdict.rejections.size(), 2U);
}

}  // namespace
}  // namespace vallum::attest

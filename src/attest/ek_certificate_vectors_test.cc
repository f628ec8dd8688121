// SPDX-License-Identifier: Apache-2.0
// Every certificate of the shared test vectors, against what their manifest says of it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "attest/ek_certificate.h"
#include "attest/ek_chain.h"
#include "base/text.h"

namespace vallum::attest {
namespace {

using Json = nlohmann::json;

std::string VectorsDir() {
  const char* given = std::getenv("VALLUM_VECTORS");
  return given == nullptr ? "" : given;
}

Bytes ReadVector(const std::string& name) {
  std::ifstream in(VectorsDir() + "/" + name, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return ToBytes(AsBytes(text.str()));
}

// "2022-11-23 18:33:43+00:00" or OpenSSL's "Jul 11 16:29:30 2032 GMT".
TpmCertificate::Time ParseTime(const std::string& text) {
  std::tm parts = {};
  const char* format = std::isdigit(static_cast<unsigned char>(text[0])) != 0
                           ? "%Y-%m-%d %H:%M:%S+00:00"
                           : "%b %d %H:%M:%S %Y GMT";
  EXPECT_NE(strptime(text.c_str(), format, &parts), nullptr) << text;
  return TpmCertificate::Time(std::chrono::seconds(::timegm(&parts)));
}

// "0x2a", "2A".
std::string Normalized(std::string serial) {
  serial = ToLower(serial);
  if (serial.starts_with("0x")) serial.erase(0, 2);
  return serial;
}

std::string KeyText(const PublicKey& key) {
  if (!key.Curve().has_value()) return "rsa" + std::to_string(key.Bits());
  return key.Bits() == 256 ? "ec-secp256r1" : "ec-secp" + std::to_string(key.Bits()) + "r1";
}

class EkCertificateVectors : public ::testing::Test {
 protected:
  struct Vector {
    Json expect;
    TpmCertificate certificate;
  };

  void SetUp() override {
    if (VectorsDir().empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
    for (const Json& entry : Json::parse(AsText(ReadVector("manifest.json")))) {
      const std::string file = entry["file"];
      if (entry["kind"] == "tcg_platform_attribute_certificate") platform_.push_back(file);
      if (entry["kind"] != "ek_or_ca_certificate") continue;
      const CertificateBundle bundle = ReadCertificateBundle(ReadVector(file));
      ASSERT_EQ(bundle.certificates.size(), 1U) << file;
      EXPECT_TRUE(bundle.problems.empty()) << file << bundle.problems[0];
      vectors_.emplace(file, Vector{entry["expect"], bundle.certificates[0]});
    }
    ASSERT_GE(vectors_.size(), 48U);
  }

  const Vector* ByFingerprint(const Json& fingerprint) const {
    for (const auto& [file, vector] : vectors_) {
      if (Json(vector.certificate.FingerprintSha256()) == fingerprint) return &vector;
    }
    return nullptr;
  }

  // All issuers of the certificate's folder; the self-signed ones are roots.
  EkTrust TrustOf(const std::string& file) const {
    const std::string folder = file.substr(0, file.rfind('/') + 1);
    std::vector<TpmCertificate> roots;
    std::vector<TpmCertificate> intermediates;
    for (const auto& [name, vector] : vectors_) {
      if (!name.starts_with(folder) || !vector.certificate.is_ca()) continue;
      (vector.expect["self_signed"] == true ? roots : intermediates).push_back(vector.certificate);
    }
    return {roots, intermediates};
  }

  std::map<std::string, Vector> vectors_;
  std::vector<std::string> platform_;
};

TEST_F(EkCertificateVectors, FieldsAreThoseOfTheManifest) {
  for (const auto& [file, vector] : vectors_) {
    SCOPED_TRACE(file);
    const TpmCertificate& certificate = vector.certificate;
    const Json& expect = vector.expect;
    EXPECT_EQ(Json(certificate.subject()), expect["subject"]);
    EXPECT_EQ(Json(certificate.issuer()), expect["issuer"]);
    EXPECT_EQ(certificate.serial_hex(), Normalized(expect["serial"]));
    EXPECT_EQ(certificate.not_before(), ParseTime(expect["not_before"]));
    EXPECT_EQ(certificate.not_after(), ParseTime(expect["not_after"]));
    EXPECT_EQ(Json(certificate.FingerprintSha256()), expect["fingerprint_sha256"]);
    ASSERT_TRUE(certificate.key().has_value());
    const std::string key = expect["key"];
    if (!key.starts_with("Public-Key")) {
      EXPECT_EQ(KeyText(*certificate.key()), key);
    } else {
      EXPECT_EQ("Public-Key: (" + std::to_string(certificate.key()->Bits()) + " bit)", key);
    }
    if (expect.contains("sig_hash")) {
      EXPECT_EQ(Json(certificate.signature_hash()), expect["sig_hash"]);
    }
    if (expect.contains("ca")) {
      EXPECT_EQ(certificate.is_ca(), expect["ca"] == true);
    }
    EXPECT_EQ(certificate.extended_key_usages(), expect.value("eku", std::vector<std::string>{}));
  }
}

TEST_F(EkCertificateVectors, SignersAreThoseOfTheManifest) {
  size_t checked = 0;
  for (const auto& [file, vector] : vectors_) {
    SCOPED_TRACE(file);
    EXPECT_EQ(vector.certificate.SignedBy(vector.certificate), vector.expect["self_signed"]);
    if (!vector.expect.contains("signed_by")) continue;
    for (const Json& signer : vector.expect["signed_by"]) {
      const Vector* issuer = ByFingerprint(signer["fingerprint_sha256"]);
      if (issuer == nullptr) continue;  // not among the files
      EXPECT_TRUE(vector.certificate.SignedBy(issuer->certificate));
      EXPECT_EQ(Json(issuer->certificate.subject()), signer["subject"]);
      ++checked;
    }
  }
  EXPECT_GE(checked, 20U);
}

TEST_F(EkCertificateVectors, KeysCertificatesAreJudgedAsTheManifestSays) {
  size_t judged = 0;
  for (const auto& [file, vector] : vectors_) {
    if (!vector.expect.contains("verdict")) continue;
    SCOPED_TRACE(file);
    const std::string role_text = vector.expect["role"];
    const bool ek = role_text.find("encryption") != std::string::npos;
    const TpmKeyRole role = ek ? TpmKeyRole::kEndorsement : TpmKeyRole::kAttestation;
    const TpmKeyRole other = ek ? TpmKeyRole::kAttestation : TpmKeyRole::kEndorsement;
    const EkTrust trust = TrustOf(file);
    const TpmCertificate& certificate = vector.certificate;
    const auto at = [&](TpmKeyRole for_role, TpmCertificate::Time time) {
      return VerifyTpmCertificate(certificate, for_role, trust, time, Sha1Policy::kRefused);
    };
    const std::string verdict_text = vector.expect["verdict"];
    const auto inside = certificate.not_before() + std::chrono::hours(24);
    const auto verdict = at(role, inside);
    EXPECT_EQ(verdict.Accepted(), verdict_text.starts_with("accepted"))
        << (verdict.Accepted() ? "" : verdict.rejections[0].what + verdict.rejections[0].actual);
    EXPECT_TRUE(at(role, certificate.not_before() - std::chrono::seconds(1))
                    .Has(EkCertificateReason::kNotYetValid));
    EXPECT_TRUE(at(role, certificate.not_after() + std::chrono::seconds(1))
                    .Has(EkCertificateReason::kExpired));
    EXPECT_TRUE(at(other, inside).Has(EkCertificateReason::kKeyUsage));
    ++judged;
  }
  EXPECT_GE(judged, 5U);
}

// Every issuer whose own issuer is known chains up to it, at a time when both are valid.
TEST_F(EkCertificateVectors, IssuersChainToTheirSigners) {
  for (const auto& [file, vector] : vectors_) {
    if (!vector.expect.contains("signed_by") || !vector.certificate.is_ca()) continue;
    for (const Json& signer : vector.expect["signed_by"]) {
      const Vector* issuer = ByFingerprint(signer["fingerprint_sha256"]);
      if (issuer == nullptr) continue;
      SCOPED_TRACE(file);
      const EkTrust trust({issuer->certificate}, {});
      const auto now = std::max(vector.certificate.not_before(), issuer->certificate.not_before()) +
                       std::chrono::hours(24);
      const auto verdict = VerifyTpmCertificate(vector.certificate, TpmKeyRole::kEndorsement, trust,
                                                now, Sha1Policy::kAccepted);
      EXPECT_EQ(verdict.chain.size(), 2U) << verdict.rejections[0].actual;
      EXPECT_TRUE(verdict.Has(EkCertificateReason::kIsCa));
    }
  }
}

TEST_F(EkCertificateVectors, PlatformCertificatesAreNoKeysCertificates) {
  EXPECT_GE(platform_.size(), 4U);
  for (const std::string& file : platform_) {
    const CertificateBundle bundle = ReadCertificateBundle(ReadVector(file));
    EXPECT_TRUE(bundle.certificates.empty()) << file;
    EXPECT_EQ(bundle.problems.size(), 1U) << file;
  }
}

}  // namespace
}  // namespace vallum::attest

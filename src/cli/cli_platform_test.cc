// SPDX-License-Identifier: Apache-2.0
// `attest platform-certificate`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "attest/platform_certificate_builder.h"
#include "cli/cli_rig.h"
#include "cli/output.h"

namespace vallum::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class PlatformCertificateCommand : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    static const auto kKey =
        attest::SoftwareKey::MakeEc(attest::EcCurve::kP256, HashAlgorithm::kSha256);
    attest::PlatformRecipe recipe;
    recipe.signer = &kKey;
    WriteBytes("platform.der", attest::MakePlatformDer(recipe));
    attest::CertificateRecipe ek = {
        .subject = "", .issuer = "Maker", .key = &kKey, .signer = &kKey};
    WriteBytes("ek.der", attest::MakeCertificate(ek).der());
    ek.serial = 8;
    WriteBytes("other.der", attest::MakeCertificate(ek).der());
    const attest::CertificateRecipe signer = {
        .subject = "Signer", .issuer = "Signer", .key = &kKey, .signer = &kKey};
    WriteBytes("signer.der", attest::MakeCertificate(signer).der());
  }
  void WriteBytes(const std::string& name, ByteView bytes) {
    Write(name, std::string(AsText(bytes)), 0644);
  }
  int Verify(const std::string& ek, const std::string& output = "table") {
    return Vallum({"attest", "platform-certificate", Path("platform.der"), "--ek", Path(ek),
                   "--issuer", Path("signer.der"), "-o", output});
  }
};

TEST_F(PlatformCertificateCommand, ShowsWhatItSaysUnverified) {
  EXPECT_EQ(Vallum({"attest", "platform-certificate", Path("platform.der")}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("ACME Server 9, version rev A, serial SN123"));
  EXPECT_THAT(out_.str(), Not(HasSubstr("8C0F")));
  EXPECT_THAT(out_.str(), HasSubstr("board"));
  EXPECT_THAT(out_.str(), HasSubstr("vPro = true"));
  EXPECT_THAT(out_.str(), HasSubstr("not verified"));
}

TEST_F(PlatformCertificateCommand, BelievesTheEksOwn) {
  EXPECT_EQ(Verify("ek.der"), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("verdict: believed, by CN=Signer"));
}

TEST_F(PlatformCertificateCommand, RefusesThatOfAnotherEk) {
  EXPECT_EQ(Verify("other.der"), 10) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("verdict: refused"));
  EXPECT_THAT(out_.str(), HasSubstr("holder_differs"));
}

TEST_F(PlatformCertificateCommand, JsonHasTheReasons) {
  EXPECT_EQ(Verify("other.der", "json"), 10) << err_.str();
  const Json report = Json::parse(out_.str());
  EXPECT_EQ(TextAt(report, "verification.verdict"), "refused");
  EXPECT_EQ(report["verification"]["reasons"][0]["id"], "holder_differs");
  EXPECT_EQ(report["components"][0]["class"], "00060004");
}

TEST_F(PlatformCertificateCommand, EkWithoutIssuerIsRefused) {
  EXPECT_EQ(
      Vallum({"attest", "platform-certificate", Path("platform.der"), "--ek", Path("ek.der")}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("--issuer"));
}

TEST_F(PlatformCertificateCommand, AKeysCertificateIsNone) {
  EXPECT_EQ(Vallum({"attest", "platform-certificate", Path("ek.der")}), 2);
}

}  // namespace
}  // namespace vallum::cli

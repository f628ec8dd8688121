// SPDX-License-Identifier: Apache-2.0
#include "attest/ek_template.h"

#include <utility>

#include "base/check.h"

namespace vallum::attest {
namespace {

constexpr uint16_t kSha256 = 0x000B;
constexpr uint16_t kAes = 0x0006;
constexpr uint16_t kCfb = 0x0043;
constexpr uint16_t kNull = 0x0010;
// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt.
constexpr uint32_t kAttributes = 0x000300B2;
constexpr uint16_t kRsaBits = 2048;
constexpr size_t kCoordinate = 32;

// H(H(0...0 || TPM_CC_PolicySecret || TPM_RH_ENDORSEMENT's name)), the empty policyRef hashed in:
// the value that the profile prints.
constexpr std::string_view kPolicyA =
    "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa";

}  // namespace

Bytes EkPolicyDigest() { return FromHex(kPolicyA).value(); }

Bytes EkTemplateBytes(EkTemplate which) {
  ByteWriter writer;
  writer.U16Be(which == EkTemplate::kRsa2048 ? 0x0001 : 0x0023).U16Be(kSha256).U32Be(kAttributes);
  const Bytes policy = EkPolicyDigest();
  writer.U16Be(static_cast<uint16_t>(policy.size())).Raw(policy);
  writer.U16Be(kAes).U16Be(128).U16Be(kCfb).U16Be(kNull);
  switch (which) {
    case EkTemplate::kRsa2048:
      writer.U16Be(kRsaBits).U32Be(0).U16Be(kRsaBits / 8).Zeros(kRsaBits / 8);
      break;
    case EkTemplate::kEcP256:
      writer.U16Be(static_cast<uint16_t>(EcCurve::kP256)).U16Be(kNull);
      writer.U16Be(kCoordinate).Zeros(kCoordinate).U16Be(kCoordinate).Zeros(kCoordinate);
      break;
  }
  return std::move(writer).Take();
}

uint32_t EkCertificateIndex(EkTemplate which) {
  switch (which) {
    case EkTemplate::kRsa2048:
      return 0x01C00002;
    case EkTemplate::kEcP256:
      return 0x01C0000A;
  }
  CHECK(false);
}

std::string_view EkProblemName(EkProblem problem) {
  switch (problem) {
    case EkProblem::kKind:
      return "kind";
    case EkProblem::kNameAlgorithm:
      return "name_algorithm";
    case EkProblem::kAttributes:
      return "attributes";
    case EkProblem::kPolicy:
      return "policy";
    case EkProblem::kSymmetric:
      return "symmetric";
    case EkProblem::kScheme:
      return "scheme";
    case EkProblem::kExponent:
      return "exponent";
  }
  return "unknown";
}

std::vector<EkProblem> CheckEkPublic(const TpmPublic& ek) {
  std::vector<EkProblem> problems;
  const auto require = [&problems](bool holds, EkProblem problem) {
    if (!holds) {
      problems.push_back(problem);
    }
  };
  const auto* rsa = std::get_if<RsaPublic>(&ek.key);
  const auto* ec = std::get_if<EcPublic>(&ek.key);
  require(rsa != nullptr ? rsa->bits == kRsaBits : ec->curve == EcCurve::kP256, EkProblem::kKind);
  require(ek.name_algorithm == HashAlgorithm::kSha256, EkProblem::kNameAlgorithm);
  require(ek.attributes == kAttributes, EkProblem::kAttributes);
  require(ek.auth_policy == EkPolicyDigest(), EkProblem::kPolicy);
  require(ek.symmetric == SymmetricCipher{.algorithm = kAes, .key_bits = 128},
          EkProblem::kSymmetric);
  require(ek.scheme == KeyScheme::kNull, EkProblem::kScheme);
  require(rsa == nullptr || rsa->exponent == 65537, EkProblem::kExponent);
  return problems;
}

}  // namespace vallum::attest

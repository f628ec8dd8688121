// SPDX-License-Identifier: Apache-2.0
#include "attest/quote_key.h"

#include <string>
#include <utility>

namespace vallum::attest {
namespace {

constexpr size_t kMinRsaBits = 2048;
constexpr HashAlgorithm kUsualHash = HashAlgorithm::kSha256;

bool Signs(KeyScheme scheme) {
  switch (scheme) {
    case KeyScheme::kRsassa:
    case KeyScheme::kRsapss:
    case KeyScheme::kEcdsa:
      return true;
    // Part 1, section 25.1.6: a restricted signing key has its scheme fixed when it is made.
    case KeyScheme::kNull:
    case KeyScheme::kRsaes:
    case KeyScheme::kOaep:
    case KeyScheme::kEcdh:
      return false;
  }
  return false;
}

}  // namespace

std::string_view QuoteKeyProblemName(QuoteKeyProblem problem) {
  switch (problem) {
    case QuoteKeyProblem::kNotSigningKey:
      return "not_signing_key";
    case QuoteKeyProblem::kDecryptKey:
      return "decrypt_key";
    case QuoteKeyProblem::kNotRestricted:
      return "not_restricted";
    case QuoteKeyProblem::kNotFixedTpm:
      return "not_fixed_tpm";
    case QuoteKeyProblem::kNotFixedParent:
      return "not_fixed_parent";
    case QuoteKeyProblem::kSensitiveDataFromOutside:
      return "sensitive_data_from_outside";
    case QuoteKeyProblem::kUnsuitableScheme:
      return "unsuitable_scheme";
    case QuoteKeyProblem::kWeakKey:
      return "weak_key";
  }
  return "unknown";
}

std::string_view DescribeProblem(QuoteKeyProblem problem) {
  switch (problem) {
    case QuoteKeyProblem::kNotSigningKey:
      return "it is not a signing key";
    case QuoteKeyProblem::kDecryptKey:
      return "it is a decrypt key, not a signing key";
    case QuoteKeyProblem::kNotRestricted:
      return "it is not restricted: its TPM signs forged quotes with it, too";
    case QuoteKeyProblem::kNotFixedTpm:
      return "it is not fixed to its TPM";
    case QuoteKeyProblem::kNotFixedParent:
      return "it is not fixed to its parent: it may be moved to another TPM";
    case QuoteKeyProblem::kSensitiveDataFromOutside:
      return "its private part was not made by the TPM";
    case QuoteKeyProblem::kUnsuitableScheme:
      return "its scheme is not RSASSA, RSAPSS or ECDSA";
    case QuoteKeyProblem::kWeakKey:
      return "it is an RSA key below 2048 bits";
  }
  return "unknown";
}

std::vector<QuoteKeyProblem> CheckQuoteKey(const TpmPublic& key) {
  std::vector<QuoteKeyProblem> problems;
  const auto require = [&problems](bool holds, QuoteKeyProblem problem) {
    if (!holds) {
      problems.push_back(problem);
    }
  };
  require(!key.Has(KeyAttribute::kDecrypt), QuoteKeyProblem::kDecryptKey);
  require(key.Has(KeyAttribute::kSign), QuoteKeyProblem::kNotSigningKey);
  require(key.Has(KeyAttribute::kRestricted), QuoteKeyProblem::kNotRestricted);
  require(key.Has(KeyAttribute::kFixedTpm), QuoteKeyProblem::kNotFixedTpm);
  require(key.Has(KeyAttribute::kFixedParent), QuoteKeyProblem::kNotFixedParent);
  require(key.Has(KeyAttribute::kSensitiveDataOrigin), QuoteKeyProblem::kSensitiveDataFromOutside);
  require(Signs(key.scheme), QuoteKeyProblem::kUnsuitableScheme);
  const auto* rsa = std::get_if<RsaPublic>(&key.key);
  require(rsa == nullptr || rsa->bits >= kMinRsaBits, QuoteKeyProblem::kWeakKey);
  return problems;
}

Result<QuoteKey> QuoteKey::Create(const TpmPublic& key) {
  std::string why;
  for (const QuoteKeyProblem problem : CheckQuoteKey(key)) {
    why += (why.empty() ? "" : "; ") + std::string(DescribeProblem(problem));
  }
  if (!why.empty()) {
    return Denied("the key cannot be used for quotes: " + why)
        .WithFix("quote with a restricted signing key that the TPM made, such as tpm2_createak's");
  }
  ASSIGN_OR_RETURN(PublicKey ready, PublicKey::FromTpm(key));
  ASSIGN_OR_RETURN(
      SignatureVerifier verifier,
      SignatureVerifier::Create(ready, key.scheme, key.scheme_hash.value_or(kUsualHash)));
  QuoteKey out(std::move(ready), std::move(verifier), Origin::kTpmPublic);
  out.scheme_ = key.scheme;
  out.scheme_hash_ = key.scheme_hash;
  return out;
}

Result<QuoteKey> QuoteKey::CreateUnchecked(PublicKey key) {
  if (key.IsRsa() && key.Bits() < kMinRsaBits) {
    return Denied("the key cannot be used for quotes: " +
                  std::string(DescribeProblem(QuoteKeyProblem::kWeakKey)));
  }
  const KeyScheme scheme = key.IsRsa() ? KeyScheme::kRsassa : KeyScheme::kEcdsa;
  ASSIGN_OR_RETURN(SignatureVerifier verifier, SignatureVerifier::Create(key, scheme, kUsualHash));
  return QuoteKey(std::move(key), std::move(verifier), Origin::kSubjectPublicKeyInfo);
}

}  // namespace vallum::attest

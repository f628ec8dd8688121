// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "attest/public_key.h"
#include "attest/signature.h"
#include "attest/tpm_public.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"

namespace vallum::attest {

// Why a quote by a key would prove nothing.
enum class QuoteKeyProblem {
  kNotSigningKey,             // sign is clear
  kDecryptKey,                // decrypt is set: an endorsement or storage key
  kNotRestricted,             // it would sign a forged quote, too
  kNotFixedTpm,               // may leave the TPM
  kNotFixedParent,            // may be moved to another TPM
  kSensitiveDataFromOutside,  // sensitiveDataOrigin is clear: somebody else may have the private
                              // key
  kUnsuitableScheme,          // the scheme does not sign
  kWeakKey,                   // RSA below 2048 bits
};
std::string_view QuoteKeyProblemName(QuoteKeyProblem problem);  // "decrypt_key", ...
// "it is a decrypt key, not a signing key".
std::string_view DescribeProblem(QuoteKeyProblem problem);

// All that makes a key unfit for quotes; empty for an attestation key.
// Source: TPM 2.0 Library part 1, sections 25.1.6 and 31.
std::vector<QuoteKeyProblem> CheckQuoteKey(const TpmPublic& key);

// An attestation key made ready once for many verifications. Cheap to copy; immutable, so shared
// between threads as it is.
class QuoteKey {
 public:
  // Where the key is from: a SubjectPublicKeyInfo does not say what its TPM would do with the key.
  enum class Origin { kTpmPublic, kSubjectPublicKeyInfo };

  // Errors: kDenied (not fit for quotes, naming every problem); kInvalidInput (point not on its
  // curve).
  static Result<QuoteKey> Create(const TpmPublic& key);
  // A key whose attributes nobody can check: whoever believes it knows them from elsewhere, such as
  // a certificate. Errors: kDenied (RSA below 2048 bits).
  static Result<QuoteKey> CreateUnchecked(PublicKey key);

  const PublicKey& key() const { return key_; }
  // Of the key's own scheme and hash; of RSASSA or ECDSA with SHA-256 where it has none.
  const SignatureVerifier& verifier() const { return verifier_; }
  Origin origin() const { return origin_; }
  // kNull, nothing: the signature says.
  KeyScheme scheme() const { return scheme_; }
  std::optional<HashAlgorithm> scheme_hash() const { return scheme_hash_; }

 private:
  QuoteKey(PublicKey key, SignatureVerifier verifier, Origin origin)
      : key_(std::move(key)), verifier_(std::move(verifier)), origin_(origin) {}

  PublicKey key_;
  SignatureVerifier verifier_;
  Origin origin_;
  KeyScheme scheme_ = KeyScheme::kNull;
  std::optional<HashAlgorithm> scheme_hash_;
};

}  // namespace vallum::attest

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <utility>

#include "attest/attestation.h"
#include "attest/public_key.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"

struct evp_pkey_ctx_st;

namespace vallum::attest {

// A key made ready for one scheme with one hash: OpenSSL takes longer to prepare an RSA
// verification than to do it. Cheap to copy; immutable, so shared between threads as it is.
class SignatureVerifier {
 public:
  // Errors: kInvalidInput (the scheme is not of that kind of key, or does not sign).
  static Result<SignatureVerifier> Create(const PublicKey& key, KeyScheme scheme,
                                          HashAlgorithm hash);

  KeyScheme scheme() const { return scheme_; }
  HashAlgorithm hash() const { return hash_; }

  // Whether a TPM's signature over a message is the key's; false for another scheme or hash. An
  // RSAPSS salt may have any size: TPMs differ (part 1, annex B.7).
  bool Verify(const Signature& signature, ByteView message) const;
  // The same without TPMT_SIGNATURE around it: RSA alone, or the DER of ECDSA.
  bool VerifyPlain(ByteView signature, ByteView message) const;

 private:
  SignatureVerifier(std::shared_ptr<evp_pkey_ctx_st> context, KeyScheme scheme, HashAlgorithm hash,
                    size_t field_size)
      : context_(std::move(context)), scheme_(scheme), hash_(hash), field_size_(field_size) {}

  std::shared_ptr<evp_pkey_ctx_st> context_;  // copied for each verification, never used
  KeyScheme scheme_;
  HashAlgorithm hash_;
  size_t field_size_;  // of the curve; 0: RSA
};

}  // namespace vallum::attest

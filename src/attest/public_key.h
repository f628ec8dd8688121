// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "attest/tpm_public.h"
#include "base/bytes.h"
#include "base/result.h"

struct evp_pkey_st;

namespace vallum::attest {

inline constexpr size_t kMaxSpkiBytes = 2048;

// A public key that is ready for use: RSA, or a point on P-256, P-384 or P-521. Cheap to copy;
// immutable, so shared between threads as it is.
class PublicKey {
 public:
  // Errors: kInvalidInput (the point is not on its curve).
  static Result<PublicKey> FromTpm(const TpmPublic& key);
  // Parses exactly one SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7), untrusted; RSA keys named
  // id-RSAES-OAEP (RFC 4055, section 4), as some EK certificates have them, too.
  // Errors: kInvalidInput; kExhausted (above kMaxSpkiBytes).
  static Result<PublicKey> FromSpki(ByteView der);
  // The first "BEGIN PUBLIC KEY" block of a text. Errors: kInvalidInput, kExhausted.
  static Result<PublicKey> FromPem(std::string_view pem);

  bool IsRsa() const;
  size_t Bits() const;
  std::optional<EcCurve> Curve() const;  // nothing: RSA
  // "RSA 2048", "ECC P-256".
  std::string Describe() const;

  // SubjectPublicKeyInfo: rsaEncryption or id-ecPublicKey with an uncompressed point.
  Bytes ToSpki() const;
  std::string ToPem() const;

  bool operator==(const PublicKey& other) const;

  // For OpenSSL's functions; owned by this object.
  evp_pkey_st* get() const { return key_.get(); }

 private:
  explicit PublicKey(std::shared_ptr<evp_pkey_st> key) : key_(std::move(key)) {}
  std::shared_ptr<evp_pkey_st> key_;
};

}  // namespace vallum::attest

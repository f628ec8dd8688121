// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "firmware/variable_store.h"

// What firmware does with certificates and PKCS#7 SignedData, for signed images and variables.
namespace vallum::firmware {

inline constexpr size_t kMaxPkcs7Bytes = size_t{256} << 10U;
inline constexpr size_t kMaxPkcs7Certificates = 32;
// Firmware has no such limits; what is signed for it carries one signer and two certificates.
inline constexpr size_t kMaxPkcs7Signers = 4;
inline constexpr size_t kMaxCertificateBytes = size_t{64} << 10U;

// One X.509 certificate of a key set or of a signature. Movable; not to be shared between threads.
class Certificate {
 public:
  //   der: untrusted; bytes after the certificate are ignored, as firmware does.
  // Errors: kInvalidInput (no DER certificate); kExhausted (above kMaxCertificateBytes).
  static Result<Certificate> Parse(ByteView der);
  ~Certificate();
  Certificate(Certificate&&) noexcept;
  Certificate& operator=(Certificate&&) noexcept;

  // The part that its issuer signed: what EFI_CERT_X509_SHA256 is the digest of.
  Bytes ToBeSigned() const;
  // "CN=Debian Secure Boot CA", safe to print; the whole subject where it has no common name.
  std::string CommonName() const;
  // The same of its issuer.
  std::string IssuerName() const;
  // Seconds since 1970 between which it is valid; nothing when it does not say so in a way that can
  // be read.
  struct Validity {
    int64_t not_before = 0;
    int64_t not_after = 0;
  };
  std::optional<Validity> ValidBetween() const;
  // "RSA", "EC", ...; and how many bits its key has.
  std::string KeyType() const;
  int KeyBits() const;
  // Whether its issuer signed it by way of MD5 or SHA-1.
  bool HasWeakSignature() const;
  // Is it made to sign kernel modules only (extended key usage 1.3.6.1.4.1.2312.16.1.2)? shim
  // does not accept programs by such a certificate (shim.c verify_eku).
  bool IsForModulesOnly() const;
  // Is this certificate the one given, or did its key sign it? Nothing is said of longer chains.
  //   der: untrusted; false for what is no certificate.
  bool Issued(ByteView der) const;

 private:
  friend class SignedMessage;
  struct State;
  explicit Certificate(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Whether the bytes of a PKCS#7 blob begin with a ContentInfo (images) or may be a bare SignedData
// (authenticated variables).
enum class Pkcs7Form { kContentInfo, kContentInfoOrSignedData };

// A PKCS#7 SignedData. Movable; not to be shared between threads.
class SignedMessage {
 public:
  //   blob: DER, untrusted; bytes after it (padding) are ignored.
  // Errors: kInvalidInput (no SignedData, no signer, not one SHA digest algorithm, a signer
  // whose certificate is not inside); kExhausted (above the limits of this header).
  static Result<SignedMessage> Parse(ByteView blob, Pkcs7Form form);
  ~SignedMessage();
  SignedMessage(SignedMessage&&) noexcept;
  SignedMessage& operator=(SignedMessage&&) noexcept;

  // DER, in the order of the blob.
  const std::vector<Bytes>& signers() const;
  const std::vector<Bytes>& certificates() const;

  // The content inside the blob, with its ASN.1 header, when its type has this object identifier.
  //   type: the value of the OBJECT IDENTIFIER, DER.
  // Errors: kInvalidInput (another type, or nothing inside).
  Result<Bytes> Content(ByteView type) const;

  // Did each signer's key sign this content? Says nothing of who the signers are.
  // Errors: kInvalidInput (why not).
  Result<void> VerifySignature(ByteView content) const;
  // VerifySignature, and each signer's chain ends at `anchor`, which may be any certificate of the
  // chain. Expiry and key usage do not count.
  // Source: EDK II CryptoPkg CryptPkcs7VerifyCommon.c, Pkcs7Verify.
  bool IsTrustedBy(const Certificate& anchor, ByteView content) const;
  // The time in the first signer's RFC 3161 counter-signature when it leads to `authority`.
  // Errors: kNotFound (none); kInvalidInput (damaged, or by someone else).
  // Source: EDK II CryptoPkg CryptTs.c, ImageTimestampVerify.
  Result<VariableTime> Timestamp(const Certificate& authority) const;

 private:
  struct State;
  explicit SignedMessage(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace vallum::firmware

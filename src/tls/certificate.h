// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "base/secret_bytes.h"

namespace vallum::tls {

// What Vallum reads from a certificate. Text comes from the certificate as it is: untrusted until
// the chain was verified, and never printable by itself.
struct CertificateInfo {
  std::string common_name;
  std::string organizational_unit;
  std::string issuer_common_name;
  std::string serial_hex;
  std::vector<std::string> dns_names;
  std::vector<std::string> ip_addresses;  // "127.0.0.1", "::1"
  WallTime not_before;
  WallTime not_after;
  bool is_ca = false;
  std::string fingerprint_sha256;  // of the DER, lower-case hex
  std::string key_sha256;          // of the DER SubjectPublicKeyInfo, lower-case hex
};

// A certificate with its private key; both PEM, ready for a TLS context.
struct Credentials {
  std::string certificate_pem;  // the leaf first, then its issuers
  SecretBytes private_key_pem;  // PKCS#8
};

// A fresh key and a request to certify it; the key stays with whoever made it.
struct KeyAndCsr {
  SecretBytes private_key_pem;
  Bytes csr_der;  // PKCS#10
};

// Reads one certificate; a name that occurs twice in the subject is an error, never a choice.
//   der: exactly one certificate; untrusted, at most 64 KiB.
// Errors: kInvalidInput. Pure; thread-safe.
Result<CertificateInfo> InspectDer(ByteView der);
// The same for the first certificate of a PEM text.
Result<CertificateInfo> InspectPem(std::string_view pem);

// Checks that the leaf (first of the text) was signed by the CA, is valid at the given time and may
// be used for the purpose.
// Errors: kDenied, saying which check failed; kInvalidInput (no certificate in a text).
enum class Purpose { kServer, kClient };
Result<void> VerifyChain(std::string_view leaf_pem, std::string_view ca_pem, Purpose purpose,
                         WallTime now);

// True when less than a third of the certificate's life is left.
bool NeedsRenewal(const CertificateInfo& info, WallTime now);

// Makes an EC P-256 key and a request for CN=name signed by it.
//   name: 1 to 63 characters, as ValidateName accepts.
// Errors: kInvalidInput, kInternal.
Result<KeyAndCsr> MakeKeyAndCsr(std::string_view name);

// Makes a request for CN=name signed by a key that exists, DER, so that a certificate can be
// renewed.
//   private_key_pem: PKCS#8.
// Errors: kInvalidInput, kCorrupt (not a key), kInternal.
Result<Bytes> MakeCsrOfKey(std::string_view name, const SecretBytes& private_key_pem);

// SHA-256 of a DER certificate, lower-case hex.
std::string Fingerprint(ByteView der);
// One "BEGIN CERTIFICATE" block.
std::string CertificateToPem(ByteView der);
// All certificates of a PEM text, in order; other blocks are skipped.
// Errors: kInvalidInput (none, or a block that is no base64).
Result<std::vector<Bytes>> CertificatesFromPem(std::string_view pem);

}  // namespace vallum::tls

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "base/secret_bytes.h"

namespace vallum::tls {

// id-kp-documentSigning (RFC 9336): a certificate for it is good for neither end of TLS.
inline constexpr const char* kDocumentSigningUse = "1.3.6.1.5.5.7.3.36";

// ECDSA with SHA-256, DER.
//   private_key_pem: PKCS#8, EC P-256.
// Errors: kInvalidInput (not a key), kInternal.
Result<Bytes> SignSha256(const SecretBytes& private_key_pem, ByteView message);

// Checks such a signature by the key of a certificate.
//   certificate_der, signature: untrusted.
// Errors: kDenied (not signed by it); kInvalidInput (not a certificate).
Result<void> VerifySha256(ByteView certificate_der, ByteView message, ByteView signature);

// Checks that a certificate was issued by the CA for signing documents as that organizational unit,
// and is valid at the given time.
// Errors: kDenied, saying which check failed; kInvalidInput.
Result<void> VerifySigner(ByteView certificate_der, std::string_view ca_pem, std::string_view unit,
                          WallTime now);

}  // namespace vallum::tls

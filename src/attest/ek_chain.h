// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "attest/ek_certificate.h"
#include "attest/quote.h"
#include "attest/tpm_public.h"

namespace vallum::attest {

// Why a certificate of a TPM's key is not believed.
enum class EkCertificateReason {
  kIssuerUnknown,     // the chain ends before a root of the operator
  kSignatureInvalid,  // of a certificate in the chain
  kNotYetValid,
  kExpired,
  kIssuerNotYetValid,
  kIssuerExpired,
  kIssuerNotCa,  // or may not sign certificates
  kPathTooLong,
  kCriticalExtensionUnknown,
  kWeakSignature,  // MD5, or SHA-1 without the policy that accepts it
  kIsCa,           // an issuer's certificate where a key's is due
  kKeyUsage,
  kExtendedKeyUsage,
  kKeyUnsupported,
  kWeakKey,       // RSA below 2048 bits
  kKeyMismatch,   // certifies another key
  kChainInvalid,  // whatever else OpenSSL finds
};
std::string_view EkCertificateReasonName(EkCertificateReason reason);

struct EkCertificateFinding {
  EkCertificateReason reason = EkCertificateReason::kChainInvalid;
  std::string what;  // safe to print
  std::string expected;
  std::string actual;
};

struct EkCertificateVerdict {
  std::vector<EkCertificateFinding> rejections;  // empty: believed
  std::vector<std::string> chain;  // subjects from the certificate to the root, when one was found

  bool Accepted() const { return rejections.empty(); }
  bool Has(EkCertificateReason reason) const;
};

// What the certified key is for.
enum class TpmKeyRole { kEndorsement, kAttestation };

// Verifies a certificate against the operator's roots and intermediates at a time: chain, validity,
// issuers' constraints, and that it is made for such a key. Where a certificate names no uses it
// may be used for any.
//   now: seconds since 1970.
//   sha1: about signatures of certificates; the root's own is not looked at.
// Source: RFC 5280, section 6; TCG EK Credential Profile 2.5, section 3.2. Pure; thread-safe.
EkCertificateVerdict VerifyTpmCertificate(const TpmCertificate& certificate, TpmKeyRole role,
                                          const EkTrust& trust, TpmCertificate::Time now,
                                          Sha1Policy sha1);

// The same of an endorsement key's certificate, and that it certifies that key.
EkCertificateVerdict VerifyEkCertificate(const TpmCertificate& certificate, const TpmPublic& ek,
                                         const EkTrust& trust, TpmCertificate::Time now,
                                         Sha1Policy sha1);

// Verifies the certificate of somebody who signs other things, by chain, validity and key alone:
// what it may be used for is for whoever calls to say. Inputs, source and threads: as above.
EkCertificateVerdict VerifyIssuerCertificate(const TpmCertificate& certificate,
                                             const EkTrust& trust, TpmCertificate::Time now,
                                             Sha1Policy sha1);

}  // namespace vallum::attest

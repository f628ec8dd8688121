// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "attest/ek_certificate.h"
#include "attest/platform_certificate.h"
#include "attest/quote.h"

namespace vallum::attest {

// Why a platform certificate is not believed to be about the platform of an endorsement key.
enum class PlatformCertificateReason {
  kHolderDiffers,     // its holder is another certificate than the EK's
  kTargetDiffers,     // it is meant for other EKs alone
  kIssuerUnknown,     // no issuer that the operator names is called so
  kIssuerMayNotSign,  // by its key usage
  kIssuerRejected,    // the issuer's own certificate is not believed
  kSignatureInvalid,
  kWeakSignature,  // MD5, or SHA-1 without the policy that accepts it
  kNotYetValid,
  kExpired,
  kCriticalExtensionUnknown,
};
std::string_view PlatformCertificateReasonName(PlatformCertificateReason reason);

struct PlatformCertificateFinding {
  PlatformCertificateReason reason = PlatformCertificateReason::kSignatureInvalid;
  std::string what;  // safe to print, as the others
  std::string expected;
  std::string actual;
};

struct PlatformCertificateVerdict {
  std::vector<PlatformCertificateFinding> rejections;  // empty: believed
  std::vector<std::string> chain;  // subjects from the issuer to the root, when one was found

  bool Accepted() const { return rejections.empty(); }
  bool Has(PlatformCertificateReason reason) const;
};

// Verifies that a platform certificate is about the platform of an EK certificate, and by whom: its
// holder, signature, issuer's chain, validity and critical extensions. What it says of the platform
// is then its issuer's word; nothing here compares it with the platform, or asks for revocations.
//   ek: believed by whoever calls (VerifyEkCertificate): only its issuer and serial number count.
//   trust: issuers of platform certificates that the operator trusts; one of them, or of the
//   intermediates, signed it.
//   now: seconds since 1970. sha1: about the signatures of the certificate and its issuers.
// Source: RFC 5755, section 5; TCG Platform Certificate Profile 1.1. Pure; thread-safe.
PlatformCertificateVerdict VerifyPlatformCertificate(const PlatformCertificate& certificate,
                                                     const TpmCertificate& ek, const EkTrust& trust,
                                                     TpmCertificate::Time now, Sha1Policy sha1);

}  // namespace vallum::attest

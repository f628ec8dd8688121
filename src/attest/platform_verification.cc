// SPDX-License-Identifier: Apache-2.0
#include "attest/platform_verification.h"

#include <fmt/format.h>
#include <openssl/asn1t.h>
#include <openssl/err.h>
#include <openssl/objects.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "attest/ek_chain.h"
#include "attest/openssl.h"
#include "attest/x509_text.h"
#include "base/check.h"
#include "base/text.h"

namespace vallum::attest {
namespace {

using Reason = PlatformCertificateReason;
using NamePtr = std::unique_ptr<X509_NAME, Freer<X509_NAME_free>>;
using AlgorithmPtr = std::unique_ptr<X509_ALGOR, Freer<X509_ALGOR_free>>;
using StringPtr = std::unique_ptr<ASN1_STRING, Freer<ASN1_STRING_free>>;
using DigestContextPtr = std::unique_ptr<EVP_MD_CTX, Freer<EVP_MD_CTX_free>>;

StringPtr MakeString(int type, ByteView bytes) {
  StringPtr out(ASN1_STRING_type_new(type));
  CHECK(out != nullptr &&
        ASN1_STRING_set(out.get(), bytes.data(), static_cast<int>(bytes.size())) == 1);
  return out;
}

bool SameName(const CertificateName& name, const X509_NAME* other) {
  const unsigned char* at = Unsigned(name.der);
  const NamePtr parsed(d2i_X509_NAME(nullptr, &at, static_cast<long>(name.der.size())));
  ERR_clear_error();
  return parsed != nullptr && X509_NAME_cmp(parsed.get(), other) == 0;
}

struct SignatureCheck {
  bool good = false;
  int hash = NID_undef;  // what the signature is over; undefined: has none of its own, as Ed25519
};

SignatureCheck CheckSignature(const PlatformCertificate& certificate, const PublicKey& key) {
  const unsigned char* at = Unsigned(certificate.algorithm);
  const AlgorithmPtr algorithm(
      d2i_X509_ALGOR(nullptr, &at, static_cast<long>(certificate.algorithm.size())));
  SignatureCheck out;
  if (algorithm != nullptr) {
    const StringPtr bits = MakeString(V_ASN1_BIT_STRING, certificate.signature);
    // To OpenSSL a SEQUENCE without a template is its own encoding: the bytes that were signed.
    const StringPtr signed_part = MakeString(V_ASN1_SEQUENCE, certificate.signed_part);
    const KeyContextPtr key_context(EVP_PKEY_CTX_new(key.get(), nullptr));
    const DigestContextPtr context(EVP_MD_CTX_new());
    CHECK(key_context != nullptr && context != nullptr);
    EVP_MD_CTX_set_pkey_ctx(context.get(), key_context.get());
    out.good = ASN1_item_verify_ctx(ASN1_ITEM_rptr(ASN1_SEQUENCE), algorithm.get(), bits.get(),
                                    signed_part.get(), context.get()) == 1;
    const EVP_MD* hash = EVP_MD_CTX_get0_md(context.get());
    out.hash = hash == nullptr ? NID_undef : EVP_MD_get_type(hash);
  }
  ERR_clear_error();
  return out;
}

// Verifies one certificate; collects findings.
class PlatformVerifier {
 public:
  PlatformVerifier(const PlatformCertificate& certificate, const EkTrust& trust,
                   TpmCertificate::Time now, Sha1Policy sha1)
      : certificate_(certificate), trust_(trust), now_(now), sha1_(sha1) {}

  PlatformCertificateVerdict Verify(const TpmCertificate& ek) {
    CheckHolder(ek);
    CheckTargets(ek);
    CheckIssuer();
    CheckValidity();
    for (const std::string& each : certificate_.unknown_critical) {
      Reject(Reason::kCriticalExtensionUnknown, "the platform certificate's extensions",
             "critical ones that are known", each);
    }
    return std::move(verdict_);
  }

 private:
  void Reject(Reason reason, std::string what, std::string expected, std::string actual) {
    verdict_.rejections.push_back(
        {reason, std::move(what), std::move(expected), std::move(actual)});
  }

  void CheckHolder(const TpmCertificate& ek);
  void CheckTargets(const TpmCertificate& ek);
  void CheckIssuer();
  bool CheckSigner(const TpmCertificate& signer, PlatformCertificateVerdict& out) const;
  void CheckValidity();

  const PlatformCertificate& certificate_;
  const EkTrust& trust_;
  TpmCertificate::Time now_;
  Sha1Policy sha1_;
  PlatformCertificateVerdict verdict_;
};

std::string HolderText(const std::string& issuer, const std::string& serial) {
  return fmt::format("serial {} of \"{}\"", serial, issuer);
}

void PlatformVerifier::CheckHolder(const TpmCertificate& ek) {
  if (certificate_.holder_serial != ek.serial_hex() ||
      !SameName(certificate_.holder_issuer, X509_get_issuer_name(ek.get()))) {
    Reject(Reason::kHolderDiffers, "the platform certificate's holder",
           HolderText(ek.issuer(), ek.serial_hex()) + ", the EK certificate",
           HolderText(certificate_.holder_issuer.text, certificate_.holder_serial));
  }
}

// RFC 5755, section 4.3.2: "If the targeting information is present ... and the current server or
// service is not a target, the attribute certificate MUST be considered invalid". Of the profile's
// serial numbers some are written in decimal.
void PlatformVerifier::CheckTargets(const TpmCertificate& ek) {
  if (!certificate_.targeted) return;
  BIGNUM* number = nullptr;
  CHECK(BN_hex2bn(&number, ek.serial_hex().c_str()) > 0);
  const BignumPtr owned(number);
  char* text = BN_bn2dec(number);
  CHECK(text != nullptr);
  const std::string decimal(text);
  OPENSSL_free(text);
  const bool meant = std::ranges::any_of(certificate_.target_serials, [&](std::string_view each) {
    const size_t zeros = std::min(each.find_first_not_of('0'), each.size());
    return each.substr(zeros) == ek.serial_hex() || each == decimal;
  });
  if (!meant) {
    Reject(Reason::kTargetDiffers, "whom the platform certificate is meant for",
           "the EK certificate of serial " + ek.serial_hex(),
           certificate_.target_serials.empty() ? "somebody else"
                                               : Join(certificate_.target_serials, ", "));
  }
}

// Of several issuers of one name, one that is believed is enough; of none that is, the one that
// signed says most.
void PlatformVerifier::CheckIssuer() {
  std::optional<PlatformCertificateVerdict> refused;
  bool named = false;
  for (const auto* list : {&trust_.roots(), &trust_.intermediates()}) {
    for (const TpmCertificate& signer : *list) {
      if (!SameName(certificate_.issuer, X509_get_subject_name(signer.get()))) continue;
      named = true;
      PlatformCertificateVerdict out;
      if (!CheckSigner(signer, out)) continue;
      if (out.Accepted()) {
        verdict_.chain = std::move(out.chain);
        return;
      }
      if (!refused.has_value()) refused = std::move(out);
    }
  }
  if (refused.has_value()) {
    std::ranges::move(refused->rejections, std::back_inserter(verdict_.rejections));
  } else if (named) {
    Reject(Reason::kSignatureInvalid, "the platform certificate's signature",
           "one by \"" + certificate_.issuer.text + "\"", "another, or none");
  } else {
    Reject(Reason::kIssuerUnknown, "the platform certificate's issuer",
           "one that the operator trusts", certificate_.issuer.text);
  }
}

// Whether it is this one's signature; if so, what is wrong with the signer is in `out`.
bool PlatformVerifier::CheckSigner(const TpmCertificate& signer,
                                   PlatformCertificateVerdict& out) const {
  if (!signer.key().has_value()) return false;
  const SignatureCheck checked = CheckSignature(certificate_, *signer.key());
  if (!checked.good) return false;
  const std::string who = "\"" + signer.subject() + "\", its issuer";
  if (checked.hash == NID_md5 || checked.hash == NID_md5_sha1 ||
      (checked.hash == NID_sha1 && sha1_ == Sha1Policy::kRefused)) {
    out.rejections.push_back({Reason::kWeakSignature, "the platform certificate's signature",
                              "SHA-256 or better", certificate_.signature_algorithm});
  }
  // RFC 5755, section 4.5: the key usage "MUST NOT explicitly indicate that the AC issuer's public
  // key cannot be used to validate a digital signature". Who may sign certificates may sign these.
  const uint32_t usage = X509_get_key_usage(signer.get());  // all ones: says nothing
  if ((usage & (KU_DIGITAL_SIGNATURE | KU_KEY_CERT_SIGN)) == 0) {
    out.rejections.push_back({Reason::kIssuerMayNotSign, "the key usage of " + who,
                              "digital signature", fmt::format("{:#x}", usage)});
  }
  EkCertificateVerdict chain = VerifyIssuerCertificate(signer, trust_, now_, sha1_);
  out.chain = std::move(chain.chain);
  for (EkCertificateFinding& each : chain.rejections) {
    const std::string reason(EkCertificateReasonName(each.reason));
    out.rejections.push_back({Reason::kIssuerRejected, std::move(each.what),
                              std::move(each.expected), reason + ": " + each.actual});
  }
  return true;
}

void PlatformVerifier::CheckValidity() {
  const bool early = now_ < certificate_.not_before;
  if (!early && now_ <= certificate_.not_after) return;
  Reject(early ? Reason::kNotYetValid : Reason::kExpired, "the platform certificate",
         "valid at " + TimeText(now_),
         fmt::format("valid from {} to {}", TimeText(certificate_.not_before),
                     TimeText(certificate_.not_after)));
}

}  // namespace

std::string_view PlatformCertificateReasonName(PlatformCertificateReason reason) {
  switch (reason) {
    case Reason::kHolderDiffers:
      return "holder_differs";
    case Reason::kTargetDiffers:
      return "target_differs";
    case Reason::kIssuerUnknown:
      return "issuer_unknown";
    case Reason::kIssuerMayNotSign:
      return "issuer_may_not_sign";
    case Reason::kIssuerRejected:
      return "issuer_rejected";
    case Reason::kSignatureInvalid:
      return "signature_invalid";
    case Reason::kWeakSignature:
      return "weak_signature";
    case Reason::kNotYetValid:
      return "not_yet_valid";
    case Reason::kExpired:
      return "expired";
    case Reason::kCriticalExtensionUnknown:
      return "critical_extension_unknown";
  }
  return "unknown";
}

bool PlatformCertificateVerdict::Has(PlatformCertificateReason reason) const {
  return std::ranges::find(rejections, reason, &PlatformCertificateFinding::reason) !=
         rejections.end();
}

PlatformCertificateVerdict VerifyPlatformCertificate(const PlatformCertificate& certificate,
                                                     const TpmCertificate& ek, const EkTrust& trust,
                                                     TpmCertificate::Time now, Sha1Policy sha1) {
  return PlatformVerifier(certificate, trust, now, sha1).Verify(ek);
}

}  // namespace vallum::attest

// SPDX-License-Identifier: Apache-2.0
#include "attest/ek_chain.h"

#include <fmt/format.h>
#include <openssl/err.h>

#include <algorithm>
#include <utility>

#include "attest/openssl.h"
#include "attest/x509_text.h"
#include "base/check.h"
#include "base/text.h"

namespace vallum::attest {
namespace {

// TCG OID registry: tcg-kp-EKCertificate, tcg-kp-AIKCertificate.
constexpr std::string_view kEkUsage = "2.23.133.8.1";
constexpr std::string_view kAkUsage = "2.23.133.8.3";
constexpr size_t kMinRsaBits = 2048;
constexpr int kMaxDepth = 8;
constexpr size_t kMaxText = 300;

struct FreeStack {
  void operator()(STACK_OF(X509) * stack) const { sk_X509_free(stack); }
};
using StackPtr = std::unique_ptr<STACK_OF(X509), FreeStack>;
using ContextPtr = std::unique_ptr<X509_STORE_CTX, Freer<X509_STORE_CTX_free>>;
using X509Ptr = std::unique_ptr<X509, Freer<X509_free>>;

EkCertificateReason ReasonOf(int error, int depth) {
  using enum EkCertificateReason;
  switch (error) {
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
      return kIssuerUnknown;
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE:
    case X509_V_ERR_UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY:
      return kSignatureInvalid;
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return depth == 0 ? kNotYetValid : kIssuerNotYetValid;
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return depth == 0 ? kExpired : kIssuerExpired;
    case X509_V_ERR_INVALID_CA:
    case X509_V_ERR_KEYUSAGE_NO_CERTSIGN:
      return kIssuerNotCa;
    case X509_V_ERR_PATH_LENGTH_EXCEEDED:
    case X509_V_ERR_CERT_CHAIN_TOO_LONG:
      return kPathTooLong;
    case X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION:
      return kCriticalExtensionUnknown;
    default:  // OpenSSL's numbers, not an enum
      return kChainInvalid;
  }
}

// Verifies one certificate; collects findings.
class ChainVerifier {
 public:
  ChainVerifier(const TpmCertificate& certificate, const EkTrust& trust, TpmCertificate::Time now)
      : certificate_(certificate), trust_(trust), now_(now) {}

  EkCertificateVerdict Verify(TpmKeyRole role, Sha1Policy sha1) {
    CheckChain(sha1);
    CheckKey();
    CheckUse(role);
    return std::move(verdict_);
  }
  EkCertificateVerdict VerifyWhateverItsUse(Sha1Policy sha1) {
    CheckChain(sha1);
    CheckKey();
    return std::move(verdict_);
  }

 private:
  void Reject(EkCertificateReason reason, std::string what, std::string expected,
              std::string actual) {
    verdict_.rejections.push_back(
        {reason, std::move(what), std::move(expected), std::move(actual)});
  }

  void CheckChain(Sha1Policy sha1);
  void RejectChain(X509_STORE_CTX* context);
  void CheckHashes(STACK_OF(X509) * chain, Sha1Policy sha1);
  void CheckKey();
  void CheckUse(TpmKeyRole role);

  const TpmCertificate& certificate_;
  const EkTrust& trust_;
  TpmCertificate::Time now_;
  EkCertificateVerdict verdict_;
};

std::string Described(X509* x509) {
  unsigned char* der = nullptr;
  const int size = i2d_X509(x509, &der);
  CHECK(size > 0);
  const auto parsed = TpmCertificate::Parse(ViewOf(der, static_cast<size_t>(size)));
  OPENSSL_free(der);
  if (!parsed.has_value()) {
    return "an unreadable certificate";
  }
  return parsed->subject().empty() ? "serial " + parsed->serial_hex() : parsed->subject();
}

// The certificate with a key that OpenSSL can use: it does not decode one named id-RSAES-OAEP, and
// then builds no chain. What was signed stays as it was read.
X509Ptr WithUsableKey(const TpmCertificate& certificate) {
  X509Ptr copy(X509_dup(certificate.get()));
  CHECK(copy != nullptr);
  if (X509_get0_pubkey(copy.get()) == nullptr && certificate.key().has_value()) {
    CHECK(X509_set_pubkey(copy.get(), certificate.key()->get()) == 1);
  }
  ERR_clear_error();
  return copy;
}

void ChainVerifier::CheckChain(Sha1Policy sha1) {
  if (!certificate_.key().has_value()) {
    return;  // said by CheckKey
  }
  const StackPtr untrusted(sk_X509_new_null());
  for (const TpmCertificate& each : trust_.intermediates()) {
    CHECK(sk_X509_push(untrusted.get(), each.get()) > 0);
  }
  const X509Ptr leaf = WithUsableKey(certificate_);
  const ContextPtr context(X509_STORE_CTX_new());
  CHECK(context != nullptr);
  CHECK(X509_STORE_CTX_init(context.get(), trust_.get(), leaf.get(), untrusted.get()) == 1);
  X509_VERIFY_PARAM* param = X509_STORE_CTX_get0_param(context.get());
  CHECK(X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN) == 1);
  X509_VERIFY_PARAM_set_time(param, now_.time_since_epoch().count());
  X509_VERIFY_PARAM_set_depth(param, kMaxDepth);
  if (X509_verify_cert(context.get()) != 1) {
    RejectChain(context.get());
    ERR_clear_error();
    return;
  }
  STACK_OF(X509)* chain = X509_STORE_CTX_get0_chain(context.get());
  for (int i = 0; i < sk_X509_num(chain); ++i) {
    verdict_.chain.push_back(i == 0 ? certificate_.subject() : Described(sk_X509_value(chain, i)));
  }
  // The root itself as a key's certificate: CheckUse says so where it is one.
  CheckHashes(chain, sha1);
  ERR_clear_error();
}

void ChainVerifier::RejectChain(X509_STORE_CTX* context) {
  const int error = X509_STORE_CTX_get_error(context);
  const int depth = X509_STORE_CTX_get_error_depth(context);
  X509* at = X509_STORE_CTX_get_current_cert(context);
  const std::string subject = depth == 0 || at == nullptr ? certificate_.subject() : Described(at);
  std::string expected;
  if (error == X509_V_ERR_CERT_HAS_EXPIRED || error == X509_V_ERR_CERT_NOT_YET_VALID) {
    expected = fmt::format("valid at {}", TimeText(now_));
  }
  std::string actual = X509_verify_cert_error_string(error);
  if (depth == 0 && !expected.empty()) {
    actual = fmt::format("valid from {} to {}", TimeText(certificate_.not_before()),
                         TimeText(certificate_.not_after()));
  } else if (ReasonOf(error, depth) == EkCertificateReason::kIssuerUnknown) {
    expected = "an issuer that the operator trusts";
    actual = depth == 0 ? certificate_.issuer() : actual;
  }
  Reject(ReasonOf(error, depth), fmt::format("certificate \"{}\"", Printable(subject, kMaxText)),
         expected, actual);
}

void ChainVerifier::CheckHashes(STACK_OF(X509) * chain, Sha1Policy sha1) {
  for (int i = 0; i + 1 < sk_X509_num(chain); ++i) {
    int hash = NID_undef;
    X509_get_signature_info(sk_X509_value(chain, i), &hash, nullptr, nullptr, nullptr);
    const bool weak = hash == NID_md5 || hash == NID_md5_sha1 ||
                      (hash == NID_sha1 && sha1 == Sha1Policy::kRefused);
    if (weak) {
      Reject(EkCertificateReason::kWeakSignature,
             fmt::format("the signature of \"{}\"",
                         Printable(verdict_.chain[static_cast<size_t>(i)], kMaxText)),
             "SHA-256 or better", OBJ_nid2sn(hash));
    }
  }
}

void ChainVerifier::CheckKey() {
  const auto& key = certificate_.key();
  if (!key.has_value()) {
    Reject(EkCertificateReason::kKeyUnsupported, "the certificate's key",
           "RSA, P-256, P-384 or P-521", "another");
  } else if (key->IsRsa() && key->Bits() < kMinRsaBits) {
    Reject(EkCertificateReason::kWeakKey, "the certificate's key", "RSA 2048 or better",
           key->Describe());
  }
}

void ChainVerifier::CheckUse(TpmKeyRole role) {
  if (certificate_.is_ca()) {
    Reject(EkCertificateReason::kIsCa, "the certificate", "one of a TPM's key",
           "one of an issuer of certificates");
  }
  // Section 3.2.5: keyEncipherment of RSA keys, keyAgreement of ECC keys; manufacturers mix them.
  const bool endorsement = role == TpmKeyRole::kEndorsement;
  const uint32_t usage = X509_get_key_usage(certificate_.get());  // all ones: says nothing
  const uint32_t due = endorsement ? KU_KEY_ENCIPHERMENT | KU_KEY_AGREEMENT | KU_DATA_ENCIPHERMENT
                                   : KU_DIGITAL_SIGNATURE;
  if ((usage & due) == 0) {
    Reject(EkCertificateReason::kKeyUsage, "the certificate's key usage",
           endorsement ? "key encipherment or key agreement" : "digital signature",
           fmt::format("{:#x}", usage));
  }
  const auto& usages = certificate_.extended_key_usages();
  const auto has = [&usages](std::string_view oid) {
    return std::ranges::find(usages, oid) != usages.end();
  };
  // Google names attestation keys' certificates as it does endorsement keys'.
  if (!usages.empty() && !has(kEkUsage) && (endorsement || !has(kAkUsage))) {
    Reject(EkCertificateReason::kExtendedKeyUsage, "the certificate's extended key usage",
           std::string(endorsement ? kEkUsage : kAkUsage), Join(usages, ", "));
  }
}

}  // namespace

std::string_view EkCertificateReasonName(EkCertificateReason reason) {
  switch (reason) {
    case EkCertificateReason::kIssuerUnknown:
      return "issuer_unknown";
    case EkCertificateReason::kSignatureInvalid:
      return "signature_invalid";
    case EkCertificateReason::kNotYetValid:
      return "not_yet_valid";
    case EkCertificateReason::kExpired:
      return "expired";
    case EkCertificateReason::kIssuerNotYetValid:
      return "issuer_not_yet_valid";
    case EkCertificateReason::kIssuerExpired:
      return "issuer_expired";
    case EkCertificateReason::kIssuerNotCa:
      return "issuer_not_ca";
    case EkCertificateReason::kPathTooLong:
      return "path_too_long";
    case EkCertificateReason::kCriticalExtensionUnknown:
      return "critical_extension_unknown";
    case EkCertificateReason::kWeakSignature:
      return "weak_signature";
    case EkCertificateReason::kIsCa:
      return "is_ca";
    case EkCertificateReason::kKeyUsage:
      return "key_usage";
    case EkCertificateReason::kExtendedKeyUsage:
      return "extended_key_usage";
    case EkCertificateReason::kKeyUnsupported:
      return "key_unsupported";
    case EkCertificateReason::kWeakKey:
      return "weak_key";
    case EkCertificateReason::kKeyMismatch:
      return "key_mismatch";
    case EkCertificateReason::kChainInvalid:
      return "chain_invalid";
  }
  return "unknown";
}

bool EkCertificateVerdict::Has(EkCertificateReason reason) const {
  return std::ranges::find(rejections, reason, &EkCertificateFinding::reason) != rejections.end();
}

EkCertificateVerdict VerifyTpmCertificate(const TpmCertificate& certificate, TpmKeyRole role,
                                          const EkTrust& trust, TpmCertificate::Time now,
                                          Sha1Policy sha1) {
  return ChainVerifier(certificate, trust, now).Verify(role, sha1);
}

EkCertificateVerdict VerifyEkCertificate(const TpmCertificate& certificate, const TpmPublic& ek,
                                         const EkTrust& trust, TpmCertificate::Time now,
                                         Sha1Policy sha1) {
  EkCertificateVerdict verdict =
      VerifyTpmCertificate(certificate, TpmKeyRole::kEndorsement, trust, now, sha1);
  const auto key = PublicKey::FromTpm(ek);
  if (certificate.key().has_value() && (!key.has_value() || !(*key == *certificate.key()))) {
    verdict.rejections.push_back(
        {EkCertificateReason::kKeyMismatch, "the certificate's key",
         key.has_value() ? key->Describe() + ", the host's" : "a valid key",
         certificate.key()->Describe() + ", another"});
  }
  return verdict;
}

EkCertificateVerdict VerifyIssuerCertificate(const TpmCertificate& certificate,
                                             const EkTrust& trust, TpmCertificate::Time now,
                                             Sha1Policy sha1) {
  return ChainVerifier(certificate, trust, now).VerifyWhateverItsUse(sha1);
}

}  // namespace vallum::attest

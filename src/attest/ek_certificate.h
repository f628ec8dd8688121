// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attest/public_key.h"
#include "attest/quote.h"
#include "base/bytes.h"
#include "base/result.h"

struct x509_st;
struct x509_store_st;

namespace vallum::attest {

// NV indices hold less; certificates of clouds are below 4 KiB.
inline constexpr size_t kMaxTpmCertificate = size_t{16} << 10U;
inline constexpr size_t kMaxCertificateBundle = size_t{4} << 20U;

// Who made a TPM, as its certificate's subject alternative name says; safe to print, each empty
// where it says nothing.
struct TpmMaker {
  std::string manufacturer;  // "id:474F4F47"
  std::string vendor;        // the same in letters: "GOOG"
  std::string model;
  std::string version;  // of the firmware: "id:20160511"
};

// A certificate of an endorsement key, an attestation key or one of their issuers. Cheap to copy;
// immutable, so shared between threads as it is.
class TpmCertificate {
 public:
  // Seconds reach the year 9999, which manufacturers use for "never".
  using Time = std::chrono::sys_seconds;

  // Parses one certificate, as an NV index has it: behind it zeros or 0xFF alone.
  //   der: untrusted. Subject names whose SETs are not in DER's order, negative serial numbers and
  //   keys named id-RSAES-OAEP are read: manufacturers make such.
  // Errors: kInvalidInput (no X.509 certificate: also TCG's platform certificates, which are
  // attribute certificates; bytes behind it); kExhausted (above kMaxTpmCertificate).
  // Source: RFC 5280; TCG EK Credential Profile 2.5; docs/formats/tpm_quote.md.
  static Result<TpmCertificate> Parse(ByteView der);

  const std::string& subject() const { return subject_; }  // RFC 4514, safe to print; may be empty
  const std::string& issuer() const { return issuer_; }
  const std::string& serial_hex() const { return serial_hex_; }  // "2f", "-2f"; no leading zeros
  Time not_before() const { return not_before_; }
  Time not_after() const { return not_after_; }
  bool is_ca() const { return is_ca_; }  // by its basic constraints
  bool IsSelfIssued() const;
  // Dotted; empty: any use.
  const std::vector<std::string>& extended_key_usages() const { return extended_key_usages_; }
  // "sha256"; empty: one that OpenSSL does not know by that.
  const std::string& signature_hash() const { return signature_hash_; }
  const TpmMaker& maker() const { return maker_; }
  // Nothing: a kind of key that is not supported.
  const std::optional<PublicKey>& key() const { return key_; }
  const Bytes& der() const { return der_; }  // without what was behind it
  std::string FingerprintSha256() const;     // of that, lower-case hex
  // Whether that one's key signed this one; says nothing of time or uses.
  bool SignedBy(const TpmCertificate& issuer) const;

  // For OpenSSL's functions; owned by this object.
  x509_st* get() const { return x509_.get(); }

 private:
  TpmCertificate() = default;
  Result<void> ReadFields();

  std::shared_ptr<x509_st> x509_;
  Bytes der_;
  std::string subject_;
  std::string issuer_;
  std::string serial_hex_;
  Time not_before_;
  Time not_after_;
  bool is_ca_ = false;
  std::vector<std::string> extended_key_usages_;
  std::string signature_hash_;
  TpmMaker maker_;
  std::optional<PublicKey> key_;
};

// What of a file of certificates could be read: one that cannot does not keep the others out.
struct CertificateBundle {
  std::vector<TpmCertificate> certificates;
  std::vector<std::string> problems;
};
// Reads PEM blocks, or one DER certificate; by the operator. Text between the blocks is skipped.
CertificateBundle ReadCertificateBundle(ByteView bytes);

// Issuers that the operator trusts. A root need not be self-signed: whoever is named ends a chain.
// Thread-safe once made.
class EkTrust {
 public:
  EkTrust(std::vector<TpmCertificate> roots, std::vector<TpmCertificate> intermediates);

  const std::vector<TpmCertificate>& roots() const { return roots_; }
  const std::vector<TpmCertificate>& intermediates() const { return intermediates_; }
  x509_store_st* get() const { return store_.get(); }

 private:
  std::vector<TpmCertificate> roots_;
  std::vector<TpmCertificate> intermediates_;
  std::shared_ptr<x509_store_st> store_;
};

}  // namespace vallum::attest

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "tls/certificate.h"

namespace vallum::tls {

// Names under which a server is reached; at least one.
struct ServerNames {
  std::vector<std::string> dns_names;
  std::vector<std::string> ip_addresses;
};

inline constexpr std::chrono::hours kAuthorityValidity{24 * 3653};
inline constexpr std::chrono::hours kServerValidity{24 * 365};
inline constexpr std::chrono::hours kAgentValidity{24 * 30};
inline constexpr std::chrono::hours kSignerValidity{24 * 7};
inline constexpr std::chrono::hours kVtpmValidity{24 * 3652};  // or as long as the CA's own

// The deployment's own CA: an EC P-256 key in <dir>/ca.key (mode 0600) and its certificate in
// <dir>/ca.crt. Issues what the deployment's programs need and nothing else. Thread-safe; holds a
// reference to the clock, which must outlive it.
class CertificateAuthority {
 public:
  // Makes a CA valid for ten years and stores it durably; makes the directory (0700) if needed.
  // Errors: kConflict (one is there already), those of the file system.
  static Result<std::unique_ptr<CertificateAuthority>> Create(const std::filesystem::path& dir,
                                                              const Clock& clock);
  // Errors: kNotFound (none there), kCorrupt (key and certificate do not belong together, not a
  // CA), kDenied (key readable by others).
  static Result<std::unique_ptr<CertificateAuthority>> Load(const std::filesystem::path& dir,
                                                            const Clock& clock);
  // Load, or Create when there is none.
  static Result<std::unique_ptr<CertificateAuthority>> LoadOrCreate(
      const std::filesystem::path& dir, const Clock& clock);

  ~CertificateAuthority();
  CertificateAuthority(const CertificateAuthority&) = delete;
  CertificateAuthority& operator=(const CertificateAuthority&) = delete;

  const std::string& certificate_pem() const;

  // Makes a key and a server certificate (kServerValidity).
  // Errors: kInvalidInput (no name, or text that is neither DNS name nor address).
  Result<Credentials> IssueServer(const ServerNames& names) const;

  // Certifies an agent's key as CN=host, OU=agent (kAgentValidity, client use only). Of the request
  // only the public key is taken; its own signature must verify, and the key be EC P-256 or P-384.
  //   csr_der: PKCS#10, untrusted, at most 16 KiB. Returns the certificate as PEM.
  // Errors: kInvalidInput.
  Result<std::string> IssueAgent(ByteView csr_der, std::string_view host) const;

  // Makes a key and a certificate (kSignerValidity) for statements that agents verify, such as
  // leases: CN=unit, OU=unit, good for no TLS server and for no agent.
  Result<Credentials> IssueSigner(std::string_view unit) const;

  // Certifies the endorsement key of an instance's vTPM, as TCG's EK Credential Profile for TPM
  // Family 2.0 has it: subject CN=instance, serialNumber=uid; the TPM's maker, model and version as
  // subject alternative name; for key agreement by a TPM only (tcg-kp-EKCertificate).
  //   key_der: SubjectPublicKeyInfo, untrusted, EC P-256.
  // Returns the certificate as PEM. Errors: kInvalidInput.
  Result<std::string> IssueVtpm(ByteView key_der, std::string_view instance,
                                std::string_view uid) const;

 private:
  struct State;
  explicit CertificateAuthority(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// The OU of agents' certificates.
inline constexpr std::string_view kAgentUnit = "agent";
// The OU of the certificate with which a controller signs leases.
inline constexpr std::string_view kLeaseSignerUnit = "lease signer";
// The OU of the one with which it signs attestation results.
inline constexpr std::string_view kResultSignerUnit = "attestation result signer";

}  // namespace vallum::tls

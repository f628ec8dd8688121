// SPDX-License-Identifier: Apache-2.0
#include "agent/lease_maker.h"

#include "agent/messages.h"
#include "tls/certificate.h"
#include "tls/signing.h"

namespace vallum::agent {

v1::TrustLease SignLease(const tls::Credentials& signer, const v1::LeaseClaims& claims) {
  v1::TrustLease lease;
  lease.set_claims(claims.SerializeAsString());
  lease.set_signature(std::string(
      AsText(tls::SignSha256(signer.private_key_pem, AsBytes(lease.claims())).value())));
  lease.set_signer_certificate(
      std::string(AsText(tls::CertificatesFromPem(signer.certificate_pem).value().front())));
  return lease;
}

v1::LeaseClaims MakeClaims(const std::string& host, const std::string& boot_id,
                           const std::string& ak_name, WallTime now, std::chrono::seconds life) {
  v1::LeaseClaims claims;
  claims.set_host(host);
  claims.set_boot_id(boot_id);
  claims.set_ak_name(ak_name);
  claims.set_pool("trusted");
  claims.set_policy("base");
  claims.set_policy_version(1);
  *claims.mutable_issue_time() = ToTimestamp(now);
  *claims.mutable_expire_time() = ToTimestamp(now + life);
  claims.set_serial("1");
  return claims;
}

}  // namespace vallum::agent

// SPDX-License-Identifier: Apache-2.0
#include "controller/lease_signer.h"

#include <string>
#include <utility>

#include "base/bytes.h"

namespace vallum::controller {

LeaseSigner::LeaseSigner(std::unique_ptr<StatementSigner> signer) : signer_(std::move(signer)) {}
LeaseSigner::~LeaseSigner() = default;

Result<std::unique_ptr<LeaseSigner>> LeaseSigner::Create(const tls::CertificateAuthority& authority,
                                                         const Clock& clock) {
  ASSIGN_OR_RETURN(auto signer, StatementSigner::Create(authority, tls::kLeaseSignerUnit, clock));
  return std::unique_ptr<LeaseSigner>(new LeaseSigner(std::move(signer)));
}

Result<v1::TrustLease> LeaseSigner::Sign(const v1::LeaseClaims& claims) {
  ASSIGN_OR_RETURN(StatementSigner::Signed made, signer_->Sign(claims.SerializeAsString()));
  v1::TrustLease lease;
  lease.set_claims(std::move(made.statement));
  lease.set_signature(std::string(AsText(made.signature)));
  lease.set_signer_certificate(std::string(AsText(made.chain.front())));
  return lease;
}

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "base/clock.h"
#include "base/result.h"
#include "controller/statement_signer.h"
#include "tls/authority.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::controller {

// Signs leases with a key that the deployment's CA certifies for them alone; see StatementSigner.
// Thread-safe.
class LeaseSigner {
 public:
  // The authority and the clock outlive it. Errors: the authority's.
  static Result<std::unique_ptr<LeaseSigner>> Create(const tls::CertificateAuthority& authority,
                                                     const Clock& clock);
  ~LeaseSigner();
  LeaseSigner(const LeaseSigner&) = delete;
  LeaseSigner& operator=(const LeaseSigner&) = delete;

  // Errors: kInternal (OpenSSL), the authority's.
  Result<v1::TrustLease> Sign(const v1::LeaseClaims& claims);

 private:
  explicit LeaseSigner(std::unique_ptr<StatementSigner> signer);
  const std::unique_ptr<StatementSigner> signer_;
};

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <mutex>

#include "base/clock.h"
#include "base/result.h"
#include "tls/authority.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::controller {

// Signs leases with a key of this process, which the deployment's CA certifies and which is
// replaced before its certificate ends. Nothing of it is stored. Thread-safe.
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
  struct Key;
  LeaseSigner(const tls::CertificateAuthority& authority, const Clock& clock);
  Result<void> Renew();  // mutex_ is held

  const tls::CertificateAuthority& authority_;
  const Clock& clock_;
  std::mutex mutex_;
  std::unique_ptr<const Key> key_;  // guarded by mutex_
};

}  // namespace vallum::controller

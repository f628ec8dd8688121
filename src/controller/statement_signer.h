// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "tls/authority.h"

namespace vallum::controller {

// Signs statements of one kind with a key of this process (EC P-256, SHA-256), which the
// deployment's CA certifies for that kind and which is replaced before its certificate ends.
// Nothing of it is stored. Thread-safe.
class StatementSigner {
 public:
  struct Signed {
    std::string statement;
    Bytes signature;           // DER of ECDSA-Sig-Value
    std::vector<Bytes> chain;  // DER; the signer's first
  };

  // The authority and the clock outlive it. Errors: the authority's.
  //   unit: what the certificate is for; see tls::CertificateAuthority::IssueSigner.
  static Result<std::unique_ptr<StatementSigner>> Create(const tls::CertificateAuthority& authority,
                                                         std::string_view unit, const Clock& clock);
  ~StatementSigner();
  StatementSigner(const StatementSigner&) = delete;
  StatementSigner& operator=(const StatementSigner&) = delete;

  // Errors: kInternal (OpenSSL), the authority's.
  Result<Signed> Sign(std::string statement);
  // The same for a statement that names its signer.
  //   make: the statement, from the chain that it will be signed with.
  using Make = std::function<std::string(const std::vector<Bytes>& chain)>;
  Result<Signed> Sign(const Make& make);

 private:
  struct Key;
  StatementSigner(const tls::CertificateAuthority& authority, std::string_view unit,
                  const Clock& clock);
  Result<void> Renew();  // mutex_ is held

  const tls::CertificateAuthority& authority_;
  const std::string unit_;
  const Clock& clock_;
  std::mutex mutex_;
  std::unique_ptr<const Key> key_;  // guarded by mutex_
};

// r and s of a P-256 signature, 32 bytes each, as JWS has them (RFC 7518, section 3.4).
//   der: ECDSA-Sig-Value. Errors: kInternal (no such signature).
Result<Bytes> JwsSignature(ByteView der);

}  // namespace vallum::controller

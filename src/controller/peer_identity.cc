// SPDX-License-Identifier: Apache-2.0
#include "controller/peer_identity.h"

#include <utility>

#include "base/bytes.h"
#include "base/digest.h"
#include "tls/certificate.h"

namespace vallum::controller {

Result<PeerIdentity> ReadIdentity(std::string_view certificate_pem) {
  ASSIGN_OR_RETURN(tls::CertificateInfo info, tls::InspectPem(certificate_pem));
  return PeerIdentity{.common_name = std::move(info.common_name),
                      .organizational_unit = std::move(info.organizational_unit),
                      .key_sha256 = std::move(info.key_sha256)};
}

Result<PeerIdentity> PeerIdentities::Read(std::string_view certificate_pem) {
  const Sha256Digest digest = Sha256(AsBytes(certificate_pem));
  {
    const std::lock_guard lock(mutex_);
    const auto found = known_.find(digest);
    if (found != known_.end()) return found->second;
  }
  ASSIGN_OR_RETURN(PeerIdentity identity, ReadIdentity(certificate_pem));
  const std::lock_guard lock(mutex_);
  // Certificates are renewed, and the old ones never come again: all is read anew now and then.
  if (known_.size() >= most_) known_.clear();
  known_.insert_or_assign(digest, identity);
  return identity;
}

size_t PeerIdentities::size() const {
  const std::lock_guard lock(mutex_);
  return known_.size();
}

}  // namespace vallum::controller

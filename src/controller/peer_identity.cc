// SPDX-License-Identifier: Apache-2.0
#include "controller/peer_identity.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/digest.h"
#include "tls/certificate.h"

namespace vallum::controller {
namespace {

using BioPtr = std::unique_ptr<BIO, decltype(&BIO_free)>;
using X509Ptr = std::unique_ptr<X509, decltype(&X509_free)>;

}  // namespace

Result<PeerIdentity> ReadIdentity(std::string_view certificate_pem) {
  ASSIGN_OR_RETURN(tls::CertificateInfo info, tls::InspectPem(certificate_pem));
  const BioPtr bio(
      BIO_new_mem_buf(certificate_pem.data(), static_cast<int>(certificate_pem.size())), BIO_free);
  const X509Ptr certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), X509_free);
  if (certificate == nullptr) {
    return InvalidInput("the text holds no certificate");
  }
  unsigned char* der = nullptr;
  const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate.get()), &der);
  if (size <= 0) {
    return InvalidInput("the certificate's public key is not readable");
  }
  const Sha256Digest digest = Sha256(
      std::as_bytes(std::span(static_cast<const unsigned char*>(der), static_cast<size_t>(size))));
  OPENSSL_free(der);
  return PeerIdentity{.common_name = std::move(info.common_name),
                      .organizational_unit = std::move(info.organizational_unit),
                      .key_sha256 = ToHex(digest)};
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

// SPDX-License-Identifier: Apache-2.0
#include "controller/lease_signer.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <string>
#include <utility>

#include "tls/certificate.h"

namespace vallum::controller {
namespace {

struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
struct FreeDigestContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using KeyPtr = std::unique_ptr<EVP_PKEY, FreeKey>;

Result<KeyPtr> ReadKey(const SecretBytes& pem) {
  const ByteView text = pem.Reveal(SecretAccess("reading the lease signer's key"));
  const std::unique_ptr<BIO, FreeBio> bio(
      BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  KeyPtr key(bio == nullptr ? nullptr
                            : PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (key == nullptr) return Internal("the lease signer's key cannot be read back");
  return key;
}

}  // namespace

struct LeaseSigner::Key {
  KeyPtr key;
  Bytes certificate;  // DER
  tls::CertificateInfo info;
};

LeaseSigner::LeaseSigner(const tls::CertificateAuthority& authority, const Clock& clock)
    : authority_(authority), clock_(clock) {}
LeaseSigner::~LeaseSigner() = default;

Result<std::unique_ptr<LeaseSigner>> LeaseSigner::Create(const tls::CertificateAuthority& authority,
                                                         const Clock& clock) {
  std::unique_ptr<LeaseSigner> self(new LeaseSigner(authority, clock));
  const std::lock_guard lock(self->mutex_);
  RETURN_IF_ERROR(self->Renew());
  return self;
}

Result<void> LeaseSigner::Renew() {
  ASSIGN_OR_RETURN(const tls::Credentials credentials,
                   authority_.IssueSigner(tls::kLeaseSignerUnit));
  auto next = std::make_unique<Key>();
  ASSIGN_OR_RETURN(std::vector<Bytes> chain, tls::CertificatesFromPem(credentials.certificate_pem));
  next->certificate = std::move(chain.front());
  ASSIGN_OR_RETURN(next->info, tls::InspectDer(next->certificate));
  ASSIGN_OR_RETURN(next->key, ReadKey(credentials.private_key_pem));
  key_ = std::move(next);
  return Ok();
}

Result<v1::TrustLease> LeaseSigner::Sign(const v1::LeaseClaims& claims) {
  const std::lock_guard lock(mutex_);
  if (tls::NeedsRenewal(key_->info, clock_.Now())) {
    RETURN_IF_ERROR(Renew());
  }
  v1::TrustLease lease;
  lease.set_claims(claims.SerializeAsString());
  const auto* data = reinterpret_cast<const unsigned char*>(lease.claims().data());
  const std::unique_ptr<EVP_MD_CTX, FreeDigestContext> context(EVP_MD_CTX_new());
  size_t size = 0;
  bool good =
      context != nullptr &&
      EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, key_->key.get()) == 1 &&
      EVP_DigestSign(context.get(), nullptr, &size, data, lease.claims().size()) == 1;
  std::string signature(size, '\0');
  good = good && EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()),
                                &size, data, lease.claims().size()) == 1;
  ERR_clear_error();
  if (!good) return Internal("a lease cannot be signed");
  signature.resize(size);
  lease.set_signature(std::move(signature));
  lease.set_signer_certificate(key_->certificate.data(), key_->certificate.size());
  return lease;
}

}  // namespace vallum::controller

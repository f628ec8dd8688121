// SPDX-License-Identifier: Apache-2.0
#include "controller/statement_signer.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "tls/certificate.h"

namespace vallum::controller {
namespace {

constexpr int kP256Size = 32;

struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
struct FreeDigestContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
struct FreeSignature {
  void operator()(ECDSA_SIG* signature) const { ECDSA_SIG_free(signature); }
};
using KeyPtr = std::unique_ptr<EVP_PKEY, FreeKey>;

Result<KeyPtr> ReadKey(const SecretBytes& pem) {
  const ByteView text = pem.Reveal(SecretAccess("reading a signer's key"));
  const std::unique_ptr<BIO, FreeBio> bio(
      BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  KeyPtr key(bio == nullptr ? nullptr
                            : PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (key == nullptr) return Internal("a signer's key cannot be read back");
  return key;
}

}  // namespace

struct StatementSigner::Key {
  KeyPtr key;
  std::vector<Bytes> chain;
  tls::CertificateInfo info;
};

StatementSigner::StatementSigner(const tls::CertificateAuthority& authority, std::string_view unit,
                                 const Clock& clock)
    : authority_(authority), unit_(unit), clock_(clock) {}
StatementSigner::~StatementSigner() = default;

Result<std::unique_ptr<StatementSigner>> StatementSigner::Create(
    const tls::CertificateAuthority& authority, std::string_view unit, const Clock& clock) {
  std::unique_ptr<StatementSigner> self(new StatementSigner(authority, unit, clock));
  const std::lock_guard lock(self->mutex_);
  RETURN_IF_ERROR(self->Renew());
  return self;
}

Result<void> StatementSigner::Renew() {
  ASSIGN_OR_RETURN(const tls::Credentials credentials, authority_.IssueSigner(unit_));
  auto next = std::make_unique<Key>();
  ASSIGN_OR_RETURN(next->chain, tls::CertificatesFromPem(credentials.certificate_pem));
  ASSIGN_OR_RETURN(std::vector<Bytes> issuers,
                   tls::CertificatesFromPem(authority_.certificate_pem()));
  std::ranges::move(issuers, std::back_inserter(next->chain));
  ASSIGN_OR_RETURN(next->info, tls::InspectDer(next->chain.front()));
  ASSIGN_OR_RETURN(next->key, ReadKey(credentials.private_key_pem));
  key_ = std::move(next);
  return Ok();
}

Result<StatementSigner::Signed> StatementSigner::Sign(std::string statement) {
  return Sign([&](const std::vector<Bytes>&) { return std::move(statement); });
}

Result<StatementSigner::Signed> StatementSigner::Sign(const Make& make) {
  const std::lock_guard lock(mutex_);
  if (tls::NeedsRenewal(key_->info, clock_.Now())) {
    RETURN_IF_ERROR(Renew());
  }
  Signed out{.statement = make(key_->chain), .signature = {}, .chain = key_->chain};
  const auto* data = reinterpret_cast<const unsigned char*>(out.statement.data());
  const std::unique_ptr<EVP_MD_CTX, FreeDigestContext> context(EVP_MD_CTX_new());
  size_t size = 0;
  bool good =
      context != nullptr &&
      EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, key_->key.get()) == 1 &&
      EVP_DigestSign(context.get(), nullptr, &size, data, out.statement.size()) == 1;
  out.signature.resize(size);
  good =
      good && EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(out.signature.data()),
                             &size, data, out.statement.size()) == 1;
  ERR_clear_error();
  if (!good) return Internal("a statement cannot be signed");
  out.signature.resize(size);
  return out;
}

Result<Bytes> JwsSignature(ByteView der) {
  const auto* at = reinterpret_cast<const unsigned char*>(der.data());
  const std::unique_ptr<ECDSA_SIG, FreeSignature> signature(
      d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(der.size())));
  Bytes out(size_t{2} * kP256Size);
  auto* bytes = reinterpret_cast<unsigned char*>(out.data());
  const bool good =
      signature != nullptr &&
      BN_bn2binpad(ECDSA_SIG_get0_r(signature.get()), bytes, kP256Size) == kP256Size &&
      BN_bn2binpad(ECDSA_SIG_get0_s(signature.get()), bytes + kP256Size, kP256Size) == kP256Size;
  ERR_clear_error();
  if (!good) return Internal("a signature is none of P-256");
  return out;
}

}  // namespace vallum::controller

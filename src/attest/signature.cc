// SPDX-License-Identifier: Apache-2.0
#include "attest/signature.h"

#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/rsa.h>

#include <string>

#include "attest/openssl.h"
#include "base/check.h"

namespace vallum::attest {
namespace {

const EVP_MD* MessageDigest(HashAlgorithm hash) {
  switch (hash) {
    case HashAlgorithm::kSha1:
      return EVP_sha1();
    case HashAlgorithm::kSha256:
      return EVP_sha256();
    case HashAlgorithm::kSha384:
      return EVP_sha384();
    case HashAlgorithm::kSha512:
      return EVP_sha512();
  }
  CHECK(false);
}

bool SetPadding(EVP_PKEY_CTX* context, KeyScheme scheme) {
  if (scheme == KeyScheme::kRsapss) {
    return EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PSS_PADDING) == 1 &&
           EVP_PKEY_CTX_set_rsa_pss_saltlen(context, RSA_PSS_SALTLEN_AUTO) == 1;
  }
  return EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PADDING) == 1;
}

// ECDSA-Sig-Value of RFC 3279, section 2.2.3. Empty: the numbers are too long for the key.
Bytes ToDer(const EcdsaSignature& signature, size_t field_size) {
  const std::unique_ptr<ECDSA_SIG, Freer<ECDSA_SIG_free>> out(ECDSA_SIG_new());
  CHECK(out != nullptr);
  if (signature.r.size() > field_size || signature.s.size() > field_size) {
    return {};
  }
  BIGNUM* r = BN_bin2bn(Unsigned(signature.r), static_cast<int>(signature.r.size()), nullptr);
  BIGNUM* s = BN_bin2bn(Unsigned(signature.s), static_cast<int>(signature.s.size()), nullptr);
  CHECK(r != nullptr && s != nullptr && ECDSA_SIG_set0(out.get(), r, s) == 1);
  unsigned char* der = nullptr;
  const int size = i2d_ECDSA_SIG(out.get(), &der);
  CHECK(size > 0);
  Bytes bytes = ToBytes(ViewOf(der, static_cast<size_t>(size)));
  OPENSSL_free(der);
  return bytes;
}

bool SchemeFits(const PublicKey& key, KeyScheme scheme) {
  switch (scheme) {
    case KeyScheme::kRsassa:
    case KeyScheme::kRsapss:
      return key.IsRsa();
    case KeyScheme::kEcdsa:
      return !key.IsRsa();
    case KeyScheme::kNull:
    case KeyScheme::kRsaes:
    case KeyScheme::kOaep:
    case KeyScheme::kEcdh:
      return false;
  }
  return false;
}

}  // namespace

Result<SignatureVerifier> SignatureVerifier::Create(const PublicKey& key, KeyScheme scheme,
                                                    HashAlgorithm hash) {
  if (!SchemeFits(key, scheme)) {
    return InvalidInput(std::string(KeySchemeName(scheme)) + " is no signature by such a key");
  }
  std::shared_ptr<EVP_PKEY_CTX> context(EVP_PKEY_CTX_new(key.get(), nullptr), EVP_PKEY_CTX_free);
  CHECK(context != nullptr && EVP_PKEY_verify_init(context.get()) == 1);
  CHECK(scheme == KeyScheme::kEcdsa || SetPadding(context.get(), scheme));
  CHECK(EVP_PKEY_CTX_set_signature_md(context.get(), MessageDigest(hash)) == 1);
  const auto curve = key.Curve();
  return SignatureVerifier(std::move(context), scheme, hash,
                           curve.has_value() ? CoordinateSize(*curve) : 0);
}

bool SignatureVerifier::Verify(const Signature& signature, ByteView message) const {
  if (signature.scheme != scheme_ || signature.hash != hash_) {
    return false;
  }
  return scheme_ == KeyScheme::kEcdsa ? VerifyPlain(ToDer(signature.ecdsa, field_size_), message)
                                      : VerifyPlain(signature.rsa, message);
}

bool SignatureVerifier::VerifyPlain(ByteView signature, ByteView message) const {
  if (signature.empty()) {
    return false;
  }
  const Bytes digest = Digest(hash_, message);
  const KeyContextPtr context(EVP_PKEY_CTX_dup(context_.get()));
  CHECK(context != nullptr);
  if (EVP_PKEY_verify(context.get(), Unsigned(signature), signature.size(), Unsigned(digest),
                      digest.size()) == 1) {
    return true;
  }
  ERR_clear_error();
  return false;
}

}  // namespace vallum::attest

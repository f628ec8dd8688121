// SPDX-License-Identifier: Apache-2.0
#include <openssl/asn1.h>
#include <openssl/objects.h>
#include <openssl/pkcs7.h>
#include <openssl/x509.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "measure/ima_keys.h"
#include "measure/ima_signature.h"

namespace vallum::measure {
namespace {

constexpr int kMaxSigners = 4;

ByteView View(const ASN1_STRING* text) {
  return {reinterpret_cast<const std::byte*>(ASN1_STRING_get0_data(text)),
          static_cast<size_t>(ASN1_STRING_length(text))};
}

bool IsAlgorithm(const X509_ALGOR* algorithm, const EVP_MD* md) {
  return md != nullptr && OBJ_obj2nid(algorithm->algorithm) == EVP_MD_get_type(md);
}

// What the signature is of: the digest itself, or the attributes that hold it. Nothing when they
// do not.
std::optional<Bytes> SignedDigest(PKCS7_SIGNER_INFO* signer, const ImaDigest& digest,
                                  const EVP_MD* md) {
  if (signer->auth_attr == nullptr || sk_X509_ATTRIBUTE_num(signer->auth_attr) == 0) {
    return ToBytes(digest.bytes);
  }
  const ASN1_OCTET_STRING* const held = PKCS7_digest_from_attributes(signer->auth_attr);
  if (held == nullptr || !std::ranges::equal(View(held), digest.bytes)) {
    return std::nullopt;
  }
  unsigned char* der = nullptr;
  const int size = ASN1_item_i2d(reinterpret_cast<ASN1_VALUE*>(signer->auth_attr), &der,
                                 ASN1_ITEM_rptr(PKCS7_ATTR_VERIFY));
  const std::unique_ptr<unsigned char, OpensslMemoryFree> free_der(der);
  Bytes out(kMaxImaDigest);
  unsigned out_size = 0;
  if (size <= 0 ||
      EVP_Digest(der, static_cast<size_t>(size), reinterpret_cast<unsigned char*>(out.data()),
                 &out_size, md, nullptr) != 1) {
    return std::nullopt;
  }
  out.resize(out_size);
  return out;
}

// Whether the key could have made a signature of this length at all.
bool IsOfItsSize(const EVP_PKEY* key, ByteView signature) {
  const auto most = static_cast<size_t>(EVP_PKEY_get_size(key));
  return EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA ? signature.size() == most
                                                   : signature.size() <= most;
}

}  // namespace

ImaSignatureVerdict ImaKeys::VerifyModsig(ByteView field, const ImaDigest& digest,
                                          ModsigBudget& budget) const {
  const OpensslErrors errors;
  if (field.empty() || field.size() > kMaxModsigBytes) {
    return ImaSignatureVerdict::kMalformed;
  }
  const auto* at = reinterpret_cast<const unsigned char*>(field.data());
  const std::unique_ptr<PKCS7, OpensslFree<PKCS7_free>> message(
      d2i_PKCS7(nullptr, &at, static_cast<long>(field.size())));
  STACK_OF(PKCS7_SIGNER_INFO)* const signers =
      message == nullptr || !PKCS7_type_is_signed(message.get())
          ? nullptr
          : PKCS7_get_signer_info(message.get());
  const EVP_MD* const md = ImaHashMd(digest.hash);
  if (signers == nullptr || md == nullptr || digest.bytes.size() != ImaHashSize(digest.hash)) {
    return ImaSignatureVerdict::kMalformed;
  }
  const int count = std::min(sk_PKCS7_SIGNER_INFO_num(signers), kMaxSigners);
  for (int i = 0; i < count; ++i) {
    PKCS7_SIGNER_INFO* const signer = sk_PKCS7_SIGNER_INFO_value(signers, i);
    const auto hashed =
        IsAlgorithm(signer->digest_alg, md) ? SignedDigest(signer, digest, md) : std::nullopt;
    if (!hashed.has_value()) {
      continue;
    }
    // The message names an issuer and a serial number, which bare keys do not have: try all.
    const ByteView signature = View(signer->enc_digest);
    for (const auto& key : keys_) {
      if (!IsOfItsSize(key->key.get(), signature)) {
        continue;
      }
      if (!budget.Take()) {
        return ImaSignatureVerdict::kUnknownKey;
      }
      if (VerifyImaDigest(key->key.get(), digest.hash, *hashed, signature)) {
        return ImaSignatureVerdict::kGood;
      }
    }
  }
  return ImaSignatureVerdict::kUnknownKey;
}

}  // namespace vallum::measure

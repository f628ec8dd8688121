// SPDX-License-Identifier: Apache-2.0
#include "tls/signing.h"

#include <openssl/err.h>

#include <memory>
#include <string>
#include <utility>

#include "base/text.h"
#include "tls/certificate.h"
#include "tls/openssl.h"

namespace vallum::tls {
namespace {

using DigestPtr = std::unique_ptr<EVP_MD_CTX, Freer<EVP_MD_CTX_free>>;
using UsagePtr = std::unique_ptr<EXTENDED_KEY_USAGE, Freer<EXTENDED_KEY_USAGE_free>>;

const unsigned char* Octets(ByteView bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

bool IsForDocuments(const X509* certificate) {
  const UsagePtr usage(static_cast<EXTENDED_KEY_USAGE*>(
      X509_get_ext_d2i(certificate, NID_ext_key_usage, nullptr, nullptr)));
  bool found = false;
  for (int i = 0; usage != nullptr && i < sk_ASN1_OBJECT_num(usage.get()); ++i) {
    char text[64] = {};
    OBJ_obj2txt(text, sizeof text, sk_ASN1_OBJECT_value(usage.get(), i), 1);
    found = found || std::string_view(text) == kDocumentSigningUse;
  }
  return found;
}

}  // namespace

Result<Bytes> SignSha256(const SecretBytes& private_key_pem, ByteView message) {
  ASSIGN_OR_RETURN(const KeyPtr key, KeyFromPem(private_key_pem));
  const DigestPtr digest(EVP_MD_CTX_new());
  size_t size = 0;
  if (digest == nullptr ||
      EVP_DigestSignInit(digest.get(), nullptr, EVP_sha256(), nullptr, key.get()) != 1 ||
      EVP_DigestSign(digest.get(), nullptr, &size, Octets(message), message.size()) != 1) {
    return OpenSslError("prepare a signature");
  }
  Bytes signature(size);
  if (EVP_DigestSign(digest.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                     Octets(message), message.size()) != 1) {
    return OpenSslError("sign");
  }
  signature.resize(size);
  return signature;
}

Result<void> VerifySha256(ByteView certificate_der, ByteView message, ByteView signature) {
  ASSIGN_OR_RETURN(const CertPtr certificate, ParseCertificate(certificate_der));
  const KeyPtr key(X509_get_pubkey(certificate.get()));
  const DigestPtr digest(EVP_MD_CTX_new());
  const bool good =
      key != nullptr && digest != nullptr && EVP_PKEY_is_a(key.get(), "EC") == 1 &&
      EVP_DigestVerifyInit(digest.get(), nullptr, EVP_sha256(), nullptr, key.get()) == 1 &&
      EVP_DigestVerify(digest.get(), Octets(signature), signature.size(), Octets(message),
                       message.size()) == 1;
  ERR_clear_error();
  return good ? Ok() : Result<void>(Denied("the signature is not that of the certificate's key"));
}

Result<void> VerifySigner(ByteView certificate_der, std::string_view ca_pem, std::string_view unit,
                          WallTime now) {
  ASSIGN_OR_RETURN(const CertPtr leaf, ParseCertificate(certificate_der));
  RETURN_IF_ERROR(VerifyAgainst(leaf.get(), ca_pem, X509_PURPOSE_ANY, now))
      .context("the signer's certificate");
  const bool for_documents = IsForDocuments(leaf.get());
  ERR_clear_error();
  ASSIGN_OR_RETURN(const CertificateInfo info, InspectDer(certificate_der));
  if (!for_documents || info.organizational_unit != unit) {
    return Denied("the signer's certificate is of OU '" + Printable(info.organizational_unit, 60) +
                  "', not of a " + std::string(unit));
  }
  return Ok();
}

}  // namespace vallum::tls

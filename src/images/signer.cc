// SPDX-License-Identifier: Apache-2.0
#include "images/signer.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pkcs7.h>
#include <openssl/x509.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"

namespace vallum::images {
namespace {

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
struct StackDeleter {
  void operator()(STACK_OF(X509) * stack) const { sk_X509_free(stack); }
};

std::string SubjectOf(const X509* certificate) {
  const std::unique_ptr<BIO, Deleter<BIO_free>> bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr || X509_NAME_print_ex(bio.get(), X509_get_subject_name(certificate), 0,
                                           XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) < 0) {
    return {};
  }
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return Printable({data, static_cast<size_t>(size)}, 512);
}

using SignedMessage = std::unique_ptr<PKCS7, Deleter<PKCS7_free>>;

// nullptr: not a SignedData.
SignedMessage ParseSigned(ByteView pkcs7) {
  const auto* at = reinterpret_cast<const unsigned char*>(pkcs7.data());
  SignedMessage message(d2i_PKCS7(nullptr, &at, static_cast<long>(pkcs7.size())));
  ERR_clear_error();
  if (message == nullptr || PKCS7_type_is_signed(message.get()) == 0) return nullptr;
  return message;
}

Bytes ToDer(const X509* certificate) {
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificate, &der);
  Bytes out;
  if (size > 0) out = ToBytes({reinterpret_cast<std::byte*>(der), static_cast<size_t>(size)});
  OPENSSL_free(der);
  return out;
}

}  // namespace

Result<Signer> ReadSigner(ByteView pkcs7) {
  const SignedMessage message = ParseSigned(pkcs7);
  if (message == nullptr) return InvalidInput("the signature is no PKCS#7 SignedData");
  const std::unique_ptr<STACK_OF(X509), StackDeleter> signers(
      PKCS7_get0_signers(message.get(), nullptr, 0));
  ERR_clear_error();
  if (signers == nullptr || sk_X509_num(signers.get()) < 1) {
    return InvalidInput("the signature does not carry its signer's certificate");
  }
  X509* certificate = sk_X509_value(signers.get(), 0);
  return Signer{SubjectOf(certificate), ToDer(certificate)};
}

std::vector<Bytes> ReadCertificates(ByteView pkcs7) {
  const SignedMessage message = ParseSigned(pkcs7);
  if (message == nullptr || message->d.sign == nullptr) return {};
  std::vector<Bytes> out;
  const STACK_OF(X509)* certificates = message->d.sign->cert;
  for (int i = 0; i < sk_X509_num(certificates); ++i) {
    out.push_back(ToDer(sk_X509_value(certificates, i)));
  }
  return out;
}

}  // namespace vallum::images

// SPDX-License-Identifier: Apache-2.0
#include "tls/openssl.h"

#include <openssl/err.h>
#include <openssl/pem.h>

#include <climits>
#include <ctime>
#include <string>

namespace vallum::tls {
namespace {

constexpr size_t kMaxCertificateBytes = 64 * 1024;

// Never asks a terminal for a passphrase.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*context*/) { return -1; }

}  // namespace

Error OpenSslError(std::string_view what) {
  std::string message(what);
  if (const unsigned long code = ERR_peek_last_error(); code != 0) {
    char text[256];
    ERR_error_string_n(code, text, sizeof text);
    message += ": ";
    message += text;
  }
  ERR_clear_error();
  return Internal(std::move(message));
}

Result<CertPtr> ParseCertificate(ByteView der) {
  if (der.size() > kMaxCertificateBytes) return InvalidInput("certificate is larger than 64 KiB");
  const auto* begin = reinterpret_cast<const unsigned char*>(der.data());
  const unsigned char* end = begin;
  CertPtr certificate(d2i_X509(nullptr, &end, static_cast<long>(der.size())));
  ERR_clear_error();
  if (certificate == nullptr) return InvalidInput("not a DER certificate");
  if (static_cast<size_t>(end - begin) != der.size()) {
    return InvalidInput("bytes follow the certificate");
  }
  return certificate;
}

Result<Bytes> CertificateDer(const X509* certificate) {
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificate, &der);
  if (size <= 0) return OpenSslError("encode a certificate");
  const auto* bytes = reinterpret_cast<const std::byte*>(der);
  Bytes out(bytes, bytes + size);
  OPENSSL_free(der);
  return out;
}

ByteView BioContent(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  if (size <= 0) return {};
  return AsBytes(std::string_view(data, static_cast<size_t>(size)));
}

Result<SecretBytes> KeyToPem(EVP_PKEY* key) {
  // The secure heap variant of a memory BIO is wiped when freed.
  const BioPtr bio(BIO_new(BIO_s_secmem()));
  if (bio == nullptr ||
      PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return OpenSslError("encode a private key");
  }
  return SecretBytes(BioContent(bio.get()));
}

Result<KeyPtr> KeyFromPem(const SecretBytes& pem) {
  const ByteView text = pem.Reveal(SecretAccess("loading a private key"));
  const BioPtr bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  if (bio == nullptr) return OpenSslError("allocate");
  KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr));
  ERR_clear_error();
  if (key == nullptr) return InvalidInput("not a PEM private key without a passphrase");
  return key;
}

Result<KeyPtr> MakeP256Key() {
  KeyPtr key(EVP_EC_gen("P-256"));
  if (key == nullptr) return OpenSslError("make a P-256 key");
  return key;
}

Result<WallTime> ToWallTime(const ASN1_TIME* time) {
  std::tm parts = {};
  if (ASN1_TIME_to_tm(time, &parts) != 1) {
    ERR_clear_error();
    return InvalidInput("certificate has an unreadable date");
  }
  return std::chrono::system_clock::from_time_t(::timegm(&parts));
}

}  // namespace vallum::tls

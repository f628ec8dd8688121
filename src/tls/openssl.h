// SPDX-License-Identifier: Apache-2.0
// Owners of OpenSSL's objects and its errors as ours; for the .cc files of this component.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "base/secret_bytes.h"

namespace vallum::tls {

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using BioPtr = std::unique_ptr<BIO, Freer<BIO_free_all>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using CertPtr = std::unique_ptr<X509, Freer<X509_free>>;
using CsrPtr = std::unique_ptr<X509_REQ, Freer<X509_REQ_free>>;
using NamePtr = std::unique_ptr<X509_NAME, Freer<X509_NAME_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, Freer<GENERAL_NAMES_free>>;

// kInternal with the newest entry of OpenSSL's error queue, which is emptied.
Error OpenSslError(std::string_view what);

// Reads exactly one certificate. Errors: kInvalidInput.
Result<CertPtr> ParseCertificate(ByteView der);
// Whether the leaf was issued by one of the CAs, is valid now and of use for it.
//   purpose: one of X509_PURPOSE_*. Errors: kDenied, kInvalidInput (ca_pem).
Result<void> VerifyAgainst(X509* leaf, std::string_view ca_pem, int purpose, WallTime now);
Result<Bytes> CertificateDer(const X509* certificate);
Result<SecretBytes> KeyToPem(EVP_PKEY* key);
// Errors: kInvalidInput.
Result<KeyPtr> KeyFromPem(const SecretBytes& pem);
Result<KeyPtr> MakeP256Key();
Result<WallTime> ToWallTime(const ASN1_TIME* time);
// A copy of the bytes that OpenSSL collected in a memory BIO.
ByteView BioContent(BIO* bio);

}  // namespace vallum::tls

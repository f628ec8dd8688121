// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "measure/ima_fields.h"

// Of ima_signature.cc and ima_modsig.cc alone.
namespace vallum::measure {

template <auto Free>
struct OpensslFree {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};

struct OpensslMemoryFree {
  void operator()(void* memory) const { OPENSSL_free(memory); }
};

// Each public function that calls OpenSSL leaves its error queue as it should be found: empty.
struct OpensslErrors {
  OpensslErrors() = default;
  ~OpensslErrors() { ERR_clear_error(); }
  OpensslErrors(const OpensslErrors&) = delete;
  OpensslErrors& operator=(const OpensslErrors&) = delete;
};

struct ImaKey {
  std::unique_ptr<EVP_PKEY, OpensslFree<EVP_PKEY_free>> key;
  std::vector<uint32_t> ids;
};

// OpenSSL's hash; null for those that it lacks or that nobody should sign with.
const EVP_MD* ImaHashMd(ImaHash hash);

// Whether a signature is of a digest: RSASSA-PKCS1-v1_5, or ECDSA, by the key's kind.
bool VerifyImaDigest(EVP_PKEY* key, ImaHash hash, ByteView digest, ByteView signature);

}  // namespace vallum::measure

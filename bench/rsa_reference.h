// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/evp.h>
#include <openssl/rsa.h>

#include <array>
#include <memory>

#include "base/check.h"
#include "median.h"

namespace vallum::bench {

// What OpenSSL alone does to verify an RSA-2048 signature (RSASSA, SHA-256) over a digest that is
// there, in a context that is there. No check of a quote does without it, and what a machine takes
// for it is the unit of the targets: they were set where it took kRsaVerifyWhereTargetsWereSet
// milliseconds.
inline constexpr double kRsaVerifyWhereTargetsWereSet = 0.0134;

class RsaReference {
 public:
  static constexpr int kTimes = 10;  // one is too short for the clock

  RsaReference() {
    size_t size = signature_.size();
    CHECK(EVP_PKEY_sign(MakeContext(EVP_PKEY_sign_init).get(), signature_.data(), &size,
                        digest_.data(), digest_.size()) == 1);
    verify_ = MakeContext(EVP_PKEY_verify_init);
  }

  void VerifyTenTimes() const {
    for (int i = 0; i < kTimes; ++i) {
      CHECK(EVP_PKEY_verify(verify_.get(), signature_.data(), signature_.size(), digest_.data(),
                            digest_.size()) == 1);
    }
  }

 private:
  using Context = std::unique_ptr<EVP_PKEY_CTX, decltype(&EVP_PKEY_CTX_free)>;

  Context MakeContext(int (*init)(EVP_PKEY_CTX*)) const {
    Context out(EVP_PKEY_CTX_new(key_.get(), nullptr), EVP_PKEY_CTX_free);
    CHECK(init(out.get()) == 1);
    CHECK(EVP_PKEY_CTX_set_rsa_padding(out.get(), RSA_PKCS1_PADDING) == 1);
    CHECK(EVP_PKEY_CTX_set_signature_md(out.get(), EVP_sha256()) == 1);
    return out;
  }

  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key_{EVP_RSA_gen(2048), EVP_PKEY_free};
  std::array<unsigned char, 32> digest_{};
  std::array<unsigned char, 256> signature_{};
  Context verify_{nullptr, EVP_PKEY_CTX_free};
};

// Milliseconds for one.
inline double RsaVerifyMs() {
  constexpr int kRounds = 500;
  const RsaReference rsa;
  return MedianMs(kRounds, [&] { rsa.VerifyTenTimes(); }) / RsaReference::kTimes;
}

}  // namespace vallum::bench

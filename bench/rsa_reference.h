// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/evp.h>
#include <openssl/rsa.h>

#include <array>
#include <memory>

#include "base/check.h"
#include "median.h"

namespace vallum::bench {

// Milliseconds that OpenSSL alone takes to verify an RSA-2048 signature (RSASSA, SHA-256) over a
// digest that is there, in a context that is there. No check of a quote does without it, and what
// a machine takes for it is the unit of the targets: they were set where it took
// kRsaVerifyWhereTargetsWereSet.
inline constexpr double kRsaVerifyWhereTargetsWereSet = 0.0134;

inline double RsaVerifyMs() {
  constexpr int kRounds = 500;
  constexpr int kTimes = 10;  // in each round: one is too short for the clock
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_RSA_gen(2048), EVP_PKEY_free);
  const auto context = [&](int (*init)(EVP_PKEY_CTX*)) {
    std::unique_ptr<EVP_PKEY_CTX, decltype(&EVP_PKEY_CTX_free)> out(
        EVP_PKEY_CTX_new(key.get(), nullptr), EVP_PKEY_CTX_free);
    CHECK(init(out.get()) == 1);
    CHECK(EVP_PKEY_CTX_set_rsa_padding(out.get(), RSA_PKCS1_PADDING) == 1);
    CHECK(EVP_PKEY_CTX_set_signature_md(out.get(), EVP_sha256()) == 1);
    return out;
  };
  const std::array<unsigned char, 32> digest{};
  std::array<unsigned char, 256> signature{};
  size_t size = signature.size();
  CHECK(EVP_PKEY_sign(context(EVP_PKEY_sign_init).get(), signature.data(), &size, digest.data(),
                      digest.size()) == 1);
  const auto verify = context(EVP_PKEY_verify_init);
  const double all = MedianMs(kRounds, [&] {
    for (int i = 0; i < kTimes; ++i) {
      CHECK(EVP_PKEY_verify(verify.get(), signature.data(), size, digest.data(), digest.size()) ==
            1);
    }
  });
  return all / kTimes;
}

}  // namespace vallum::bench

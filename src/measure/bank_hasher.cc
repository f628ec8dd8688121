// SPDX-License-Identifier: Apache-2.0
#include "measure/bank_hasher.h"

#include <openssl/evp.h>

#include <algorithm>
#include <string>

#include "base/check.h"

namespace vallum::measure {

// OpenSSL 3 looks an algorithm up by name for each hash unless it is fetched beforehand: that costs
// more than the 64 bytes of an extend.
struct BankHasher::State {
  explicit State(const std::string& name)
      : algorithm(EVP_MD_fetch(nullptr, name.c_str(), nullptr), EVP_MD_free),
        context(EVP_MD_CTX_new(), EVP_MD_CTX_free) {}

  std::unique_ptr<EVP_MD, decltype(&EVP_MD_free)> algorithm;
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context;
};

BankHasher::BankHasher(HashAlgorithm bank)
    : bank_(bank), state_(std::make_unique<State>(std::string(HashAlgorithmName(bank)))) {
  CHECK(state_->algorithm != nullptr && state_->context != nullptr);
}

BankHasher::~BankHasher() = default;

ByteView BankHasher::Hash(ByteView first, ByteView second) {
  EVP_MD_CTX* context = state_->context.get();
  CHECK(EVP_DigestInit_ex2(context, state_->algorithm.get(), nullptr) == 1);
  CHECK(EVP_DigestUpdate(context, first.data(), first.size()) == 1);
  CHECK(second.empty() || EVP_DigestUpdate(context, second.data(), second.size()) == 1);
  unsigned size = 0;
  CHECK(EVP_DigestFinal_ex(context, reinterpret_cast<unsigned char*>(digest_.data()), &size) == 1);
  return ByteView(digest_).first(size);
}

void BankHasher::Extend(std::span<std::byte> value, ByteView digest) {
  CHECK(value.size() == DigestSize(bank_) && digest.size() == value.size());
  std::ranges::copy(Hash(value, digest), value.begin());
}

}  // namespace vallum::measure

// SPDX-License-Identifier: Apache-2.0
// OpenSSL 3's EVP interface takes longer to begin and end a hash than to hash the 64 bytes of an
// extend, which is what a replay does a thousand times. The functions below it are deprecated, not
// gone, and the same code.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "measure/bank_hasher.h"

#include <openssl/sha.h>

#include <algorithm>

#include "base/check.h"
#include "measure/sha_instructions.h"

namespace vallum::measure {
namespace {

template <auto Init, auto Update, auto Final, typename Context>
void HashWith(Context& context, ByteView first, ByteView second, std::byte* out) {
  Init(&context);
  Update(&context, first.data(), first.size());
  Update(&context, second.data(), second.size());
  Final(reinterpret_cast<unsigned char*>(out), &context);
}

}  // namespace

struct BankHasher::State {
  SHA_CTX sha1;
  SHA256_CTX sha256;
  SHA512_CTX sha512;  // SHA-384 too
};

BankHasher::BankHasher(HashAlgorithm bank, HashBackend backend)
    : bank_(bank), state_(std::make_unique<State>()) {
  if (backend == HashBackend::kOpenSsl || !HasShaInstructions()) return;
  if (bank == HashAlgorithm::kSha1) each_ = Sha1Each;
  if (bank == HashAlgorithm::kSha256) each_ = Sha256Each;
}

BankHasher::~BankHasher() = default;

ByteView BankHasher::Hash(ByteView first, ByteView second) {
  std::byte* const out = digest_.data();
  switch (bank_) {
    case HashAlgorithm::kSha1:
      HashWith<SHA1_Init, SHA1_Update, SHA1_Final>(state_->sha1, first, second, out);
      break;
    case HashAlgorithm::kSha256:
      HashWith<SHA256_Init, SHA256_Update, SHA256_Final>(state_->sha256, first, second, out);
      break;
    case HashAlgorithm::kSha384:
      HashWith<SHA384_Init, SHA384_Update, SHA384_Final>(state_->sha512, first, second, out);
      break;
    case HashAlgorithm::kSha512:
      HashWith<SHA512_Init, SHA512_Update, SHA512_Final>(state_->sha512, first, second, out);
      break;
  }
  return ByteView(digest_).first(DigestSize(bank_));
}

void BankHasher::HashEach(std::span<const ByteView> inputs, std::span<std::byte> out) {
  const size_t size = DigestSize(bank_);
  CHECK(out.size() == inputs.size() * size);
  if (each_ != nullptr) {
    each_(inputs, out.data());
    return;
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::ranges::copy(Hash(inputs[i]), out.begin() + static_cast<std::ptrdiff_t>(i * size));
  }
}

void BankHasher::Extend(std::span<std::byte> value, ByteView digest) {
  const size_t size = DigestSize(bank_);
  CHECK(value.size() == size && digest.size() == size);
  std::array<std::byte, 2 * 64> both;
  std::ranges::copy(value, both.begin());
  std::ranges::copy(digest, both.begin() + static_cast<std::ptrdiff_t>(size));
  const ByteView input = ByteView(both).first(2 * size);
  HashEach({&input, 1}, value);
}

}  // namespace vallum::measure

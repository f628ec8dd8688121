// SPDX-License-Identifier: Apache-2.0
#include "base/secret_bytes.h"

#include <openssl/crypto.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/ids.h"

namespace vallum {
namespace {

// A mapping of its own, so that locking and MADV_DONTDUMP touch no neighbour.
std::byte* AllocateLocked(size_t size) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  // Best effort: an unprivileged process may be out of lockable memory; the pages are still left
  // out of dumps.
  (void)mlock(memory, size);
  CHECK(madvise(memory, size, MADV_DONTDUMP) == 0);
  return static_cast<std::byte*>(memory);
}

}  // namespace

void Wipe(std::span<std::byte> memory) { OPENSSL_cleanse(memory.data(), memory.size()); }

bool ConstantTimeEqual(ByteView a, ByteView b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

SecretBytes::SecretBytes(ByteView secret) : size_(secret.size()) {
  if (secret.empty()) return;
  data_ = AllocateLocked(size_);
  std::copy(secret.begin(), secret.end(), data_);
}

SecretBytes::~SecretBytes() { Clear(); }

SecretBytes::SecretBytes(SecretBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

SecretBytes& SecretBytes::operator=(SecretBytes&& other) noexcept {
  if (this != &other) {
    Clear();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

SecretBytes SecretBytes::TakeAndWipe(Bytes& source) {
  SecretBytes secret{ByteView(source)};
  Wipe(source);
  source.clear();
  return secret;
}

SecretBytes SecretBytes::Random(size_t count) {
  Bytes raw = RandomBytes(count);
  return TakeAndWipe(raw);
}

ByteView SecretBytes::Reveal(SecretAccess /*access*/) const { return {data_, size_}; }

bool SecretBytes::Equals(const SecretBytes& other) const {
  return ConstantTimeEqual({data_, size_}, {other.data_, other.size_});
}

void SecretBytes::Clear() {
  if (data_ == nullptr) return;
  Wipe({data_, size_});
  munmap(data_, size_);
  data_ = nullptr;
  size_ = 0;
}

}  // namespace vallum

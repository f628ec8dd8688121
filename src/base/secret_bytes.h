// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "base/bytes.h"

namespace vallum {

// Names the place that reads a secret in clear: `secret.Reveal(SecretAccess("encrypting the volume
// key"))`, so that every such place is found by searching for SecretAccess.
class SecretAccess {
 public:
  explicit SecretAccess(std::string_view purpose) : purpose_(purpose) {}
  std::string_view purpose() const { return purpose_; }

 private:
  std::string_view purpose_;
};

// Bytes that must not leak: kept in pages that are locked in memory and left out of core dumps,
// wiped when destroyed, never printed. Move only. Reveal() is the only way to the content.
class SecretBytes {
 public:
  SecretBytes() = default;
  // Copies; the caller wipes its own copy (see TakeAndWipe).
  explicit SecretBytes(ByteView secret);
  ~SecretBytes();
  SecretBytes(SecretBytes&& other) noexcept;
  SecretBytes& operator=(SecretBytes&& other) noexcept;
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;

  // Moves a secret out of an ordinary buffer and wipes that buffer.
  static SecretBytes TakeAndWipe(Bytes& source);
  static SecretBytes Random(size_t count);

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  ByteView Reveal(SecretAccess access) const;
  // Compares in constant time.
  bool Equals(const SecretBytes& other) const;

 private:
  void Clear();
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Overwrites memory in a way that the compiler does not remove.
void Wipe(std::span<std::byte> memory);
// Compares in a time that depends on the sizes only.
bool ConstantTimeEqual(ByteView a, ByteView b);

}  // namespace vallum

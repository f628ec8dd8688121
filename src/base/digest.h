// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum {

enum class HashAlgorithm { kSha1, kSha256, kSha384, kSha512 };

// "sha1", "sha256", "sha384", "sha512".
std::string_view HashAlgorithmName(HashAlgorithm algorithm);
// Size of a digest in bytes: 20, 32, 48, 64.
size_t DigestSize(HashAlgorithm algorithm);

// The digest of the whole input. Pure; thread-safe.
Bytes Digest(HashAlgorithm algorithm, ByteView data);

using Sha256Digest = std::array<std::byte, 32>;
Sha256Digest Sha256(ByteView data);

// Hashes input that arrives in pieces. Not thread-safe; Finish() may be called once.
class Hasher {
 public:
  explicit Hasher(HashAlgorithm algorithm);
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;

  void Update(ByteView data);
  Bytes Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vallum

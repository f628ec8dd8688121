// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>

#include "base/bytes.h"
#include "base/digest.h"

namespace vallum::measure {

enum class HashBackend { kFastest, kOpenSsl };

// Hashes many short inputs in one bank without allocating for each: a replay is little else.
// Not thread-safe.
class BankHasher {
 public:
  explicit BankHasher(HashAlgorithm bank, HashBackend backend = HashBackend::kFastest);
  ~BankHasher();
  BankHasher(const BankHasher&) = delete;
  BankHasher& operator=(const BankHasher&) = delete;

  HashAlgorithm bank() const { return bank_; }
  // The digest of both pieces, one after the other; valid until the next call.
  ByteView Hash(ByteView first, ByteView second = {});
  // The digest of each input; quicker than one after the other.
  //   inputs: none of them within out, or what Hash returned.
  //   out: DigestSize(bank) bytes for each input, in their order (checked).
  void HashEach(std::span<const ByteView> inputs, std::span<std::byte> out);
  // TPM2_PCR_Extend: value = H(value || digest).
  //   value, digest: DigestSize(bank) bytes each (checked).
  void Extend(std::span<std::byte> value, ByteView digest);

 private:
  struct State;
  using Each = void (*)(std::span<const ByteView>, std::byte*);

  HashAlgorithm bank_;
  Each each_ = nullptr;  // null: one by one
  std::unique_ptr<State> state_;
  std::array<std::byte, 64> digest_{};
};

}  // namespace vallum::measure

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>

#include "base/bytes.h"
#include "base/digest.h"

namespace vallum::measure {

// Hashes many short inputs in one bank without allocating for each: a replay is little else.
// Not thread-safe.
class BankHasher {
 public:
  explicit BankHasher(HashAlgorithm bank);
  ~BankHasher();
  BankHasher(const BankHasher&) = delete;
  BankHasher& operator=(const BankHasher&) = delete;

  HashAlgorithm bank() const { return bank_; }
  // The digest of both pieces, one after the other; valid until the next call.
  ByteView Hash(ByteView first, ByteView second = {});
  // TPM2_PCR_Extend: value = H(value || digest).
  //   value, digest: DigestSize(bank) bytes each (checked).
  void Extend(std::span<std::byte> value, ByteView digest);

 private:
  struct State;
  HashAlgorithm bank_;
  std::unique_ptr<State> state_;
  std::array<std::byte, 64> digest_{};
};

}  // namespace vallum::measure

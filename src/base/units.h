// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vallum {

// A number of bytes, so that a size in MiB cannot be handed over for one in bytes.
class ByteCount {
 public:
  constexpr ByteCount() = default;
  static constexpr ByteCount Bytes(uint64_t n) { return ByteCount(n); }
  static constexpr ByteCount KiB(uint64_t n) { return ByteCount(n << 10U); }
  static constexpr ByteCount MiB(uint64_t n) { return ByteCount(n << 20U); }
  static constexpr ByteCount GiB(uint64_t n) { return ByteCount(n << 30U); }

  constexpr uint64_t bytes() const { return bytes_; }
  constexpr uint64_t mib() const { return bytes_ >> 20U; }
  constexpr auto operator<=>(const ByteCount&) const = default;

 private:
  explicit constexpr ByteCount(uint64_t n) : bytes_(n) {}
  uint64_t bytes_ = 0;
};

// "512 B", "1.5 GiB": three significant digits, binary units.
std::string FormatByteCount(ByteCount count);

// Parses "1024", "512M", "2G", "2GiB", "1.5g", "64KiB" (binary units; B optional).
// Errors: kInvalidInput (no number, unknown unit, does not fit 64 bits).
Result<ByteCount> ParseByteCount(std::string_view text);

// The number of a PCR, 0 to 23.
class PcrIndex {
 public:
  static constexpr uint32_t kCount = 24;
  // Errors: kInvalidInput (24 or more).
  static Result<PcrIndex> Create(uint32_t value);
  template <uint32_t N>
  static constexpr PcrIndex Of() {
    static_assert(N < kCount);
    return PcrIndex(N);
  }
  constexpr uint32_t value() const { return value_; }
  constexpr auto operator<=>(const PcrIndex&) const = default;

 private:
  explicit constexpr PcrIndex(uint32_t value) : value_(value) {}
  uint32_t value_;
};

}  // namespace vallum

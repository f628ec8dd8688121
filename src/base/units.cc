// SPDX-License-Identifier: Apache-2.0
#include "base/units.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <system_error>

#include "base/error.h"
#include "base/result.h"
#include "base/text.h"

namespace vallum {
namespace {

constexpr std::array<std::string_view, 6> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};

// Returns the power of 1024 of a unit, or -1.
int UnitPower(std::string_view unit) {
  const std::string lower = ToLower(unit);
  if (lower.empty() || lower == "b") return 0;
  constexpr std::string_view kLetters = "kmgtp";
  const size_t power = kLetters.find(lower[0]);
  const std::string_view rest = std::string_view(lower).substr(1);
  if (power == std::string_view::npos || !(rest.empty() || rest == "ib" || rest == "i")) return -1;
  return static_cast<int>(power) + 1;
}

}  // namespace

std::string FormatByteCount(ByteCount count) {
  double value = static_cast<double>(count.bytes());
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> out{};
  const int digits = unit == 0 || value >= 100 || value == std::floor(value) ? 0
                     : value >= 10                                           ? 1
                                                                             : 2;
  const int n =
      std::snprintf(out.data(), out.size(), "%.*f %s", digits, value, kUnits[unit].data());
  return {out.data(), static_cast<size_t>(n)};
}

Result<ByteCount> ParseByteCount(std::string_view text) {
  const auto invalid = [&](std::string_view why) {
    return InvalidInput("size \"" + std::string(text.substr(0, 40)) + "\": " + std::string(why))
        .WithFix("write a number with K, M, G or T, such as 512M or 2G");
  };
  double number = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  if (parsed.ec != std::errc() || !(number >= 0)) return invalid("does not begin with a number");
  std::string_view unit(parsed.ptr, static_cast<size_t>(end - parsed.ptr));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  const int power = UnitPower(unit);
  if (power < 0) return invalid("unknown unit \"" + std::string(unit) + "\"");
  const double bytes = number * std::pow(1024.0, power);
  if (!(bytes < 18446744073709551616.0)) return invalid("too large");
  return ByteCount::Bytes(static_cast<uint64_t>(bytes));
}

Result<PcrIndex> PcrIndex::Create(uint32_t value) {
  if (value >= kCount) {
    return InvalidInput("PCR " + std::to_string(value) + " does not exist (0 to 23)");
  }
  return PcrIndex(value);
}

}  // namespace vallum

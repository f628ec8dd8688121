// SPDX-License-Identifier: Apache-2.0
#include "base/clock.h"

#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <string>

namespace vallum {

WallTime SystemClock::Now() const { return std::chrono::system_clock::now(); }
MonotonicTime SystemClock::Monotonic() const { return std::chrono::steady_clock::now(); }

std::string FormatTime(WallTime time) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch());
  const auto seconds = std::chrono::floor<std::chrono::seconds>(ms);
  const std::time_t t = seconds.count();
  std::tm tm{};
  gmtime_r(&t, &tm);
  std::array<char, 32> date{};
  const size_t n = std::strftime(date.data(), date.size(), "%Y-%m-%dT%H:%M:%S", &tm);
  std::array<char, 48> out{};
  const int size = std::snprintf(out.data(), out.size(), "%.*s.%03dZ", static_cast<int>(n),
                                 date.data(), static_cast<int>((ms - seconds).count()));
  return {out.data(), static_cast<size_t>(size)};
}

}  // namespace vallum

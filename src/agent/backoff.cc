// SPDX-License-Identifier: Apache-2.0
#include "agent/backoff.h"

#include <algorithm>

namespace vallum::agent {

std::chrono::milliseconds ReconnectDelay(int failures, uint32_t random) {
  constexpr int64_t kFirst = 1000;
  constexpr int64_t kLongest = 30000;
  const int doublings = std::clamp(failures - 1, 0, 10);
  const int64_t limit = std::min(kFirst << doublings, kLongest);
  const int64_t half = limit / 2;
  return std::chrono::milliseconds(half + static_cast<int64_t>(random) % (half + 1));
}

}  // namespace vallum::agent

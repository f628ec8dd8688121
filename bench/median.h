// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

namespace vallum::bench {

// Milliseconds that the work took, in the middle of so many rounds of it.
template <typename Work>
double MedianMs(int rounds, Work work) {
  std::vector<double> times;
  for (int i = 0; i < rounds; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
            .count());
  }
  const auto middle = times.begin() + rounds / 2;
  std::ranges::nth_element(times, middle);
  return *middle;
}

}  // namespace vallum::bench

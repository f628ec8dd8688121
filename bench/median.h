// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <vector>

namespace vallum::bench {

// Milliseconds that each work took, in the middle of so many rounds. They take turns, so that what
// changes the processor's pace meets them all.
inline std::vector<double> MediansMs(int rounds, const std::vector<std::function<void()>>& works) {
  std::vector<std::vector<double>> times(works.size());
  for (int i = 0; i < rounds; ++i) {
    for (size_t each = 0; each < works.size(); ++each) {
      const auto begin = std::chrono::steady_clock::now();
      works[each]();
      const auto end = std::chrono::steady_clock::now();
      times[each].push_back(std::chrono::duration<double, std::milli>(end - begin).count());
    }
  }
  std::vector<double> out;
  for (std::vector<double>& each : times) {
    const auto middle = each.begin() + rounds / 2;
    std::ranges::nth_element(each, middle);
    out.push_back(*middle);
  }
  return out;
}

// The same of one work.
template <typename Work>
double MedianMs(int rounds, Work work) {
  return MediansMs(rounds, {work}).front();
}

}  // namespace vallum::bench

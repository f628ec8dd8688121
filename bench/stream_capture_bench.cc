// SPDX-License-Identifier: Apache-2.0
// A stream passes a StreamCapture that keeps what detection reads; beside plain reading of the same
// memory.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/bytes.h"
#include "formats/stream_capture.h"

namespace vallum::formats {
namespace {

constexpr size_t kMemoryBytes = size_t{64} << 20U;
constexpr uint64_t kStreamBytes = uint64_t{4} << 30U;  // passes over the memory
constexpr int kRounds = 5;
constexpr double kTarget = 20;

template <typename Work>
double BestGbPerSecond(Work work) {
  double best = 0;
  for (int i = 0; i < kRounds; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    best = std::max(best, static_cast<double>(kStreamBytes) / took.count() / 1e9);
  }
  return best;
}

// Every byte is looked at once.
uint64_t ReadAll(ByteView memory) {
  std::array<uint64_t, 8> sums{};
  for (size_t at = 0; at + sizeof sums <= memory.size(); at += sizeof sums) {
    std::array<uint64_t, 8> words{};
    std::memcpy(words.data(), memory.data() + at, sizeof words);
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += words[i];
  }
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

bool Stream(StreamCapture capture, ByteView memory, size_t chunk) {
  bool good = capture.Keep(0, 64 << 10).has_value();
  for (uint64_t done = 0; done < kStreamBytes; done += chunk) {
    good = good && capture.Feed(memory.subspan(done % memory.size(), chunk)).has_value();
  }
  return good && capture.position() == kStreamBytes;
}

int Run() {
  const Bytes memory(kMemoryBytes, std::byte{1});
  uint64_t sum = 0;
  bool good = true;
  const double reference = BestGbPerSecond([&] {
    for (uint64_t done = 0; done < kStreamBytes; done += memory.size()) sum += ReadAll(memory);
  });
  std::printf("plain reading of memory: %.1f GB/s (%llx)\n", reference,
              static_cast<unsigned long long>(sum));
  for (const size_t chunk : {size_t{64} << 10U, size_t{4} << 10U}) {
    const double unknown =
        BestGbPerSecond([&] { good = Stream(StreamCapture(), memory, chunk) && good; });
    const double announced =
        BestGbPerSecond([&] { good = Stream(StreamCapture(kStreamBytes), memory, chunk) && good; });
    std::printf(
        "capture in chunks of %zu KiB: %.1f GB/s, ratio %.1f; size announced: %.1f GB/s, ratio "
        "%.1f; target %.0f GB/s\n",
        chunk >> 10U, unknown, unknown / reference, announced, announced / reference, kTarget);
  }
  return good ? 0 : 1;
}

}  // namespace
}  // namespace vallum::formats

int main() { return vallum::formats::Run(); }

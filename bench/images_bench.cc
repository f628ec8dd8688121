// SPDX-License-Identifier: Apache-2.0
// Inspection of a tiny qcow2 beside open + pread + close of the same file.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/units.h"
#include "formats/qcow2.h"
#include "images/fd_reader.h"
#include "images/inspection.h"

namespace {

constexpr int kRounds = 20000;
constexpr double kTargetMs = 0.010;

template <typename Work>
double MedianMs(Work work) {
  std::vector<double> times;
  for (int i = 0; i < kRounds; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
            .count());
  }
  std::ranges::nth_element(times, times.begin() + kRounds / 2);
  return times[kRounds / 2];
}

}  // namespace

int main() {
  std::string path = "/tmp/vallum-bench-XXXXXX";
  const int made = mkstemp(path.data());
  const auto image = vallum::formats::MakeQcow2Overlay(vallum::ByteCount::MiB(8));
  if (made < 0 || !image.has_value() ||
      write(made, image->data(), image->size()) != static_cast<ssize_t>(image->size())) {
    return 1;
  }
  close(made);
  bool good = true;
  const double reference = MedianMs([&] {
    std::array<std::byte, 512> buffer{};
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    good = good && pread(fd, buffer.data(), buffer.size(), 0) == 512;
    close(fd);
  });
  const double inspect = MedianMs([&] {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const auto reader = vallum::images::FdReader::Open(fd);
    good = good && reader.has_value() &&
           vallum::images::Inspect(*reader, vallum::images::DeclaredFormat::kQcow2).has_value();
    close(fd);
  });
  unlink(path.c_str());
  if (!good) return 1;
  std::printf(
      "inspect a tiny qcow2: %.4f ms; open+pread+close: %.4f ms; ratio %.1f; target %.3f ms\n",
      inspect, reference, inspect / reference, kTargetMs);
  return 0;
}

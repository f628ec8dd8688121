// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "placement/version_range.h"

using namespace vallum;  // NOLINT: a fuzzer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static_cast<void>(placement::ReadVersion(text));
  const auto range = placement::VersionRange::Parse(text);
  if (!range.has_value()) return 0;
  // What it says of itself means the same.
  const auto again = placement::VersionRange::Parse(range->words());
  if (!again.has_value() || again->words() != range->words()) std::abort();
  for (const char* version : {"0", "7.2.22", "9", "4294967295.1.2.3"}) {
    const auto read = *placement::ReadVersion(version);
    if (again->Contains(read) != range->Contains(read)) std::abort();
  }
  return 0;
}

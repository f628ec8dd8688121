// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/fat.h"
#include "formats/reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vallum::formats;  // NOLINT(google-build-using-namespace): one function
  const vallum::ByteView bytes = std::as_bytes(std::span(data, size));
  [[maybe_unused]] const MemoryReader reader(bytes);
  const vallum::Result<FatVolume> volume = FatVolume::Open(reader);
  if (!volume.has_value()) return 0;
  const vallum::Result<std::vector<FatEntry>> entries = volume->List(volume->Root());
  if (!entries.has_value()) return 0;
  for (const FatEntry& entry : *entries) {
    static_cast<void>(volume->Read(entry, 1U << 20U));
    static_cast<void>(volume->List(entry));
  }
  return 0;
}

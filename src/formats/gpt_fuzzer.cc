// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/detect.h"
#include "formats/gpt.h"
#include "formats/reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vallum::formats;  // NOLINT(google-build-using-namespace): one function
  const vallum::ByteView bytes = std::as_bytes(std::span(data, size));
  [[maybe_unused]] const MemoryReader reader(bytes);
  static_cast<void>(DetectFormats(reader));
  static_cast<void>(ParseGpt(reader, 512));
  static_cast<void>(ParseGpt(reader, 4096));
  return 0;
}

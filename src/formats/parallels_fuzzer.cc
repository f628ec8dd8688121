// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/parallels.h"
#include "formats/reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vallum::formats;  // NOLINT(google-build-using-namespace): one function
  static_cast<void>(ParseParallels(MemoryReader(std::as_bytes(std::span(data, size)))));
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/mbr.h"
#include "formats/reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vallum::formats;  // NOLINT(google-build-using-namespace): one function
  const vallum::ByteView bytes = std::as_bytes(std::span(data, size));
  static_cast<void>(ClassifyMbr(bytes));
  static_cast<void>(ParseMbr(MemoryReader(bytes)));
  return 0;
}

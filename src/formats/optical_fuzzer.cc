// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/iso9660.h"
#include "formats/reader.h"
#include "formats/udf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vallum::formats;  // NOLINT(google-build-using-namespace): one function
  const vallum::ByteView bytes = std::as_bytes(std::span(data, size));
  const MemoryReader reader(bytes);
  static_cast<void>(ParseIso9660(reader));
  static_cast<void>(ParseUdf(reader));
  return 0;
}

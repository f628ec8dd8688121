// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/reader.h"
#include "formats/vdi.h"
#include "formats/vdi_disk.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vallum::formats;  // NOLINT(google-build-using-namespace): one function
  const MemoryReader reader(std::as_bytes(std::span(data, size)));
  const vallum::Result<VdiImage> image = ParseVdi(reader);
  if (!image.has_value()) return 0;
  const VdiDisk disk(reader, *image);
  static_cast<void>(ReadUpTo(disk, 0, 1U << 20U));
  static_cast<void>(disk.NextData(0));
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "firmware/firmware_volume.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const vallum::ByteView input(reinterpret_cast<const std::byte*>(data), size);
  static_cast<void>(vallum::firmware::FirmwareImage::Parse(input).has_value());
  return 0;
}

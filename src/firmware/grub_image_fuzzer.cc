// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "firmware/grub_image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const vallum::ByteView input(reinterpret_cast<const std::byte*>(data), size);
  static_cast<void>(vallum::firmware::ParseGrubModules(input).has_value());
  return 0;
}

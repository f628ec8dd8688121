// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/kernel_image.h"
#include "formats/pe.h"
#include "formats/reader.h"
#include "formats/uki.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vallum::formats;  // NOLINT(google-build-using-namespace): one function
  const vallum::ByteView bytes = std::as_bytes(std::span(data, size));
  static_cast<void>(CheckKernel(MemoryReader(bytes)));
  const vallum::Result<PeImage> pe = PeImage::Parse(bytes);
  if (!pe.has_value()) return 0;
  const vallum::Result<Uki> uki = ParseUki(*pe);
  if (uki.has_value()) static_cast<void>(UkiMeasurements(*uki));
  return 0;
}

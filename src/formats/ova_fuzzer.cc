// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/ova.h"
#include "formats/ovf.h"
#include "formats/reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vallum::formats;  // NOLINT(google-build-using-namespace): one function
  const vallum::ByteView bytes = std::as_bytes(std::span(data, size));
  static_cast<void>(ParseOva(MemoryReader(bytes)));
  static_cast<void>(ParseOvf(bytes));
  static_cast<void>(ParseOvfManifest(bytes));
  return 0;
}

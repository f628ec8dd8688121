// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "formats/pe.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vallum::formats;  // NOLINT(google-build-using-namespace): one function
  const vallum::ByteView bytes = std::as_bytes(std::span(data, size));
  const vallum::Result<PeImage> pe = PeImage::Parse(bytes);
  if (!pe.has_value()) return 0;
  static_cast<void>(pe->AuthenticodeDigest(vallum::HashAlgorithm::kSha256));
  static_cast<void>(pe->Section(".sbat"));
  return 0;
}

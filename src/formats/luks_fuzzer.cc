// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/luks.h"
#include "formats/luks2_json.h"
#include "formats/reader.h"

namespace {

// The input followed by zeroes: areas of keys and data are large, but nothing reads them.
class PaddedReader final : public vallum::formats::RandomAccessReader {
 public:
  explicit PaddedReader(vallum::ByteView front) : front_(front) {}
  uint64_t size() const override { return uint64_t{64} << 20U; }
  vallum::Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override {
    if (!vallum::formats::IsInside(offset, out.size(), size())) {
      return vallum::InvalidInput("truncated");
    }
    std::ranges::fill(out, std::byte{0});
    if (offset < front_.size()) {
      const size_t count = std::min(out.size(), front_.size() - static_cast<size_t>(offset));
      std::ranges::copy(front_.subspan(static_cast<size_t>(offset), count), out.begin());
    }
    return vallum::Ok();
  }

 private:
  vallum::ByteView front_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vallum::formats;  // NOLINT(google-build-using-namespace): one function
  const vallum::ByteView bytes = std::as_bytes(std::span(data, size));
  static_cast<void>(ParseLuks(MemoryReader(bytes)));
  const PaddedReader padded(bytes);
  static_cast<void>(ParseLuks(padded));
  // No fuzzer finds a checksum: the JSON is also tried alone, as if its header were good.
  static_cast<void>(ParseLuks2Metadata(vallum::AsText(bytes), 0x4000, padded.size()));
  return 0;
}

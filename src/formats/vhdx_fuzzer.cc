// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/crc32c.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/vhdx.h"

namespace vallum::formats {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kFrontBytes = 320 << 10;  // up to the end of the second region table

// A VHDX has 3 MiB at least, nearly all of it zeroes: the input is the file's size, then pages with
// their numbers. The checksums are made right, or nothing would get past them.
class FoldedImage final : public RandomAccessReader {
 public:
  explicit FoldedImage(ByteView input) : size_(U64Le(input, 0)), pages_(input.subspan(8)) {
    front_.resize(std::min<uint64_t>(size_, kFrontBytes));
    Unfold(0, front_);
    if (front_.size() < kFrontBytes) return;
    for (const uint64_t at : kVhdxHeaderOffsets) Seal(at, kVhdxHeaderBytes);
    std::copy_n(front_.begin() + kVhdxRegionTableOffsets[0], kVhdxRegionTableBytes,
                front_.begin() + kVhdxRegionTableOffsets[1]);
    for (const uint64_t at : kVhdxRegionTableOffsets) Seal(at, kVhdxRegionTableBytes);
  }

  uint64_t size() const override { return size_; }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override {
    if (!IsInside(offset, out.size(), size_)) return PastTheEnd(offset, out.size(), size_);
    if (IsInside(offset, out.size(), front_.size())) {
      std::copy_n(front_.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
    } else {
      Unfold(offset, out);
    }
    return Ok();
  }
  Result<std::optional<uint64_t>> NextData(uint64_t offset) const override {
    std::optional<uint64_t> next;
    ForEachPage([&](uint64_t begin, ByteView) {
      if (begin + kPage <= offset || begin >= size_) return;
      const uint64_t data = std::max(begin, offset);
      if (!next.has_value() || data < *next) next = data;
    });
    return next;
  }

 private:
  template <typename Visit>
  void ForEachPage(Visit visit) const {
    for (size_t at = 0; at + 4 < pages_.size(); at += 4 + kPage) {
      const ByteView page = pages_.subspan(at + 4);
      visit(uint64_t{U32Le(pages_, at)} * kPage, page.first(std::min(page.size(), kPage)));
    }
  }
  void Unfold(uint64_t offset, std::span<std::byte> out) const {
    std::ranges::fill(out, std::byte{0});
    ForEachPage([&](uint64_t begin, ByteView page) {
      const uint64_t from = std::max(begin, offset);
      const uint64_t to = std::min(begin + page.size(), offset + out.size());
      if (from >= to) return;
      std::ranges::copy(
          page.subspan(static_cast<size_t>(from - begin), static_cast<size_t>(to - from)),
          out.begin() + static_cast<std::ptrdiff_t>(from - offset));
    });
  }
  void Seal(uint64_t at, size_t bytes) {
    const std::span part = std::span(front_).subspan(static_cast<size_t>(at), bytes);
    std::ranges::fill(part.subspan(4, 4), std::byte{0});
    const uint32_t crc = Crc32c(part);
    for (size_t i = 0; i < 4; ++i) part[4 + i] = static_cast<std::byte>(crc >> (8 * i) & 0xffU);
  }

  uint64_t size_;
  ByteView pages_;
  Bytes front_;
};

}  // namespace
}  // namespace vallum::formats

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vallum::formats;  // NOLINT(google-build-using-namespace): one function
  if (size < 8) return 0;
  const FoldedImage image(std::as_bytes(std::span(data, size)));
  const vallum::Result<VhdxDisk> disk = VhdxDisk::Open(image);
  if (!disk.has_value()) return 0;
  static_cast<void>(ReadUpTo(*disk, 0, 1U << 17U));
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/units.h"
#include "formats/byte_sink.h"
#include "formats/qcow2.h"
#include "formats/qcow2_writer.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

// A disk on which nothing was written.
class EmptyDisk final : public RandomAccessReader {
 public:
  explicit EmptyDisk(uint64_t size) : size_(size) {}
  uint64_t size() const override { return size_; }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override {
    if (!IsInside(offset, out.size(), size_)) return PastTheEnd(offset, out.size(), size_);
    std::ranges::fill(out, std::byte{0});
    return Ok();
  }
  Result<std::optional<uint64_t>> NextData(uint64_t /*offset*/) const override {
    return std::optional<uint64_t>();
  }

 private:
  uint64_t size_;
};

}  // namespace

Result<Bytes> MakeQcow2Overlay(ByteCount virtual_size) {
  const uint64_t size = virtual_size.bytes();
  if (size == 0 || size > kQcow2MaxVirtualSize) {
    return InvalidInput(fmt::format("a disk of {} bytes cannot be made: 1 byte to {} TiB is "
                                    "possible",
                                    size, kQcow2MaxVirtualSize >> 40U))
        .WithFix("choose another disk size");
  }
  const EmptyDisk disk((size + 511) / 512 * 512);
  ASSIGN_OR_RETURN(const Qcow2Plan plan, Qcow2Plan::Make(disk, ZeroClusters::kTrustSource));
  BytesSink out;
  RETURN_IF_ERROR(plan.Write(disk, out));
  return std::move(out).Take();
}

}  // namespace vallum::formats

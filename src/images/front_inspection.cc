// SPDX-License-Identifier: Apache-2.0
#include "images/front_inspection.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "base/result.h"
#include "formats/detect.h"
#include "formats/qcow2.h"

namespace vallum::images {
namespace {

// An image of which only the beginning has come: the rest reads as zeroes, which is no signature.
class BegunReader final : public formats::RandomAccessReader {
 public:
  BegunReader(const formats::RandomAccessReader& front, uint64_t size)
      : front_(front), size_(size) {}
  uint64_t size() const override { return size_; }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override {
    const uint64_t there = offset < front_.size() ? front_.size() - offset : 0;
    const auto known = static_cast<size_t>(std::min<uint64_t>(there, out.size()));
    std::ranges::fill(out.subspan(known), std::byte{0});
    return known == 0 ? Ok() : front_.ReadAt(offset, out.first(known));
  }

 private:
  const formats::RandomAccessReader& front_;
  const uint64_t size_;
};

}  // namespace

Result<void> InspectFront(const formats::RandomAccessReader& front, uint64_t size,
                          DeclaredFormat declared) {
  constexpr auto kUnknownSize = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  const BegunReader begun(front, size != 0 ? std::max(size, front.size()) : kUnknownSize);
  ASSIGN_OR_RETURN(const std::vector<formats::Detection> found, formats::DetectFormats(begun));
  if (found.empty()) return Ok();
  // A fixed VHD is told by its end; what stands in front is the guest's disk.
  const bool partitioned =
      found.size() == 1 && (found.front().format == formats::Format::kGpt ||
                            found.front().format == formats::Format::kMbr ||
                            found.front().format == formats::Format::kBootSector);
  if (declared == DeclaredFormat::kVhd && partitioned) return Ok();
  RETURN_IF_ERROR(CheckDeclared(found, declared));
  if (declared != DeclaredFormat::kQcow2) return Ok();
  ASSIGN_OR_RETURN(const formats::Qcow2Header header, formats::ParseQcow2Header(begun));
  return formats::ValidateQcow2(header, begun.size());
}

}  // namespace vallum::images

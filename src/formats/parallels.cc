// SPDX-License-Identifier: Apache-2.0
#include "formats/parallels.h"

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr size_t kHeaderBytes = 64;
constexpr uint64_t kSector = 512;
constexpr std::string_view kOldMagic = "WithoutFreeSpace";
constexpr std::string_view kExtendedMagic = "WithouFreSpacExt";
constexpr uint32_t kInUse = 0x746f6e59;
constexpr uint32_t kClosed = 0x312e3276;

Error Refused(std::string message) {
  return InvalidInput("Parallels: " + std::move(message))
      .WithFix("convert it where it came from: qemu-img convert -O qcow2 <this image> <new image>");
}

// The data starts behind the block allocation table; 0 is allowed in the old format alone.
Result<void> CheckData(ByteView head, bool extended, uint64_t table_end, uint64_t file_size) {
  if (table_end > file_size) {
    return Refused(
        fmt::format("truncated: the block allocation table ({} entries, offset 32) ends "
                    "at {} of a file of {} bytes",
                    U32Le(head, 32), table_end, file_size));
  }
  const uint32_t data = U32Le(head, 48);
  const bool aligned = !extended || data % U32Le(head, 28) == 0;
  if (data == 0 ? extended : data * kSector < table_end || !aligned) {
    return Refused(
        fmt::format("inconsistent: the data at sector {} (offset 48) is not that of a "
                    "cluster behind the block allocation table",
                    data));
  }
  if (data * kSector > file_size) {
    return Refused(
        fmt::format("truncated: the data is at sector {} (offset 48) of a file of {} "
                    "bytes",
                    data, file_size));
  }
  return Ok();
}

}  // namespace

Result<ParallelsImage> ParseParallels(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const Bytes head, ReadUpTo(image, 0, kHeaderBytes));
  if (head.size() < kHeaderBytes) {
    return Refused(
        fmt::format("truncated: the header has {} bytes, the file {}", kHeaderBytes, head.size()));
  }
  const bool extended = HasText(head, 0, kExtendedMagic);
  if (!extended && !HasText(head, 0, kOldMagic)) return Refused("no magic at offset 0");
  if (U32Le(head, 16) != kParallelsVersion) {
    return Refused(fmt::format("unknown version {} at offset 16: {} is known", U32Le(head, 16),
                               kParallelsVersion));
  }
  ParallelsImage out;
  out.subformat = extended ? kExtendedMagic : kOldMagic;
  out.cluster_size = U32Le(head, 28) * kSector;
  const uint64_t sectors = U64Le(head, 36);
  if (out.cluster_size == 0 || out.cluster_size > kParallelsMaxClusterSize) {
    return Refused(
        fmt::format("inconsistent: clusters of {} bytes at offset 28: up to {} are "
                    "valid",
                    out.cluster_size, kParallelsMaxClusterSize));
  }
  const uint64_t limit = extended ? kParallelsMaxVirtualSize / kSector : 0xffffffff;
  const uint64_t covered = uint64_t{U32Le(head, 32)} * U32Le(head, 28);
  if (sectors == 0 || sectors > limit || sectors > covered) {
    return Refused(
        fmt::format("inconsistent: {} sectors at offset 36: up to {} are valid, and the "
                    "block allocation table covers {}",
                    sectors, limit, covered));
  }
  out.virtual_size = sectors * kSector;
  const uint32_t state = U32Le(head, 44);
  if (state != 0 && state != kInUse && state != kClosed) {
    return Refused(fmt::format("inconsistent: unknown state {:#x} at offset 44", state));
  }
  out.in_use = state == kInUse;
  RETURN_IF_ERROR(
      CheckData(head, extended, kHeaderBytes + uint64_t{U32Le(head, 32)} * 4, image.size()));
  return out;
}

}  // namespace vallum::formats

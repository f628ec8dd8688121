// SPDX-License-Identifier: Apache-2.0
#include "formats/qed.h"

#include <fmt/format.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr size_t kHeaderBytes = 64;
constexpr uint64_t kBackingFile = 1U << 0U;
constexpr uint64_t kNeedCheck = 1U << 1U;
constexpr uint64_t kKnownFeatures = 7;

Error Refused(std::string message) {
  return InvalidInput("QED: " + std::move(message))
      .WithFix("convert it where it came from: qemu-img convert -O qcow2 <this image> <new image>");
}

Result<void> CheckTable(uint64_t l1_offset, uint64_t header_bytes, const QedImage& image,
                        uint64_t file_size) {
  if (l1_offset % image.cluster_size != 0 || l1_offset < header_bytes) {
    return Refused(
        fmt::format("inconsistent: the L1 table at offset {} is not that of a cluster "
                    "behind the header of {} bytes",
                    l1_offset, header_bytes));
  }
  if (!IsInside(l1_offset, image.table_size, file_size)) {
    return Refused(
        fmt::format("truncated: the L1 table ({} bytes at offset {}) is not inside the "
                    "file of {} bytes",
                    image.table_size, l1_offset, file_size));
  }
  const uint64_t entries = image.table_size / 8;
  const uint64_t covered_by_entry = entries * image.cluster_size;
  if (image.virtual_size == 0 || image.virtual_size % 512 != 0 ||
      image.virtual_size > kQedMaxVirtualSize ||
      (image.virtual_size - 1) / covered_by_entry >= entries) {
    return Refused(
        fmt::format("inconsistent: virtual size {} at offset 48: whole sectors of 512, "
                    "up to {} TiB and up to what the tables cover are valid",
                    image.virtual_size, kQedMaxVirtualSize >> 40U));
  }
  return Ok();
}

}  // namespace

Result<QedImage> ParseQed(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const Bytes head, ReadUpTo(image, 0, kHeaderBytes));
  if (head.size() < kHeaderBytes) {
    return Refused(
        fmt::format("truncated: the header has {} bytes, the file {}", kHeaderBytes, head.size()));
  }
  if (U32Le(head, 0) != kQedMagic) return Refused("no magic at offset 0");
  const uint32_t cluster = U32Le(head, 4);
  const uint32_t table_clusters = U32Le(head, 8);
  const uint64_t header_bytes = uint64_t{U32Le(head, 12)} * cluster;
  const uint64_t features = U64Le(head, 16);
  if ((features & ~kKnownFeatures) != 0) {
    return Refused(fmt::format("unknown features {:#x} at offset 16", features & ~kKnownFeatures));
  }
  if (cluster < kQedMinClusterSize || cluster > kQedMaxClusterSize ||
      !std::has_single_bit(cluster)) {
    return Refused(
        fmt::format("inconsistent: clusters of {} bytes at offset 4: a power of two from "
                    "{} to {} is valid",
                    cluster, kQedMinClusterSize, kQedMaxClusterSize));
  }
  if (table_clusters > kQedMaxTableClusters || !std::has_single_bit(table_clusters)) {
    return Refused(
        fmt::format("inconsistent: tables of {} clusters at offset 8: a power of two up "
                    "to {} is valid",
                    table_clusters, kQedMaxTableClusters));
  }
  if (header_bytes == 0 || header_bytes > image.size()) {
    return Refused(
        fmt::format("truncated or inconsistent: the header says {} bytes (offset 12), "
                    "the file has {}",
                    header_bytes, image.size()));
  }
  QedImage out;
  out.virtual_size = U64Le(head, 48);
  out.cluster_size = cluster;
  out.table_size = uint64_t{table_clusters} * cluster;
  out.needs_check = (features & kNeedCheck) != 0;
  RETURN_IF_ERROR(CheckTable(U64Le(head, 40), header_bytes, out, image.size()));
  if ((features & kBackingFile) != 0) {
    const uint32_t offset = U32Le(head, 56);
    const uint32_t size = U32Le(head, 60);
    if (size > kQedMaxBackingName || offset < kHeaderBytes ||
        !IsInside(offset, size, header_bytes)) {
      return Refused(
          fmt::format("inconsistent: the backing file name ({} bytes at offset {}) is not inside "
                      "the header of {} bytes or has more than {}",
                      size, offset, header_bytes, kQedMaxBackingName));
    }
    ASSIGN_OR_RETURN(const Bytes name, ReadBytesAt(image, offset, size));
    out.backing_file = std::string(AsText(name));
  }
  return out;
}

}  // namespace vallum::formats

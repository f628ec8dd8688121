// SPDX-License-Identifier: Apache-2.0
#include "formats/vmdk_disk.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/vmdk.h"
#include "formats/vmdk_descriptor.h"
#include "formats/vmdk_tables.h"

namespace vallum::formats {
namespace {

constexpr uint32_t kZeroedGrain = 1;

// A whole zlib stream (RFC 1950; the specification says RFC 1951, the writers do this) that fits
// into `out`. Returns how much it filled, or nothing.
std::optional<size_t> Inflate(ByteView in, std::span<std::byte> out) {
  z_stream stream{};
  if (inflateInit(&stream) != Z_OK) return std::nullopt;
  // zlib's interface is not const-correct; it does not write to next_in.
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(in.data()));
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = inflate(&stream, Z_FINISH);
  const size_t filled = out.size() - stream.avail_out;
  inflateEnd(&stream);
  if (result != Z_STREAM_END) return std::nullopt;
  return filled;
}

}  // namespace

Result<VmdkDisk> VmdkDisk::Open(const RandomAccessReader& file) {
  ASSIGN_OR_RETURN(VmdkImage image, ParseVmdk(file));
  return VmdkDisk(file, std::move(image));
}

Result<void> VmdkDisk::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  if (!IsInside(offset, out.size(), size())) {
    return InvalidInput(fmt::format("truncated: {} bytes wanted at offset {} of a disk of {} bytes",
                                    out.size(), offset, size()));
  }
  while (!out.empty()) {
    const uint64_t grain = offset / image_.cluster_size;
    const uint64_t in_grain = offset % image_.cluster_size;
    const auto count =
        static_cast<size_t>(std::min<uint64_t>(out.size(), image_.cluster_size - in_grain));
    ASSIGN_OR_RETURN(const uint32_t sector, Lookup(grain));
    if (sector == 0) {
      std::ranges::fill(out.first(count), std::byte{0});
    } else if (image_.subformat == VmdkSubformat::kStreamOptimized) {
      RETURN_IF_ERROR(LoadCompressed(sector, grain));
      std::ranges::copy(ByteView(grain_).subspan(static_cast<size_t>(in_grain), count),
                        out.begin());
    } else {
      RETURN_IF_ERROR(file_->ReadAt(sector * kVmdkSector + in_grain, out.first(count)));
    }
    offset += count;
    out = out.subspan(count);
  }
  return Ok();
}

Result<std::optional<uint64_t>> VmdkDisk::NextData(uint64_t offset) const {
  const uint64_t grains = image_.header.grains();
  for (uint64_t grain = offset / image_.cluster_size; grain < grains;) {
    const uint64_t table = grain / kVmdkTableEntries;
    if (image_.tables[static_cast<size_t>(table)] == 0) {
      grain = (table + 1) * kVmdkTableEntries;
      continue;
    }
    ASSIGN_OR_RETURN(const uint32_t sector, Lookup(grain));
    if (sector != 0) return std::optional(std::max(offset, grain * image_.cluster_size));
    ++grain;
  }
  return std::optional<uint64_t>();
}

Result<uint32_t> VmdkDisk::Lookup(uint64_t grain) const {
  const uint64_t table = grain / kVmdkTableEntries;
  const uint32_t sector = image_.tables[static_cast<size_t>(table)];
  if (sector == 0) return 0U;
  if (table_loaded_ != table) {
    table_loaded_ = kNothing;
    ASSIGN_OR_RETURN(table_,
                     ReadBytesAt(*file_, sector * kVmdkSector, size_t{kVmdkTableEntries} * 4));
    table_loaded_ = table;
  }
  const uint32_t entry = U32Le(table_, static_cast<size_t>(grain % kVmdkTableEntries * 4));
  return entry == kZeroedGrain && image_.header.Has(VmdkFlag::kZeroedGrains) ? 0U : entry;
}

Result<void> VmdkDisk::LoadCompressed(uint32_t sector, uint64_t grain) const {
  if (decompressed_ == grain) return Ok();
  decompressed_ = kNothing;
  ASSIGN_OR_RETURN(const VmdkGrainMarker marker,
                   ReadVmdkGrainMarker(*file_, image_.header, sector, grain));
  ASSIGN_OR_RETURN(const Bytes raw,
                   ReadBytesAt(*file_, sector * kVmdkSector + kVmdkGrainMarkerBytes, marker.bytes));
  grain_.resize(static_cast<size_t>(image_.cluster_size));
  const std::optional<size_t> filled = Inflate(raw, grain_);
  // The last grain may end with the disk.
  const uint64_t wanted =
      std::min(image_.cluster_size, image_.virtual_size - grain * image_.cluster_size);
  if (!filled || *filled < wanted) {
    return VmdkRefused(fmt::format("the compressed grain at offset {} ({} bytes) cannot be read",
                                   sector * kVmdkSector, marker.bytes));
  }
  decompressed_ = grain;
  return Ok();
}

}  // namespace vallum::formats

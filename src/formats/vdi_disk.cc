// SPDX-License-Identifier: Apache-2.0
#include "formats/vdi_disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/vdi.h"

namespace vallum::formats {
namespace {

constexpr uint64_t kPieceEntries = 1024;

}  // namespace

Result<VdiDisk> VdiDisk::Open(const RandomAccessReader& file) {
  ASSIGN_OR_RETURN(const VdiImage image, ParseVdi(file));
  return VdiDisk(file, image);
}

Result<void> VdiDisk::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  if (!IsInside(offset, out.size(), size())) {
    return InvalidInput(fmt::format("truncated: {} bytes wanted at offset {} of a disk of {} bytes",
                                    out.size(), offset, size()));
  }
  while (!out.empty()) {
    const uint64_t in_block = offset % image_.cluster_size;
    const auto count =
        static_cast<size_t>(std::min<uint64_t>(out.size(), image_.cluster_size - in_block));
    ASSIGN_OR_RETURN(const std::optional<uint64_t> at, Lookup(offset / image_.cluster_size));
    if (at) {
      RETURN_IF_ERROR(file_->ReadAt(*at + in_block, out.first(count)));
    } else {
      std::ranges::fill(out.first(count), std::byte{0});
    }
    offset += count;
    out = out.subspan(count);
  }
  return Ok();
}

Result<std::optional<uint64_t>> VdiDisk::NextData(uint64_t offset) const {
  for (uint64_t block = offset / image_.cluster_size; block < image_.blocks; ++block) {
    ASSIGN_OR_RETURN(const std::optional<uint64_t> at, Lookup(block));
    if (at) return std::optional(std::max(offset, block * image_.cluster_size));
  }
  return std::optional<uint64_t>();
}

Result<std::optional<uint64_t>> VdiDisk::Lookup(uint64_t block) const {
  const uint64_t piece = block / kPieceEntries;
  if (piece_loaded_ != piece) {
    piece_loaded_ = kNothing;
    const uint64_t first = piece * kPieceEntries;
    const uint64_t entries = std::min(kPieceEntries, image_.blocks - first);
    ASSIGN_OR_RETURN(piece_, ReadBytesAt(*file_, image_.map_offset + first * 4,
                                         static_cast<size_t>(entries * 4)));
    piece_loaded_ = piece;
  }
  const uint32_t entry = U32Le(piece_, static_cast<size_t>(block % kPieceEntries * 4));
  if (entry == kVdiUnallocated || entry == kVdiZero) return std::optional<uint64_t>();
  return std::optional(image_.data_offset + entry * image_.cluster_size);
}

}  // namespace vallum::formats

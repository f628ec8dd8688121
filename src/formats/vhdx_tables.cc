// SPDX-License-Identifier: Apache-2.0
#include <endian.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/reader.h"
#include "formats/vhdx.h"
#include "formats/vhdx_parts.h"

namespace vallum::formats {
namespace {

constexpr size_t kPieceBytes = size_t{64} << 10U;
constexpr uint64_t kPieceEntries = kPieceBytes / 8;
constexpr uint64_t kStateMask = 0x7;
constexpr uint64_t kReservedMask = 0xffff8;  // bits 3 to 19; the offset follows, in MiB

// [MS-VHDX] 2.5.1.1; 5 is "unmapped" of version 0.95, which QEMU reads as well.
enum class BlockState : uint64_t {
  kNotPresent = 0,
  kUndefined = 1,
  kZero = 2,
  kUnmapped = 3,
  kReserved = 4,
  kUnmappedOld = 5,
  kFullyPresent = 6,
  kPartiallyPresent = 7,
};

// One load for each of up to 64 Mi entries, where U64Le would take eight.
uint64_t EntryAt(ByteView piece, size_t i) {
  uint64_t entry = 0;
  CHECK(IsInside(i * 8, sizeof entry, piece.size()));
  std::memcpy(&entry, piece.data() + i * 8, sizeof entry);
  return le64toh(entry);
}

// Whether an entry says by itself that its block has no data; most do, of millions.
constexpr bool IsPlainlyEmpty(uint64_t entry) {
  return entry <= static_cast<uint64_t>(BlockState::kUnmappedOld) &&
         entry != static_cast<uint64_t>(BlockState::kReserved);
}

// Where the block is kept, by its entry in the table; nothing: zeroes.
Result<std::optional<uint64_t>> BlockPlace(uint64_t entry, uint64_t block) {
  if ((entry & kReservedMask) != 0) {
    return VhdxRefused(
        fmt::format("inconsistent: the entry of block {} has reserved bits: {:#x}", block, entry));
  }
  switch (static_cast<BlockState>(entry & kStateMask)) {
    case BlockState::kNotPresent:
    case BlockState::kUndefined:
    case BlockState::kZero:
    case BlockState::kUnmapped:
    case BlockState::kUnmappedOld:
      return std::optional<uint64_t>();
    case BlockState::kFullyPresent:
      return std::optional<uint64_t>(entry & ~(kVhdxMiB - 1));
    case BlockState::kPartiallyPresent:
      return VhdxRefused(fmt::format(
          "differencing: block {} is partially present, so a parent has the rest", block));
    case BlockState::kReserved:
      break;
  }
  return VhdxRefused(
      fmt::format("inconsistent: block {} has the unknown state {}", block, entry & kStateMask));
}

class BatChecker {
 public:
  BatChecker(const RandomAccessReader& image, VhdxSpace& space, VhdxImage& vhdx)
      : image_(image), space_(space), vhdx_(vhdx) {}

  Result<void> Check(const VhdxRegion& region) {
    const uint64_t entries = vhdx_.bat_index(vhdx_.blocks() - 1) + 1;
    if (region.length / 8 < entries) {
      return VhdxRefused(
          fmt::format("inconsistent: the block allocation table has room for {} entries, "
                      "the virtual size needs {}",
                      region.length / 8, entries));
    }
    vhdx_.bat_offset = region.offset;
    Bytes piece;
    for (uint64_t index = 0; index < entries; index += kPieceEntries) {
      // In a hole, all blocks are "not present".
      ASSIGN_OR_RETURN(const std::optional<uint64_t> data,
                       image_.NextData(region.offset + index * 8));
      if (!data.has_value()) break;
      index = std::max(index, (*data - region.offset) / 8);
      if (index >= entries) break;
      piece.resize(static_cast<size_t>(std::min(kPieceEntries, entries - index) * 8));
      RETURN_IF_ERROR(image_.ReadAt(region.offset + index * 8, piece))
          .context("reading the VHDX's block allocation table");
      RETURN_IF_ERROR(CheckPiece(index, piece));
    }
    return Ok();
  }

 private:
  Result<void> CheckPiece(uint64_t index, ByteView piece) {
    const uint64_t per_chunk = vhdx_.chunk_ratio() + 1;
    // The last entry of each chunk is for a sector bitmap.
    for (uint64_t i = per_chunk - 1 - index % per_chunk; i < piece.size() / 8; i += per_chunk) {
      if ((EntryAt(piece, static_cast<size_t>(i)) & kStateMask) != 0) {
        return VhdxRefused(fmt::format(
            "differencing: entry {} of the block allocation table has a sector bitmap", index + i));
      }
    }
    for (size_t i = 0; i < piece.size() / 8; ++i) {
      const uint64_t entry = EntryAt(piece, i);
      if (IsPlainlyEmpty(entry) || (index + i) % per_chunk == per_chunk - 1) continue;
      RETURN_IF_ERROR(CheckEntry(index + i - (index + i) / per_chunk, entry));
    }
    return Ok();
  }

  Result<void> CheckEntry(uint64_t block, uint64_t entry) {
    ASSIGN_OR_RETURN(const std::optional<uint64_t> place, BlockPlace(entry, block));
    if (!place.has_value()) return Ok();
    // The last block may be cut where the disk ends, as in what qemu-img makes.
    const uint64_t wanted =
        std::min<uint64_t>(vhdx_.block_size, vhdx_.virtual_size - block * vhdx_.block_size);
    if (!IsInside(*place, wanted, image_.size())) {
      return VhdxRefused(
          fmt::format("truncated: block {} at offset {} goes on past the end of the file of "
                      "{} bytes",
                      block, *place, image_.size()));
    }
    if (!space_.Take(*place, vhdx_.block_size)) {
      return VhdxRefused(
          fmt::format("inconsistent: block {} at offset {} overlaps another block, a region, "
                      "the log or the header section",
                      block, *place));
    }
    ++vhdx_.allocated_blocks;
    return Ok();
  }

  const RandomAccessReader& image_;
  VhdxSpace& space_;
  VhdxImage& vhdx_;
};

}  // namespace

Result<void> CheckVhdxBat(const RandomAccessReader& image, const VhdxRegion& region,
                          VhdxSpace& space, VhdxImage& vhdx) {
  return BatChecker(image, space, vhdx).Check(region);
}

Result<VhdxDisk> VhdxDisk::Open(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const VhdxImage vhdx, ParseVhdx(image));
  return VhdxDisk(image, vhdx);
}

Result<void> VhdxDisk::LoadPiece(uint64_t number) const {
  if (loaded_ == number) return Ok();
  loaded_ = kNothing;
  // The region is a whole number of MiB, so the piece is inside.
  ASSIGN_OR_RETURN(piece_,
                   ReadBytesAt(*image_, vhdx_.bat_offset + number * kPieceBytes, kPieceBytes));
  loaded_ = number;
  return Ok();
}

Result<std::optional<uint64_t>> VhdxDisk::FileOffset(uint64_t offset) const {
  const uint64_t block = offset / vhdx_.block_size;
  const uint64_t index = vhdx_.bat_index(block);
  RETURN_IF_ERROR(LoadPiece(index / kPieceEntries));
  const uint64_t entry = EntryAt(piece_, static_cast<size_t>(index % kPieceEntries));
  ASSIGN_OR_RETURN(std::optional<uint64_t> place, BlockPlace(entry, block));
  if (place.has_value()) *place += offset % vhdx_.block_size;
  return place;
}

Result<uint64_t> VhdxDisk::SkipEmpty(uint64_t offset) const {
  uint64_t index = vhdx_.bat_index(offset / vhdx_.block_size);
  RETURN_IF_ERROR(LoadPiece(index / kPieceEntries));
  size_t i = static_cast<size_t>(index % kPieceEntries);
  const size_t first = i;
  while (i < kPieceEntries && IsPlainlyEmpty(EntryAt(piece_, i))) ++i;
  index += i - first;
  const uint64_t block = index - index / (vhdx_.chunk_ratio() + 1);
  return std::max(offset, block * vhdx_.block_size);
}

Result<void> VhdxDisk::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  if (!IsInside(offset, out.size(), size())) return PastTheEnd(offset, out.size(), size());
  while (!out.empty()) {
    const auto count = static_cast<size_t>(
        std::min<uint64_t>(out.size(), vhdx_.block_size - offset % vhdx_.block_size));
    ASSIGN_OR_RETURN(const std::optional<uint64_t> place, FileOffset(offset));
    if (place.has_value()) {
      RETURN_IF_ERROR(image_->ReadAt(*place, out.first(count)));
    } else {
      std::ranges::fill(out.first(count), std::byte{0});
    }
    offset += count;
    out = out.subspan(count);
  }
  return Ok();
}

Result<std::optional<uint64_t>> VhdxDisk::NextData(uint64_t offset) const {
  while (offset < size()) {
    ASSIGN_OR_RETURN(offset, SkipEmpty(offset));
    if (offset >= size()) break;
    const uint64_t left = std::min(vhdx_.block_size - offset % vhdx_.block_size, size() - offset);
    ASSIGN_OR_RETURN(const std::optional<uint64_t> place, FileOffset(offset));
    if (place.has_value()) {
      // A block may hold holes of the file.
      ASSIGN_OR_RETURN(const std::optional<uint64_t> next, image_->NextData(*place));
      if (next.has_value() && *next - *place < left) {
        return std::optional<uint64_t>(offset + (*next - *place));
      }
    }
    offset += left;
  }
  return std::optional<uint64_t>();
}

}  // namespace vallum::formats

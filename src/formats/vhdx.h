// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/reader.h"

// docs/formats/vhdx.md mirrors these constants.
namespace vallum::formats {

inline constexpr uint64_t kVhdxMiB = uint64_t{1} << 20U;  // all places are multiples of it
inline constexpr size_t kVhdxHeaderBytes = 4096;
inline constexpr uint64_t kVhdxHeaderOffsets[] = {64 << 10, 128 << 10};
inline constexpr size_t kVhdxRegionTableBytes = 64 << 10;
inline constexpr uint64_t kVhdxRegionTableOffsets[] = {192 << 10, 256 << 10};
inline constexpr uint32_t kVhdxMaxRegions = 2047;
inline constexpr size_t kVhdxMetadataTableBytes = 64 << 10;
inline constexpr uint32_t kVhdxMaxMetadataItems = 2047;
inline constexpr uint32_t kVhdxMaxItemBytes = 1 << 20;
inline constexpr uint32_t kVhdxMinBlockBytes = 1 << 20;
inline constexpr uint32_t kVhdxMaxBlockBytes = 256 << 20;
inline constexpr uint64_t kVhdxMaxVirtualSize = uint64_t{64} << 40U;
// Bounds the map of the file that ParseVhdx keeps, a bit for each MiB.
inline constexpr uint64_t kVhdxMaxFileBytes = uint64_t{128} << 40U;

struct VhdxImage {
  uint64_t virtual_size = 0;  // of the guest's disk, in bytes
  uint32_t block_size = 0;
  uint32_t logical_sector_size = 0;
  uint32_t physical_sector_size = 0;
  bool fixed = false;  // says that blocks are never to be freed ("leave block allocated")
  uint64_t bat_offset = 0;
  uint64_t allocated_blocks = 0;

  uint64_t blocks() const { return (virtual_size + block_size - 1) / block_size; }
  // Payload blocks between two entries for sector bitmaps.
  uint64_t chunk_ratio() const { return (uint64_t{1} << 23U) * logical_sector_size / block_size; }
  // Where a block's entry stands in the table, which has one for a sector bitmap after each chunk.
  uint64_t bat_index(uint64_t block) const { return block + block / chunk_ratio(); }
};

// Reads a fixed or dynamic VHDX and checks its whole structure: headers, region tables, metadata,
// and in the block allocation table every block that the disk needs: inside the file and apart
// from all else.
// Time: reads the table once, at most 64 Mi entries of 8 bytes; holes of the file cost nothing.
// Memory: a bit for each MiB of the file.
// Errors: kInvalidInput, naming the offset, with the fix (truncated, checksums, a log that has not
// been replayed, a parent, what is unknown but required, sizes and offsets that contradict).
// Source: [MS-VHDX] 2.2 to 2.6; where QEMU is stricter, QEMU block/vhdx.c.
Result<VhdxImage> ParseVhdx(const RandomAccessReader& image);

// The guest's disk inside a VHDX; blocks that are not present read as zeroes. Keeps a piece of the
// table. The image must outlive it. Not thread-safe.
class VhdxDisk final : public RandomAccessReader {
 public:
  // Parses and checks all; errors as ParseVhdx.
  static Result<VhdxDisk> Open(const RandomAccessReader& image);
  // For what ParseVhdx made of the same image.
  VhdxDisk(const RandomAccessReader& image, const VhdxImage& vhdx) : image_(&image), vhdx_(vhdx) {}

  uint64_t size() const override { return vhdx_.virtual_size; }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override;
  Result<std::optional<uint64_t>> NextData(uint64_t offset) const override;

 private:
  static constexpr uint64_t kNothing = ~uint64_t{0};
  Result<void> LoadPiece(uint64_t number) const;
  // The offset itself, or the begin of a later block when all before that have no data.
  Result<uint64_t> SkipEmpty(uint64_t offset) const;
  // Where the byte is kept in the file; nothing: zeroes.
  Result<std::optional<uint64_t>> FileOffset(uint64_t offset) const;

  const RandomAccessReader* image_;
  VhdxImage vhdx_;
  mutable uint64_t loaded_ = kNothing;  // which piece of the table
  mutable Bytes piece_;
};

}  // namespace vallum::formats

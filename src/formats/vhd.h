// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "formats/reader.h"

// docs/formats/vhd.md mirrors these constants.
namespace vallum::formats {

inline constexpr size_t kVhdFooterBytes = 512;
inline constexpr size_t kVhdDynamicHeaderBytes = 1024;
inline constexpr uint64_t kVhdSectorBytes = 512;
inline constexpr uint64_t kVhdMaxVirtualSize = uint64_t{0xff000000} * kVhdSectorBytes;
// 65535 cylinders, 16 heads, 255 sectors: says that the disk is larger than a geometry can tell.
inline constexpr uint64_t kVhdMaxGeometrySectors = uint64_t{65535} * 16 * 255;
inline constexpr uint32_t kVhdMinBlockBytes = 4096;
inline constexpr uint32_t kVhdMaxBlockBytes = uint32_t{256} << 20U;
// 2040 GiB in blocks of 512 KiB, the smallest that are in use for disks of that size.
inline constexpr uint32_t kVhdMaxTableEntries = uint32_t{1} << 22U;
inline constexpr uint32_t kVhdUnallocated = 0xffffffff;

enum class VhdType : uint32_t { kFixed = 2, kDynamic = 3 };

struct VhdImage {
  VhdType type = VhdType::kFixed;
  std::string creator_app;  // four bytes: "qemu", "win ", ...
  // Of the guest's disk, in bytes: by geometry or by current size, whichever QEMU 7.2 goes by for
  // this creator.
  uint64_t virtual_size = 0;
  uint64_t current_size = 0;  // that of the footer, at least virtual_size

  // Dynamic images only.
  uint32_t block_size = 0;
  uint64_t allocated_blocks = 0;
  // Where the sector bitmap of each block begins, in sectors; its data follows. kVhdUnallocated:
  // zeroes.
  std::vector<uint32_t> table;

  // Rounded up to sectors.
  uint64_t bitmap_size() const {
    return (block_size / kVhdSectorBytes / 8 + kVhdSectorBytes - 1) / kVhdSectorBytes *
           kVhdSectorBytes;
  }
};

// Reads a fixed or dynamic VHD and checks its whole structure: footers, dynamic header, table,
// every block inside the file and apart from all else. A sector bitmap is not looked at: QEMU reads
// all of an allocated block, whatever the bitmap says.
// Time: in proportion to the table, at most kVhdMaxTableEntries. Memory: 8 bytes for each entry.
// Errors: kInvalidInput, naming the offset, with the fix (truncated, checksum, differencing, saved
// state, unknown version or feature, sizes and offsets that contradict each other).
// Source: Microsoft, Virtual Hard Disk Image Format Specification 1.0; sizes: QEMU block/vpc.c.
Result<VhdImage> ParseVhd(const RandomAccessReader& image);

// The guest's disk inside a VHD; unallocated blocks read as zeroes. The image must outlive it.
class VhdDisk final : public RandomAccessReader {
 public:
  // Parses and checks all; errors as ParseVhd.
  static Result<VhdDisk> Open(const RandomAccessReader& image);
  // For what ParseVhd made of the same image.
  VhdDisk(const RandomAccessReader& image, VhdImage vhd) : image_(&image), vhd_(std::move(vhd)) {}

  uint64_t size() const override { return vhd_.virtual_size; }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override;
  Result<std::optional<uint64_t>> NextData(uint64_t offset) const override;

 private:
  // Where the byte is kept in the file; nothing: unallocated.
  std::optional<uint64_t> FileOffset(uint64_t offset) const;

  const RandomAccessReader* image_;
  VhdImage vhd_;
};

}  // namespace vallum::formats

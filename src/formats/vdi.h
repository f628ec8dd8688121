// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "formats/reader.h"

// docs/formats/vdi.md mirrors these constants.
namespace vallum::formats {

inline constexpr uint32_t kVdiSignature = 0xbeda107f;
inline constexpr uint32_t kVdiVersion = 0x00010001;
inline constexpr uint32_t kVdiBlockSize = uint32_t{1} << 20U;
// Bounds memory and what ParseVdi reads: 16 TiB of disk, 64 MiB of block map.
inline constexpr uint32_t kVdiMaxBlocks = uint32_t{1} << 24U;
// Entries of the block map that are no block of the file; both read as zeroes without a parent.
inline constexpr uint32_t kVdiUnallocated = 0xffffffff;
inline constexpr uint32_t kVdiZero = 0xfffffffe;

enum class VdiSubformat : uint32_t { kDynamic = 1, kStatic = 2 };

// "dynamic", "static".
std::string_view VdiSubformatName(VdiSubformat subformat);

struct VdiImage {
  VdiSubformat subformat = VdiSubformat::kDynamic;
  uint64_t virtual_size = 0;  // bytes
  uint64_t cluster_size = 0;  // bytes; VirtualBox calls it a block
  uint64_t map_offset = 0;    // of the block map, in the file
  uint64_t data_offset = 0;   // of block 0, in the file
  uint32_t blocks = 0;
  uint32_t data_blocks = 0;
};

// Reads the header and the block map of a VDI and checks both whole: each block is inside the file
// and used once.
// Time: reads the block map. Memory: a bit for each block.
// Errors: kInvalidInput, naming what was found at which offset (truncated, signature, version,
// differencing and undo images, links to a parent, unknown flags, sizes and offsets that
// contradict each other or the file).
// Source: VirtualBox, VDICore.h; QEMU, block/vdi.c.
Result<VdiImage> ParseVdi(const RandomAccessReader& image);

}  // namespace vallum::formats

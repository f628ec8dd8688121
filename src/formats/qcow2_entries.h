// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// L1 and L2 entries (qcow2 specification, "Cluster mapping").
namespace vallum::formats {

inline constexpr uint64_t kQcow2OffsetMask = 0x00fffffffffffe00;
// "1 if refcount of the cluster is exactly one", in L1 and L2.
inline constexpr uint64_t kQcow2Copied = uint64_t{1} << 63U;
inline constexpr uint64_t kL1Reserved = 0x7f000000000001ff;
inline constexpr uint64_t kL2Reserved = 0x3f000000000001fe;
inline constexpr uint64_t kL2Zero = 1;
inline constexpr uint64_t kL2Compressed = uint64_t{1} << 62U;

struct Qcow2CompressedRange {
  uint64_t offset = 0;
  uint64_t bytes = 0;  // up to the end of the last sector of 512 that is used
};

// "x = 62 - (cluster_bits - 8); bits 0 - x-1: host cluster offset; x - 61: number of additional
// 512-byte sectors used for the compressed data, beyond the sector containing the offset".
constexpr Qcow2CompressedRange CompressedRange(uint64_t entry, uint32_t cluster_bits) {
  const uint32_t x = 62 - (cluster_bits - 8);
  const uint64_t offset = entry & ((uint64_t{1} << x) - 1);
  const uint64_t sectors = ((entry & ~(uint64_t{3} << 62U)) >> x) + 1;
  return {.offset = offset, .bytes = sectors * 512 - offset % 512};
}

}  // namespace vallum::formats

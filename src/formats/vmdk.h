// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/reader.h"
#include "formats/vmdk_descriptor.h"

// docs/formats/vmdk.md mirrors these constants.
namespace vallum::formats {

inline constexpr uint64_t kVmdkSector = 512;
inline constexpr uint32_t kVmdkMagic = 0x564d444b;  // "KDMV"
inline constexpr uint32_t kVmdkMaxVersion = 3;
inline constexpr uint64_t kVmdkMinGrainSectors = 16;
inline constexpr uint64_t kVmdkMaxGrainSectors = 4096;
inline constexpr uint32_t kVmdkTableEntries = 512;
// Bounds memory and what ParseVmdk reads: 4 TiB of disk in grains of 64 KiB, 256 MiB of tables.
inline constexpr uint64_t kVmdkMaxGrainTables = uint64_t{1} << 17U;
inline constexpr uint64_t kVmdkMaxDescriptorSectors = 128;
inline constexpr uint64_t kVmdkDirectoryAtEnd = ~uint64_t{0};

enum class VmdkFlag : uint32_t {
  kNewLineTest = 1U << 0U,
  kRedundantTables = 1U << 1U,
  kZeroedGrains = 1U << 2U,
  kCompressed = 1U << 16U,
  kMarkers = 1U << 17U,
};

// A file that has its descriptor and its one extent inside.
enum class VmdkSubformat { kMonolithicSparse, kStreamOptimized };

// The createType: "monolithicSparse", "streamOptimized".
std::string_view VmdkSubformatName(VmdkSubformat subformat);

// The fixed part of a hosted sparse extent; offsets and sizes in sectors.
struct VmdkHeader {
  uint32_t version = 0;
  uint32_t flags = 0;
  uint64_t capacity = 0;
  uint64_t grain_sectors = 0;
  uint64_t descriptor_offset = 0;
  uint64_t descriptor_sectors = 0;
  uint64_t redundant_directory = 0;
  uint64_t directory = 0;
  uint64_t overhead = 0;

  bool Has(VmdkFlag flag) const { return (flags & static_cast<uint32_t>(flag)) != 0; }
  uint64_t grains() const { return (capacity - 1) / grain_sectors + 1; }
  uint64_t grain_tables() const { return (grains() - 1) / kVmdkTableEntries + 1; }
};

struct VmdkImage {
  VmdkSubformat subformat = VmdkSubformat::kMonolithicSparse;
  uint64_t virtual_size = 0;  // bytes
  uint64_t cluster_size = 0;  // bytes; VMware calls it a grain
  VmdkHeader header;          // the footer's, when the directory is at the end
  bool has_footer = false;
  VmdkDescriptor descriptor;
  // The sector of each grain table; 0 where no grain of it holds data.
  std::vector<uint32_t> tables;
  uint64_t data_grains = 0;
  uint64_t zero_grains = 0;
};

// Reads a VMDK that is one file and checks its whole structure: header, footer, descriptor, grain
// directories, grain tables, and the marker before each grain of a stream. No table overlaps
// another, every grain is inside the file and in no table.
// Time: reads the grain tables and one marker for each grain of a stream. Memory: 8 bytes for each
// grain table.
// Errors: kInvalidInput, naming what was found at which offset: a descriptor file or an extent of
// one (the data is elsewhere), a parent, another kind of VMDK (COWD, SE sparse), an unknown
// version, flag or compression, sizes and offsets that contradict each other or the file.
// Source: VMware Virtual Disk Format 5.0, "Hosted Sparse Extents", "Stream-Optimized Compressed".
Result<VmdkImage> ParseVmdk(const RandomAccessReader& image);

}  // namespace vallum::formats

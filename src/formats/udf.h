// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/reader.h"

// docs/formats/optical.md mirrors these constants.
namespace vallum::formats {

inline constexpr uint64_t kUdfAnchorSector = 256;
inline constexpr uint64_t kUdfMinSequenceSectors = 16;
inline constexpr uint64_t kUdfMaxSequenceSectors = 256;
inline constexpr size_t kUdfMaxRecognition = 64;
inline constexpr size_t kUdfMaxPartitions = 8;

struct UdfPartition {
  uint16_t number = 0;
  uint64_t offset = 0;  // in bytes
  uint64_t size = 0;
};

struct UdfVolume {
  uint32_t nsr = 0;  // 2 or 3: of ECMA-167's edition
  uint32_t block_size = 0;
  std::string volume_id;          // printable
  std::string logical_volume_id;  // printable
  std::vector<UdfPartition> partitions;
  std::vector<std::string> facts;  // sentences for people, printable
};

// Reads and checks the volume structure of a UDF image: recognition sequence, an anchor, the main
// volume descriptor sequence (tag, checksum and CRC of each descriptor) and the extents that it
// names, all inside the file. Files are not looked at.
// Errors: kInvalidInput, naming sector or offset.
// Source: ECMA-167, 3rd edition, parts 2 and 3; OSTA UDF 2.60, section 2. Pure.
Result<UdfVolume> ParseUdf(const RandomAccessReader& image);

}  // namespace vallum::formats

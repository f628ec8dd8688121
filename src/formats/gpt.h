// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/reader.h"

// docs/formats/gpt.md mirrors these constants.
namespace vallum::formats {

inline constexpr uint32_t kGptMinHeaderSize = 92;
inline constexpr uint32_t kGptMaxEntryBytes = 1U << 20U;  // of the whole entry array
inline constexpr uint8_t kMbrProtectiveType = 0xee;

// As on disk: the first three fields little-endian.
using Guid = std::array<std::byte, 16>;
// "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", upper case.
std::string FormatGuid(const Guid& guid);
// The caller has bounded the offset.
Guid GuidAt(ByteView data, size_t offset);

inline constexpr const char* kEspTypeGuid = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
inline constexpr const char* kBiosBootTypeGuid = "21686148-6449-6E6F-744E-656564454649";

struct GptPartition {
  uint32_t number = 0;  // from 1, its place in the array
  Guid type{};
  Guid unique{};
  uint64_t first_lba = 0;
  uint64_t last_lba = 0;  // inclusive
  uint64_t attributes = 0;
  std::string name;  // UTF-8

  uint64_t sectors() const { return last_lba - first_lba + 1; }
};

struct GptTable {
  uint32_t sector_size = 0;  // 512 or 4096
  Guid disk{};
  uint64_t first_usable_lba = 0;
  uint64_t last_usable_lba = 0;
  uint64_t backup_lba = 0;
  uint64_t last_lba = 0;  // of the disk
  std::vector<GptPartition> partitions;
};

// Where a header's signature stands: 512, 4096, or 0 for nowhere. Both: the smaller.
Result<uint32_t> FindGptSectorSize(const RandomAccessReader& disk);

// Parses and checks a whole GPT: protective MBR, both headers and arrays with their CRCs, equal
// content, partitions inside the usable range and apart from each other.
//   sector_size: 512 or 4096.
// Errors: kInvalidInput, naming the offset.
Result<GptTable> ParseGpt(const RandomAccessReader& disk, uint32_t sector_size);

struct MbrPartition {
  uint32_t number = 0;  // 1 to 4
  uint8_t status = 0;   // 0x80: active
  uint8_t type = 0;
  uint32_t first_lba = 0;
  uint32_t sectors = 0;
};

struct MbrTable {
  std::vector<MbrPartition> partitions;
  uint32_t signature = 0;
};

// Whether sector 0 ends in 55 AA.
bool HasBootSignature(ByteView sector0);
// Whether sector 0 holds any boot code (first 440 bytes).
bool HasBootCode(ByteView sector0);

// Parses and checks the primary partition table of a disk with 512-byte sectors: at least one
// partition, all inside the disk, none overlapping, no protective entry.
// Errors: kInvalidInput.
Result<MbrTable> ParseMbr(const RandomAccessReader& disk);

}  // namespace vallum::formats

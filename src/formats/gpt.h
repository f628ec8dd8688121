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

}  // namespace vallum::formats

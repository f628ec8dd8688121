// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/reader.h"

// docs/formats/gpt.md mirrors these constants.
namespace vallum::formats {

inline constexpr uint8_t kMbrProtectiveType = 0xee;
inline constexpr uint32_t kMbrMaxLogical = 128;  // bounds the chain of extended boot records

struct MbrPartition {
  uint32_t number = 0;  // 1 to 4, logical ones from 5 in the order of their chain
  uint8_t status = 0;   // 0x80: active
  uint8_t type = 0;
  uint64_t first_lba = 0;
  uint64_t sectors = 0;
};

struct MbrTable {
  std::vector<MbrPartition> partitions;  // primary ones (one of them may be extended), then logical
  uint32_t signature = 0;
  bool has_boot_code = false;
  uint32_t active = 0;  // the number of the active partition, 0 for none
};

// What sector 0 says at first sight.
enum class MbrKind {
  kNone,        // no signature 55 AA
  kEmpty,       // no entry is used
  kPartitions,  // entries, none of type 0xEE
  kProtective,  // one entry of type 0xEE alone: a GPT is meant
  kHybrid,      // 0xEE and others: readers of MBR and of GPT see different disks
};
MbrKind ClassifyMbr(ByteView sector0);

// Whether sector 0 ends in 55 AA.
bool HasBootSignature(ByteView sector0);
// Whether sector 0 holds any boot code (first 440 bytes).
bool HasBootCode(ByteView sector0);
// The four entries as they stand, unused ones too (all zero). Layout only, nothing is checked.
//   sector0: at least 512 bytes.
std::array<MbrPartition, 4> ReadMbrEntries(ByteView sector0);

// Parses and checks sector 0 alone: as ParseMbr, without logical partitions.
//   sector0: at least 512 bytes. disk_size: in bytes.
Result<MbrTable> ParseMbrSector(ByteView sector0, uint64_t disk_size);

// Parses and checks the partition table of a disk with 512-byte sectors, logical partitions
// included: at least one partition, all inside the disk, none overlapping, one active at most, no
// entry of type 0xEE; the chain of extended boot records inside its partition, without a loop.
// Reads at most kMbrMaxLogical sectors more. Errors: kInvalidInput, naming the offset.
// Source: UEFI 2.10, 5.2.1; the extended boot record has no specification: as Linux reads it.
Result<MbrTable> ParseMbr(const RandomAccessReader& disk);

}  // namespace vallum::formats

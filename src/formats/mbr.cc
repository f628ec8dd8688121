// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/gpt.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr size_t kSector = 512;
constexpr size_t kBootCodeBytes = 440;
constexpr size_t kTableOffset = 446;
constexpr size_t kEntrySize = 16;

Error Wrong(std::string message) {
  return InvalidInput("mbr: " + std::move(message))
      .WithFix("repair the partition table where it came from (fdisk --list shows it)");
}

Result<void> CheckEntry(const MbrPartition& p, uint64_t disk_sectors) {
  if (p.status != 0 && p.status != 0x80) {
    return Wrong(fmt::format("partition {} has status {:#04x}", p.number, p.status));
  }
  if (p.type == kMbrProtectiveType) {
    return Wrong(
        fmt::format("partition {} is the protective entry of a GPT that is not there", p.number));
  }
  if (p.first_lba == 0 || p.sectors == 0 || !IsInside(p.first_lba, p.sectors, disk_sectors)) {
    return Wrong(fmt::format("partition {} ({} sectors from {}) is not inside the disk of {}",
                             p.number, p.sectors, p.first_lba, disk_sectors));
  }
  return Ok();
}

}  // namespace

bool HasBootSignature(ByteView sector0) {
  return sector0.size() >= kSector && U16Le(sector0, 510) == 0xaa55;
}

bool HasBootCode(ByteView sector0) {
  return sector0.size() >= kBootCodeBytes &&
         std::ranges::any_of(sector0.first(kBootCodeBytes),
                             [](std::byte b) { return b != std::byte{0}; });
}

Result<MbrTable> ParseMbr(const RandomAccessReader& disk) {
  ASSIGN_OR_RETURN(const Bytes sector, ReadBytesAt(disk, 0, kSector));
  if (!HasBootSignature(sector)) return Wrong("no signature 55 AA at offset 510");
  MbrTable table;
  table.signature = U32Le(sector, kBootCodeBytes);
  for (uint32_t i = 0; i < 4; ++i) {
    const size_t at = kTableOffset + i * kEntrySize;
    const MbrPartition p{.number = i + 1,
                         .status = U8(sector, at),
                         .type = U8(sector, at + 4),
                         .first_lba = U32Le(sector, at + 8),
                         .sectors = U32Le(sector, at + 12)};
    if (p.type == 0 && p.sectors == 0 && p.status == 0) continue;
    RETURN_IF_ERROR(CheckEntry(p, disk.size() / kSector));
    for (const MbrPartition& other : table.partitions) {
      if (p.first_lba < uint64_t{other.first_lba} + other.sectors &&
          other.first_lba < uint64_t{p.first_lba} + p.sectors) {
        return Wrong(fmt::format("partitions {} and {} overlap", other.number, p.number));
      }
    }
    table.partitions.push_back(p);
  }
  if (table.partitions.empty()) return Wrong("no partition");
  return table;
}

}  // namespace vallum::formats

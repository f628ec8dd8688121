// SPDX-License-Identifier: Apache-2.0
#include "formats/mbr.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr size_t kSector = 512;
constexpr size_t kBootCodeBytes = 440;
constexpr size_t kTableOffset = 446;
constexpr size_t kEntrySize = 16;
constexpr uint8_t kActive = 0x80;
constexpr uint32_t kFirstLogical = 5;

Error Wrong(std::string message) {
  return InvalidInput("mbr: " + std::move(message))
      .WithFix("repair the partition table where it came from (fdisk --list shows it)");
}

bool IsUsed(const MbrPartition& p) { return p.type != 0 || p.sectors != 0 || p.status != 0; }

bool IsExtended(const MbrPartition& p) {
  return p.type == 0x05 || p.type == 0x0f || p.type == 0x85;
}

bool Overlap(const MbrPartition& a, const MbrPartition& b) {
  return a.first_lba < b.first_lba + b.sectors && b.first_lba < a.first_lba + a.sectors;
}

// Of a used entry; `at` is its offset on the disk.
Result<void> CheckEntry(const MbrPartition& p, uint64_t at) {
  if (p.status != 0 && p.status != kActive) {
    return Wrong(fmt::format("the entry at offset {} has status {:#04x}", at, p.status));
  }
  if (p.sectors == 0) return Wrong(fmt::format("the entry at offset {} has no sectors", at));
  if (p.type == 0) {
    return Wrong(fmt::format("the entry at offset {} has {} sectors but no type", at, p.sectors));
  }
  return Ok();
}

// The logical partitions inside an extended one. Each has a boot record (EBR) of its own before it:
// entry 1 is the partition, relative to the EBR; entry 2 the next EBR, relative to the extended
// partition.
class Chain {
 public:
  Chain(const RandomAccessReader& disk, const MbrPartition& extended)
      : disk_(disk), extended_(extended) {}

  Result<std::vector<MbrPartition>> Walk() {
    for (uint64_t next = 0;;) {
      ASSIGN_OR_RETURN(next, Step(next));
      if (next == 0) break;
    }
    RETURN_IF_ERROR(CheckOverlap());
    return std::move(logical_);
  }

 private:
  // Reads the EBR that many sectors into the extended partition; returns where the next one is, 0
  // after the last.
  Result<uint64_t> Step(uint64_t relative) {
    const uint64_t ebr = extended_.first_lba + relative;
    if (records_.size() == kMbrMaxLogical) {
      return Wrong(fmt::format("more than {} extended boot records", kMbrMaxLogical));
    }
    if (!records_.insert(ebr).second) {
      return Wrong(fmt::format("the extended boot records come back to sector {}", ebr));
    }
    ASSIGN_OR_RETURN(const Bytes sector, ReadBytesAt(disk_, ebr * kSector, kSector));
    if (!HasBootSignature(sector)) {
      return Wrong(fmt::format("the extended boot record at sector {} has no signature", ebr));
    }
    const auto entries = ReadMbrEntries(sector);
    if (IsUsed(entries[2]) || IsUsed(entries[3])) {
      return Wrong(
          fmt::format("the extended boot record at sector {} has more than two entries", ebr));
    }
    RETURN_IF_ERROR(AddLogical(entries[0], ebr));
    return Next(entries[1], ebr);
  }

  Result<void> AddLogical(MbrPartition p, uint64_t ebr) {
    if (!IsUsed(p)) return Ok();
    RETURN_IF_ERROR(CheckEntry(p, ebr * kSector + kTableOffset));
    p.number = kFirstLogical + static_cast<uint32_t>(logical_.size());
    const uint64_t relative = ebr - extended_.first_lba + p.first_lba;
    if (p.first_lba == 0 || !IsInside(relative, p.sectors, extended_.sectors)) {
      return Wrong(fmt::format("partition {} ({} sectors from {}) is not inside the extended one",
                               p.number, p.sectors, ebr + p.first_lba));
    }
    if (IsExtended(p) || p.type == kMbrProtectiveType) {
      return Wrong(fmt::format("partition {} has type {:#04x}", p.number, p.type));
    }
    p.first_lba += ebr;
    logical_.push_back(p);
    return Ok();
  }

  Result<uint64_t> Next(const MbrPartition& link, uint64_t ebr) const {
    if (!IsUsed(link)) return 0;
    RETURN_IF_ERROR(CheckEntry(link, ebr * kSector + kTableOffset + kEntrySize));
    if (!IsExtended(link) || !IsInside(link.first_lba, link.sectors, extended_.sectors)) {
      return Wrong(
          fmt::format("the extended boot record at sector {} goes on at sector {} (type {:#04x}), "
                      "not inside the extended partition",
                      ebr, extended_.first_lba + link.first_lba, link.type));
    }
    if (link.first_lba == 0) {
      return Wrong(
          fmt::format("the extended boot records come back to sector {}", extended_.first_lba));
    }
    return link.first_lba;
  }

  Result<void> CheckOverlap() const {
    for (const MbrPartition& p : logical_) {
      const auto record = records_.lower_bound(p.first_lba);
      if (record != records_.end() && *record < p.first_lba + p.sectors) {
        return Wrong(fmt::format("partition {} overlaps the extended boot record at sector {}",
                                 p.number, *record));
      }
      for (const MbrPartition& other : logical_) {
        if (other.number < p.number && Overlap(p, other)) {
          return Wrong(fmt::format("partitions {} and {} overlap", other.number, p.number));
        }
      }
    }
    return Ok();
  }

  const RandomAccessReader& disk_;
  const MbrPartition& extended_;
  std::set<uint64_t> records_;  // sectors
  std::vector<MbrPartition> logical_;
};

Result<void> CheckPrimary(const MbrPartition& p, const MbrTable& table, uint64_t disk_sectors) {
  RETURN_IF_ERROR(CheckEntry(p, kTableOffset + (p.number - 1) * kEntrySize));
  if (p.first_lba == 0 || !IsInside(p.first_lba, p.sectors, disk_sectors)) {
    return Wrong(fmt::format("partition {} ({} sectors from {}) is not inside the disk of {}",
                             p.number, p.sectors, p.first_lba, disk_sectors));
  }
  for (const MbrPartition& other : table.partitions) {
    if (Overlap(p, other)) {
      return Wrong(fmt::format("partitions {} and {} overlap", other.number, p.number));
    }
    if (IsExtended(p) && IsExtended(other)) {
      return Wrong(fmt::format("partitions {} and {} are both extended", other.number, p.number));
    }
  }
  if (p.status == kActive && table.active != 0) {
    return Wrong(fmt::format("partitions {} and {} are both active", table.active, p.number));
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

std::array<MbrPartition, 4> ReadMbrEntries(ByteView sector0) {
  std::array<MbrPartition, 4> entries;
  for (uint32_t i = 0; i < entries.size(); ++i) {
    const size_t at = kTableOffset + i * kEntrySize;
    entries[i] = {.number = i + 1,
                  .status = U8(sector0, at),
                  .type = U8(sector0, at + 4),
                  .first_lba = U32Le(sector0, at + 8),
                  .sectors = U32Le(sector0, at + 12)};
  }
  return entries;
}

MbrKind ClassifyMbr(ByteView sector0) {
  if (!HasBootSignature(sector0)) return MbrKind::kNone;
  const auto entries = ReadMbrEntries(sector0);
  const auto used = std::ranges::count_if(entries, IsUsed);
  const auto protective = std::ranges::count(entries, kMbrProtectiveType, &MbrPartition::type);
  if (used == 0) return MbrKind::kEmpty;
  if (protective == 0) return MbrKind::kPartitions;
  return used == 1 ? MbrKind::kProtective : MbrKind::kHybrid;
}

Result<MbrTable> ParseMbrSector(ByteView sector0, uint64_t disk_size) {
  switch (ClassifyMbr(sector0)) {
    case MbrKind::kNone:
      return Wrong("no signature 55 AA at offset 510");
    case MbrKind::kEmpty:
      return Wrong("no partition");
    case MbrKind::kProtective:
      return Wrong("the protective entry of a GPT (type 0xee) that is not there");
    case MbrKind::kHybrid:
      return Wrong("hybrid: an entry of type 0xee beside others, so that readers see two disks");
    case MbrKind::kPartitions:
      break;
  }
  MbrTable table;
  table.signature = U32Le(sector0, kBootCodeBytes);
  table.has_boot_code = HasBootCode(sector0);
  for (const MbrPartition& p : ReadMbrEntries(sector0)) {
    if (!IsUsed(p)) continue;
    RETURN_IF_ERROR(CheckPrimary(p, table, disk_size / kSector));
    if (p.status == kActive) table.active = p.number;
    table.partitions.push_back(p);
  }
  return table;
}

Result<MbrTable> ParseMbr(const RandomAccessReader& disk) {
  if (disk.size() < kSector) return Wrong(fmt::format("truncated: {} bytes", disk.size()));
  ASSIGN_OR_RETURN(const Bytes sector0, ReadBytesAt(disk, 0, kSector));
  ASSIGN_OR_RETURN(MbrTable table, ParseMbrSector(sector0, disk.size()));
  const auto extended = std::ranges::find_if(table.partitions, IsExtended);
  if (extended != table.partitions.end()) {
    ASSIGN_OR_RETURN(const std::vector<MbrPartition> logical, Chain(disk, *extended).Walk());
    table.partitions.insert(table.partitions.end(), logical.begin(), logical.end());
  }
  return table;
}

}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
#include "formats/gpt.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/mbr.h"
#include "formats/reader.h"
#include "formats/text16.h"

namespace vallum::formats {
namespace {

constexpr std::string_view kSignature = "EFI PART";
constexpr uint32_t kRevision1 = 0x00010000;
constexpr uint32_t kMinEntrySize = 128;
constexpr size_t kNameUnits = 36;
constexpr size_t kMbrTableOffset = 446;
constexpr size_t kMbrEntrySize = 16;

Error Wrong(std::string message) {
  return InvalidInput("gpt: " + std::move(message))
      .WithFix(
          "repair the table where it came from (sgdisk --verify says what is wrong), or write "
          "the disk anew");
}

struct Header {
  uint32_t size = 0;
  uint64_t my_lba = 0;
  uint64_t alternate_lba = 0;
  uint64_t first_usable = 0;
  uint64_t last_usable = 0;
  Guid disk{};
  uint64_t entries_lba = 0;
  uint32_t entry_count = 0;
  uint32_t entry_size = 0;
  uint32_t entries_crc = 0;

  uint64_t entries_bytes() const { return uint64_t{entry_count} * entry_size; }
};

uint32_t Crc32(ByteView data) {
  return static_cast<uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size())));
}

// UEFI 2.10, 5.2.3: one entry of type 0xEE that starts at LBA 1, "set to 0x00000001, the LBA of the
// GPT Partition Header", the others zero. The boot indicator "must be ignored by UEFI
// implementations": some BIOSes want it set.
Result<void> CheckProtectiveMbr(ByteView mbr, uint64_t last_lba) {
  if (!HasBootSignature(mbr)) return Wrong("no protective MBR: no signature 55 AA at offset 510");
  size_t used = 0;
  for (size_t i = 0; i < 4; ++i) {
    const size_t at = kMbrTableOffset + i * kMbrEntrySize;
    const ByteView entry = mbr.subspan(at, kMbrEntrySize);
    if (std::ranges::all_of(entry, [](std::byte b) { return b == std::byte{0}; })) continue;
    if (++used > 1) {
      return Wrong(fmt::format("the protective MBR has a second entry at offset {}", at));
    }
    if (U8(entry, 4) != kMbrProtectiveType) {
      return Wrong(
          fmt::format("the protective MBR has an entry of type {:#04x} at offset {}, not "
                      "0xee",
                      U8(entry, 4), at));
    }
    if (U32Le(entry, 8) != 1) {
      return Wrong(fmt::format("the protective MBR entry starts at sector {}, not 1 (offset {})",
                               U32Le(entry, 8), at + 8));
    }
    const uint32_t sectors = U32Le(entry, 12);
    if (sectors == 0 || (sectors != 0xffffffff && sectors > last_lba)) {
      return Wrong(fmt::format("the protective MBR entry covers {} sectors of {} (offset {})",
                               sectors, last_lba, at + 12));
    }
  }
  return used == 1 ? Ok() : Result<void>(Wrong("the protective MBR is empty"));
}

Result<Header> ParseHeader(ByteView sector, uint64_t lba, uint64_t last_lba) {
  const std::string where = fmt::format("the header at sector {}", lba);
  if (!HasText(sector, 0, kSignature)) return Wrong(where + " has no signature");
  if (U32Le(sector, 8) != kRevision1) {
    return Wrong(fmt::format("{} has revision {:#x}", where, U32Le(sector, 8)));
  }
  Header h;
  h.size = U32Le(sector, 12);
  if (h.size < kGptMinHeaderSize || h.size > sector.size()) {
    return Wrong(fmt::format("{} says that it has {} bytes", where, h.size));
  }
  Bytes covered = ToBytes(sector.first(h.size));
  std::fill_n(covered.begin() + 16, 4, std::byte{0});  // the CRC's own field counts as zero
  if (Crc32(covered) != U32Le(sector, 16)) return Wrong(where + " has a wrong CRC (its offset 16)");
  h.my_lba = U64Le(sector, 24);
  h.alternate_lba = U64Le(sector, 32);
  h.first_usable = U64Le(sector, 40);
  h.last_usable = U64Le(sector, 48);
  h.disk = GuidAt(sector, 56);
  h.entries_lba = U64Le(sector, 72);
  h.entry_count = U32Le(sector, 80);
  h.entry_size = U32Le(sector, 84);
  h.entries_crc = U32Le(sector, 88);
  if (h.my_lba != lba) return Wrong(fmt::format("{} says that it is sector {}", where, h.my_lba));
  if (h.first_usable > h.last_usable || h.last_usable > last_lba) {
    return Wrong(fmt::format("{} gives the usable sectors {} to {} of a disk that ends at {}",
                             where, h.first_usable, h.last_usable, last_lba));
  }
  // "This value must be set to a value of 128 x 2^n".
  if (h.entry_size < kMinEntrySize || (h.entry_size & (h.entry_size - 1)) != 0 ||
      h.entry_count == 0 || h.entries_bytes() > kGptMaxEntryBytes) {
    return Wrong(fmt::format("{} has {} entries of {} bytes", where, h.entry_count, h.entry_size));
  }
  return h;
}

Result<Bytes> ReadEntries(const RandomAccessReader& disk, const Header& h, uint32_t sector_size) {
  const uint64_t last = disk.size() / sector_size;
  if (h.entries_lba > last) {
    return Wrong(fmt::format("the entries at sector {} are past the end", h.entries_lba));
  }
  ASSIGN_OR_RETURN_CONTEXT(
      Bytes entries,
      ReadBytesAt(disk, h.entries_lba * sector_size, static_cast<size_t>(h.entries_bytes())),
      "reading the GPT entries");
  if (Crc32(entries) != h.entries_crc) {
    return Wrong(fmt::format("the entries at sector {} have a wrong CRC", h.entries_lba));
  }
  return entries;
}

// The usable range may touch neither header nor array of either copy.
Result<void> CheckPlaces(const Header& primary, const Header& backup, uint32_t sector_size) {
  const uint64_t array = (primary.entries_bytes() + sector_size - 1) / sector_size;
  if (primary.entries_lba < 2 || primary.entries_lba + array > primary.first_usable) {
    return Wrong(fmt::format("the usable sectors from {} on include the table itself",
                             primary.first_usable));
  }
  if (backup.entries_lba <= primary.last_usable || backup.entries_lba + array > backup.my_lba) {
    return Wrong(
        fmt::format("the backup's entries at sector {} are not between the usable sectors "
                    "and the backup header",
                    backup.entries_lba));
  }
  return Ok();
}

Result<void> CheckBackup(const RandomAccessReader& disk, const Header& primary,
                         const Bytes& entries, uint32_t sector_size) {
  const uint64_t last_lba = disk.size() / sector_size - 1;
  if (primary.alternate_lba <= primary.last_usable || primary.alternate_lba > last_lba) {
    return Wrong(
        fmt::format("the backup header at sector {} is not between the usable sectors and "
                    "the end of the disk, sector {} (is the file cut short?)",
                    primary.alternate_lba, last_lba));
  }
  ASSIGN_OR_RETURN(const Bytes sector,
                   ReadBytesAt(disk, primary.alternate_lba * sector_size, sector_size));
  ASSIGN_OR_RETURN(const Header backup, ParseHeader(sector, primary.alternate_lba, last_lba));
  if (backup.alternate_lba != primary.my_lba || backup.first_usable != primary.first_usable ||
      backup.last_usable != primary.last_usable || backup.disk != primary.disk ||
      backup.entry_count != primary.entry_count || backup.entry_size != primary.entry_size ||
      backup.entries_crc != primary.entries_crc) {
    return Wrong(fmt::format("the backup header at sector {} disagrees with the primary one",
                             primary.alternate_lba));
  }
  RETURN_IF_ERROR(CheckPlaces(primary, backup, sector_size));
  ASSIGN_OR_RETURN(const Bytes backup_entries, ReadEntries(disk, backup, sector_size));
  if (backup_entries != entries) return Wrong("the backup entries differ from the primary ones");
  return Ok();
}

GptPartition ReadEntry(ByteView raw, uint32_t number) {
  GptPartition p;
  p.number = number;
  p.type = GuidAt(raw, 0);
  p.unique = GuidAt(raw, 16);
  p.first_lba = U64Le(raw, 32);
  p.last_lba = U64Le(raw, 40);
  p.attributes = U64Le(raw, 48);
  std::u16string name(kNameUnits, u'\0');
  for (size_t i = 0; i < kNameUnits; ++i) name[i] = U16Le(raw, 56 + i * 2);
  p.name = Utf16ToUtf8(name);
  return p;
}

Result<std::vector<GptPartition>> ReadPartitions(const Header& h, ByteView entries) {
  std::vector<GptPartition> partitions;
  for (uint32_t i = 0; i < h.entry_count; ++i) {
    const ByteView raw = entries.subspan(size_t{i} * h.entry_size, h.entry_size);
    if (GuidAt(raw, 0) == Guid{}) continue;
    GptPartition p = ReadEntry(raw, i + 1);
    if (p.first_lba > p.last_lba || p.first_lba < h.first_usable || p.last_lba > h.last_usable) {
      return Wrong(
          fmt::format("partition {} (sectors {} to {}) is not inside the usable sectors {} "
                      "to {}",
                      p.number, p.first_lba, p.last_lba, h.first_usable, h.last_usable));
    }
    partitions.push_back(std::move(p));
  }
  std::vector<const GptPartition*> order;
  order.reserve(partitions.size());
  for (const auto& p : partitions) order.push_back(&p);
  std::ranges::sort(order, {}, &GptPartition::first_lba);
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->first_lba <= order[i - 1]->last_lba) {
      return Wrong(fmt::format("partitions {} and {} overlap at sector {}", order[i - 1]->number,
                               order[i]->number, order[i]->first_lba));
    }
  }
  return partitions;
}

}  // namespace

Guid GuidAt(ByteView data, size_t offset) {
  Guid guid{};
  CHECK(IsInside(offset, guid.size(), data.size()));
  std::ranges::copy(data.subspan(offset, guid.size()), guid.begin());
  return guid;
}

std::string FormatGuid(const Guid& guid) {
  const ByteView b(guid);
  return fmt::format("{:08X}-{:04X}-{:04X}-{:04X}-{:04X}{:08X}", U32Le(b, 0), U16Le(b, 4),
                     U16Le(b, 6), U16Be(b, 8), U16Be(b, 10), U32Be(b, 12));
}

Result<uint32_t> FindGptSectorSize(const RandomAccessReader& disk) {
  for (const uint32_t size : {512U, 4096U}) {
    ASSIGN_OR_RETURN(const Bytes found, ReadUpTo(disk, size, kSignature.size()));
    if (HasText(found, 0, kSignature)) return size;
  }
  return 0U;
}

Result<GptTable> ParseGpt(const RandomAccessReader& disk, uint32_t sector_size) {
  if (disk.size() / sector_size < 3) {
    return Wrong(fmt::format("truncated: {} bytes hold no table", disk.size()));
  }
  GptTable table;
  table.sector_size = sector_size;
  table.last_lba = disk.size() / sector_size - 1;
  ASSIGN_OR_RETURN(const Bytes head, ReadBytesAt(disk, 0, size_t{sector_size} * 2));
  const ByteView view(head);
  ASSIGN_OR_RETURN(const Header header, ParseHeader(view.subspan(sector_size), 1, table.last_lba));
  RETURN_IF_ERROR(CheckProtectiveMbr(view.first(512), table.last_lba));
  ASSIGN_OR_RETURN(const Bytes entries, ReadEntries(disk, header, sector_size));
  RETURN_IF_ERROR(CheckBackup(disk, header, entries, sector_size));
  ASSIGN_OR_RETURN(table.partitions, ReadPartitions(header, entries));
  table.disk = header.disk;
  table.first_usable_lba = header.first_usable;
  table.last_usable_lba = header.last_usable;
  table.backup_lba = header.alternate_lba;
  return table;
}

}  // namespace vallum::formats

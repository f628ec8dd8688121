// SPDX-License-Identifier: Apache-2.0
#include "formats/iso9660.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "base/units.h"
#include "formats/fields.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr std::string_view kStandardId = "CD001";
constexpr std::string_view kElTorito = "EL TORITO SPECIFICATION";
constexpr uint8_t kTypeBoot = 0;
constexpr uint8_t kTypePrimary = 1;
constexpr uint8_t kTypeSupplementary = 2;
constexpr uint8_t kTypePartition = 3;
constexpr uint8_t kTypeTerminator = 255;
constexpr size_t kRootRecord = 156;
constexpr size_t kRootRecordBytes = 34;
constexpr uint8_t kDirectoryFlag = 0x02;

constexpr size_t kCatalogueEntry = 32;
constexpr uint64_t kVirtualSector = 512;
constexpr uint8_t kBootable = 0x88;
constexpr uint8_t kNotBootable = 0x00;
constexpr uint8_t kSectionHeader = 0x90;
constexpr uint8_t kLastSectionHeader = 0x91;
constexpr uint8_t kExtension = 0x44;
constexpr uint8_t kMoreExtensions = 0x20;
constexpr uint8_t kPlatformBios = 0x00;
constexpr uint8_t kPlatformUefi = 0xef;

Error Wrong(std::string message) {
  return InvalidInput("iso9660: " + std::move(message))
      .WithFix("fetch it again, or write it anew with xorriso");
}

std::string Where(uint64_t sector, size_t field) {
  return fmt::format("sector {}, byte {}", sector, field);
}

// 7.2.3 and 7.3.3: "both-byte orders". Two readers must not see two numbers.
Result<uint32_t> Both32(ByteView data, size_t at, uint64_t sector) {
  const uint32_t little = U32Le(data, at);
  if (little == U32Be(data, at + 4)) return little;
  return Wrong(fmt::format("the two byte orders disagree at {}: {} and {}", Where(sector, at),
                           little, U32Be(data, at + 4)));
}
Result<uint16_t> Both16(ByteView data, size_t at, uint64_t sector) {
  const uint16_t little = U16Le(data, at);
  if (little == U16Be(data, at + 2)) return little;
  return Wrong(fmt::format("the two byte orders disagree at {}: {} and {}", Where(sector, at),
                           little, U16Be(data, at + 2)));
}

class IsoParser {
 public:
  explicit IsoParser(const RandomAccessReader& image) : image_(image) {}

  Result<IsoVolume> Parse() {
    RETURN_IF_ERROR(ReadDescriptors());
    if (out_.size == 0) return Wrong("no primary volume descriptor");
    ASSIGN_OR_RETURN(const Bytes area,
                     ReadBytesAt(image_, 0, static_cast<size_t>(kIsoFirstDescriptor * kIsoSector)));
    out_.system_area_used =
        std::ranges::any_of(area, [](std::byte b) { return b != std::byte{0}; });
    if (catalogue_.has_value()) {
      RETURN_IF_ERROR(ReadCatalogue(*catalogue_));
    }
    Describe();
    return std::move(out_);
  }

 private:
  Result<void> ReadDescriptors() {
    for (size_t i = 0; i < kIsoMaxDescriptors; ++i) {
      const uint64_t sector = kIsoFirstDescriptor + i;
      if (!IsInside(sector * kIsoSector, kIsoSector, image_.size())) {
        return Wrong(fmt::format("truncated: no volume descriptor at sector {} of {} bytes", sector,
                                 image_.size()));
      }
      ASSIGN_OR_RETURN(const Bytes raw, ReadBytesAt(image_, sector * kIsoSector, kIsoSector));
      if (!HasText(raw, 1, kStandardId)) {
        return Wrong(fmt::format("no volume descriptor, nor a terminator, at sector {}", sector));
      }
      if (U8(raw, 0) == kTypeTerminator) return Ok();
      RETURN_IF_ERROR(ReadDescriptor(raw, sector));
    }
    return Wrong(fmt::format("more than {} volume descriptors", kIsoMaxDescriptors));
  }

  Result<void> ReadDescriptor(ByteView raw, uint64_t sector) {
    switch (U8(raw, 0)) {
      case kTypePrimary:
        return ReadPrimary(raw, sector);
      case kTypeSupplementary:
        return ReadSupplementary(raw, sector);
      case kTypeBoot:
        return ReadBootRecord(raw, sector);
      case kTypePartition:
        return Ok();  // nothing that any reader follows
      default:
        return Wrong(
            fmt::format("unknown volume descriptor of type {} at sector {}", U8(raw, 0), sector));
    }
  }

  struct Common {
    uint32_t block_size = 0;
    uint64_t size = 0;
  };

  // 8.4: what primary and supplementary descriptors have in common.
  Result<Common> ReadCommon(ByteView raw, uint64_t sector) {
    ASSIGN_OR_RETURN(const uint32_t blocks, Both32(raw, 80, sector));
    RETURN_IF_ERROR(Both16(raw, 120, sector));
    RETURN_IF_ERROR(Both16(raw, 124, sector));
    ASSIGN_OR_RETURN(const uint16_t block_size, Both16(raw, 128, sector));
    if (block_size != 512 && block_size != 1024 && block_size != 2048) {
      return Wrong(fmt::format("blocks of {} bytes at {}", block_size, Where(sector, 128)));
    }
    const Common common{.block_size = block_size, .size = uint64_t{blocks} * block_size};
    if (blocks == 0 || common.size > image_.size()) {
      return Wrong(fmt::format("truncated: the volume has {} bytes ({}), the file {}", common.size,
                               Where(sector, 80), image_.size()));
    }
    RETURN_IF_ERROR(CheckPathTables(raw, sector, common));
    RETURN_IF_ERROR(CheckRoot(raw, sector, common));
    return common;
  }

  static Result<void> CheckPathTables(ByteView raw, uint64_t sector, const Common& common) {
    ASSIGN_OR_RETURN(const uint32_t bytes, Both32(raw, 132, sector));
    const std::array<std::pair<size_t, uint32_t>, 4> tables = {{{140, U32Le(raw, 140)},
                                                                {144, U32Le(raw, 144)},
                                                                {148, U32Be(raw, 148)},
                                                                {152, U32Be(raw, 152)}}};
    for (const auto& [field, block] : tables) {
      const bool optional = field == 144 || field == 152;
      if (optional && block == 0) continue;
      if (bytes == 0 || !IsInside(uint64_t{block} * common.block_size, bytes, common.size) ||
          block < kIsoFirstDescriptor) {
        return Wrong(
            fmt::format("the path table ({} bytes at block {}, {}) is not inside the volume", bytes,
                        block, Where(sector, field)));
      }
    }
    return Ok();
  }

  // 9.1: the directory record of the root.
  static Result<void> CheckRoot(ByteView raw, uint64_t sector, const Common& common) {
    if (U8(raw, kRootRecord) < kRootRecordBytes) {
      return Wrong(fmt::format("the root directory's record has {} bytes at {}",
                               U8(raw, kRootRecord), Where(sector, kRootRecord)));
    }
    ASSIGN_OR_RETURN(const uint32_t block, Both32(raw, kRootRecord + 2, sector));
    ASSIGN_OR_RETURN(const uint32_t bytes, Both32(raw, kRootRecord + 10, sector));
    if ((U8(raw, kRootRecord + 25) & kDirectoryFlag) == 0) {
      return Wrong(fmt::format("the root is no directory ({})", Where(sector, kRootRecord + 25)));
    }
    if (bytes == 0 || block < kIsoFirstDescriptor ||
        !IsInside(uint64_t{block} * common.block_size, bytes, common.size)) {
      return Wrong(
          fmt::format("the root directory ({} bytes at block {}, {}) is not inside the "
                      "volume",
                      bytes, block, Where(sector, kRootRecord)));
    }
    return Ok();
  }

  Result<void> ReadPrimary(ByteView raw, uint64_t sector) {
    if (U8(raw, 6) != 1 || U8(raw, 881) != 1) {
      return Wrong(
          fmt::format("the primary volume descriptor has version {} and structure {} "
                      "(sector {})",
                      U8(raw, 6), U8(raw, 881), sector));
    }
    ASSIGN_OR_RETURN(const Common common, ReadCommon(raw, sector));
    // 6.7.1.1 lets the primary one be recorded again, equal to the first.
    if (out_.size != 0 && (out_.size != common.size || out_.block_size != common.block_size)) {
      return Wrong(fmt::format("a second primary volume descriptor at sector {} differs", sector));
    }
    out_.size = common.size;
    out_.block_size = common.block_size;
    out_.volume_id = Printable(Trim(AsText(raw.subspan(40, 32))));
    return Ok();
  }

  Result<void> ReadSupplementary(ByteView raw, uint64_t sector) {
    RETURN_IF_ERROR(ReadCommon(raw, sector));
    for (const std::string_view escape : {"%/@", "%/C", "%/E"}) {
      if (HasText(raw, 88, escape)) out_.joliet = true;
    }
    return Ok();
  }

  Result<void> ReadBootRecord(ByteView raw, uint64_t sector) {
    if (!HasText(raw, 7, kElTorito)) return Ok();  // another system's, of no meaning here
    if (catalogue_.has_value()) {
      return Wrong(fmt::format("a second El Torito boot record at sector {}", sector));
    }
    catalogue_ = U32Le(raw, 0x47);
    return Ok();
  }

  Result<void> ReadCatalogue(uint64_t sector) {
    if (sector <= kIsoFirstDescriptor ||
        !IsInside(sector * kIsoSector, kIsoSector, image_.size())) {
      return Wrong(fmt::format("the boot catalogue at sector {} is not inside the file", sector));
    }
    ASSIGN_OR_RETURN(const Bytes raw, ReadBytesAt(image_, sector * kIsoSector, kIsoSector));
    RETURN_IF_ERROR(CheckValidationEntry(raw, sector));
    RETURN_IF_ERROR(AddBootEntry(raw, kCatalogueEntry, U8(raw, 1), sector));
    size_t at = 2 * kCatalogueEntry;
    while (at < raw.size()) {
      const uint8_t header = U8(raw, at);
      if (header != kSectionHeader && header != kLastSectionHeader) return Ok();
      ASSIGN_OR_RETURN(at, ReadSection(raw, at, sector));
      if (header == kLastSectionHeader) return Ok();
    }
    return Wrong(fmt::format("the boot catalogue at sector {} has no last section", sector));
  }

  // "Checksum Word: this sum of all the words in this record should be 0".
  static Result<void> CheckValidationEntry(ByteView raw, uint64_t sector) {
    uint32_t sum = 0;
    for (size_t at = 0; at < kCatalogueEntry; at += 2) sum += U16Le(raw, at);
    if (U8(raw, 0) == 1 && U16Le(raw, 30) == 0xaa55 && (sum & 0xffffU) == 0) return Ok();
    return Wrong(
        fmt::format("the boot catalogue at sector {} has a wrong checksum or signature", sector));
  }

  // Returns where the next section is.
  Result<size_t> ReadSection(ByteView raw, size_t at, uint64_t sector) {
    const uint8_t platform = U8(raw, at + 1);
    const uint16_t count = U16Le(raw, at + 2);
    at += kCatalogueEntry;
    for (uint16_t i = 0; i < count; ++i) {
      if (!IsInside(at, kCatalogueEntry, raw.size())) return TooLong(sector);
      RETURN_IF_ERROR(AddBootEntry(raw, at, platform, sector));
      bool more = (U8(raw, at + 1) & kMoreExtensions) != 0;
      at += kCatalogueEntry;
      while (more) {
        if (!IsInside(at, kCatalogueEntry, raw.size())) return TooLong(sector);
        if (U8(raw, at) != kExtension) {
          return Wrong(fmt::format("no extension record at {}", Where(sector, at)));
        }
        more = (U8(raw, at + 1) & kMoreExtensions) != 0;
        at += kCatalogueEntry;
      }
    }
    return at;
  }

  static Error TooLong(uint64_t sector) {
    return Wrong(fmt::format("the boot catalogue at sector {} has more than {} entries", sector,
                             kIsoMaxBootEntries));
  }

  static std::optional<uint64_t> FloppySize(uint8_t media) {
    if (media == 1) return uint64_t{1200} << 10U;
    if (media == 2) return uint64_t{1440} << 10U;
    if (media == 3) return uint64_t{2880} << 10U;
    return std::nullopt;
  }

  Result<void> AddBootEntry(ByteView raw, size_t at, uint8_t platform, uint64_t sector) {
    const uint8_t indicator = U8(raw, at);
    const uint8_t media = U8(raw, at + 1) & 0x0fU;
    if ((indicator != kBootable && indicator != kNotBootable) || media > 4) {
      return Wrong(fmt::format("a boot entry with indicator {:#04x} and media type {} at {}",
                               indicator, media, Where(sector, at)));
    }
    const uint32_t block = U32Le(raw, at + 8);
    // An entry that starts nothing may be left empty.
    if (indicator == kNotBootable && block == 0) return Ok();
    const uint64_t offset = uint64_t{block} * kIsoSector;
    if (block <= kIsoFirstDescriptor || offset >= image_.size()) {
      return Wrong(fmt::format("the boot image at block {} ({}) is not inside the file", block,
                               Where(sector, at + 8)));
    }
    IsoBootEntry entry{.bootable = indicator == kBootable, .media = media, .offset = offset};
    if (platform == kPlatformBios) entry.platform = IsoBootPlatform::kBios;
    if (platform == kPlatformUefi) entry.platform = IsoBootPlatform::kUefi;
    const uint16_t sectors = U16Le(raw, at + 6);
    entry.size = FloppySize(media).value_or(sectors * kVirtualSector);
    // UEFI 13.3.2.1: a count of 0 or 1 means up to the end of the medium.
    if (sectors <= 1 && media == 0 && entry.platform == IsoBootPlatform::kUefi) {
      entry.size = image_.size() - offset;
    }
    if (entry.size == 0 || !IsInside(offset, entry.size, image_.size())) {
      return Wrong(fmt::format("the boot image of {} bytes at block {} ({}) is not inside the file",
                               entry.size, block, Where(sector, at + 8)));
    }
    if (entry.bootable && entry.platform == IsoBootPlatform::kBios) out_.bootable_bios = true;
    if (entry.bootable && entry.platform == IsoBootPlatform::kUefi) out_.bootable_uefi = true;
    out_.boot.push_back(entry);
    return Ok();
  }

  void Describe() {
    out_.facts.push_back(fmt::format("ISO 9660 volume \"{}\" of {} in a file of {}{}",
                                     out_.volume_id, FormatByteCount(ByteCount::Bytes(out_.size)),
                                     FormatByteCount(ByteCount::Bytes(image_.size())),
                                     out_.joliet ? ", with Joliet names" : ""));
    const std::string_view what = out_.bootable_bios && out_.bootable_uefi ? "BIOS and UEFI"
                                  : out_.bootable_bios                     ? "BIOS only"
                                  : out_.bootable_uefi                     ? "UEFI only"
                                                                           : "nothing";
    out_.facts.push_back(fmt::format("El Torito: starts under {}", what));
    if (out_.system_area_used) {
      out_.facts.emplace_back(
          "its first 32 KiB are in use: it may be a hybrid with a partition "
          "table");
    }
  }

  const RandomAccessReader& image_;
  IsoVolume out_;
  std::optional<uint64_t> catalogue_;  // sector
};

}  // namespace

Result<IsoVolume> ParseIso9660(const RandomAccessReader& image) { return IsoParser(image).Parse(); }

}  // namespace vallum::formats

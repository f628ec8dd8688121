// SPDX-License-Identifier: Apache-2.0
#include "formats/vhdx.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/crc32c.h"
#include "formats/fields.h"
#include "formats/gpt.h"
#include "formats/reader.h"
#include "formats/vhdx_parts.h"

namespace vallum::formats {
namespace {

constexpr std::string_view kBatRegion = "2DC27766-F623-4200-9D64-115E9BFD4A08";
constexpr std::string_view kMetadataRegion = "8B7CA206-4790-4B9A-B8FE-575F050F886E";
constexpr size_t kChecksum = 4;  // of headers and region tables alike
constexpr size_t kRegionEntries = 16;
constexpr size_t kRegionEntryBytes = 32;

bool ChecksumIsRight(ByteView data) {
  constexpr std::array<std::byte, 4> kZero{};
  const uint32_t crc =
      Crc32c(data.subspan(kChecksum + 4), Crc32c(kZero, Crc32c(data.first(kChecksum))));
  return U32Le(data, kChecksum) == crc;
}

bool HeaderIsValid(ByteView header) {
  return HasText(header, 0, "head") && ChecksumIsRight(header);
}

// "A header is current if it is the only valid header or if it is valid and its SequenceNumber
// field is greater than the other header's" (2.2.2). Two equal ones, as disk2vhd writes them, say
// the same: QEMU takes them, too.
Result<Bytes> CurrentHeader(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(Bytes first, ReadBytesAt(image, kVhdxHeaderOffsets[0], kVhdxHeaderBytes));
  ASSIGN_OR_RETURN(Bytes second, ReadBytesAt(image, kVhdxHeaderOffsets[1], kVhdxHeaderBytes));
  const bool first_valid = HeaderIsValid(first);
  const bool second_valid = HeaderIsValid(second);
  if (!first_valid && !second_valid) {
    return VhdxRefused(
        "damaged: neither the header at offset 65536 nor that at 131072 has its signature "
        "and a right checksum");
  }
  if (!second_valid) return first;
  if (!first_valid) return second;
  const uint64_t first_number = U64Le(first, 8);
  const uint64_t second_number = U64Le(second, 8);
  if (first_number == second_number && first != second) {
    return VhdxRefused(fmt::format(
        "inconsistent: both headers have the sequence number {}, but they differ", first_number));
  }
  return first_number >= second_number ? first : second;
}

// The log itself is not read: entries count only when the header names their GUID.
Result<void> CheckHeader(ByteView header, uint64_t file_size, VhdxSpace& space) {
  if (U16Le(header, 66) != 1) {
    return VhdxRefused(fmt::format("unknown version {} at offset 66 of the header: 1 is accepted",
                                   U16Le(header, 66)));
  }
  const ByteView log_guid = header.subspan(48, 16);
  if (std::ranges::any_of(log_guid, [](std::byte b) { return b != std::byte{0}; })) {
    return VhdxRefused(
        "dirty: the log has not been replayed (log GUID at offset 48 of the header)",
        "have it replayed where it came from: close the machine that uses it, then qemu-img check "
        "-r all <this image>");
  }
  if (U16Le(header, 64) != 0) {
    return VhdxRefused(
        fmt::format("unknown log version {} at offset 64 of the header: 0 is "
                    "accepted",
                    U16Le(header, 64)));
  }
  const uint32_t length = U32Le(header, 68);
  const uint64_t offset = U64Le(header, 72);
  if (offset % kVhdxMiB != 0 || length % kVhdxMiB != 0 || !IsInside(offset, length, file_size)) {
    return VhdxRefused(
        fmt::format("truncated or inconsistent: the log ({} bytes at offset {}) is not in "
                    "whole MiB inside the file of {} bytes",
                    length, offset, file_size));
  }
  if (!space.Take(offset, length)) {
    return VhdxRefused(
        fmt::format("inconsistent: the log at offset {} overlaps the header section", offset));
  }
  return Ok();
}

Result<Bytes> ReadRegionTable(const RandomAccessReader& image, uint64_t offset) {
  ASSIGN_OR_RETURN(Bytes table, ReadBytesAt(image, offset, kVhdxRegionTableBytes));
  if (!HasText(table, 0, "regi") || !ChecksumIsRight(table)) {
    return VhdxRefused(
        fmt::format("damaged: the region table at offset {} lacks its signature or a right "
                    "checksum",
                    offset));
  }
  if (U32Le(table, 8) > kVhdxMaxRegions) {
    return VhdxRefused(
        fmt::format("inconsistent: the region table at offset {} has {} entries, more than {}",
                    offset, U32Le(table, 8), kVhdxMaxRegions));
  }
  table.resize(kRegionEntries + U32Le(table, 8) * kRegionEntryBytes);
  return table;
}

struct Regions {
  std::optional<VhdxRegion> bat;
  std::optional<VhdxRegion> metadata;
};

Result<void> AddRegion(ByteView entry, uint64_t file_size, VhdxSpace& space, Regions& out) {
  const std::string guid = FormatGuid(GuidAt(entry, 0));
  const VhdxRegion region{.offset = U64Le(entry, 16), .length = U32Le(entry, 24)};
  const uint32_t flags = U32Le(entry, 28);
  if (region.offset % kVhdxMiB != 0 || region.length % kVhdxMiB != 0 ||
      !IsInside(region.offset, region.length, file_size)) {
    return VhdxRefused(
        fmt::format("truncated or inconsistent: the region {} ({} bytes at offset {}) is not in "
                    "whole MiB inside the file of {} bytes",
                    guid, region.length, region.offset, file_size));
  }
  if (!space.Take(region.offset, region.length)) {
    return VhdxRefused(
        fmt::format("inconsistent: the region {} at offset {} overlaps another region, "
                    "the log or the header section",
                    guid, region.offset));
  }
  if (guid == kBatRegion) {
    out.bat = region;
  } else if (guid == kMetadataRegion) {
    out.metadata = region;
  } else if (flags != 0) {
    return VhdxRefused(fmt::format("unknown region {} that is required", guid));
  }
  return Ok();
}

// QEMU reads the first table only; others may read the second, so they have to agree.
Result<Regions> ReadRegions(const RandomAccessReader& image, VhdxSpace& space) {
  ASSIGN_OR_RETURN(const Bytes table, ReadRegionTable(image, kVhdxRegionTableOffsets[0]));
  ASSIGN_OR_RETURN(const Bytes copy, ReadRegionTable(image, kVhdxRegionTableOffsets[1]));
  if (!std::ranges::equal(ByteView(table).subspan(8), ByteView(copy).subspan(8))) {
    return VhdxRefused("inconsistent: the region tables at offsets 196608 and 262144 differ");
  }
  Regions regions;
  std::set<Guid> seen;
  for (size_t at = kRegionEntries; at < table.size(); at += kRegionEntryBytes) {
    const ByteView entry = ByteView(table).subspan(at, kRegionEntryBytes);
    if (!seen.insert(GuidAt(entry, 0)).second) {
      return VhdxRefused(fmt::format("inconsistent: the region {} is in the region table twice",
                                     FormatGuid(GuidAt(entry, 0))));
    }
    RETURN_IF_ERROR(AddRegion(entry, image.size(), space, regions));
  }
  if (!regions.bat.has_value() || !regions.metadata.has_value()) {
    return VhdxRefused(
        fmt::format("inconsistent: the region table has no {}",
                    regions.bat.has_value() ? "metadata region" : "block allocation table"));
  }
  return regions;
}

}  // namespace

Result<VhdxImage> ParseVhdx(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const Bytes identifier, ReadUpTo(image, 0, 8));
  if (!HasText(identifier, 0, "vhdxfile")) {
    return VhdxRefused("no signature \"vhdxfile\" at offset 0",
                       "declare the format that the file has");
  }
  if (image.size() < kVhdxMiB || image.size() > kVhdxMaxFileBytes) {
    return VhdxRefused(fmt::format("{}: the file has {} bytes: {} to {} are accepted",
                                   image.size() < kVhdxMiB ? "truncated" : "too large",
                                   image.size(), kVhdxMiB, kVhdxMaxFileBytes));
  }
  VhdxSpace space(image.size());
  ASSIGN_OR_RETURN(const Bytes header, CurrentHeader(image));
  RETURN_IF_ERROR(CheckHeader(header, image.size(), space));
  ASSIGN_OR_RETURN(const Regions regions, ReadRegions(image, space));
  ASSIGN_OR_RETURN(VhdxImage vhdx, ReadVhdxMetadata(image, *regions.metadata));
  RETURN_IF_ERROR(CheckVhdxBat(image, *regions.bat, space, vhdx));
  return vhdx;
}

}  // namespace vallum::formats

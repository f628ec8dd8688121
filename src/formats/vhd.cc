// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/text16.h"

namespace vallum::formats {
namespace {

using std::string_view_literals::operator""sv;

constexpr std::string_view kFooterCookie = "conectix";
constexpr std::string_view kHeaderCookie = "cxsparse";
constexpr uint32_t kVersion = 0x00010000;
constexpr uint32_t kKnownFeatures = 0x3;  // bit 0: temporary; bit 1: always set
constexpr uint32_t kTypeDifferencing = 4;
constexpr size_t kFooterChecksum = 64;
constexpr size_t kHeaderChecksum = 36;
constexpr size_t kParentName = 64;
constexpr size_t kParentNameBytes = 512;
constexpr size_t kParentEnd = 768;  // of the name and the locators behind it
constexpr size_t kChunkBytes = size_t{64} << 10U;

constexpr std::string_view kConvert =
    "convert it where it came from: qemu-img convert -f vpc -O qcow2 <this image> <new image>";
constexpr std::string_view kMerge =
    "merge it with its parent where it came from, or convert it there: qemu-img convert";

Error Refused(std::string message, std::string_view fix = kConvert) {
  return InvalidInput("VHD: " + std::move(message)).WithFix(std::string(fix));
}

// The ones' complement of the sum of all bytes but those of the checksum itself.
uint32_t Checksum(ByteView data, size_t at) {
  const auto sum = [](ByteView part) {
    return std::accumulate(part.begin(), part.end(), uint32_t{0}, [](uint32_t total, std::byte b) {
      return total + std::to_integer<uint32_t>(b);
    });
  };
  return ~(sum(data.first(at)) + sum(data.subspan(at + 4)));
}

bool IsNone(uint64_t offset) { return offset == ~uint64_t{0} || offset == 0xffffffff; }

bool IsZero(ByteView data) {
  return std::ranges::all_of(data, [](std::byte b) { return b == std::byte{0}; });
}

std::string ParentName(ByteView header) {
  std::u16string name;
  for (size_t i = 0; i < kParentNameBytes; i += 2) {
    name.push_back(static_cast<char16_t>(U16Be(header, kParentName + i)));
  }
  return Printable(Utf16ToUtf8(name));
}

// A file that is the child of another: says of which, when the header can be read.
Error Differencing(const RandomAccessReader& image, ByteView footer) {
  const Result<Bytes> header = ReadBytesAt(image, U64Be(footer, 16), kVhdDynamicHeaderBytes);
  const bool readable = header.has_value() && HasText(*header, 0, kHeaderCookie);
  const std::string parent = readable ? ParentName(*header) : std::string();
  return Refused(fmt::format("differencing: disk type 4 at offset 60 of the footer; its parent is "
                             "{}; an image must not read other files",
                             parent.empty() ? "not named" : "\"" + parent + "\""),
                 kMerge);
}

// QEMU 7.2 knows these creators as ones that mean the current size; for all others the geometry
// counts, which may be smaller.
bool MeansCurrentSize(std::string_view creator_app) {
  constexpr auto kApps =
      std::to_array<std::string_view>({"win ", "qem2", "d2v ", "CTXS", "tap\0"sv});
  return std::ranges::find(kApps, creator_app) != kApps.end();
}

Result<void> ReadSizes(ByteView footer, VhdImage& vhd) {
  vhd.creator_app = AsText(footer.subspan(28, 4));
  vhd.current_size = U64Be(footer, 48);
  const uint64_t geometry = uint64_t{U16Be(footer, 56)} * U8(footer, 58) * U8(footer, 59);
  const bool by_geometry = !MeansCurrentSize(vhd.creator_app) && geometry != kVhdMaxGeometrySectors;
  vhd.virtual_size = by_geometry ? geometry * kVhdSectorBytes : vhd.current_size;
  if (vhd.current_size % kVhdSectorBytes != 0 || vhd.virtual_size == 0 ||
      vhd.virtual_size > kVhdMaxVirtualSize) {
    return Refused(fmt::format(
        "inconsistent: virtual size {} (by the {} of the footer): 1 to {} in "
        "sectors of 512 is accepted",
        vhd.virtual_size, by_geometry ? "geometry at offset 56" : "current size at offset 48",
        kVhdMaxVirtualSize));
  }
  if (vhd.virtual_size > vhd.current_size) {
    return Refused(
        fmt::format("inconsistent: the geometry at offset 56 of the footer makes {} bytes, "
                    "the current size at offset 48 is {}",
                    vhd.virtual_size, vhd.current_size));
  }
  return Ok();
}

Result<VhdImage> ParseFooter(const RandomAccessReader& image, ByteView footer) {
  const uint32_t type = U32Be(footer, 60);
  if (type == kTypeDifferencing) return Differencing(image, footer);
  const uint32_t checksum = Checksum(footer, kFooterChecksum);
  if (U32Be(footer, kFooterChecksum) != checksum) {
    return Refused(
        fmt::format("damaged: the checksum at offset 64 of the footer is {:#010x}, its "
                    "content has {:#010x}",
                    U32Be(footer, kFooterChecksum), checksum));
  }
  if (U32Be(footer, 12) != kVersion) {
    return Refused(
        fmt::format("unknown version {:#010x} at offset 12 of the footer: {:#010x} is "
                    "accepted",
                    U32Be(footer, 12), kVersion));
  }
  if ((U32Be(footer, 8) & ~kKnownFeatures) != 0) {
    return Refused(fmt::format("unknown feature: bits {:#x} at offset 8 of the footer",
                               U32Be(footer, 8) & ~kKnownFeatures));
  }
  if (type != static_cast<uint32_t>(VhdType::kFixed) &&
      type != static_cast<uint32_t>(VhdType::kDynamic)) {
    return Refused(
        fmt::format("unknown disk type {} at offset 60 of the footer: 2 (fixed) and 3 "
                    "(dynamic) are accepted",
                    type));
  }
  if (U8(footer, 84) != 0) {
    return Refused("saved state: the machine of this disk was suspended (offset 84 of the footer)",
                   "resume and shut down the machine where the image came from");
  }
  VhdImage vhd;
  vhd.type = static_cast<VhdType>(type);
  RETURN_IF_ERROR(ReadSizes(footer, vhd));
  return vhd;
}

Result<void> CheckFixed(ByteView footer, uint64_t file_size, const VhdImage& vhd) {
  if (!IsNone(U64Be(footer, 16))) {
    return Refused(
        fmt::format("inconsistent: a fixed disk has a data offset of {} (offset 16 of "
                    "the footer)",
                    U64Be(footer, 16)));
  }
  if (vhd.current_size != file_size - kVhdFooterBytes) {
    return Refused(
        fmt::format("truncated or inconsistent: the current size at offset 48 of the footer is {}, "
                    "but {} bytes stand before it",
                    vhd.current_size, file_size - kVhdFooterBytes));
  }
  return Ok();
}

struct Extent {
  std::string_view name;
  uint64_t begin;
  uint64_t end;
};

bool Overlap(const Extent& a, const Extent& b) { return a.begin < b.end && b.begin < a.end; }

// Checks the dynamic header, the table and the places of the blocks, filling in `vhd`.
class DynamicParser {
 public:
  DynamicParser(const RandomAccessReader& image, VhdImage& vhd) : image_(image), vhd_(vhd) {}

  Result<void> Parse(uint64_t header_offset) {
    RETURN_IF_ERROR(Take({"footer copy", 0, kVhdFooterBytes}));
    RETURN_IF_ERROR(Take({"footer", image_.size() - kVhdFooterBytes, image_.size()}));
    RETURN_IF_ERROR(TakeBytes("dynamic header", header_offset, kVhdDynamicHeaderBytes));
    ASSIGN_OR_RETURN(const Bytes header,
                     ReadBytesAt(image_, header_offset, kVhdDynamicHeaderBytes));
    RETURN_IF_ERROR(CheckHeader(header));
    const uint32_t entries = U32Be(header, 28);
    RETURN_IF_ERROR(CheckSizes(U32Be(header, 32), entries));
    vhd_.block_size = U32Be(header, 32);
    RETURN_IF_ERROR(TakeBytes("block allocation table", U64Be(header, 16), uint64_t{entries} * 4));
    RETURN_IF_ERROR(ReadTable(U64Be(header, 16), entries));
    return CheckApart();
  }

 private:
  Result<void> Take(const Extent& extent) {
    for (const Extent& other : taken_) {
      if (Overlap(extent, other)) {
        return Refused(fmt::format("inconsistent: the {} at offset {} overlaps the {}", extent.name,
                                   extent.begin, other.name));
      }
    }
    taken_.push_back(extent);
    return Ok();
  }

  Result<void> TakeBytes(std::string_view name, uint64_t offset, uint64_t bytes) {
    if (offset % kVhdSectorBytes != 0 || !IsInside(offset, bytes, image_.size())) {
      return Refused(
          fmt::format("truncated or inconsistent: the {} ({} bytes at offset {}) is not "
                      "in whole sectors inside the file of {} bytes",
                      name, bytes, offset, image_.size()));
    }
    return Take({name, offset, offset + bytes});
  }

  static Result<void> CheckHeader(ByteView header) {
    if (!HasText(header, 0, kHeaderCookie)) {
      return Refused("inconsistent: the dynamic header has no cookie \"cxsparse\"");
    }
    const uint32_t checksum = Checksum(header, kHeaderChecksum);
    if (U32Be(header, kHeaderChecksum) != checksum) {
      return Refused(
          fmt::format("damaged: the checksum at offset 36 of the dynamic header is "
                      "{:#010x}, its content has {:#010x}",
                      U32Be(header, kHeaderChecksum), checksum));
    }
    if (U32Be(header, 24) != kVersion) {
      return Refused(
          fmt::format("unknown version {:#010x} at offset 24 of the dynamic header: "
                      "{:#010x} is accepted",
                      U32Be(header, 24), kVersion));
    }
    if (!IsNone(U64Be(header, 8))) {
      return Refused(
          fmt::format("unknown feature: the dynamic header names a next one at offset "
                      "{} (offset 8)",
                      U64Be(header, 8)));
    }
    if (!IsZero(header.subspan(kParentName, kParentEnd - kParentName))) {
      return Refused(
          fmt::format("inconsistent: a dynamic disk names a parent, \"{}\" (offset 64 of "
                      "the dynamic header)",
                      ParentName(header)),
          kMerge);
    }
    return Ok();
  }

  Result<void> CheckSizes(uint32_t block_size, uint32_t entries) const {
    if (!std::has_single_bit(block_size) || block_size < kVhdMinBlockBytes ||
        block_size > kVhdMaxBlockBytes) {
      return Refused(
          fmt::format("inconsistent: the block size {} at offset 32 of the dynamic header is no "
                      "power of two from {} to {}",
                      block_size, kVhdMinBlockBytes, kVhdMaxBlockBytes));
    }
    if (entries > kVhdMaxTableEntries) {
      return Refused(
          fmt::format("inconsistent: the block allocation table has {} entries (offset 28 of the "
                      "dynamic header), more than {} are not accepted",
                      entries, kVhdMaxTableEntries));
    }
    if (uint64_t{entries} * block_size < vhd_.virtual_size) {
      return Refused(
          fmt::format("inconsistent: the block allocation table has {} entries (offset 28 of the "
                      "dynamic header), the virtual size needs {}",
                      entries, (vhd_.virtual_size + block_size - 1) / block_size));
    }
    return Ok();
  }

  Result<void> ReadTable(uint64_t offset, uint32_t entries) {
    vhd_.table.reserve(entries);
    Bytes chunk;
    const uint64_t bytes = uint64_t{entries} * 4;
    for (uint64_t done = 0; done < bytes; done += chunk.size()) {
      chunk.resize(static_cast<size_t>(std::min<uint64_t>(kChunkBytes, bytes - done)));
      RETURN_IF_ERROR(image_.ReadAt(offset + done, chunk)).context("reading the VHD's table");
      for (size_t i = 0; i < chunk.size(); i += 4) {
        const uint32_t entry = U32Be(chunk, i);
        vhd_.table.push_back(entry);
        if (entry == kVhdUnallocated) continue;
        RETURN_IF_ERROR(CheckBlock(entry));
        ++vhd_.allocated_blocks;
      }
    }
    return Ok();
  }

  Result<void> CheckBlock(uint32_t sector) const {
    const uint64_t begin = sector * kVhdSectorBytes;
    const Extent block{"block", begin, begin + vhd_.bitmap_size() + vhd_.block_size};
    if (block.end > image_.size()) {
      return Refused(
          fmt::format("truncated: block {} at offset {} goes on past the end of the file "
                      "of {} bytes",
                      vhd_.table.size() - 1, begin, image_.size()));
    }
    for (const Extent& other : taken_) {
      if (Overlap(block, other)) {
        return Refused(fmt::format("inconsistent: block {} at offset {} overlaps the {}",
                                   vhd_.table.size() - 1, begin, other.name));
      }
    }
    return Ok();
  }

  Result<void> CheckApart() const {
    std::vector<uint32_t> sectors;
    sectors.reserve(vhd_.allocated_blocks);
    std::ranges::copy_if(vhd_.table, std::back_inserter(sectors),
                         [](uint32_t entry) { return entry != kVhdUnallocated; });
    std::ranges::sort(sectors);
    const uint64_t length = (vhd_.bitmap_size() + vhd_.block_size) / kVhdSectorBytes;
    const auto close =
        std::ranges::adjacent_find(sectors, [&](uint32_t a, uint32_t b) { return b - a < length; });
    if (close != sectors.end()) {
      return Refused(fmt::format("inconsistent: two blocks overlap at offset {}",
                                 *std::next(close) * kVhdSectorBytes));
    }
    return Ok();
  }

  const RandomAccessReader& image_;
  VhdImage& vhd_;
  std::vector<Extent> taken_;
};

}  // namespace

Result<VhdImage> ParseVhd(const RandomAccessReader& image) {
  const uint64_t size = image.size();
  if (size < kVhdFooterBytes) {
    return Refused(
        fmt::format("truncated: the footer has {} bytes, the file {}", kVhdFooterBytes, size));
  }
  ASSIGN_OR_RETURN(const Bytes front, ReadBytesAt(image, 0, kVhdFooterBytes));
  ASSIGN_OR_RETURN(const Bytes footer, ReadBytesAt(image, size - kVhdFooterBytes, kVhdFooterBytes));
  const bool copy_at_front = HasText(front, 0, kFooterCookie);
  if (!HasText(footer, 0, kFooterCookie)) {
    if (HasText(footer, 1, kFooterCookie)) {
      return Refused(
          "a footer of 511 bytes, as Virtual PC before 2004 wrote; 512 bytes are "
          "accepted");
    }
    return copy_at_front ? Refused(fmt::format("truncated: no footer at offset {}, the end of the "
                                               "file; only its copy at offset 0",
                                               size - kVhdFooterBytes))
                         : Refused(fmt::format("no footer at offset {}", size - kVhdFooterBytes),
                                   "declare the format that the file has");
  }
  ASSIGN_OR_RETURN(VhdImage vhd, ParseFooter(image, footer));
  if (vhd.type == VhdType::kFixed) {
    // QEMU would take it for a dynamic disk.
    if (copy_at_front) {
      return Refused("ambiguous: a fixed disk whose content begins with another VHD footer");
    }
    RETURN_IF_ERROR(CheckFixed(footer, size, vhd));
    return vhd;
  }
  if (front != footer) {
    return Refused(
        fmt::format("inconsistent: a dynamic disk whose footer at offset {} and its "
                    "copy at offset 0 differ",
                    size - kVhdFooterBytes));
  }
  RETURN_IF_ERROR(DynamicParser(image, vhd).Parse(U64Be(footer, 16)));
  return vhd;
}

Result<VhdDisk> VhdDisk::Open(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(VhdImage vhd, ParseVhd(image));
  return VhdDisk(image, std::move(vhd));
}

std::optional<uint64_t> VhdDisk::FileOffset(uint64_t offset) const {
  const uint32_t sector = vhd_.table[static_cast<size_t>(offset / vhd_.block_size)];
  if (sector == kVhdUnallocated) return std::nullopt;
  return sector * kVhdSectorBytes + vhd_.bitmap_size() + offset % vhd_.block_size;
}

Result<void> VhdDisk::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  if (!IsInside(offset, out.size(), size())) return PastTheEnd(offset, out.size(), size());
  if (vhd_.type == VhdType::kFixed) return image_->ReadAt(offset, out);
  while (!out.empty()) {
    const auto count = static_cast<size_t>(
        std::min<uint64_t>(out.size(), vhd_.block_size - offset % vhd_.block_size));
    if (const std::optional<uint64_t> place = FileOffset(offset)) {
      RETURN_IF_ERROR(image_->ReadAt(*place, out.first(count)));
    } else {
      std::ranges::fill(out.first(count), std::byte{0});
    }
    offset += count;
    out = out.subspan(count);
  }
  return Ok();
}

Result<std::optional<uint64_t>> VhdDisk::NextData(uint64_t offset) const {
  if (vhd_.type == VhdType::kFixed) {
    ASSIGN_OR_RETURN(const std::optional<uint64_t> next, image_->NextData(offset));
    return next.has_value() && *next < size() ? next : std::nullopt;
  }
  while (offset < size()) {
    const uint64_t left = vhd_.block_size - offset % vhd_.block_size;
    if (const std::optional<uint64_t> place = FileOffset(offset)) {
      // A block may hold holes of the file.
      ASSIGN_OR_RETURN(const std::optional<uint64_t> next, image_->NextData(*place));
      if (next.has_value() && *next - *place < std::min(left, size() - offset)) {
        return std::optional<uint64_t>(offset + (*next - *place));
      }
    }
    offset += left;
  }
  return std::optional<uint64_t>();
}

}  // namespace vallum::formats

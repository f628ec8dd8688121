// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/gpt.h"
#include "formats/reader.h"
#include "formats/vhdx.h"
#include "formats/vhdx_parts.h"

namespace vallum::formats {
namespace {

constexpr size_t kEntryBytes = 32;  // of the table's header, too
constexpr uint32_t kIsUser = 1U << 0U;
constexpr uint32_t kIsRequired = 1U << 2U;
constexpr uint32_t kMaxUserItems = 1024;
constexpr uint32_t kLeaveBlocksAllocated = 1U << 0U;
constexpr uint32_t kHasParent = 1U << 1U;
constexpr std::string_view kParentLocator = "A8D35F2D-B30B-454D-ABF7-D3D84834AB0C";
constexpr std::string_view kMerge =
    "merge it with its parent where it came from, or convert it there: qemu-img convert";

enum KnownItem : size_t {
  kFileParameters,
  kVirtualSize,
  kPage83,
  kLogicalSector,
  kPhysicalSector,
  kKnownItems
};
struct ItemKind {
  std::string_view guid;
  std::string_view name;
  uint32_t length;
};
constexpr std::array<ItemKind, kKnownItems> kKinds = {{
    {"CAA16737-FA36-4D43-B3B6-33F0AA44E76B", "file parameters", 8},
    {"2FA54224-CD1B-4876-B211-5DBED83BF4B8", "virtual disk size", 8},
    {"BECA12AB-B2E6-4523-93EF-C309E000C746", "page 83 data", 16},
    {"8141BF1D-A96F-4709-BA47-F233A8FAAB5F", "logical sector size", 4},
    {"CDA348C7-445D-4471-9CC9-E9885251C556", "physical sector size", 4},
}};

class MetadataReader {
 public:
  MetadataReader(const RandomAccessReader& image, const VhdxRegion& region)
      : image_(image), region_(region) {}

  Result<VhdxImage> Read() {
    if (region_.length < kVhdxMetadataTableBytes) {
      return VhdxRefused("truncated: the metadata region has no room for its table");
    }
    ASSIGN_OR_RETURN(const Bytes table,
                     ReadBytesAt(image_, region_.offset, kVhdxMetadataTableBytes));
    const uint16_t count = U16Le(table, 10);
    if (!HasText(table, 0, "metadata") || count > kVhdxMaxMetadataItems) {
      return VhdxRefused(
          fmt::format("inconsistent: the metadata table at offset {} lacks its signature or "
                      "has more than {} entries",
                      region_.offset, kVhdxMaxMetadataItems));
    }
    for (size_t i = 1; i <= count; ++i) {
      RETURN_IF_ERROR(AddItem(ByteView(table).subspan(i * kEntryBytes, kEntryBytes)));
    }
    RETURN_IF_ERROR(CheckItemsApart());
    for (size_t i = 0; i < kKnownItems; ++i) {
      if (known_[i].empty()) {
        return VhdxRefused(fmt::format("inconsistent: no {} in the metadata", kKinds[i].name));
      }
    }
    return Interpret();
  }

 private:
  Result<void> AddItem(ByteView entry) {
    const std::string guid = FormatGuid(GuidAt(entry, 0));
    const uint32_t offset = U32Le(entry, 16);
    const uint32_t length = U32Le(entry, 20);
    const uint32_t flags = U32Le(entry, 24);
    if (guid == kParentLocator) {
      return VhdxRefused(
          "differencing: a parent locator in the metadata; an image must not read "
          "other files",
          kMerge);
    }
    const bool user = (flags & kIsUser) != 0;
    if (!seen_.emplace(guid, user).second || (user && ++user_items_ > kMaxUserItems)) {
      return VhdxRefused(
          fmt::format("inconsistent: the metadata item {} is there twice, or there are more than "
                      "{} user items",
                      guid, kMaxUserItems));
    }
    if (length != 0 || offset != 0) {
      if (offset < kVhdxMetadataTableBytes || length > kVhdxMaxItemBytes || length == 0 ||
          !IsInside(offset, length, region_.length)) {
        return VhdxRefused(
            fmt::format("inconsistent: the metadata item {} ({} bytes at offset {} of the "
                        "metadata region) is misplaced or too long",
                        guid, length, offset));
      }
      places_.emplace_back(offset, length);
    }
    const auto* const kind =
        std::ranges::find_if(kKinds, [&](const ItemKind& k) { return k.guid == guid; });
    if (kind != kKinds.end()) return ReadKnown(*kind, user, offset, length);
    if ((flags & kIsRequired) != 0) {
      return VhdxRefused(fmt::format("unknown metadata item {} that is required", guid));
    }
    return Ok();
  }

  Result<void> ReadKnown(const ItemKind& kind, bool user, uint32_t offset, uint32_t length) {
    // QEMU would take a user's item of that GUID for the real one.
    if (user || length != kind.length) {
      return VhdxRefused(
          fmt::format("inconsistent: the {} in the metadata is a user's item or has {} bytes, "
                      "not {}",
                      kind.name, length, kind.length));
    }
    ASSIGN_OR_RETURN(known_[static_cast<size_t>(&kind - kKinds.data())],
                     ReadBytesAt(image_, region_.offset + offset, length));
    return Ok();
  }

  Result<void> CheckItemsApart() {
    std::ranges::sort(places_);
    const auto over = std::ranges::adjacent_find(
        places_, [](const auto& a, const auto& b) { return b.first - a.first < a.second; });
    if (over != places_.end()) {
      return VhdxRefused(
          fmt::format("inconsistent: two metadata items overlap at offset {} of the "
                      "metadata region",
                      std::next(over)->first));
    }
    return Ok();
  }

  Result<VhdxImage> Interpret() const {
    VhdxImage vhdx;
    const uint32_t flags = U32Le(known_[kFileParameters], 4);
    if ((flags & kHasParent) != 0) {
      return VhdxRefused(
          "differencing: the file parameters say that it has a parent; an image "
          "must not read other files",
          kMerge);
    }
    if ((flags & ~kLeaveBlocksAllocated) != 0) {
      return VhdxRefused(fmt::format("unknown feature: flags {:#x} in the file parameters", flags));
    }
    vhdx.fixed = (flags & kLeaveBlocksAllocated) != 0;
    vhdx.block_size = U32Le(known_[kFileParameters], 0);
    vhdx.virtual_size = U64Le(known_[kVirtualSize], 0);
    vhdx.logical_sector_size = U32Le(known_[kLogicalSector], 0);
    vhdx.physical_sector_size = U32Le(known_[kPhysicalSector], 0);
    if (!std::has_single_bit(vhdx.block_size) || vhdx.block_size < kVhdxMinBlockBytes ||
        vhdx.block_size > kVhdxMaxBlockBytes) {
      return VhdxRefused(
          fmt::format("inconsistent: the block size {} is no power of two from {} to {}",
                      vhdx.block_size, kVhdxMinBlockBytes, kVhdxMaxBlockBytes));
    }
    RETURN_IF_ERROR(CheckSectors(vhdx));
    if (vhdx.virtual_size == 0 || vhdx.virtual_size > kVhdxMaxVirtualSize ||
        vhdx.virtual_size % vhdx.logical_sector_size != 0) {
      return VhdxRefused(
          fmt::format("inconsistent: virtual size {}: one sector to {} TiB in sectors of {} "
                      "is accepted",
                      vhdx.virtual_size, kVhdxMaxVirtualSize >> 40U, vhdx.logical_sector_size));
    }
    return vhdx;
  }

  static Result<void> CheckSectors(const VhdxImage& vhdx) {
    for (const uint32_t size : {vhdx.logical_sector_size, vhdx.physical_sector_size}) {
      if (size != 512 && size != 4096) {
        return VhdxRefused(
            fmt::format("inconsistent: sectors of {} bytes: 512 and 4096 are valid", size));
      }
    }
    // QEMU does not open such a disk, and a guest that it was made for would not start from
    // sectors of 512 bytes.
    if (vhdx.logical_sector_size != 512) {
      return VhdxRefused("logical sectors of 4096 bytes are not accepted",
                         "make the disk with logical sectors of 512 bytes");
    }
    return Ok();
  }

  const RandomAccessReader& image_;
  const VhdxRegion region_;
  std::array<Bytes, kKnownItems> known_;
  std::set<std::pair<std::string, bool>> seen_;
  uint32_t user_items_ = 0;
  std::vector<std::pair<uint32_t, uint32_t>> places_;  // offset and length
};

}  // namespace

Result<VhdxImage> ReadVhdxMetadata(const RandomAccessReader& image, const VhdxRegion& region) {
  return MetadataReader(image, region).Read();
}

}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "formats/fields.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr size_t kHeadBytes = 1024;  // holds the extensions that qemu writes, in one read
constexpr size_t kMaxExtensions = 64;
constexpr uint32_t kCompressionFieldEnd = 112;

constexpr uint32_t kExtensionEnd = 0;
constexpr uint32_t kExtensionBackingFormat = 0xe2792aca;
constexpr uint32_t kExtensionBitmaps = 0x23852875;
constexpr uint32_t kExtensionEncryption = 0x0537be77;
constexpr uint32_t kExtensionDataFile = 0x44415441;

constexpr uint64_t kKnownIncompatible = 0x1f;
constexpr uint64_t kAutoclearBitmaps = 1U << 0U;
constexpr uint64_t kAutoclearRawDataFile = 1U << 1U;
constexpr uint32_t kExtendedL2MinClusterBits = 14;

constexpr std::string_view kSelfContained =
    "make it self-contained where it came from: qemu-img convert -O qcow2 <this image> <new image>";
constexpr std::string_view kCheck = "check it where it came from: qemu-img check <this image>";

Error Refused(std::string message, std::string_view fix = kCheck) {
  return InvalidInput("qcow2: " + std::move(message)).WithFix(std::string(fix));
}

Qcow2Header ReadFixedPart(ByteView head) {
  Qcow2Header h;
  h.version = U32Be(head, 4);
  h.backing_file_offset = U64Be(head, 8);
  h.backing_file_size = U32Be(head, 16);
  h.cluster_bits = U32Be(head, 20);
  h.virtual_size = U64Be(head, 24);
  h.crypt_method = U32Be(head, 32);
  h.l1_size = U32Be(head, 36);
  h.l1_table_offset = U64Be(head, 40);
  h.refcount_table_offset = U64Be(head, 48);
  h.refcount_table_clusters = U32Be(head, 56);
  h.snapshot_count = U32Be(head, 60);
  h.snapshots_offset = U64Be(head, 64);
  return h;
}

Result<void> ReadVersion3Part(ByteView head, Qcow2Header& h) {
  if (head.size() < kQcow2HeaderV3Min) {
    return Refused(fmt::format("truncated: the header of version 3 has {} bytes, the file {}",
                               kQcow2HeaderV3Min, head.size()));
  }
  h.incompatible_features = U64Be(head, 72);
  h.compatible_features = U64Be(head, 80);
  h.autoclear_features = U64Be(head, 88);
  h.refcount_order = U32Be(head, 96);
  h.header_length = U32Be(head, 100);
  if (h.header_length < kQcow2HeaderV3Min || h.header_length % 8 != 0 ||
      h.header_length > h.cluster_size()) {
    return Refused(
        fmt::format("header length {} at offset 100 is inconsistent: {} to {} in steps "
                    "of 8 is valid",
                    h.header_length, kQcow2HeaderV3Min, h.cluster_size()));
  }
  if (h.header_length >= kCompressionFieldEnd && head.size() >= kCompressionFieldEnd) {
    const uint8_t type = U8(head, 104);
    if (type > static_cast<uint8_t>(Qcow2Compression::kZstd)) {
      return Refused(fmt::format("unknown compression type {} at offset 104", type));
    }
    h.compression = static_cast<Qcow2Compression>(type);
  }
  return Ok();
}

Result<void> ReadExtensions(const RandomAccessReader& image, ByteView head, Qcow2Header& h) {
  uint64_t end = h.cluster_size();
  if (h.backing_file_offset != 0) end = std::min(end, h.backing_file_offset);
  uint64_t at = h.header_length;
  while (IsInside(at, 8, end) && at < image.size()) {
    if (!IsInside(at, 8, image.size())) {
      return Refused(
          fmt::format("truncated: the header extensions end at offset {}", image.size()));
    }
    std::array<std::byte, 8> raw{};
    if (IsInside(at, 8, head.size())) {
      std::ranges::copy(head.subspan(at, 8), raw.begin());
    } else {
      RETURN_IF_ERROR(image.ReadAt(at, raw)).context("reading the qcow2 header extensions");
    }
    const Qcow2Extension extension{
        .type = U32Be(raw, 0), .offset = at + 8, .length = U32Be(raw, 4)};
    if (extension.type == kExtensionEnd) return Ok();
    if (IsInside(extension.offset, extension.length, end) &&
        !IsInside(extension.offset, extension.length, image.size())) {
      return Refused(
          fmt::format("truncated: header extension {:#x} at offset {} goes on past the "
                      "end of the file",
                      extension.type, at));
    }
    if (!IsInside(extension.offset, extension.length, end)) {
      return Refused(
          fmt::format("header extension {:#x} at offset {} has {} bytes and so ends past "
                      "the header",
                      extension.type, at, extension.length));
    }
    if (h.extensions.size() == kMaxExtensions) {
      return Refused(fmt::format("more than {} header extensions", kMaxExtensions));
    }
    h.extensions.push_back(extension);
    at = extension.offset + (uint64_t{extension.length} + 7) / 8 * 8;
  }
  return Ok();
}

bool HasExtension(const Qcow2Header& h, uint32_t type) {
  return std::ranges::any_of(h.extensions, [&](const auto& e) { return e.type == type; });
}

Result<void> CheckSelfContained(const Qcow2Header& h) {
  if (h.backing_file_offset != 0 || h.backing_file_size != 0) {
    return Refused(fmt::format("backing file: the header names one at offset 8 ({} bytes at offset "
                               "{}); an image must not read other files",
                               h.backing_file_size, h.backing_file_offset),
                   kSelfContained);
  }
  if (HasExtension(h, kExtensionBackingFormat)) {
    return Refused("backing file: a header extension names its format", kSelfContained);
  }
  if (h.Has(Qcow2Incompatible::kDataFile)) {
    return Refused(
        "data file: incompatible feature bit 2 at offset 72 puts the data into another file",
        kSelfContained);
  }
  if (HasExtension(h, kExtensionDataFile) || (h.autoclear_features & kAutoclearRawDataFile) != 0) {
    return Refused("data file: a header extension or autoclear bit 1 names one", kSelfContained);
  }
  return Ok();
}

Result<void> CheckFeatures(const Qcow2Header& h) {
  if ((h.incompatible_features & ~kKnownIncompatible) != 0) {
    return Refused(fmt::format("unknown feature: incompatible bits {:#x} at offset 72",
                               h.incompatible_features & ~kKnownIncompatible));
  }
  if (h.crypt_method != 0 || HasExtension(h, kExtensionEncryption)) {
    return Refused(fmt::format("encrypted: crypt method {} at offset 32", h.crypt_method),
                   "decrypt it: qemu-img convert with the secret, to a new qcow2");
  }
  if (h.Has(Qcow2Incompatible::kDirty) || h.Has(Qcow2Incompatible::kCorrupt)) {
    return Refused(fmt::format("{}: incompatible feature bit {} at offset 72 is set",
                               h.Has(Qcow2Incompatible::kCorrupt) ? "corrupt" : "dirty",
                               h.Has(Qcow2Incompatible::kCorrupt) ? 1 : 0),
                   "repair it where it came from: qemu-img check -r all <image>");
  }
  const bool zstd = h.compression != Qcow2Compression::kDeflate;
  if (zstd != h.Has(Qcow2Incompatible::kCompressionType)) {
    return Refused("inconsistent: compression type at offset 104 and incompatible bit 3 disagree");
  }
  if (h.Has(Qcow2Incompatible::kExtendedL2) && h.cluster_bits < kExtendedL2MinClusterBits) {
    return Refused("inconsistent: extended L2 entries need clusters of 16 KiB or more");
  }
  if (h.refcount_order > 6) {
    return Refused(
        fmt::format("inconsistent: refcount order {} at offset 96 is above 6", h.refcount_order));
  }
  return Ok();
}

// Internal snapshots share clusters with the live disk and carry disk states that nobody looked
// at; bitmaps are for backups of the disk that the image was. Neither is of use in an image.
Result<void> CheckExtras(const Qcow2Header& h) {
  if (h.snapshot_count != 0) {
    return Refused(fmt::format("{} internal snapshots (count at offset 60)", h.snapshot_count),
                   "remove them: qemu-img snapshot -d <name> <image>, or qemu-img convert");
  }
  if (HasExtension(h, kExtensionBitmaps) || (h.autoclear_features & kAutoclearBitmaps) != 0) {
    return Refused("persistent bitmaps (header extension 0x23852875)",
                   "remove them: qemu-img bitmap --remove <image> <name>, or qemu-img convert");
  }
  return Ok();
}

struct Table {
  std::string_view name;
  uint64_t offset;
  uint64_t bytes;
};

Result<void> CheckTablePlace(const Table& table, uint64_t cluster_size, uint64_t file_size) {
  if (table.offset % cluster_size != 0 || table.offset == 0) {
    return Refused(
        fmt::format("inconsistent: the {} offset {} is not that of a cluster after the "
                    "header",
                    table.name, table.offset));
  }
  if (!IsInside(table.offset, table.bytes, file_size)) {
    return Refused(
        fmt::format("truncated or inconsistent: the {} ({} bytes at offset {}) is not "
                    "inside the file of {} bytes",
                    table.name, table.bytes, table.offset, file_size));
  }
  return Ok();
}

Result<void> CheckTables(const Qcow2Header& h, uint64_t file_size) {
  const Table l1{"L1 table", h.l1_table_offset, uint64_t{h.l1_size} * 8};
  const Table refcounts{"refcount table", h.refcount_table_offset,
                        h.refcount_table_clusters * h.cluster_size()};
  if (l1.bytes > kQcow2MaxL1Bytes) {
    return Refused(
        fmt::format("inconsistent: the L1 table has {} entries (offset 36), more than {}",
                    h.l1_size, kQcow2MaxL1Bytes / 8));
  }
  if (refcounts.bytes == 0 || refcounts.bytes > kQcow2MaxRefcountTableBytes) {
    return Refused(fmt::format("inconsistent: the refcount table has {} clusters (offset 56)",
                               h.refcount_table_clusters));
  }
  const uint64_t covered_by_entry = h.cluster_size() * h.l2_entries();
  const uint64_t needed = (h.virtual_size + covered_by_entry - 1) / covered_by_entry;
  if (h.l1_size < needed) {
    return Refused(
        fmt::format("inconsistent: the L1 table has {} entries (offset 36), the virtual "
                    "size needs {}",
                    h.l1_size, needed));
  }
  RETURN_IF_ERROR(CheckTablePlace(l1, h.cluster_size(), file_size));
  RETURN_IF_ERROR(CheckTablePlace(refcounts, h.cluster_size(), file_size));
  if (l1.offset < refcounts.offset + refcounts.bytes && refcounts.offset < l1.offset + l1.bytes) {
    return Refused("inconsistent: the L1 table and the refcount table overlap");
  }
  return Ok();
}

}  // namespace

Result<Qcow2Header> ParseQcow2Header(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const Bytes head, ReadUpTo(image, 0, kHeadBytes));
  if (head.size() < kQcow2HeaderV2) {
    return Refused(fmt::format("truncated: the header has {} bytes, the file {}", kQcow2HeaderV2,
                               head.size()));
  }
  if (U32Be(head, 0) != kQcow2Magic) {
    return Refused("no magic at offset 0", "declare the format that the file has");
  }
  Qcow2Header h = ReadFixedPart(head);
  if (h.version != 2 && h.version != 3) {
    return Refused(fmt::format("unknown version {} at offset 4: 2 and 3 are accepted", h.version));
  }
  if (h.cluster_bits < kQcow2MinClusterBits || h.cluster_bits > kQcow2MaxClusterBits) {
    return Refused(fmt::format("inconsistent: cluster_bits {} at offset 20: {} to {} is valid",
                               h.cluster_bits, kQcow2MinClusterBits, kQcow2MaxClusterBits));
  }
  if (h.version == 3) {
    RETURN_IF_ERROR(ReadVersion3Part(head, h));
  }
  if (h.header_length > image.size()) {
    return Refused(fmt::format("truncated: the header says {} bytes (offset 100), the file has {}",
                               h.header_length, image.size()));
  }
  RETURN_IF_ERROR(ReadExtensions(image, head, h));
  return h;
}

Result<void> ValidateQcow2(const Qcow2Header& h, uint64_t file_size) {
  RETURN_IF_ERROR(CheckSelfContained(h));
  RETURN_IF_ERROR(CheckFeatures(h));
  RETURN_IF_ERROR(CheckExtras(h));
  if (h.virtual_size == 0 || h.virtual_size > kQcow2MaxVirtualSize || h.virtual_size % 512 != 0) {
    return Refused(
        fmt::format("inconsistent: virtual size {} at offset 24: 512 bytes to {} TiB in "
                    "sectors of 512 is accepted",
                    h.virtual_size, kQcow2MaxVirtualSize >> 40U));
  }
  return CheckTables(h, file_size);
}

}  // namespace vallum::formats

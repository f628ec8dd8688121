// SPDX-License-Identifier: Apache-2.0
#include "formats/vmdk.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/vmdk_descriptor.h"
#include "formats/vmdk_tables.h"

namespace vallum::formats {
namespace {

using std::string_view_literals::operator""sv;

constexpr size_t kSector = 512;
// A buffer of QEMU starts here, whatever the header says about the descriptor.
constexpr uint64_t kDescriptorSector = 1;
constexpr std::string_view kDescriptorSignature = "# Disk DescriptorFile";
constexpr uint64_t kSeSparseMagic = 0xcafebabe;
constexpr uint32_t kKnownFlags = 0x00030007;
constexpr uint16_t kDeflate = 1;
// `\n`, ` `, `\r\n`: a transfer as text changes them.
constexpr std::string_view kNewLineTest = "\n \r\n";
constexpr std::string_view kOneFile =
    "make one file of it where it came from: qemu-img convert -O qcow2 <this image> <new image>";

struct Field {
  std::string_view name;
  size_t offset;
  size_t size;
};
// All but gdOffset (56).
constexpr auto kFieldsOfBoth = std::to_array<Field>({{"magic", 0, 4},
                                                     {"version", 4, 4},
                                                     {"flags", 8, 4},
                                                     {"capacity", 12, 8},
                                                     {"grainSize", 20, 8},
                                                     {"descriptorOffset", 28, 8},
                                                     {"descriptorSize", 36, 8},
                                                     {"numGTEsPerGT", 44, 4},
                                                     {"rgdOffset", 48, 8},
                                                     {"overHead", 64, 8},
                                                     {"uncleanShutdown", 72, 1},
                                                     {"newline test", 73, 4},
                                                     {"compressAlgorithm", 77, 2},
                                                     {"padding", 79, 433}});

VmdkHeader ReadHeader(ByteView raw) {
  return {.version = U32Le(raw, 4),
          .flags = U32Le(raw, 8),
          .capacity = U64Le(raw, 12),
          .grain_sectors = U64Le(raw, 20),
          .descriptor_offset = U64Le(raw, 28),
          .descriptor_sectors = U64Le(raw, 36),
          .redundant_directory = U64Le(raw, 48),
          .directory = U64Le(raw, 56),
          .overhead = U64Le(raw, 64)};
}

Error External(const VmdkDescriptor& descriptor) {
  if (descriptor.extents.empty()) {
    return VmdkRefused(
        fmt::format("external extents: a descriptor file (createType \"{}\") holds no data",
                    Printable(descriptor.create_type)),
        std::string(kOneFile));
  }
  const VmdkExtent& extent = descriptor.extents.front();
  return VmdkRefused(
      fmt::format("external extent: createType \"{}\" puts the data into {} \"{}\" (offset {}); an "
                  "image must not read other files",
                  Printable(descriptor.create_type), Printable(extent.type), Printable(extent.name),
                  extent.line_offset),
      std::string(kOneFile));
}

Error OneOfSeveral() {
  return VmdkRefused(
      "external extents: no descriptor inside (offset 28), so this is one extent of a disk of "
      "several files",
      std::string(kOneFile));
}

// All that has no hosted sparse header: refused, but by its name.
Error RefuseOther(ByteView head, uint64_t file_size) {
  if (HasText(head, 0, "COWD")) {
    return VmdkRefused("COWD: an ESX Server sparse extent (magic at offset 0) is not accepted",
                       std::string(kOneFile));
  }
  if (head.size() >= 8 && U64Le(head, 0) == kSeSparseMagic) {
    return VmdkRefused("SE sparse: an ESX extent (magic at offset 0) is not accepted",
                       std::string(kOneFile));
  }
  std::string_view text = AsText(head);
  text = Trim(text.substr(0, text.find('\0')));
  if (text.starts_with('#') || text.starts_with("version")) {
    const Result<VmdkDescriptor> descriptor = ParseVmdkDescriptor(AsBytes(text), 0);
    return descriptor.has_value() ? External(*descriptor) : descriptor.error();
  }
  if (file_size < kSector) {
    return VmdkRefused(fmt::format("truncated: the header has 512 bytes, the file {}", file_size));
  }
  return VmdkRefused("no magic at offset 0", "declare the format that the file has");
}

Result<void> CheckKind(const VmdkHeader& h, ByteView raw) {
  if (h.version == 0 || h.version > kVmdkMaxVersion) {
    return VmdkRefused(fmt::format("unknown version {} at offset 4: 1 to {} are accepted",
                                   h.version, kVmdkMaxVersion));
  }
  if ((h.flags & ~kKnownFlags) != 0) {
    return VmdkRefused(fmt::format("unknown flags {:#x} at offset 8", h.flags & ~kKnownFlags));
  }
  if (!h.Has(VmdkFlag::kNewLineTest) || !HasText(raw, 73, kNewLineTest)) {
    return VmdkRefused(
        "damaged: the newline test (flag 0 at offset 8, bytes 0a 20 0d 0a at "
        "offset 73) fails",
        "transfer it again, as binary data");
  }
  if (h.Has(VmdkFlag::kZeroedGrains) && h.version == 1) {
    return VmdkRefused("inconsistent: version 1 at offset 4 knows no zeroed grains (flag 2)");
  }
  const uint16_t compression = U16Le(raw, 77);
  if (compression > kDeflate) {
    return VmdkRefused(fmt::format("unknown compression {} at offset 77", compression));
  }
  const bool compressed = h.Has(VmdkFlag::kCompressed);
  if (compressed != h.Has(VmdkFlag::kMarkers) || compressed != (compression == kDeflate)) {
    return VmdkRefused(
        fmt::format("inconsistent: compression {} at offset 77 and flags {:#x} at "
                    "offset 8 (16: compressed, 17: markers) disagree",
                    compression, h.flags));
  }
  if (U8(raw, 72) != 0) {
    return VmdkRefused("dirty: it was not closed (uncleanShutdown at offset 72 is set)",
                       "close it where it came from, or convert it there: qemu-img convert");
  }
  return Ok();
}

Result<void> CheckSizes(const VmdkHeader& h, ByteView raw) {
  if (h.grain_sectors < kVmdkMinGrainSectors || h.grain_sectors > kVmdkMaxGrainSectors ||
      !std::has_single_bit(h.grain_sectors)) {
    return VmdkRefused(
        fmt::format("inconsistent: grain size {} sectors at offset 20: a power of two "
                    "from {} to {} is accepted",
                    h.grain_sectors, kVmdkMinGrainSectors, kVmdkMaxGrainSectors));
  }
  if (U32Le(raw, 44) != kVmdkTableEntries) {
    return VmdkRefused(
        fmt::format("inconsistent: {} entries per grain table at offset 44: {} is "
                    "accepted",
                    U32Le(raw, 44), kVmdkTableEntries));
  }
  // QEMU takes a capacity of 0 as leave to open the extents that the descriptor names.
  if (h.capacity == 0) {
    return VmdkRefused("external extents: the capacity at offset 12 is 0", std::string(kOneFile));
  }
  if (h.grain_tables() > kVmdkMaxGrainTables) {
    return VmdkRefused(fmt::format(
        "L1 size too big: a capacity of {} sectors (offset 12) in grains of {} needs {} grain "
        "tables, more than {} are not accepted",
        h.capacity, h.grain_sectors, h.grain_tables(), kVmdkMaxGrainTables));
  }
  return Ok();
}

Result<void> CheckPlaces(const VmdkHeader& h, uint64_t file_size) {
  if (file_size % kVmdkSector != 0) {
    return VmdkRefused(
        fmt::format("truncated: {} bytes are not whole sectors of {}", file_size, kVmdkSector));
  }
  if (h.overhead > file_size / kVmdkSector) {
    return VmdkRefused(
        fmt::format("truncated: the metadata has {} sectors (offset 64), the file {}", h.overhead,
                    file_size / kVmdkSector));
  }
  if (h.descriptor_offset == 0 || h.descriptor_sectors == 0) return OneOfSeveral();
  if (h.descriptor_offset != kDescriptorSector ||
      h.descriptor_sectors > kVmdkMaxDescriptorSectors ||
      !IsInside(h.descriptor_offset, h.descriptor_sectors, h.overhead)) {
    return VmdkRefused(fmt::format(
        "inconsistent: the descriptor ({} sectors at sector {}, offset 28) "
        "must start at sector 1, have {} sectors at most and end inside the {} of the "
        "metadata",
        h.descriptor_sectors, h.descriptor_offset, kVmdkMaxDescriptorSectors, h.overhead));
  }
  return Ok();
}

// The last three sectors of a stream whose directory is at its end: marker, footer, end of stream.
// QEMU believes the footer, others the header, so they must not differ.
Result<VmdkHeader> ReadFooter(const RandomAccessReader& image, ByteView header) {
  const uint64_t sectors = image.size() / kVmdkSector;
  if (sectors <= kVmdkFooterSectors) {
    return VmdkRefused(fmt::format("truncated: no footer in {} sectors", sectors));
  }
  const uint64_t at = sectors - kVmdkFooterSectors;
  const std::string_view where = "truncated or inconsistent: no footer at the end";
  RETURN_IF_ERROR(CheckVmdkMarker(image, at, kVmdkFooter, 1)).context(std::string(where));
  RETURN_IF_ERROR(CheckVmdkMarker(image, at + 2, kVmdkEndOfStream, 0)).context(std::string(where));
  ASSIGN_OR_RETURN(const Bytes footer, ReadBytesAt(image, (at + 1) * kVmdkSector, kSector));
  for (const Field& field : kFieldsOfBoth) {
    if (!std::ranges::equal(header.subspan(field.offset, field.size),
                            ByteView(footer).subspan(field.offset, field.size))) {
      return VmdkRefused(fmt::format(
          "inconsistent: the footer at offset {} disagrees with the header about {} (offset {})",
          (at + 1) * kVmdkSector, field.name, field.offset));
    }
  }
  VmdkHeader out = ReadHeader(footer);
  if (out.directory == kVmdkDirectoryAtEnd) {
    return VmdkRefused(
        fmt::format("inconsistent: the footer at offset {} does not say where the "
                    "grain directory is",
                    (at + 1) * kVmdkSector));
  }
  return out;
}

Result<void> CheckExtent(const VmdkDescriptor& descriptor, const VmdkHeader& h) {
  if (descriptor.extents.size() != 1) {
    return VmdkRefused(fmt::format("external extents: the descriptor at offset 512 names {}, not "
                                   "this file alone",
                                   descriptor.extents.size()),
                       std::string(kOneFile));
  }
  // Writers put any name of a file here, which nobody opens.
  const VmdkExtent& extent = descriptor.extents.front();
  if (extent.type != "SPARSE" || extent.access == "NOACCESS" || !extent.rest.empty() ||
      extent.name.find_first_of("/\\:") != std::string::npos || extent.name == "." ||
      extent.name == "..") {
    return External(descriptor);
  }
  const uint64_t rounded = h.grains() * h.grain_sectors;
  if (extent.sectors > h.capacity || (extent.sectors != h.capacity && h.capacity != rounded) ||
      h.capacity - extent.sectors >= h.grain_sectors) {
    return VmdkRefused(fmt::format(
        "inconsistent: the descriptor (offset {}) says {} sectors, the header (offset 12) {}",
        extent.line_offset, extent.sectors, h.capacity));
  }
  return Ok();
}

Result<VmdkDescriptor> ReadDescriptor(const RandomAccessReader& image, const VmdkHeader& h) {
  const uint64_t at = h.descriptor_offset * kVmdkSector;
  ASSIGN_OR_RETURN(const Bytes raw,
                   ReadBytesAt(image, at, static_cast<size_t>(h.descriptor_sectors * kVmdkSector)));
  const std::string_view area = AsText(raw);
  const size_t end = area.find('\0');
  if (end == 0) return OneOfSeveral();
  if (!area.starts_with(kDescriptorSignature) || end == std::string_view::npos) {
    return VmdkRefused(
        fmt::format("inconsistent: the descriptor at offset {} does not begin with "
                    "\"{}\" or has no zero byte at its end",
                    at, kDescriptorSignature));
  }
  ASSIGN_OR_RETURN(VmdkDescriptor descriptor, ParseVmdkDescriptor(ByteView(raw).first(end), at));
  const VmdkSubformat subformat = h.Has(VmdkFlag::kCompressed) ? VmdkSubformat::kStreamOptimized
                                                               : VmdkSubformat::kMonolithicSparse;
  const std::string_view wanted = VmdkSubformatName(subformat);
  if (descriptor.create_type != wanted) {
    const bool known =
        descriptor.create_type == "monolithicSparse" || descriptor.create_type == "streamOptimized";
    return VmdkRefused(
        fmt::format("{}: createType \"{}\" in the descriptor at offset {}, but the header is that "
                    "of {}",
                    known ? "inconsistent" : "external extents", Printable(descriptor.create_type),
                    at, wanted),
        std::string(kOneFile));
  }
  RETURN_IF_ERROR(CheckExtent(descriptor, h));
  return descriptor;
}

}  // namespace

std::string_view VmdkSubformatName(VmdkSubformat subformat) {
  switch (subformat) {
    case VmdkSubformat::kMonolithicSparse:
      return "monolithicSparse";
    case VmdkSubformat::kStreamOptimized:
      return "streamOptimized";
  }
  return "unknown";
}

Result<VmdkImage> ParseVmdk(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(
      const Bytes head,
      ReadUpTo(image, 0, static_cast<size_t>(kVmdkMaxDescriptorSectors * kVmdkSector)));
  if (head.size() < kSector || U32Le(head, 0) != kVmdkMagic) {
    return RefuseOther(head, image.size());
  }
  const ByteView raw = ByteView(head).first(kSector);
  VmdkImage out;
  out.header = ReadHeader(raw);
  RETURN_IF_ERROR(CheckKind(out.header, raw));
  RETURN_IF_ERROR(CheckSizes(out.header, raw));
  RETURN_IF_ERROR(CheckPlaces(out.header, image.size()));
  ASSIGN_OR_RETURN(out.descriptor, ReadDescriptor(image, out.header));
  if (out.header.Has(VmdkFlag::kMarkers)) out.subformat = VmdkSubformat::kStreamOptimized;
  if (out.header.Has(VmdkFlag::kMarkers) && out.header.directory == kVmdkDirectoryAtEnd) {
    ASSIGN_OR_RETURN(out.header, ReadFooter(image, raw));
    out.has_footer = true;
  }
  out.virtual_size = out.header.capacity * kVmdkSector;
  out.cluster_size = out.header.grain_sectors * kVmdkSector;
  RETURN_IF_ERROR(CheckVmdkTables(image, out));
  return out;
}

}  // namespace vallum::formats

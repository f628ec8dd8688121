// SPDX-License-Identifier: Apache-2.0
#include "formats/vdi.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr size_t kHeaderBytes = 512;  // with the text before it and the padding
constexpr uint64_t kSector = 512;
constexpr size_t kChunkBytes = size_t{64} * 1024;
constexpr uint32_t kUndo = 3;
constexpr uint32_t kDifferencing = 4;
// Counted from offset 72: without and with the geometry that the BIOS sees.
constexpr auto kHeaderSizes = std::to_array<uint32_t>({384, 400});
// How VirtualBox is to write zeroes; says nothing about what is read.
constexpr uint32_t kKnownFlags = 0x0101;

constexpr std::string_view kCheck = "check it where it came from: qemu-img check <this image>";
constexpr std::string_view kSelfContained =
    "make it self-contained where it came from: VBoxManage clonemedium disk <this image> <new>";

Error Refused(std::string message, std::string_view fix = kCheck) {
  return InvalidInput("VDI: " + std::move(message)).WithFix(std::string(fix));
}

Result<void> CheckKind(ByteView head) {
  if (U32Le(head, 64) != kVdiSignature) {
    return Refused("no signature at offset 64", "declare the format that the file has");
  }
  if (U32Le(head, 68) != kVdiVersion) {
    return Refused(fmt::format("unknown version {}.{} at offset 68: 1.1 is accepted",
                               U16Le(head, 70), U16Le(head, 68)));
  }
  const uint32_t type = U32Le(head, 76);
  if (type == kUndo || type == kDifferencing) {
    return Refused(fmt::format("parent: type {} at offset 76 is {} image; an image must not read "
                               "other files",
                               type, type == kUndo ? "an undo" : "a differencing"),
                   kSelfContained);
  }
  if (type != static_cast<uint32_t>(VdiSubformat::kDynamic) &&
      type != static_cast<uint32_t>(VdiSubformat::kStatic)) {
    return Refused(fmt::format("unknown type {} at offset 76", type));
  }
  if (std::ranges::find(kHeaderSizes, U32Le(head, 72)) == kHeaderSizes.end()) {
    return Refused(fmt::format("inconsistent: a header of {} bytes at offset 72: {} is accepted",
                               U32Le(head, 72), fmt::join(kHeaderSizes, " or ")));
  }
  if ((U32Le(head, 80) & ~kKnownFlags) != 0) {
    return Refused(fmt::format("unknown flags {:#x} at offset 80", U32Le(head, 80) & ~kKnownFlags));
  }
  // The UUIDs of the parent and of its last change.
  for (const size_t at : {size_t{0x1a8}, size_t{0x1b8}}) {
    const ByteView uuid = head.subspan(at, 16);
    if (std::ranges::any_of(uuid, [](std::byte b) { return b != std::byte{0}; })) {
      return Refused(
          fmt::format("parent: the header names one at offset {}: UUID {}", at, ToHex(uuid)),
          kSelfContained);
    }
  }
  return Ok();
}

Result<VdiImage> ReadSizes(ByteView head) {
  const VdiImage out{.subformat = static_cast<VdiSubformat>(U32Le(head, 76)),
                     .virtual_size = U64Le(head, 0x170),
                     .cluster_size = U32Le(head, 0x178),
                     .map_offset = U32Le(head, 0x154),
                     .data_offset = U32Le(head, 0x158),
                     .blocks = U32Le(head, 0x180),
                     .data_blocks = U32Le(head, 0x184)};
  if (U32Le(head, 0x168) != kSector) {
    return Refused(fmt::format("inconsistent: sectors of {} bytes at offset 360: 512 is accepted",
                               U32Le(head, 0x168)));
  }
  if (out.cluster_size != kVdiBlockSize || U32Le(head, 0x17c) != 0) {
    return Refused(
        fmt::format("inconsistent: blocks of {} bytes with {} before each (offset 376): {} and 0 "
                    "are accepted",
                    out.cluster_size, U32Le(head, 0x17c), kVdiBlockSize));
  }
  if (out.blocks > kVdiMaxBlocks) {
    return Refused(fmt::format("{} blocks at offset 384 are too many: {} are accepted", out.blocks,
                               kVdiMaxBlocks));
  }
  if (out.virtual_size == 0 || out.virtual_size % kSector != 0 ||
      (out.virtual_size - 1) / kVdiBlockSize + 1 != out.blocks) {
    return Refused(
        fmt::format("inconsistent: virtual size {} at offset 368, which must be whole sectors and "
                    "fill the {} blocks at offset 384",
                    out.virtual_size, out.blocks));
  }
  return out;
}

Result<void> CheckPlaces(const VdiImage& image, uint64_t file_size) {
  const uint64_t map_bytes = uint64_t{image.blocks} * 4;
  if (image.map_offset < kHeaderBytes || image.map_offset % kSector != 0 ||
      image.data_offset % kSector != 0 ||
      !IsInside(image.map_offset, map_bytes, image.data_offset)) {
    return Refused(
        fmt::format("inconsistent: block map ({} bytes at offset {}) and data (offset {}) must be "
                    "aligned to sectors behind the header, one after the other",
                    map_bytes, image.map_offset, image.data_offset));
  }
  if (image.data_offset > file_size) {
    return Refused(fmt::format("truncated: the data is at offset {} of a file of {} bytes",
                               image.data_offset, file_size));
  }
  if (image.data_blocks > (file_size - image.data_offset) / kVdiBlockSize) {
    return Refused(
        fmt::format("truncated or inconsistent: {} blocks are used (offset 388), the file of {} "
                    "bytes has {}",
                    image.data_blocks, file_size, (file_size - image.data_offset) / kVdiBlockSize));
  }
  return Ok();
}

Result<void> CheckMap(const RandomAccessReader& file, const VdiImage& image) {
  // The blocks in use are the first ones of the file; VirtualBox and QEMU append.
  std::vector<bool> used(image.data_blocks);
  uint32_t count = 0;
  Bytes chunk;
  for (uint64_t first = 0; first < image.blocks; first += kChunkBytes / 4) {
    const uint64_t entries = std::min<uint64_t>(kChunkBytes / 4, image.blocks - first);
    chunk.resize(static_cast<size_t>(entries * 4));
    RETURN_IF_ERROR(file.ReadAt(image.map_offset + first * 4, chunk))
        .context("reading the block map of a VDI");
    for (size_t i = 0; i < entries; ++i) {
      const uint32_t block = U32Le(chunk, i * 4);
      if (block == kVdiUnallocated || block == kVdiZero) continue;
      if (block >= used.size()) {
        return Refused(fmt::format(
            "inconsistent: entry {} of the block map is block {}, but {} are used (offset 388)",
            first + i, block, used.size()));
      }
      if (used[block]) {
        return Refused(
            fmt::format("inconsistent: entry {} of the block map is block {}, which "
                        "another entry uses",
                        first + i, block));
      }
      used[block] = true;
      ++count;
    }
  }
  if (count != image.data_blocks) {
    return Refused(
        fmt::format("inconsistent: {} blocks are used (offset 388), the block map uses "
                    "{}",
                    image.data_blocks, count));
  }
  return Ok();
}

}  // namespace

std::string_view VdiSubformatName(VdiSubformat subformat) {
  switch (subformat) {
    case VdiSubformat::kDynamic:
      return "dynamic";
    case VdiSubformat::kStatic:
      return "static";
  }
  return "unknown";
}

Result<VdiImage> ParseVdi(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const Bytes head, ReadUpTo(image, 0, kHeaderBytes));
  if (head.size() < kHeaderBytes) {
    return Refused(
        fmt::format("truncated: the header has {} bytes, the file {}", kHeaderBytes, head.size()));
  }
  RETURN_IF_ERROR(CheckKind(head));
  ASSIGN_OR_RETURN(const VdiImage out, ReadSizes(head));
  RETURN_IF_ERROR(CheckPlaces(out, image.size()));
  RETURN_IF_ERROR(CheckMap(image, out));
  return out;
}

}  // namespace vallum::formats

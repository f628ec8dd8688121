// SPDX-License-Identifier: Apache-2.0
#include "firmware/firmware_volume.h"

#include <fmt/format.h>
#include <lzma.h>

#include <algorithm>
#include <utility>

namespace vallum::firmware {
namespace {

constexpr uint32_t kVolumeSignature = 0x4856465f;  // "_FVH"
constexpr size_t kVolumeHeaderMinimum = 56;
constexpr size_t kFileHeader = 24;
constexpr size_t kLargeFileHeader = 32;
constexpr uint8_t kLargeFile = 0x01;  // an attribute
constexpr uint8_t kPadFile = 0xf0;
constexpr uint32_t kExtendedSize = 0xffffff;
constexpr Guid kLzmaGuid =
    MakeGuid(0xee4e5898, 0x3914, 0x4259, {0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf});
constexpr size_t kLzmaHeader = 13;
constexpr uint64_t kLzmaMemory = uint64_t{24} << 20U;

enum SectionType : uint8_t {
  kGuidDefined = 0x02,
  kPe32 = 0x10,
  kUserInterface = 0x15,
  kVolumeImage = 0x17
};

constexpr size_t AlignUp(size_t value, size_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

Result<uint32_t> ReadU24(ByteCursor& cursor) {
  ASSIGN_OR_RETURN(const uint16_t low, cursor.ReadU16Le());
  ASSIGN_OR_RETURN(const uint8_t high, cursor.ReadU8());
  return low | uint32_t{high} << 16U;
}

// The ".lzma" format: properties, dictionary size, unpacked size (8 bytes), data.
Result<Bytes> UnpackLzma(ByteView packed, size_t limit) {
  ByteCursor cursor(packed);
  RETURN_IF_ERROR(cursor.Skip(kLzmaHeader - 8)).context("LZMA header");
  ASSIGN_OR_RETURN(const uint64_t size, cursor.ReadU64Le());
  if (size > limit) {
    return Exhausted(fmt::format("LZMA: unpacks to {} bytes, {} are left", size, limit));
  }
  Bytes unpacked(size);
  lzma_stream stream = LZMA_STREAM_INIT;
  if (lzma_alone_decoder(&stream, kLzmaMemory) != LZMA_OK) {
    return Internal("LZMA: no decoder");
  }
  stream.next_in = reinterpret_cast<const uint8_t*>(packed.data());
  stream.avail_in = packed.size();
  stream.next_out = reinterpret_cast<uint8_t*>(unpacked.data());
  stream.avail_out = unpacked.size();
  const lzma_ret result = lzma_code(&stream, LZMA_FINISH);
  const bool whole = stream.avail_out == 0;
  lzma_end(&stream);
  if (!whole || (result != LZMA_STREAM_END && result != LZMA_OK)) {
    return Corrupt(fmt::format("LZMA: damaged data (code {})", static_cast<int>(result)));
  }
  return unpacked;
}

// UTF-16 to its first zero; what is not ASCII becomes '?'.
std::string AsciiName(ByteView text) {
  std::string name;
  for (size_t i = 0; i + 1 < text.size() && name.size() < 64; i += 2) {
    const auto low = std::to_integer<uint8_t>(text[i]);
    if (low == 0 && text[i + 1] == std::byte{0}) {
      break;
    }
    name += text[i + 1] == std::byte{0} && low >= 0x20 && low < 0x7f ? static_cast<char>(low) : '?';
  }
  return name;
}

}  // namespace

Result<void> FirmwareImage::ReadPacked(ByteView section, size_t header, FirmwareProgram& program,
                                       size_t depth) {
  ByteCursor cursor(section);
  RETURN_IF_ERROR(cursor.Skip(header));
  ASSIGN_OR_RETURN(const Guid kind, Guid::Read(cursor));
  ASSIGN_OR_RETURN(const uint16_t offset, cursor.ReadU16Le());
  if (kind != kLzmaGuid) {
    return Ok();
  }
  if (offset > section.size()) {
    return Corrupt(fmt::format("packed section: data at {} of {} bytes", offset, section.size()));
  }
  ASSIGN_OR_RETURN(Bytes unpacked,
                   UnpackLzma(section.subspan(offset), kMaxFirmwareUnpacked - unpacked_bytes_));
  unpacked_bytes_ += unpacked.size();
  unpacked_.push_back(std::move(unpacked));
  return ReadSections(unpacked_.back(), program, depth + 1);
}

Result<void> FirmwareImage::ReadSection(uint8_t type, ByteView section, size_t header,
                                        FirmwareProgram& program, size_t depth) {
  switch (type) {
    case kGuidDefined:
      return ReadPacked(section, header, program, depth);
    case kPe32:
      program.image = section.subspan(header);
      return Ok();
    case kUserInterface:
      program.name = AsciiName(section.subspan(header));
      return Ok();
    case kVolumeImage:
      RETURN_IF_ERROR(ReadVolume(section.subspan(header), depth + 1));
      return Ok();
    default:
      return Ok();
  }
}

Result<void> FirmwareImage::ReadSections(ByteView data, FirmwareProgram& program, size_t depth) {
  if (depth > kMaxFirmwareNesting) {
    return Exhausted("firmware volume: nested too deeply");
  }
  for (size_t at = 0; at < data.size() && data.size() - at >= 4;) {
    if (++sections_ > kMaxFirmwareSections) {
      return Exhausted(fmt::format("firmware volume: more than {} sections", kMaxFirmwareSections));
    }
    ByteCursor cursor(data.subspan(at));
    ASSIGN_OR_RETURN(uint32_t size, ReadU24(cursor));
    ASSIGN_OR_RETURN(const uint8_t type, cursor.ReadU8());
    if (size == kExtendedSize) {
      ASSIGN_OR_RETURN(size, cursor.ReadU32Le());
    }
    if (size < cursor.offset() || size > data.size() - at) {
      return Corrupt(
          fmt::format("firmware section at {}: {} bytes of {}", at, size, data.size() - at));
    }
    RETURN_IF_ERROR(ReadSection(type, data.subspan(at, size), cursor.offset(), program, depth));
    at = AlignUp(at + size, 4);
  }
  return Ok();
}

Result<void> FirmwareImage::ReadFiles(ByteView volume, size_t begin, size_t depth) {
  for (size_t at = begin; at < volume.size() && volume.size() - at >= kFileHeader;) {
    ByteCursor cursor(volume.subspan(at));
    FirmwareProgram program;
    ASSIGN_OR_RETURN(program.file, Guid::Read(cursor));
    RETURN_IF_ERROR(cursor.Skip(2));
    ASSIGN_OR_RETURN(program.file_type, cursor.ReadU8());
    ASSIGN_OR_RETURN(const uint8_t attributes, cursor.ReadU8());
    ASSIGN_OR_RETURN(uint64_t size, ReadU24(cursor));
    if (size == kExtendedSize && program.file_type == 0xff) {
      return Ok();  // erased flash: the files end here
    }
    const bool large = (attributes & kLargeFile) != 0;
    if (large) {
      RETURN_IF_ERROR(cursor.Skip(1));
      ASSIGN_OR_RETURN(size, cursor.ReadU64Le());
    }
    const size_t header = large ? kLargeFileHeader : kFileHeader;
    if (size < header || size > volume.size() - at) {
      return Corrupt(
          fmt::format("firmware file at {}: {} bytes of {}", at, size, volume.size() - at));
    }
    if (++files_ > kMaxFirmwareFiles) {
      return Exhausted(fmt::format("firmware volume: more than {} files", kMaxFirmwareFiles));
    }
    // Raw files (0x01) have no sections, nor have those that only fill up.
    if (program.file_type != kPadFile && program.file_type != 0x01) {
      RETURN_IF_ERROR(ReadSections(volume.subspan(at + header, size - header), program, depth))
          .context(fmt::format("firmware file {}", program.file.ToString()));
    }
    if (!program.image.empty()) {
      programs_.push_back(std::move(program));
    }
    at = AlignUp(at + size, 8);
  }
  return Ok();
}

// Reads the volume at the front; returns its size.
Result<size_t> FirmwareImage::ReadVolume(ByteView data, size_t depth) {
  ByteCursor cursor(data);
  RETURN_IF_ERROR(cursor.Skip(32)).context("firmware volume header");
  ASSIGN_OR_RETURN(const uint64_t size, cursor.ReadU64Le());
  ASSIGN_OR_RETURN(const uint32_t signature, cursor.ReadU32Le());
  RETURN_IF_ERROR(cursor.Skip(4));
  ASSIGN_OR_RETURN(const uint16_t header, cursor.ReadU16Le());
  RETURN_IF_ERROR(cursor.Skip(2));
  ASSIGN_OR_RETURN(const uint16_t extended, cursor.ReadU16Le());
  if (signature != kVolumeSignature) {
    return InvalidInput("no firmware volume: bytes 40 to 43 are not _FVH");
  }
  if (header < kVolumeHeaderMinimum || size < header || size > data.size()) {
    return Corrupt(fmt::format("firmware volume: {} bytes with a header of {} in {}", size, header,
                               data.size()));
  }
  const ByteView volume = data.first(size);
  size_t begin = header;
  std::optional<Guid> name;
  if (extended != 0) {
    ByteCursor more(volume);
    RETURN_IF_ERROR(more.Seek(extended)).context("extended volume header");
    ASSIGN_OR_RETURN_CONTEXT(name, Guid::Read(more), "extended volume header");
    ASSIGN_OR_RETURN(const uint32_t extended_size, more.ReadU32Le());
    if (extended_size > volume.size() - extended) {
      return Corrupt("firmware volume: its extended header is outside");
    }
    begin = size_t{extended} + extended_size;
  }
  volumes_.push_back({depth > 0, name, volume});
  RETURN_IF_ERROR(ReadFiles(volume, AlignUp(begin, 8), depth));
  return size;
}

Result<FirmwareImage> FirmwareImage::Parse(ByteView image) {
  if (image.size() > kMaxFirmwareImage) {
    return Exhausted(fmt::format("firmware image of {} bytes", image.size()));
  }
  FirmwareImage parsed;
  for (size_t at = 0; at < image.size();) {
    ASSIGN_OR_RETURN_CONTEXT(const size_t size, parsed.ReadVolume(image.subspan(at), 0),
                             fmt::format("firmware image at {}", at));
    at += size;
  }
  if (parsed.volumes_.empty()) {
    return InvalidInput("no firmware volume: the image is empty");
  }
  return parsed;
}

}  // namespace vallum::firmware

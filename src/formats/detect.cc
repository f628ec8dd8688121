// SPDX-License-Identifier: Apache-2.0
#include "formats/detect.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/luks.h"
#include "formats/mbr.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

using std::string_view_literals::operator""sv;

// Up to the signature of a GPT with sectors of 4096 bytes, in one read.
constexpr size_t kHeadBytes = 4096 + 8;
constexpr size_t kTailBytes = 512;
// Volume descriptors: ECMA-119 from sector 16 on; ECMA-167 recognition sequence in the same place.
constexpr uint64_t kVolumeDescriptors = 32768;
constexpr size_t kVolumeDescriptorSize = 2048;
constexpr size_t kVolumeDescriptorCount = 8;
constexpr size_t kVolumeBytes = (kVolumeDescriptorCount - 1) * kVolumeDescriptorSize + 6;

struct Magic {
  Format format;
  uint64_t offset;  // below kHeadBytes
  std::string_view bytes;
};

constexpr auto kMagics = std::to_array<Magic>({
    {Format::kQcow2, 0, "QFI\xfb"sv},
    {Format::kVmdk, 0, "KDMV"sv},
    {Format::kVmdk, 0, "COWD"sv},
    {Format::kVhd, 0, "conectix"sv},
    {Format::kVhdx, 0, "vhdxfile"sv},
    {Format::kVdi, 64, "\x7f\x10\xda\xbe"sv},
    {Format::kQed, 0, "QED\0"sv},
    {Format::kParallels, 0, "WithoutFreeSpace"sv},
    {Format::kParallels, 0, "WithouFreSpacExt"sv},
    {Format::kCloop, 0, "#!/bin/sh\n#V2.0 Format\n"sv},
    {Format::kBochs, 0, "Bochs Virtual HD Image"sv},
    {Format::kLuks, 0, "LUKS\xba\xbe"sv},
    {Format::kLuks, 0, "SKUL\xba\xbe"sv},
    {Format::kJson, 0, "json:"sv},
    {Format::kCpio, 0, "070701"sv},
    {Format::kCpio, 0, "070702"sv},
    {Format::kCpio, 0, "070707"sv},
    {Format::kCpio, 0, "\xc7\x71"sv},
    {Format::kElf, 0,
     "\x7f"
     "ELF"sv},
    {Format::kGzip, 0, "\x1f\x8b\x08"sv},
    {Format::kXz, 0,
     "\xfd"
     "7zXZ\0"sv},
    {Format::kZstd, 0, "\x28\xb5\x2f\xfd"sv},
    {Format::kBzip2, 0, "BZh"sv},
    {Format::kLz4, 0, "\x04\x22\x4d\x18"sv},
    {Format::kLz4, 0, "\x02\x21\x4c\x18"sv},
    {Format::kTar, 257, "ustar"sv},
});

bool IsBzImage(ByteView head) { return HasBootSignature(head) && HasText(head, 0x202, "HdrS"); }

// A VMDK descriptor is text: "# Disk DescriptorFile" is its first line that is not empty; qemu
// skips comments and blank lines before "version=", so any comment first is treated as one.
bool IsVmdkDescriptor(ByteView head) {
  std::string_view text = AsText(head);
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
    if (line.starts_with("# Disk DescriptorFile") || line.starts_with("version=")) return true;
    if (line.empty() || line.front() == '#' || line.find_first_not_of(' ') == line.npos) continue;
    return false;
  }
  return false;
}

Result<bool> IsPe(const RandomAccessReader& image, ByteView head) {
  if (!HasText(head, 0, "MZ") || head.size() < 64) return false;
  ASSIGN_OR_RETURN(const Bytes signature, ReadUpTo(image, U32Le(head, 60), 4));
  return HasText(signature, 0, "PE\0\0"sv);
}

// A LUKS2 opens by its secondary header when the magic of the first is damaged.
Result<void> DetectLuks2(const RandomAccessReader& image, std::vector<Detection>& found) {
  const bool at_front =
      std::ranges::any_of(found, [](const Detection& d) { return d.format == Format::kLuks; });
  if (at_front) return Ok();
  ASSIGN_OR_RETURN(const std::optional<uint64_t> secondary, FindLuks2Secondary(image));
  if (secondary.has_value()) found.push_back({Format::kLuks, *secondary});
  return Ok();
}

Result<void> DetectVolumes(const RandomAccessReader& image, std::vector<Detection>& found) {
  if (image.size() <= kVolumeDescriptors) return Ok();
  ASSIGN_OR_RETURN(const Bytes all, ReadUpTo(image, kVolumeDescriptors, kVolumeBytes));
  const ByteView view(all);
  bool iso = false;
  bool udf = false;
  for (size_t i = 0; i * kVolumeDescriptorSize < view.size(); ++i) {
    const uint64_t at = kVolumeDescriptors + i * kVolumeDescriptorSize;
    const ByteView id = view.subspan(i * kVolumeDescriptorSize);
    if (!iso && (HasText(id, 1, "CD001") || HasText(id, 1, "CDROM"))) {
      iso = true;
      found.push_back({Format::kIso9660, at});
    }
    // A UDF bridge disc has both; it is one medium.
    if (!udf && !iso && (HasText(id, 1, "NSR02") || HasText(id, 1, "NSR03"))) {
      udf = true;
      found.push_back({Format::kUdf, at});
    }
  }
  return Ok();
}

Result<void> DetectFooters(const RandomAccessReader& image, std::vector<Detection>& found) {
  if (image.size() < kTailBytes) return Ok();
  const uint64_t at = image.size() - kTailBytes;
  ASSIGN_OR_RETURN(const Bytes tail, ReadBytesAt(image, at, kTailBytes));
  const bool at_front =
      std::ranges::any_of(found, [](const Detection& d) { return d.format == Format::kVhd; });
  // The footer has 512 bytes, 511 when written by Virtual PC before 2004.
  for (const size_t i : {size_t{0}, size_t{1}}) {
    if (!at_front && HasText(tail, i, "conectix")) found.push_back({Format::kVhd, at + i});
  }
  if (HasText(tail, 0, "koly")) found.push_back({Format::kDmg, at});
  return Ok();
}

Result<void> DetectBoot(const RandomAccessReader& image, ByteView head,
                        std::vector<Detection>& found) {
  if (IsBzImage(head)) {
    found.push_back({Format::kBzImage, 0x202});
    return Ok();
  }
  ASSIGN_OR_RETURN(const bool pe, IsPe(image, head));
  if (pe) found.push_back({Format::kPe, 0});
  const bool gpt512 = HasText(head, 512, "EFI PART");
  if (gpt512 || HasText(head, 4096, "EFI PART")) {
    found.push_back({Format::kGpt, gpt512 ? 512U : 4096U});
  } else if (HasBootSignature(head)) {
    const bool table = ParseMbrSector(head, image.size()).has_value();
    found.push_back({table ? Format::kMbr : Format::kBootSector, 510});
  }
  return Ok();
}

}  // namespace

std::string_view FormatName(Format format) {
  switch (format) {
    case Format::kQcow2:
      return "qcow2";
    case Format::kVmdk:
      return "VMDK";
    case Format::kVhd:
      return "VHD";
    case Format::kVhdx:
      return "VHDX";
    case Format::kVdi:
      return "VDI";
    case Format::kQed:
      return "QED";
    case Format::kParallels:
      return "Parallels";
    case Format::kCloop:
      return "cloop";
    case Format::kDmg:
      return "DMG";
    case Format::kBochs:
      return "Bochs";
    case Format::kIso9660:
      return "ISO 9660";
    case Format::kUdf:
      return "UDF";
    case Format::kLuks:
      return "LUKS";
    case Format::kJson:
      return "a \"json:\" file name";
    case Format::kCpio:
      return "cpio";
    case Format::kElf:
      return "ELF";
    case Format::kBzImage:
      return "a Linux kernel (bzImage)";
    case Format::kPe:
      return "PE/COFF";
    case Format::kGzip:
      return "gzip";
    case Format::kXz:
      return "xz";
    case Format::kZstd:
      return "zstd";
    case Format::kBzip2:
      return "bzip2";
    case Format::kLz4:
      return "lz4";
    case Format::kTar:
      return "tar (OVA)";
    case Format::kGpt:
      return "gpt";
    case Format::kMbr:
      return "mbr";
    case Format::kBootSector:
      return "a boot sector without a partition table";
  }
  return "unknown";
}

bool IsDiskContainer(Format format) {
  switch (format) {
    case Format::kQcow2:
    case Format::kVmdk:
    case Format::kVhd:
    case Format::kVhdx:
    case Format::kVdi:
    case Format::kQed:
    case Format::kParallels:
    case Format::kCloop:
    case Format::kDmg:
    case Format::kBochs:
    case Format::kJson:
      return true;
    case Format::kIso9660:
    case Format::kUdf:
    case Format::kLuks:
    case Format::kCpio:
    case Format::kElf:
    case Format::kBzImage:
    case Format::kPe:
    case Format::kGzip:
    case Format::kXz:
    case Format::kZstd:
    case Format::kBzip2:
    case Format::kLz4:
    case Format::kTar:
    case Format::kGpt:
    case Format::kMbr:
    case Format::kBootSector:
      return false;
  }
  return true;
}

std::vector<DetectionRange> DetectionRanges() {
  std::vector<DetectionRange> ranges = {{0, kHeadBytes}, {kVolumeDescriptors, kVolumeBytes}};
  for (const uint64_t at : kLuks2HeaderSizes) ranges.push_back({at, kLuks2ProbeBytes});
  return ranges;
}

Result<std::vector<Detection>> DetectFormats(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const Bytes head, ReadUpTo(image, 0, kHeadBytes));
  std::vector<Detection> found;
  for (const Magic& magic : kMagics) {
    if (HasText(head, static_cast<size_t>(magic.offset), magic.bytes)) {
      found.push_back({magic.format, magic.offset});
    }
  }
  if (IsVmdkDescriptor(head)) found.push_back({Format::kVmdk, 0});
  RETURN_IF_ERROR(DetectBoot(image, head, found));
  RETURN_IF_ERROR(DetectLuks2(image, found));
  RETURN_IF_ERROR(DetectVolumes(image, found));
  RETURN_IF_ERROR(DetectFooters(image, found));
  return found;
}

}  // namespace vallum::formats

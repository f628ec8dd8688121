// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/reader.h"

namespace vallum::formats {

enum class Format {
  kQcow2,
  kVmdk,
  kVhd,
  kVhdx,
  kVdi,
  kQed,
  kParallels,
  kCloop,
  kDmg,
  kBochs,
  kIso9660,
  kUdf,
  kLuks,
  kJson,
  kCpio,
  kElf,
  kBzImage,
  kPe,
  kGzip,
  kXz,
  kZstd,
  kBzip2,
  kLz4,
  kTar,
  kGpt,
  kMbr,         // a partition table
  kBootSector,  // 55 AA without one
};

// "qcow2", "VMDK", "ISO 9660", ...
std::string_view FormatName(Format format);
// Whether QEMU could be led to read it as a container of a disk: never accepted inside another.
bool IsDiskContainer(Format format);

struct Detection {
  Format format;
  uint64_t offset;  // of the magic that told
};

struct DetectionRange {
  uint64_t offset;
  uint64_t length;
};
// All that DetectFormats reads, but for the last 512 bytes and the four to which a PE's first
// header points: for those who see the bytes once only. What is past the end is not read.
std::vector<DetectionRange> DetectionRanges();

// Looks for the magic of every known format; a signature that belongs to another one found (the
// protective MBR of a GPT, the boot sector and PE header of a bzImage) is not a finding of its own.
// Names never count. Reads a fixed number of bytes.
// Errors: only those of the reader.
Result<std::vector<Detection>> DetectFormats(const RandomAccessReader& image);

}  // namespace vallum::formats

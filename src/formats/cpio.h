// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/decompress.h"
#include "formats/reader.h"

// docs/formats/cpio.md mirrors these constants.
namespace vallum::formats {

inline constexpr uint64_t kInitrdMaxBytes = uint64_t{1} << 30U;   // the file
inline constexpr uint64_t kInitrdMaxOutput = uint64_t{2} << 30U;  // decompressed, all members
// A compressed member may give kInitrdRatioFree bytes and this many times its size.
inline constexpr uint64_t kInitrdMaxRatio = 128;
inline constexpr uint64_t kInitrdRatioFree = uint64_t{1} << 20U;
inline constexpr size_t kInitrdMaxMembers = 256;
inline constexpr uint64_t kInitrdMaxEntries = uint64_t{1} << 20U;  // all members
inline constexpr size_t kCpioMaxName = 4096;                       // PATH_MAX, with the NUL
inline constexpr size_t kCpioNewcHeader = 110;
inline constexpr size_t kCpioOdcHeader = 76;

enum class CpioKind {
  kNewc,  // 070701
  kCrc,   // 070702: newc with a checksum of each file
  kOdc,   // 070707; Linux itself unpacks only the other two
};

// "newc", "crc", "odc".
std::string_view CpioKindName(CpioKind kind);

// An archive that stands plain in the file, or one compressed stream with its archives.
struct InitrdMember {
  uint64_t offset = 0;  // in the file
  uint64_t size = 0;    // there, without the padding that follows
  Compression compression = Compression::kNone;
  CpioKind kind = CpioKind::kNewc;
  uint64_t entries = 0;             // without trailers
  uint64_t uncompressed_bytes = 0;  // headers, names, content and padding inside
};

struct InitrdFacts {
  std::vector<InitrdMember> members;  // at least one
  bool has_init = false;              // a file or link /init
  // Files below kernel/x86/microcode in the first member, which is plain: where Linux looks.
  bool has_early_microcode = false;
};

// Judges a whole initrd: every header, name, checksum and trailer of every archive, and every byte
// of every compressed stream; nothing but zeroes stands between members or after the last.
//   initrd: the file from offset 0; untrusted.
// Time: proportional to the file and to what is decompressed (kInitrdMaxOutput, kInitrdMaxRatio).
// Memory: at most about kMaxXzMemory.
// Errors: kInvalidInput (naming the offset; the old binary format; trailing bytes; truncated or
// damaged streams; limits).
// Source: Linux, Documentation/driver-api/early-userspace/buffer-format; cpio(5).
Result<InitrdFacts> CheckInitrd(const RandomAccessReader& initrd);

}  // namespace vallum::formats

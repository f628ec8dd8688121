// SPDX-License-Identifier: Apache-2.0
#include "formats/bzimage.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/decompress.h"
#include "formats/fields.h"
#include "formats/pe.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr size_t kSector = 512;
constexpr size_t kParagraph = 16;
constexpr size_t kHeaderEnd = 0x26c;  // of protocol 2.15
constexpr size_t kSetupSects = 0x1f1;
constexpr size_t kSysSize = 0x1f4;
constexpr size_t kBootFlag = 0x1fe;
constexpr size_t kJump = 0x200;
constexpr size_t kHdrS = 0x202;
constexpr size_t kVersion = 0x206;
constexpr size_t kKernelVersion = 0x20e;
constexpr size_t kLoadFlags = 0x211;
constexpr size_t kAlignment = 0x230;
constexpr size_t kRelocatable = 0x234;
constexpr size_t kMinAlignment = 0x235;
constexpr size_t kXLoadFlags = 0x236;
constexpr size_t kCommandLineSize = 0x238;
constexpr size_t kPayloadOffset = 0x248;
constexpr size_t kPayloadLength = 0x24c;

constexpr uint8_t kLoadedHigh = 1;
constexpr uint16_t kXlfKernel64 = 1;
constexpr uint32_t kDefaultSetupSects = 4;

Error Refused(const std::string& message) {
  return InvalidInput("kernel: " + message)
      .WithFix("use a bzImage of Linux 2.6.22 or later, as distributions ship it");
}

Error Contradiction(const std::string& message) {
  return Corrupt("kernel: inconsistent: " + message).WithFix("copy it again, whole");
}

// Where the header ends in each version.
constexpr size_t HeaderEnd(uint16_t protocol) {
  if (protocol >= 0x020f) return kHeaderEnd;
  if (protocol >= 0x020b) return 0x268;
  if (protocol >= 0x020a) return 0x264;
  if (protocol >= 0x0209) return 0x258;
  if (protocol >= 0x0208) return 0x250;
  if (protocol >= 0x0207) return 0x248;
  return 0x23c;
}

Result<void> ParseSizes(ByteView file, BzImage& out) {
  const size_t header_end = kHdrS + U8(file, kJump + 1);
  if (U8(file, kJump) != 0xeb || header_end < HeaderEnd(out.protocol)) {
    return Contradiction(
        fmt::format("the jump at offset {:#x} leaves the header of protocol {}.{:02} cut short",
                    kJump, out.protocol >> 8U, out.protocol & 0xffU));
  }
  const uint32_t sects = U8(file, kSetupSects) == 0 ? kDefaultSetupSects : U8(file, kSetupSects);
  out.setup_size = (uint64_t{sects} + 1) * kSector;
  out.protected_size = uint64_t{U32Le(file, kSysSize)} * kParagraph;
  if (header_end > out.setup_size || out.protected_size == 0) {
    return Contradiction(fmt::format("{} bytes of setup and {} of kernel at offsets {:#x}, {:#x}",
                                     out.setup_size, out.protected_size, kSetupSects, kSysSize));
  }
  if (!IsInside(out.setup_size, out.protected_size, file.size())) {
    return Refused(fmt::format("truncated: {} bytes of setup and {} of kernel in a file of {}",
                               out.setup_size, out.protected_size, file.size()));
  }
  return Ok();
}

// "this value should be less than (0x200*setup_sects)": less 0x200, where the text stands.
Result<void> ParseVersionText(ByteView file, BzImage& out) {
  const size_t pointer = U16Le(file, kKernelVersion);
  if (pointer == 0) return Ok();
  const size_t offset = pointer + kSector;
  if (offset >= out.setup_size) {
    return Contradiction(fmt::format("its version is at offset {}, after the setup of {} bytes",
                                     offset, out.setup_size));
  }
  const auto room = static_cast<size_t>(out.setup_size) - offset;
  const std::string_view text = AsText(file.subspan(offset, std::min(room, kKernelMaxVersionText)));
  const size_t end = text.find('\0');
  if (end == std::string_view::npos ||
      !std::ranges::all_of(text.substr(0, end), [](char c) { return c >= ' ' && c <= '~'; })) {
    return Contradiction(
        fmt::format("its version at offset {} is no printable text of less than "
                    "{} bytes",
                    offset, kKernelMaxVersionText));
  }
  out.version = text.substr(0, end);
  return Ok();
}

Result<void> ParseLoading(ByteView file, BzImage& out) {
  out.relocatable = U8(file, kRelocatable) != 0;
  out.alignment = U32Le(file, kAlignment);
  const uint8_t min_alignment = out.protocol >= 0x020a ? U8(file, kMinAlignment) : 0;
  const bool power = std::has_single_bit(out.alignment);
  if ((out.relocatable && !power) || (power && min_alignment > std::countr_zero(out.alignment)) ||
      min_alignment >= 32) {
    return Contradiction(fmt::format("alignment {:#x}, at least 2^{}, at offset {:#x}",
                                     out.alignment, min_alignment, kAlignment));
  }
  out.has_64bit_entry = out.protocol >= 0x020c && (U16Le(file, kXLoadFlags) & kXlfKernel64) != 0;
  out.max_command_line = U32Le(file, kCommandLineSize);
  if (out.max_command_line == 0 || out.max_command_line > kKernelMaxCommandLine) {
    return Contradiction(fmt::format("a command line of {} bytes at offset {:#x}",
                                     out.max_command_line, kCommandLineSize));
  }
  return Ok();
}

// "the offset from the beginning of the protected-mode code to the payload"
Result<void> ParsePayload(ByteView file, BzImage& out) {
  if (out.protocol < 0x0208) return Ok();
  const uint32_t offset = U32Le(file, kPayloadOffset);
  const uint32_t size = U32Le(file, kPayloadLength);
  if (offset == 0) return Ok();
  if (!IsInside(offset, size, out.protected_size)) {
    return Contradiction(fmt::format("a payload of {} bytes at offset {} in {} bytes of kernel",
                                     size, offset, out.protected_size));
  }
  out.payload_offset = out.setup_size + offset;
  out.payload_size = size;
  const ByteView payload = file.subspan(static_cast<size_t>(out.payload_offset), size);
  out.payload = DetectCompression(payload).value_or(Compression::kNone);
  return Ok();
}

// What signing changes: offsets in the file, validated by PeImage::Parse.
struct SignedFields {
  size_t checksum = 0;
  size_t certificate_entry = 0;  // 0: the header has none
};

SignedFields FindSignedFields(ByteView file) {
  const size_t optional = size_t{U32Le(file, 60)} + 24;
  const size_t count = optional + (U16Le(file, optional) == 0x10b ? 92 : 108);
  return {.checksum = optional + 64,
          .certificate_entry = U32Le(file, count) > 4 ? count + 4 + size_t{4} * 8 : 0};
}

bool IsZero(ByteView bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

// Padding and the certificates of a signature are all that may follow the kernel.
Result<void> CheckTail(ByteView file, const SignedFields& fields, const BzImage& kernel) {
  const auto end = static_cast<size_t>(kernel.setup_size + kernel.protected_size);
  size_t table = file.size();
  size_t table_end = file.size();
  if (fields.certificate_entry != 0 && U32Le(file, fields.certificate_entry + 4) != 0) {
    table = U32Le(file, fields.certificate_entry);
    table_end = table + U32Le(file, fields.certificate_entry + 4);
    if (table < end) {
      return Contradiction(
          fmt::format("certificates at offset {}, in the kernel that ends at {}", table, end));
    }
  }
  if (!IsZero(file.subspan(end, table - end)) || !IsZero(file.subspan(table_end))) {
    return Refused(
        fmt::format("{} bytes after its end at offset {}, and they are neither zero nor "
                    "certificates",
                    file.size() - end, end));
  }
  return Ok();
}

// "the CRC of the file up to the limit specified in the syssize field of the header is always 0",
// with neither inversion that zlib makes.
KernelCrc CheckCrc(ByteView file, const SignedFields& fields, const BzImage& kernel) {
  if (kernel.protocol < 0x0208) return KernelCrc::kDiffersOrAbsent;
  const auto end = static_cast<size_t>(kernel.setup_size + kernel.protected_size);
  uLong crc = crc32(0, nullptr, 0);
  const auto add = [&](size_t from, size_t to) {
    crc = crc32_z(crc, reinterpret_cast<const Bytef*>(file.data()) + from, to - from);
  };
  constexpr std::array<Bytef, 8> kZeroes{};
  size_t from = 0;
  for (const auto& [offset, size] :
       {std::pair(fields.checksum, size_t{4}), std::pair(fields.certificate_entry, size_t{8})}) {
    if (offset == 0 || offset < from || offset + size > end) continue;
    add(from, offset);
    crc = crc32_z(crc, kZeroes.data(), size);
    from = offset + size;
  }
  add(from, end);
  return crc == 0xffffffffU ? KernelCrc::kMatches : KernelCrc::kDiffersOrAbsent;
}

}  // namespace

std::string_view KernelCrcName(KernelCrc crc) {
  return crc == KernelCrc::kMatches ? "matches" : "differs or absent";
}

Result<BzImage> ParseBzImage(ByteView file) {
  if (file.size() < kHeaderEnd || U16Le(file, kBootFlag) != 0xaa55 ||
      !HasText(file, kHdrS, "HdrS")) {
    return Refused(fmt::format("no boot sector with HdrS at offset {:#x}: not a bzImage", kHdrS));
  }
  BzImage out;
  out.protocol = U16Le(file, kVersion);
  if (out.protocol < kBootProtocolMin || out.protocol >> 8U != 2) {
    return Refused(fmt::format("boot protocol {}.{:02} at offset {:#x}; 2.06 to 2.xx are accepted",
                               out.protocol >> 8U, out.protocol & 0xffU, kVersion));
  }
  if ((U8(file, kLoadFlags) & kLoadedHigh) == 0) {
    return Refused(
        fmt::format("loadflags at offset {:#x} without LOADED_HIGH: a zImage", kLoadFlags));
  }
  RETURN_IF_ERROR(ParseSizes(file, out));
  RETURN_IF_ERROR(ParseVersionText(file, out));
  RETURN_IF_ERROR(ParseLoading(file, out));
  RETURN_IF_ERROR(ParsePayload(file, out));
  SignedFields fields;
  if (HasText(file, 0, "MZ")) {
    ASSIGN_OR_RETURN_CONTEXT(const PeImage pe, PeImage::Parse(file), "the EFI stub of the kernel");
    out.efi_machine = pe.machine();
    fields = FindSignedFields(file);
  }
  RETURN_IF_ERROR(CheckTail(file, fields, out));
  out.crc = CheckCrc(file, fields, out);
  return out;
}

}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/decompress.h"

// docs/formats/bzimage.md mirrors these constants.
namespace vallum::formats {

inline constexpr uint16_t kBootProtocolMin = 0x0206;  // the first that says cmdline_size
inline constexpr size_t kKernelMaxVersionText = 512;
inline constexpr uint32_t kKernelMaxCommandLine = 1U << 20U;

// "From boot protocol version 2.08 onwards the CRC-32 is calculated over the entire file" and
// appended; Linux 6.16 stopped doing so without telling in the header, so a difference may mean
// that there is none.
enum class KernelCrc { kMatches, kDiffersOrAbsent };

struct BzImage {
  uint16_t protocol = 0;        // 0x020f is 2.15
  uint64_t setup_size = 0;      // bytes: boot sector and real-mode code
  uint64_t protected_size = 0;  // bytes of protected-mode code, right after
  std::string version;          // "6.1.0-18-amd64 (...) ..."; empty if the kernel does not say
  uint32_t max_command_line = 0;
  bool relocatable = false;
  uint32_t alignment = 0;                    // bytes, for a relocatable kernel
  bool has_64bit_entry = false;              // XLF_KERNEL_64; false before protocol 2.12
  uint64_t payload_offset = 0;               // in the file; 0: it does not say
  uint64_t payload_size = 0;                 // bytes
  Compression payload = Compression::kNone;  // by magic
  std::optional<uint16_t> efi_machine;       // of the EFI stub's PE header; nothing without one
  KernelCrc crc = KernelCrc::kDiffersOrAbsent;
};

// "matches", "differs or absent".
std::string_view KernelCrcName(KernelCrc crc);

// Parses and checks a Linux/x86 kernel: header, sizes against the file, version text, payload, and
// the PE header of an EFI stub by PeImage. The CRC is compared with what it was before signing:
// checksum and certificate entry of the PE header count as zero.
//   file: the whole kernel; untrusted.
// Errors: kInvalidInput (no HdrS; protocol below 2.06; zImage; truncated; bytes after the kernel
// that are neither zero nor certificates), kCorrupt (fields that contradict each other).
// Source: Linux, Documentation/arch/x86/boot. Pure; thread-safe.
Result<BzImage> ParseBzImage(ByteView file);

}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "firmware/key_set.h"
#include "formats/gpt.h"
#include "formats/reader.h"
#include "images/inspection.h"
#include "images/preflight.h"

namespace vallum::images {

inline constexpr size_t kMaxChainLinks = 16;
inline constexpr size_t kMaxChainFacts = 256;

// What an EFI system partition starts, and whether it may.
struct BootChainReport {
  std::vector<BootBinary> binaries;   // every program that was read: those of the chain first
  std::vector<std::string> facts;     // for people; also what could not be read, and why
  std::vector<KeySetReport> reports;  // one for each key set, in their order
};

// Follows the chain that firmware starts from this disk by itself: \EFI\BOOT\BOOTX64.EFI, what a
// shim starts (its second stage, or the fallback program and the loaders that BOOTX64.CSV files
// register), GRUB's configuration up to its kernel, the entries of systemd-boot, unified kernels.
// Each program is judged under every key set by whoever would judge it: the firmware, or the shim
// above it. Further programs under \EFI are described, not judged.
//   disk: untrusted; all of it. table: of that disk, parsed.
// Time: each program is read and hashed once; the limits of esp.h bound all reading.
// Memory: one program at a time.
// Errors: only those of the reader that are not about the content.
Result<BootChainReport> InspectBootChain(const formats::RandomAccessReader& disk,
                                         const formats::GptTable& table,
                                         std::span<const firmware::KeySet> key_sets);

}  // namespace vallum::images

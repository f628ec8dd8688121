// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/bzimage.h"
#include "formats/cpio.h"
#include "formats/pe.h"

// docs/formats/uki.md mirrors these constants.
namespace vallum::formats {

inline constexpr size_t kUkiMaxText = 64 * 1024;  // .cmdline, .osrel, .uname, .sbat
inline constexpr uint32_t kUkiFirstStub = 252;    // the first systemd-stub that extends PCR 11

struct UkiSection {
  std::string_view name;  // of a table in uki.cc
  ByteView content;       // the bytes that the stub sees and measures; never empty
};

// A unified kernel image. Views into the file that the PeImage was made from.
struct Uki {
  std::vector<UkiSection> sections;  // those with a meaning to the stub, in the file's order
  BzImage kernel;
  std::optional<InitrdFacts> initrd;
  std::string command_line;   // safe to print; empty without .cmdline
  std::string os_release;     // safe to print; empty without .osrel
  std::string uname;          // safe to print; empty without .uname
  uint32_t stub_version = 0;  // 252 of "systemd-stub 252.39-1"; 0: another stub

  const UkiSection* Find(std::string_view name) const;
};

// Whether the program has .linux and one of .osrel and .cmdline.
bool IsUki(const PeImage& pe);

// Checks the sections of a UKI, the kernel in .linux by ParseBzImage, and .initrd and .ucode by
// CheckInitrd.
//   pe: its bytes must outlive what is returned.
// Errors: kInvalidInput (not a UKI; a section twice; text longer than kUkiMaxText; what the checks
// of kernel and initrd say), kCorrupt (sections that overlap in the file or in memory, or are
// larger in memory than in the file).
// Source: systemd-stub(7); UAPI.5 Unified Kernel Image.
Result<Uki> ParseUki(const PeImage& pe);

// What systemd-stub extends PCR 11 with, in order. Each is two extends: the digest of the name with
// its NUL, then the digest of the content. Later, the running system extends PCR 11 with its boot
// phases (systemd-pcrphase), which are no part of this.
// Errors: kNotFound (another stub, or an older one: nothing is known), kInvalidInput (sections of
// which the stub chooses at boot: .profile, .dtbauto, .hwids, .efifw).
// Source: systemd, src/fundamental (the order of unified_sections), systemd-measure(1).
Result<std::vector<UkiSection>> UkiMeasurements(const Uki& uki);

}  // namespace vallum::formats

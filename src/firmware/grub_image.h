// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::firmware {

inline constexpr size_t kGrubMaxModules = 4096;

// What is built into a GRUB program beside its modules.
struct GrubImage {
  std::string prefix;  // "/EFI/debian"; "" for none
  std::string config;  // what it runs before anything else; "" for none
  ByteView memdisk;    // a file system that it carries (FAT or tar); a view into the section
};

// Parses the PE section "mods" of a GRUB program for 64-bit EFI.
//   section: untrusted; it must outlive the result.
// Errors: kInvalidInput (truncated, no list of modules); kCorrupt (an object outside the section,
// two objects of a kind); kExhausted (more than kGrubMaxModules).
// Source: GRUB 2.06, include/grub/kernel.h.
Result<GrubImage> ParseGrubModules(ByteView section);

}  // namespace vallum::firmware

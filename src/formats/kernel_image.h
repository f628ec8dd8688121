// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "formats/bzimage.h"
#include "formats/reader.h"

// docs/formats/uki.md mirrors these constants.
namespace vallum::formats {

// Held in memory while it is checked: signatures and sections cover the whole file.
inline constexpr uint64_t kKernelMaxBytes = uint64_t{256} << 20U;

enum class KernelKind {
  kBzImage,
  kUki,  // a PE program with the kernel inside
  kPe,   // another PE program, such as a boot loader
};

struct KernelFacts {
  KernelKind kind = KernelKind::kBzImage;
  std::optional<BzImage> bzimage;       // the kernel, or that inside the UKI
  std::optional<uint16_t> efi_machine;  // of the PE header; nothing without one
  std::string command_line;             // of a UKI, safe to print
  bool has_initrd = false;              // a UKI that brings its own
};

// Judges what is to be started as a kernel: a bzImage by ParseBzImage, a UKI by ParseUki, another
// PE program by PeImage.
//   kernel: the file from offset 0; untrusted. Read whole, at most kKernelMaxBytes.
// Errors: kInvalidInput (too large; none of these, naming what it is; two formats at once), those
// of the parsers.
Result<KernelFacts> CheckKernel(const RandomAccessReader& kernel);

}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/result.h"
#include "formats/pe.h"
#include "images/esp.h"
#include "measure/boot_chain.h"

// What the files beside boot loaders say that they start.
namespace vallum::images {

// Programs on the EFI system partition that a boot loader's configuration names.
struct ConfiguredKernels {
  std::vector<std::string> paths;    // as on the disk; what it starts by itself comes first
  std::vector<std::string> unknown;  // why not all of them are known, in words
  bool certain = true;               // false: which of them is started is not known
};

// A program as measure's prediction wants it.
//   path: on the disk. banks: of the digests.
// Errors: kInvalidInput (not a program that firmware would hash).
Result<measure::ChainBinary> DescribeForPrediction(const std::string& path,
                                                   const formats::PeImage& pe,
                                                   std::span<const HashAlgorithm> banks);

// What a GRUB finds: what is built into it, and the files of this partition.
//   grub: the program. folder: where it is, "\EFI\BOOT".
//   banks: of the files' digests; without any, no file but configurations is read.
measure::GrubInput DescribeGrub(const Esp& esp, const formats::PeImage& grub,
                                const std::string& folder, std::span<const HashAlgorithm> banks);

// What GRUB starts without a person at the keys: its configuration is followed as GRUB does. Where
// that is not possible, `certain` is false and it is every kernel that a configuration names and
// that is on this partition.
//   grub: the program. folder: where it is, "\EFI\BOOT".
ConfiguredKernels ReadGrubKernels(const Esp& esp, const formats::PeImage& grub,
                                  const std::string& folder);

// What systemd-boot offers: the entries of \loader\entries and the unified kernels of \EFI\Linux.
// Source: UAPI Boot Loader Specification, types 1 and 2.
ConfiguredKernels ReadBootManagerKernels(const Esp& esp);

// The loaders that \EFI\*\BOOTX64.CSV register, in the order of the folders: what shim's fallback
// program makes boot options of. Source: shim, README.fallback.
std::vector<std::string> RegisteredLoaders(const Esp& esp);

// Whether a PE program is a Linux kernel with an EFI stub.
bool IsLinuxKernel(const formats::PeImage& pe);

}  // namespace vallum::images

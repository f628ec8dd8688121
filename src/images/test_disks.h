// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"

// For the tests of images only: disks with an EFI system partition, and what stands on it.
namespace vallum::images::testing {

inline constexpr size_t kEspFirst = 2048;  // its first sector

using DiskFiles = std::vector<std::pair<std::string, Bytes>>;

// A GPT disk of 10 MiB whose EFI system partition holds these files ("/EFI/BOOT/BOOTX64.EFI") and
// the folders EFI/BOOT and EFI/debian.
Bytes MakeDisk(const DiskFiles& files);

// The section .vendor_cert of a shim that accepts what this certificate signed, and forbids these
// signature lists.
Bytes MakeVendorCert(ByteView allowed, ByteView forbidden = {});
// A program with that section.
Bytes MakeShim(const Bytes& vendor_cert);
// A GRUB that runs this script; its section .sbat is good at any level.
Bytes MakeGrub(const std::string& script);
// A systemd-boot.
Bytes MakeBootManager();

}  // namespace vallum::images::testing

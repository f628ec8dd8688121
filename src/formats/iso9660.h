// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/reader.h"

// docs/formats/optical.md mirrors these constants.
namespace vallum::formats {

inline constexpr uint64_t kIsoSector = 2048;
inline constexpr uint64_t kIsoFirstDescriptor = 16;  // sector; those before are the system area
inline constexpr size_t kIsoMaxDescriptors = 64;
inline constexpr size_t kIsoMaxBootEntries = 63;  // a catalogue of one sector

enum class IsoBootPlatform { kBios, kUefi, kOther };

struct IsoBootEntry {
  IsoBootPlatform platform = IsoBootPlatform::kOther;
  bool bootable = false;
  uint8_t media = 0;    // 0: no emulation, 1 to 3: floppy, 4: hard disk
  uint64_t offset = 0;  // of the boot image, in bytes
  uint64_t size = 0;    // up to the end of the file where the catalogue does not say
};

struct IsoVolume {
  std::string volume_id;  // printable
  uint32_t block_size = 0;
  uint64_t size = 0;  // of the volume, in bytes
  bool joliet = false;
  // Whether the first 32 KiB hold anything: a hybrid image has an MBR or a GPT there (mbr.h,
  // gpt.h).
  bool system_area_used = false;
  std::vector<IsoBootEntry> boot;
  bool bootable_bios = false;
  bool bootable_uefi = false;
  std::vector<std::string> facts;  // sentences for people, printable
};

// Reads and checks the structure of an ISO 9660 image: volume descriptors up to the terminator,
// numbers that are written in both byte orders, volume, path tables and root directories inside
// the file, and the El Torito boot catalogue with its images. Files are not looked at.
// Errors: kInvalidInput, naming sector or offset.
// Source: ECMA-119, 4th edition, section 8; El Torito 1.0; UEFI 2.10, 13.3.2.1. Pure.
Result<IsoVolume> ParseIso9660(const RandomAccessReader& image);

}  // namespace vallum::formats

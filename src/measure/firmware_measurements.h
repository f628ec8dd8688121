// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "firmware/guid.h"
#include "measure/boot_chain.h"

namespace vallum::measure {

// The program that is the boot manager's menu: PcdBootManagerMenuFile of OVMF.
inline constexpr firmware::Guid kBootMenuFile = firmware::MakeGuid(
    0x462caa21, 0x7614, 0x4503, {0x83, 0x6e, 0x8a, 0xb6, 0xf4, 0x66, 0x23, 0x31});

// Where a known build of OVMF keeps what its PEI phase writes into its own volume before that is
// measured: offsets into the volume.
struct PeiLayout {
  size_t platform_info = 0;      // EFI_HOB_PLATFORM_INFO
  size_t memory_types = 0;       // an array of EFI_MEMORY_TYPE_INFORMATION
  size_t fw_cfg_flags = 0;       // two bytes: fw_cfg is there, and it does DMA
  bool keeps_variables = false;  // built with SMM_REQUIRE: reads variables in PEI, sets SMRAM up
};

// A program inside the firmware that it can start by itself: its menu, its shell.
struct FirmwareApplication {
  std::string name;           // "UiApp", "Shell"; its file's GUID where it has no name
  Bytes authenticode_sha256;  // what PCR 4 is extended with when it is started
};

// What a firmware code file says of PCR 0 and 1, and of itself in PCR 4. A value that follows from
// the file alone: callers compute it once and keep it by the file's digest. Takes about 1 MiB.
struct FirmwareMeasurements {
  Bytes pei_volume;                 // as unpacked, before it ran
  BankDigests dxe_volume;           // what firmware measures of it
  firmware::Guid dxe_name;          // the volume's name: where the firmware's own programs are
  std::string menu_name;            // of the boot manager's menu: "UiApp"
  std::optional<PeiLayout> layout;  // nothing: a build that is not known
  std::vector<FirmwareApplication> applications;
};

// Reads an OVMF code file (OVMF_CODE*.fd) for predictions.
//   image: untrusted; at most firmware::kMaxFirmwareImage bytes.
//   banks: those that predictions will be made in.
// Unpacks 13 MiB and hashes 12 MiB for each bank: tens of milliseconds.
// Errors: as firmware::FirmwareImage::Parse; kInvalidInput (not OVMF's two packed volumes, or its
// boot manager's menu is missing). Pure; thread-safe.
Result<FirmwareMeasurements> MeasureFirmware(ByteView image, std::span<const HashAlgorithm> banks);

}  // namespace vallum::measure

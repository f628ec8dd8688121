// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/gpt.h"
#include "formats/reader.h"
#include "measure/firmware_measurements.h"
#include "measure/platform.h"
#include "measure/prediction.h"

namespace vallum::images {

// The firmware and the machine, for PCR 0 to 3 and 6.
struct PredictedPlatform {
  Bytes firmware;  // the code file that QEMU runs: OVMF_CODE*.fd
  measure::MachineInput machine;
};

// What a boot of the image is to be predicted for.
struct PredictionRequest {
  Bytes variables;                 // the variable store (OVMF_VARS*.fd, vars.fd) before the boot
  size_t failed_boot_options = 0;  // that the firmware tries in vain before this disk
  std::optional<PredictedPlatform> platform;
};

// Measures the firmware of a request; nothing without one.
// Errors: as measure::MeasureFirmware.
Result<measure::FirmwareMeasurements> MeasurePlatform(const PredictionRequest& request);

// Predicts what a boot from this disk extends into the PCRs, in the banks SHA-256 and SHA-384:
// reads what \EFI\BOOT\BOOTX64.EFI leads to and hands it to measure::PredictBoot.
//   disk: untrusted; all of it. table: of that disk, parsed. firmware: MeasurePlatform's.
// Errors: kNotFound (no EFI system partition, no loader), kInvalidInput and kCorrupt (the loader or
// the firmware or the variable store cannot be read; a chain that is not predicted, in words).
Result<std::vector<measure::Prediction>> PredictFromDisk(
    const formats::RandomAccessReader& disk, const formats::GptTable& table,
    const PredictionRequest& request, const measure::FirmwareMeasurements& firmware);

}  // namespace vallum::images

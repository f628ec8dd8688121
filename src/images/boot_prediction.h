// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/gpt.h"
#include "formats/reader.h"
#include "measure/prediction.h"

namespace vallum::images {

// What a boot of the image is to be predicted for.
struct PredictionRequest {
  Bytes variables;                 // the variable store (OVMF_VARS*.fd, vars.fd) before the boot
  size_t failed_boot_options = 0;  // that the firmware tries in vain before this disk
};

// Predicts what a boot from this disk extends into the PCRs, in the banks SHA-256 and SHA-384:
// reads what \EFI\BOOT\BOOTX64.EFI leads to and hands it to measure::PredictBoot.
//   disk: untrusted; all of it. table: of that disk, parsed.
// Errors: kNotFound (no EFI system partition, no loader), kInvalidInput and kCorrupt (the loader or
// the variable store cannot be read; a chain that is not predicted, in words).
Result<std::vector<measure::Prediction>> PredictFromDisk(const formats::RandomAccessReader& disk,
                                                         const formats::GptTable& table,
                                                         const PredictionRequest& request);

}  // namespace vallum::images

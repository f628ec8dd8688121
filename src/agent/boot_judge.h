// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "agent/refusal_scanner.h"
#include "base/bytes.h"
#include "firmware/variable_store.h"
#include "measure/extend_log.h"
#include "measure/secure_boot_pcr.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// How far a boot came, read from what the firmware measured.
struct BootProgress {
  int tpm_resets = 0;
  int extends = 0;                  // SHA-256 bank, since the last reset
  std::vector<Bytes> pcr7;          // SHA-256 digests extended into PCR 7, in order
  bool configuration_done = false;  // PCR 7's separator was measured
  // The boot loader gave the machine to the operating system: the firmware is gone, and nothing
  // that the serial line says is its word any more.
  bool left_firmware = false;
};
BootProgress ReadProgress(const measure::ExtendLog& log);

// What a verdict is made from; the caller owns everything.
struct BootEvidence {
  BootProgress progress;
  measure::PcrReplay replay;                 // of the SHA-256 bank
  v1::BootMode mode = v1::BOOT_MODE_LEGACY;  // as started
  // Of the start of this boot; nullptr: could not be read, because of store_problem.
  const firmware::VariableStore* store = nullptr;
  std::string store_problem;
  std::span<const measure::BootBinary> binaries;
  std::optional<FirmwareRefusal> refusal;
  // PCRs as the TPM itself gave them when nothing was going on; empty: not read.
  std::map<PcrIndex, Bytes> tpm_values;
};

// The verdict on one boot. VERIFIED: the operating system runs, PCR 7 is what the variable store
// and the image's loaders give, the TPM agrees with the record, and Secure Boot was as asked for.
// REFUSED: the firmware rejected a loader and no operating system runs. DIVERGED: anything that
// contradicts, as soon as it is seen. PENDING: none of these yet. measured_at is not set.
// Pure; thread-safe.
v1::BootMeasured JudgeBoot(const BootEvidence& evidence);

// The verdict on an instance that has nothing to judge. Pure.
v1::BootMeasured UnmeasuredBoot(const v1::BootEffective& effective);

// What the controller knows of the image's loaders, in the form that PCR 7 is recomputed from.
// Digests that do not parse are left empty.
std::vector<measure::BootBinary> ToMeasureBinaries(const v1::DesiredInstance& desired);

}  // namespace vallum::agent

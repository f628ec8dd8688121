// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "agent/boot_forecast.h"
#include "agent/boot_keys.h"
#include "agent/refusal_scanner.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "firmware/variable_store.h"
#include "measure/extend_log.h"
#include "measure/secure_boot_pcr.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// One extend of a boot, SHA-256 bank.
struct MeasuredExtend {
  PcrIndex pcr;
  Bytes digest;
  WallTime time;
};

// Of one boot are kept and sent at most so many extends, and as much of all that is known of it.
inline constexpr size_t kMaxBootExtends = 4096;
inline constexpr size_t kMaxEvidenceBytes = size_t{512} << 10U;
// Reasons of one verdict; of more, the number is told.
inline constexpr size_t kMaxReasons = 8;

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
//   events: of one boot; what comes after its end does not count.
BootProgress ReadProgress(std::span<const MeasuredExtend> events);
// What the firmware measures into PCR 5 when the loader calls ExitBootServices and that succeeded.
bool IsHandOver(const MeasuredExtend& event);
// The second of these: what is extended later belongs to the operating system.
bool EndsBoot(const MeasuredExtend& event);

// What a verdict is made from; the caller owns everything.
struct BootFacts {
  BootProgress progress;
  // Of PCR 0 to 9 and 11 to 14, in order, until the operating system took over.
  std::span<const MeasuredExtend> events;
  // Why events may be missing though the boot was not over.
  std::vector<std::string> gaps;
  measure::PcrReplay replay;  // of PCR 0 to 7, SHA-256 bank, with the operating system's extends
  // Why since the hand-over `replay` may not be what the PCRs hold; empty: it is.
  std::string later_gap;
  v1::BootMode mode = v1::BOOT_MODE_LEGACY;  // as started
  // Of the start of this boot; nullptr: could not be read, because of store_problem.
  const firmware::VariableStore* store = nullptr;
  std::string store_problem;
  // What the instance was started with; nullptr: nothing is known of its keys.
  const AssignedKeys* assigned = nullptr;
  // nullptr: not made yet, so that nothing can be VERIFIED.
  const BootForecast* forecast = nullptr;
  // What the image's loaders are, for a boot whose disk could not be read.
  std::span<const measure::BootBinary> binaries;
  std::optional<FirmwareRefusal> refusal;
  // PCRs as the TPM itself gave them when nothing was going on; empty: not read.
  std::map<PcrIndex, Bytes> tpm_values;
};

// The verdict on one boot. VERIFIED: the operating system runs, what was measured is what was
// predicted as far as that goes, PCR 7 is explained by the variable store and the loaders, the TPM
// agrees with the record, and keys and Secure Boot were as asked for. REFUSED: firmware or shim
// rejected a program and no operating system runs. DIVERGED: anything that contradicts, as soon as
// it is seen. PENDING: none of these yet. measured_at is not set.
// Pure; thread-safe.
v1::BootMeasured JudgeBoot(const BootFacts& facts);

// What the boot measured and what was predicted, with words for what is known. Of more than
// kMaxEvidenceBytes first the words are left out, then the prediction, then the programs, which is
// said. Pure; thread-safe.
v1::BootEvidence MakeEvidence(const BootFacts& facts);

// The verdict on an instance that has nothing to judge. Pure.
v1::BootMeasured UnmeasuredBoot(const v1::BootEffective& effective);

}  // namespace vallum::agent

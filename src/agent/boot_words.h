// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "agent/boot_judge.h"
#include "measure/prediction_follower.h"

// What single extends of a boot are. Internal to the judgement of boots.
namespace vallum::agent {

// One extend with what is known of it.
struct ExplainedExtend {
  measure::PredictionStep step = measure::PredictionStep::kNotPredicted;
  std::string what;                        // in words; empty: nothing is known
  const v1::BootBinary* binary = nullptr;  // PCR 4: the program on the disk that it is
};

// A boot beside its prediction. Refers to the facts.
class BootReading {
 public:
  explicit BootReading(const BootFacts& facts);

  const std::vector<ExplainedExtend>& extends() const { return extends_; }
  // What is not as predicted, in the order in which it was seen.
  const std::vector<measure::PredictionDifference>& differences() const { return differences_; }
  // What a digest is by the programs on the disk and by the prediction; empty: not known.
  std::string NameOf(PcrIndex pcr, const Bytes& digest) const;
  // What this program does in the boot: "shim", "grub", "kernel", ...
  std::string RoleOf(const v1::BootBinary& binary) const;

 private:
  const BootFacts& facts_;
  std::map<Bytes, const v1::BootBinary*> programs_;  // by Authenticode digest
  std::map<Bytes, std::string> predicted_;           // by digest
  std::vector<ExplainedExtend> extends_;
  std::vector<measure::PredictionDifference> differences_;
};

// "\EFI\BOOT\BOOTX64.EFI, signed by CN=...".
std::string DescribeProgram(const v1::BootBinary& binary);

// How far the boot came, in order.
std::vector<v1::BootStage> ReadStages(const BootFacts& facts, const BootReading& reading);

// Why firmware or shim refused, by the pre-flight of the disk under the instance's own keys.
std::vector<std::string> ExplainRefusal(const FirmwareRefusal& refusal,
                                        const BootForecast* forecast);

}  // namespace vallum::agent

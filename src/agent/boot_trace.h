// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "agent/boot_judge.h"
#include "base/clock.h"
#include "measure/extend_log.h"

namespace vallum::agent {

// The current boot of a guest as its vTPM records it, in memory that does not grow with what runs
// in the guest. It ends when the firmware says that the operating system has taken over: what is
// extended later is the system's own, and only what PCR 0 to 7 hold is followed on. Not
// thread-safe.
class BootTrace {
 public:
  // What a record changes; a later one of these includes what the former ones ask for.
  enum class Change {
    kNothing,
    kEvidence,  // an extend that the record of the boot holds besides PCR 0 to 7
    kValues,    // what the vTPM's PCR 0 to 7 must hold now
    kVerdict,
    kNewBoot,
  };
  Change Take(const measure::ExtendRecord& record);
  // Records were dropped before they were read.
  void NoteLoss();

  // Sets what is known of the boot. The facts refer to the trace until the next change.
  void Describe(BootFacts& facts) const;

 private:
  Change TakeExtend(const measure::ExtendRecord& record, const measure::PcrExtend& extend);
  Change TakeOpaque(const measure::ExtendRecord& record, const measure::OpaqueChange& change);

  measure::PcrReplayer replayer_{HashAlgorithm::kSha256};
  std::vector<MeasuredExtend> events_;
  std::vector<std::string> gaps_;
  std::string later_gap_;
  int extends_ = 0;
  bool left_firmware_ = false;
  bool handed_over_ = false;
  bool lost_ = false;
};

}  // namespace vallum::agent

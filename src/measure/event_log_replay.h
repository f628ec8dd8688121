// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "base/units.h"
#include "measure/event_log.h"
#include "measure/extend_log.h"

namespace vallum::measure {

// What the registers of one bank hold if the log is the whole truth.
struct EventLogReplay {
  HashAlgorithm bank = HashAlgorithm::kSha256;
  PcrValues values;  // by register; empty beyond the registers that the log's kind has
  std::array<uint32_t, PcrIndex::kCount> extends{};  // how many events extended each
  // Numbers of the events that extended other banks only: this bank says nothing of them.
  std::vector<size_t> skipped;
};

// Extends registers by the log's events, in order. PCR 0 starts from 0...04 when the log has an
// H-CRTM event and else from the startup locality; PCRs 17 to 22 start from zeros when an event
// extends them (a dynamic launch reset them) and else hold ones. An event without a digest in the
// bank did not extend it (TPM2_PCR_Extend touches the banks that it is given).
// Errors: kInvalidInput (the log has no such bank).
// Source: TPM 2.0 part 1, sections 17 and 34; PC Client Platform Firmware Profile 1.06, 10.4.5.3.
// Pure; thread-safe.
Result<EventLogReplay> ReplayEventLog(const EventLog& log, HashAlgorithm bank);

// A register's value by somebody who is believed: a TPM's quote, the TPM at hand.
struct KnownRegister {
  uint32_t index = 0;  // as in the log: PCR, or measurement register
  Bytes value;
};

// The first register, in the order of the known ones, that the log does not explain.
struct ReplayDifference {
  uint32_t index = 0;
  Bytes replayed;
  Bytes known;
  std::string reason;  // names the register, both values, and what would explain them
};

struct ReplayComparison {
  std::optional<ReplayDifference> first_difference;
  // Registers that events extend and that no known value covers: nothing proves those events.
  std::vector<uint32_t> unproven;

  bool Agrees() const { return !first_difference.has_value(); }
};

// Compares a log's replay with known values. Only events of registers that agree may be believed.
//   known: at least one.
// Errors: those of ReplayEventLog; kInvalidInput (nothing known, a register that the kind of log
// does not have or that is named twice, a value whose size is not the bank's).
Result<ReplayComparison> CompareEventLog(const EventLog& log, HashAlgorithm bank,
                                         std::span<const KnownRegister> known);

}  // namespace vallum::measure

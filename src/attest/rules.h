// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attest/facts.h"
#include "attest/policy.h"
#include "attest/quote.h"
#include "attest/reason.h"
#include "measure/event_log.h"

namespace vallum::attest {

// What is known to be true of a host's PCRs.
struct ProvenPcrs {
  const PcrBanks& quoted;
  // The log, or nullptr without one, and the PCRs whose replay is the quoted value in each of the
  // policy's banks, as a bit mask: only events of those are looked at.
  const measure::EventLog* log = nullptr;
  uint32_t proven = 0;
};

// Compares a log's replay with the quoted PCRs, in each bank of the policy that the log has, and
// what events say with their digests. A PCR from 8 on that is ignored may differ: the running
// system extends it, too; PCR 11 by systemd's phases whatever its rule (ReachedPhases). Returns the
// PCRs that the log explains, as a bit mask.
uint32_t ProveEventLog(const AttestationPolicy& policy, const PcrBanks& quoted,
                       const measure::EventLog& log, Reasons& reasons);

struct PcrJudgement {
  // Command lines of kernels that were measured, in order; the last one runs.
  std::vector<std::string> command_lines;
};

// Judges every quoted PCR by its rule, but for IMA's, and the measured command lines.
//   facts: for the text of a command line of which only the digest was measured.
PcrJudgement JudgePcrs(const AttestationPolicy& policy, const ProvenPcrs& pcrs,
                       const HostFacts& facts, Reasons& reasons);

// Judges what the host says of itself.
//   command_lines: those that were measured; without any, the host's word is not compared.
void JudgeFacts(const AttestationPolicy& policy, const HostFacts& facts,
                const std::vector<std::string>& command_lines, Reasons& reasons);

}  // namespace vallum::attest

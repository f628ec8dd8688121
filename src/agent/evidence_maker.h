// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "agent/trust_link.h"
#include "base/bytes.h"
#include "base/result.h"
#include "measure/pcr_selection.h"
#include "tpm/host_tpm.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// What one quote says, and what it answers.
struct QuotedState {
  tpm::Quote quote;
  std::vector<measure::BankSelection> selections;
  std::vector<Bytes> nonces;
};

inline constexpr ByteCount kMaxEventLog = ByteCount::MiB(16);
inline constexpr ByteCount kMaxImaPart = ByteCount::MiB(64);

// Makes the answer to one request: the quote, what explains it, and what the host says of itself.
// The IMA list is read now, after the quote, so that the quote's PCR 10 is of a prefix of it.
//   root: under which /proc and /sys lie. boot_id: of this boot.
// Errors: kExhausted (event log or IMA list over a limit); kCorrupt; those of reading and sending.
// A list or log that this host has not is no error: the header says why.
Result<void> SendEvidence(const v1::RequestEvidence& request, const QuotedState& state,
                          const std::filesystem::path& root, const std::string& boot_id,
                          const TrustLink::Send& send);

// The one part that says why there is none.
v1::EvidenceChunk MakeProblem(const Error& error);

}  // namespace vallum::agent

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "attest/facts.h"
#include "attest/policy.h"
#include "attest/quote.h"
#include "attest/quote_key.h"
#include "attest/reason.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "measure/ima_allow_list.h"
#include "measure/ima_assessment.h"
#include "measure/ima_replay.h"
#include "measure/pcr_selection.h"

namespace vallum::attest {

// A policy made ready once for many hosts. Immutable; shared by pointer.
struct PreparedPolicy {
  AttestationPolicy policy;
  Sha256Digest digest{};                           // of the policy and the allow list it names
  std::vector<measure::BankSelection> selections;  // what is to be quoted
  measure::SharedImaAllowList allow_list;          // nullptr: not at hand
};
using SharedPolicy = std::shared_ptr<const PreparedPolicy>;
SharedPolicy PreparePolicy(AttestationPolicy policy, measure::SharedImaAllowList allow_list);

enum class TpmKind { kHardware, kEmulated, kUnknown };

// The key that the host proved to hold, and in what.
struct BoundTpm {
  QuoteKey key;
  TpmKind kind = TpmKind::kUnknown;
};

// What a host sent. Untrusted; the views are the caller's.
struct HostEvidence {
  ByteView quote;      // TPMS_ATTEST
  ByteView signature;  // as the format says
  SignatureFormat format = SignatureFormat::kTpmt;
  PcrBanks pcrs;
  ByteView event_log;            // empty: the one that is known, or none
  ByteView ima_log;              // empty: nothing new, or none
  uint64_t ima_first_entry = 0;  // number of the list's first entry since boot
  HostFacts facts;
};

// What of the host's start was judged, and found to be accepted.
struct JudgedBoot {
  Sha256Digest policy{};  // PreparedPolicy::digest
  Sha256Digest pcrs{};    // over the quoted PCRs but IMA's, and ignored ones from 8 on
  uint32_t reset_count = 0;
  std::vector<std::string> command_lines;  // that were measured
  bool operator==(const JudgedBoot&) const = default;
};

// How far IMA's list was judged and accepted since the host's boot.
struct JudgedIma {
  Sha256Digest policy{};
  uint32_t reset_count = 0;
  measure::ImaReplayState replay;
  measure::ImaAssessmentState assessment;
  bool operator==(const JudgedIma&) const = default;
};

// What is remembered of a host between two judgements. A value, to be kept by the caller.
struct HostState {
  std::variant<FirstQuote, ClockState> clock;  // of the last quote that was believed
  std::optional<JudgedBoot> boot;
  std::optional<JudgedIma> ima;
  HostVerdictKind last = HostVerdictKind::kUnknown;
};

// What the host is to send so that it can be judged: see RequestEvidence of the agent's protocol.
struct WantedEvidence {
  // Of the boot with this count the log is known already; nothing: it is wanted in any case.
  std::optional<uint32_t> known_reset_count;
  std::optional<uint64_t> ima_from;  // nothing: no list is wanted
};
WantedEvidence EvidenceFor(const PreparedPolicy& policy, const HostState& state);

enum class NextRequest {
  kWhenDue,
  // The PCRs are not those of the start that is known, and its log was not asked for: nothing was
  // found against the host, and the next request, which asks for the log, decides. Until then the
  // verdict is STALE, unless the host was untrusted before.
  kAtOnce,
};

struct HostJudgement {
  Verdict verdict;
  HostState state;
  NextRequest next = NextRequest::kWhenDue;
};

// Judges a host by its evidence: key, quote, event log, rules over PCRs, IMA, facts. A stage whose
// ground is missing is left out, the reasons of all others are collected. Cannot fail: what cannot
// be read is a reason. What was accepted before and has not changed costs the quote's check alone;
// the state goes on only over what was accepted.
//   nonce: that the quote must answer.
// Pure; thread-safe.
HostJudgement VerifyHost(const BoundTpm& tpm, const HostEvidence& evidence, const HostState& state,
                         const PreparedPolicy& policy, ByteView nonce);

}  // namespace vallum::attest

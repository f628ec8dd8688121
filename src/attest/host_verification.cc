// SPDX-License-Identifier: Apache-2.0
#include "attest/host_verification.h"

#include <algorithm>
#include <utility>

#include "attest/rules.h"
#include "base/text.h"
#include "base/units.h"
#include "measure/event_log.h"
#include "measure/ima_log.h"
#include "measure/ima_template_hash.h"

namespace vallum::attest {
namespace {

ReasonId ReasonOf(QuoteReason reason) {
  switch (reason) {
    case QuoteReason::kSignatureMalformed:
    case QuoteReason::kNotTpmGenerated:
    case QuoteReason::kNotAQuote:
    case QuoteReason::kMessageMalformed:
      return ReasonId::kQuoteMalformed;
    case QuoteReason::kSignatureSchemeMismatch:
      return ReasonId::kQuoteUnsupported;
    case QuoteReason::kSha1Signature:
    case QuoteReason::kSha1Bank:
      return ReasonId::kQuoteSha1;
    case QuoteReason::kSignatureInvalid:
      return ReasonId::kQuoteSignature;
    case QuoteReason::kNonceMismatch:
      return ReasonId::kQuoteNonce;
    case QuoteReason::kSignerMismatch:
      return ReasonId::kAkDiffers;
    case QuoteReason::kPcrNotQuoted:
      return ReasonId::kPcrNotQuoted;
    case QuoteReason::kPcrValueMissing:
      return ReasonId::kQuoteSelection;
    case QuoteReason::kPcrDigestMismatch:
      return ReasonId::kPcrDigest;
    case QuoteReason::kResetCountWentBackwards:
    case QuoteReason::kRestartCountWentBackwards:
    case QuoteReason::kClockWentBackwards:
      return ReasonId::kTpmClock;
  }
  return ReasonId::kQuoteMalformed;
}

ReasonId ReasonOf(measure::ImaReason reason) {
  switch (reason) {
    case measure::ImaReason::kImaUnknownFile:
      return ReasonId::kImaFileUnknown;
    case measure::ImaReason::kImaDigestMismatch:
      return ReasonId::kImaFileDigest;
    case measure::ImaReason::kImaBadSignature:
    case measure::ImaReason::kImaUnknownKey:
      return ReasonId::kImaFileSignature;
    case measure::ImaReason::kImaViolation:
      return ReasonId::kImaViolation;
    case measure::ImaReason::kImaKeyNotListed:
      return ReasonId::kImaKeyNotAccepted;
    case measure::ImaReason::kImaUnknownBuffer:
    case measure::ImaReason::kImaBufferMismatch:
    case measure::ImaReason::kImaBootAggregate:
    case measure::ImaReason::kImaOtherPcr:
    case measure::ImaReason::kImaNothingMeasured:
      return ReasonId::kImaEntryNotAccepted;
  }
  return ReasonId::kImaEntryNotAccepted;
}

// Over all quoted values but those that change as the host runs: of IMA's PCR, and of those that
// the running system may extend as it likes.
Sha256Digest DigestOfBoot(const PcrBanks& quoted, const AttestationPolicy& policy) {
  const uint32_t* ima_pcr = policy.ImaPcr();
  ByteWriter out;
  for (const auto& [bank, values] : quoted) {
    for (const auto& [pcr, value] : values) {
      if (ima_pcr != nullptr && pcr.value() == *ima_pcr) continue;
      if (policy.IsLateAndIgnored(pcr.value())) continue;
      out.U8(static_cast<uint8_t>(bank)).U8(static_cast<uint8_t>(pcr.value())).Raw(value);
    }
  }
  return Sha256(out.bytes());
}

class HostVerifier {
 public:
  HostVerifier(const BoundTpm& tpm, const HostEvidence& evidence, const HostState& state,
               const PreparedPolicy& policy)
      : tpm_(tpm), evidence_(evidence), old_(state), next_(state), policy_(policy) {}

  HostJudgement Run(ByteView nonce) && {
    JudgeTpm();
    if (JudgeQuote(nonce)) {
      JudgeBoot();
      JudgeIma();
      JudgeFacts(policy_.policy, evidence_.facts, command_lines_, reasons_);
    } else if (!evidence_.event_log.empty()) {
      ParseEventLog();  // whether it can be read does not hang on the quote
    }
    if (log_wanted_ && reasons_.empty()) return AskAgain();
    HostJudgement out;
    out.verdict.kind = reasons_.empty() ? HostVerdictKind::kTrusted : HostVerdictKind::kUntrusted;
    next_.last = out.verdict.kind;
    return Finish(std::move(out));
  }

 private:
  const AttestationPolicy& rules() const { return policy_.policy; }

  // What can be judged is accepted, and what cannot is not the host's fault: it is no longer
  // trusted, and asked anew. That it was untrusted is not taken back.
  HostJudgement AskAgain() {
    reasons_.Add({.id = ReasonId::kEventLogAbsent,
                  .actual = "the PCRs are not those of the start that is known, whose log was not "
                            "asked for",
                  .fix = "ask the host again: now its event log is asked for"});
    HostJudgement out;
    out.next = NextRequest::kAtOnce;
    out.verdict.kind = old_.last == HostVerdictKind::kUntrusted ? HostVerdictKind::kUntrusted
                                                                : HostVerdictKind::kStale;
    next_.last = out.verdict.kind;
    return Finish(std::move(out));
  }

  HostJudgement Finish(HostJudgement out) {
    out.verdict.policy = rules().name;
    out.verdict.policy_version = rules().version;
    out.verdict.notes = std::move(reasons_).TakeNotes();
    out.verdict.reasons = std::move(reasons_).TakeReasons();
    out.state = std::move(next_);
    return out;
  }

  void JudgeTpm() {
    if (rules().emulated_tpm == EmulatedTpm::kAllowed) return;
    if (tpm_.kind == TpmKind::kEmulated) {
      reasons_.Add({.id = ReasonId::kTpmEmulated,
                    .expected = "a TPM in hardware",
                    .fix = "tpm.emulated = \"allowed\", if that is what you want"});
    } else if (tpm_.kind == TpmKind::kUnknown) {
      reasons_.Note(
          {.id = ReasonId::kTpmEmulated, .actual = "whether the key is in hardware was not told"});
    }
  }

  // Returns whether the PCRs are to be believed.
  bool JudgeQuote(ByteView nonce) {
    QuoteExpectation expectation{
        .nonce = ToBytes(nonce),
        .pcrs = policy_.selections,
        .signer = AnySigner{},
        .previous = old_.clock,
        .sha1 = rules().sha1 == Sha1Use::kAllowed ? Sha1Policy::kAccepted : Sha1Policy::kRefused};
    QuoteVerdict verdict = VerifyQuote(tpm_.key,
                                       {.message = evidence_.quote,
                                        .signature = evidence_.signature,
                                        .format = evidence_.format,
                                        .pcrs = evidence_.pcrs},
                                       expectation);
    for (const QuoteFinding& each : verdict.rejections) {
      reasons_.Add({.id = ReasonOf(each.reason),
                    .content = each.what,
                    .expected = each.expected,
                    .actual = each.actual});
    }
    if (!verdict.Accepted() || !verdict.signed_quote.has_value()) return false;
    clock_ = verdict.signed_quote->clock;
    next_.clock = clock_;
    quoted_ = std::move(verdict.pcrs);
    const uint64_t firmware = clock_.firmware_version;
    const std::vector<uint64_t>& accepted = rules().tpm_firmware;
    if (!accepted.empty() && std::ranges::find(accepted, firmware) == accepted.end()) {
      reasons_.Add({.id = ReasonId::kTpmFirmware,
                    .expected = "one of tpm.firmware",
                    .actual = std::to_string(firmware),
                    .fix = "add to tpm.firmware: " + std::to_string(firmware)});
    } else if (verdict.Has(QuoteNote::kFirmwareVersionChanged)) {
      reasons_.Note(
          {.id = ReasonId::kTpmFirmware, .actual = "it changed to " + std::to_string(firmware)});
    }
    return true;
  }

  bool SameBoot(uint32_t reset_count) const { return reset_count == clock_.reset_count; }

  void JudgeBoot() {
    JudgedBoot boot{.policy = policy_.digest,
                    .pcrs = DigestOfBoot(quoted_, rules()),
                    .reset_count = clock_.reset_count,
                    .command_lines = {}};
    if (old_.boot.has_value()) {
      boot.command_lines = old_.boot->command_lines;
      if (evidence_.event_log.empty() && *old_.boot == boot) {
        command_lines_ = std::move(boot.command_lines);
        return;
      }
      if (evidence_.event_log.empty() && rules().NeedsEventLog() && WasToldToSendNoLog()) {
        log_wanted_ = true;
        next_.boot.reset();
        JudgePcrs(rules(), {.quoted = quoted_, .log = nullptr, .proven = 0}, evidence_.facts,
                  reasons_);
        return;
      }
    }
    const size_t count = reasons_.added();
    std::optional<measure::EventLog> log = ParseEventLog();
    ProvenPcrs pcrs{.quoted = quoted_, .log = nullptr, .proven = 0};
    if (log.has_value()) {
      pcrs.log = &*log;
      pcrs.proven = ProveEventLog(rules(), quoted_, *log, reasons_);
    }
    boot.command_lines = JudgePcrs(rules(), pcrs, evidence_.facts, reasons_).command_lines;
    command_lines_ = boot.command_lines;
    if (reasons_.added() == count) next_.boot = std::move(boot);
  }

  // As EvidenceFor asked: no log of the start with the count that is known.
  bool WasToldToSendNoLog() const {
    return old_.boot->policy == policy_.digest && SameBoot(old_.boot->reset_count);
  }

  // Nothing if there is none, or it cannot be read: then with a reason.
  std::optional<measure::EventLog> ParseEventLog() {
    if (evidence_.event_log.empty()) {
      if (rules().NeedsEventLog()) {
        reasons_.Add({.id = ReasonId::kEventLogAbsent,
                      .fix = "let the agent read "
                             "/sys/kernel/security/tpm0/binary_bios_measurements"});
      }
      return std::nullopt;
    }
    auto log = measure::EventLog::Parse(evidence_.event_log, measure::EventLogKind::kTpm);
    if (log.has_value()) return *std::move(log);
    reasons_.Add({.id = ReasonId::kEventLogMalformed, .actual = log.error().Describe()});
    return std::nullopt;
  }

  // The part of the quote that is about IMA's PCR.
  std::vector<measure::ImaPcrValue> QuotedIma(uint32_t pcr) const {
    std::vector<measure::ImaPcrValue> out;
    for (const HashAlgorithm bank : rules().banks) {
      const auto values = quoted_.find(bank);
      if (values == quoted_.end()) continue;
      const auto value = values->second.find(*PcrIndex::Create(pcr));
      if (value != values->second.end()) out.push_back({.bank = bank, .value = value->second});
    }
    return out;
  }

  void JudgeIma() {
    const uint32_t* pcr = rules().ImaPcr();
    if (pcr == nullptr) {
      next_.ima.reset();
      return;
    }
    if (policy_.allow_list == nullptr) {
      reasons_.Add({.id = ReasonId::kImaAllowList,
                    .pcr = *pcr,
                    .expected = rules().ima.allow_list,
                    .fix = "upload the list whose SHA-256 is ima.allow-list-sha256"});
      return;
    }
    const bool known = old_.ima.has_value() && SameBoot(old_.ima->reset_count) &&
                       old_.ima->policy == policy_.digest;
    JudgedIma from{.policy = policy_.digest,
                   .reset_count = clock_.reset_count,
                   .replay = measure::StartOfImaReplay(rules().banks),
                   .assessment = {}};
    // A list from its beginning is judged anew, whatever is known.
    if (known && (evidence_.ima_first_entry != 0 || evidence_.ima_log.empty())) from = *old_.ima;
    const std::vector<measure::ImaPcrValue> quoted = QuotedIma(*pcr);
    if (evidence_.ima_log.empty()) {
      if (known && from.replay.pcrs == quoted) return;
      reasons_.Add({.id = ReasonId::kImaLogAbsent,
                    .pcr = *pcr,
                    .fix = "let the agent read "
                           "/sys/kernel/security/ima/binary_runtime_measurements"});
      return;
    }
    if (evidence_.ima_first_entry != from.replay.entries) {
      reasons_.Add({.id = ReasonId::kImaLogGap,
                    .pcr = *pcr,
                    .expected = "entries from " + std::to_string(from.replay.entries) + " on",
                    .actual = "entries from " + std::to_string(evidence_.ima_first_entry) + " on",
                    .fix = "ask the agent for the whole list"});
      return;
    }
    const auto log = measure::ImaLog::Parse(evidence_.ima_log, measure::ImaTemplateHash::kDetect);
    if (!log.has_value()) {
      reasons_.Add(
          {.id = ReasonId::kImaLogMalformed, .pcr = *pcr, .actual = log.error().Describe()});
      return;
    }
    JudgeImaEntries(*pcr, *log, std::move(from), quoted);
  }

  void JudgeImaEntries(uint32_t pcr, const measure::ImaLog& log, JudgedIma from,
                       const std::vector<measure::ImaPcrValue>& quoted) {
    auto replay = measure::ReplayImaLog(log, from.replay, quoted);
    if (!replay.has_value() || !replay->Reached()) {
      reasons_.Add({.id = ReasonId::kImaReplay,
                    .pcr = pcr,
                    .actual = replay.has_value() ? replay->refusal : replay.error().Describe(),
                    .fix = "do not believe this list"});
      return;
    }
    const uint64_t first = from.replay.entries;
    if (first + replay->proven == 0) {
      // A PCR that nobody extended is explained by every list, and proves none.
      reasons_.Add({.id = ReasonId::kImaReplay,
                    .pcr = pcr,
                    .actual = "the PCR is as the TPM's start left it: IMA measured nothing",
                    .fix = "start the host's kernel with an IMA policy (ima_policy=)"});
      return;
    }
    const size_t count = reasons_.added();
    if (first == 0) JudgeFirstImaEntry(pcr, log.entries().front());
    for (const size_t entry : measure::CheckTemplateHashes(log).mismatches) {
      if (entry >= replay->proven) break;
      reasons_.Add({.id = ReasonId::kImaEntryDamaged,
                    .pcr = pcr,
                    .event = first + entry,
                    .content = std::string(log.entries()[entry].path)});
    }
    std::vector<measure::ImaBootPcrs> boot = BootPcrs();
    const measure::ImaAssessment assessment =
        measure::AssessImaEntries({.log = log,
                                   .proven = replay->proven,
                                   .first_entry = first,
                                   .list = *policy_.allow_list,
                                   .boot_pcrs = boot,
                                   .violations = rules().ima.violations == ImaViolations::kNoted
                                                     ? measure::ImaViolationRule::kAccept
                                                     : measure::ImaViolationRule::kRefuse},
                                  from.assessment);
    for (const measure::ImaFinding& each : assessment.findings) {
      reasons_.Add({.id = ReasonOf(each.reason),
                    .pcr = pcr,
                    .event = each.entry,
                    .content = each.path,
                    .expected = each.detail,
                    .actual = each.digest,
                    .fix = "add to the allow list " + rules().ima.allow_list + ": " + each.digest +
                           "  " + each.path});
    }
    if (reasons_.added() != count) return;
    from.replay = std::move(replay->state);
    from.assessment = assessment.state;
    next_.ima = std::move(from);
  }

  // IMA measures boot_aggregate before anything else: a list that begins otherwise is not its.
  void JudgeFirstImaEntry(uint32_t pcr, const measure::ImaEntry& entry) {
    if (entry.pcr == pcr && !entry.violation && entry.path == measure::kBootAggregate) return;
    reasons_.Add({.id = ReasonId::kImaEntryNotAccepted,
                  .pcr = pcr,
                  .event = 0,
                  .content = std::string(entry.path),
                  .expected = std::string(measure::kBootAggregate),
                  .fix = "do not believe this list"});
  }

  // For boot_aggregate: the banks of which PCRs 0 to 9 are all quoted.
  std::vector<measure::ImaBootPcrs> BootPcrs() const {
    std::vector<measure::ImaBootPcrs> out;
    for (const auto& [bank, values] : quoted_) {
      measure::ImaBootPcrs boot{.bank = bank, .values = {}};
      for (const auto& [pcr, value] : values) {
        if (pcr.value() == boot.values.size() && pcr.value() < measure::kBootAggregatePcrs) {
          boot.values.push_back(value);
        }
      }
      if (boot.values.size() == measure::kBootAggregatePcrs) out.push_back(std::move(boot));
    }
    return out;
  }

  const BoundTpm& tpm_;
  const HostEvidence& evidence_;
  const HostState& old_;
  HostState next_;
  const PreparedPolicy& policy_;
  Reasons reasons_;
  ClockState clock_;
  PcrBanks quoted_;
  std::vector<std::string> command_lines_;
  bool log_wanted_ = false;
};

}  // namespace

SharedPolicy PreparePolicy(AttestationPolicy policy, measure::SharedImaAllowList allow_list) {
  auto out = std::make_shared<PreparedPolicy>();
  out->digest = PolicyDigest(policy);
  for (const HashAlgorithm bank : policy.banks) {
    measure::BankSelection selection{.bank = bank, .pcrs = {}};
    for (const auto& [pcr, rule] : policy.pcrs) {
      selection.pcrs.push_back(*PcrIndex::Create(pcr));
    }
    if (!selection.pcrs.empty()) out->selections.push_back(std::move(selection));
  }
  out->policy = std::move(policy);
  out->allow_list = std::move(allow_list);
  return out;
}

WantedEvidence EvidenceFor(const PreparedPolicy& policy, const HostState& state) {
  WantedEvidence out;
  if (state.boot.has_value() && state.boot->policy == policy.digest) {
    out.known_reset_count = state.boot->reset_count;
  }
  if (policy.policy.ImaPcr() != nullptr) {
    // Of the boot that the last believed quote was of.
    const auto* clock = std::get_if<ClockState>(&state.clock);
    const bool known = state.ima.has_value() && state.ima->policy == policy.digest &&
                       clock != nullptr && state.ima->reset_count == clock->reset_count;
    out.ima_from = known ? state.ima->replay.entries : 0;
  }
  return out;
}

HostJudgement VerifyHost(const BoundTpm& tpm, const HostEvidence& evidence, const HostState& state,
                         const PreparedPolicy& policy, ByteView nonce) {
  if (policy.policy.pcrs.empty()) {
    // It asks for nothing, so that nothing could speak for the host.
    HostJudgement out{.verdict = {.kind = HostVerdictKind::kUntrusted,
                                  .policy = policy.policy.name,
                                  .policy_version = policy.policy.version,
                                  .reasons = {{.id = ReasonId::kPcrNotQuoted,
                                               .actual = "the policy has no rule for any PCR"}},
                                  .notes = {}},
                      .state = state};
    out.state.last = out.verdict.kind;
    return out;
  }
  return HostVerifier(tpm, evidence, state, policy).Run(nonce);
}

}  // namespace vallum::attest

// SPDX-License-Identifier: Apache-2.0
#include "attest/rules.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "attest/boot_phase.h"
#include "attest/rules_command_line.h"
#include "attest/rules_secure_boot.h"
#include "base/text.h"
#include "base/units.h"
#include "measure/bank_hasher.h"
#include "measure/event_content.h"
#include "measure/event_data.h"
#include "measure/event_describe.h"
#include "measure/event_digest.h"
#include "measure/event_log_replay.h"

namespace vallum::attest {
namespace {

using measure::BankHasher;
using measure::ContentCheck;
using measure::EventLog;
using measure::EventType;
using measure::LoggedEvent;

constexpr std::array<std::byte, 4> kOnes = {std::byte{0xff}, std::byte{0xff}, std::byte{0xff},
                                            std::byte{0xff}};
// What firmware says of a boot attempt, in PCRs 4 and 5; true of every boot.
// Source: PC Client Platform Firmware Profile 1.06, section 10.4.4.
constexpr std::array<std::string_view, 5> kAttempts = {
    "Calling EFI Application from Boot Option", "Returning from EFI Application from Boot Option",
    "Exit Boot Services Invocation", "Exit Boot Services Returned with Failure",
    "Exit Boot Services Returned with Success"};

bool Same(ByteView a, ByteView b) { return std::ranges::equal(a, b); }

std::string Snippet(HashAlgorithm bank, ByteView digest, std::string_view what) {
  return "{ " + std::string(HashAlgorithmName(bank)) + " = \"" + ToHex(digest) + "\", what = \"" +
         Printable(what, 80) + "\" }";
}

// Judges the PCRs that have events.
class EventsJudge {
 public:
  EventsJudge(const AttestationPolicy& policy, const ProvenPcrs& pcrs, const HostFacts& facts,
              Reasons& reasons)
      : policy_(policy),
        log_(*pcrs.log),
        facts_(facts),
        reasons_(reasons),
        bank_(policy.banks.front()),
        hasher_(bank_) {
    for (size_t i = 0; i < log_.events().size(); ++i) {
      const LoggedEvent& event = log_.events()[i];
      if (log_.Extends(event) && !log_.DigestOf(event, bank_).empty()) {
        events_[event.index].push_back(i);
      }
    }
    separators_ = {measure::SeparatorDigest(bank_), ToBytes(hasher_.Hash(kOnes))};
    failure_ = measure::ErrorSeparatorDigest(bank_);
    for (const std::string_view text : kAttempts) {
      attempts_.push_back(measure::ActionDigest(bank_, text));
    }
  }

  void Judge(uint32_t pcr, const EventsRule& rule) {
    if (events_[pcr].empty() && rule.empty == EmptyPcr::kRefused) {
      reasons_.Add({.id = ReasonId::kNothingMeasured, .pcr = pcr});
      return;
    }
    bool separated = false;
    for (const size_t number : events_[pcr]) {
      const LoggedEvent& event = log_.events()[number];
      const ByteView digest = log_.DigestOf(event, bank_);
      if (std::ranges::any_of(separators_, [&](const Bytes& each) { return Same(each, digest); })) {
        separated = true;
      } else if (Same(digest, failure_)) {
        Add(ReasonId::kMeasuringFailed, pcr, number, "look at the host's firmware");
      } else {
        JudgeEvent(pcr, rule, number, event, digest);
      }
    }
    if (!separated && pcr < kFirmwarePcrs && !events_[pcr].empty()) {
      reasons_.Add({.id = ReasonId::kSeparatorAbsent, .pcr = pcr});
    }
  }

  void Judge(uint32_t pcr, const ReferenceRule& /*rule*/) {
    std::vector<ByteView> digests;
    for (const size_t number : events_[pcr]) {
      digests.push_back(log_.DigestOf(log_.events()[number], bank_));
    }
    const ReferenceMatch match =
        pcr == kBootPhasePcr
            ? MatchReference(WithoutPhases(policy_.components, bank_), pcr, bank_, digests)
            : MatchReference(policy_.components, pcr, bank_, digests);
    if (match.complete) return;
    Reason reason{.id = ReasonId::kReferenceNotMatched, .pcr = pcr};
    reason.expected = match.component.empty() ? "no more measurements"
                                              : "a variant of component " + match.component;
    if (match.explained < digests.size()) {
      const size_t number = events_[pcr][match.explained];
      reason.event = number;
      reason.content = measure::DescribeEvent(log_, log_.events()[number]);
      reason.actual = ToHex(digests[match.explained]);
    }
    reason.fix = "add a variant with this measurement to the component";
    reasons_.Add(std::move(reason));
  }

  void Judge(uint32_t /*pcr*/, const SecureBootRule& rule) {
    JudgeSecureBoot(rule, log_, bank_, reasons_);
  }
  void Judge(uint32_t /*pcr*/, const GoldenRule& /*rule*/) {}
  void Judge(uint32_t /*pcr*/, const ImaPcrRule& /*rule*/) {}
  void Judge(uint32_t /*pcr*/, const IgnoredRule& /*rule*/) {}

  // To be called after all PCRs were judged.
  std::vector<std::string> Finish(bool checked) && {
    JudgeLinuxCommands();
    std::vector<std::string> candidates = lines_;
    if (!facts_.command_line.empty()) candidates.push_back(facts_.command_line);
    for (const auto& [pcr, number] : load_options_) {
      const ByteView digest = log_.DigestOf(log_.events()[number], bank_);
      const auto line = FindLoadOptions(candidates, digest, hasher_);
      if (!line.has_value()) {
        Reason reason{.id = ReasonId::kCommandLineUnproven, .pcr = pcr, .event = number};
        reason.expected = "the digest of the measured or stated command line";
        reason.actual = ToHex(digest);
        reason.fix = "let the agent report the command line it runs with";
        reasons_.Add(std::move(reason));
      } else if (std::ranges::find(lines_, *line) == lines_.end()) {
        JudgeCommandLine(policy_.command_line, *line, {.pcr = pcr, .event = number}, reasons_);
        lines_.push_back(*line);
      }
    }
    if (checked && lines_.empty() && load_options_.empty()) {
      reasons_.Add({.id = ReasonId::kCommandLineNotMeasured,
                    .fix = "boot by GRUB (PCR 8), systemd-stub (PCR 12) or the kernel's own stub "
                           "(PCR 9), and let that PCR check command lines"});
    }
    return std::move(lines_);
  }

 private:
  void JudgeEvent(uint32_t pcr, const EventsRule& rule, size_t number, const LoggedEvent& event,
                  ByteView digest) {
    if (rule.command_lines == CommandLines::kChecked && TakeCommandLine(pcr, number, event)) return;
    if (rule.accept.Has(bank_, digest)) return;
    if (std::ranges::any_of(attempts_, [&](const Bytes& each) { return Same(each, digest); })) {
      return;
    }
    // PCR 7's rule says that Secure Boot was on and who signed: firmware started nothing else.
    if (rule.signed_images == SignedImages::kAccepted &&
        event.type == EventType::kBootServicesApplication) {
      return;
    }
    if (IsAcceptedCommand(pcr, rule, number, event)) return;
    Refuse(pcr, number, event, digest);
  }

  // A command line, of which the event's digest is proof, or one to be found by its digest.
  bool TakeCommandLine(uint32_t pcr, size_t number, const LoggedEvent& event) {
    if (event.type == EventType::kEventTag) {
      const auto tagged = measure::ParseTaggedEvent(event.data);
      if (!tagged.has_value() || tagged->id != kLoadOptionsTag) return false;
      load_options_.emplace_back(pcr, number);
      return true;
    }
    if (event.type != EventType::kIpl) return false;
    measure::IplEvent ipl = measure::ParseIplEvent(event.data);
    if (ipl.kind != measure::IplKind::kUtf16Text &&
        KindOfGrubText(event) != GrubText::kCommandLine) {
      return false;
    }
    if (measure::CheckContent(log_, event, hasher_) != ContentCheck::kMatches) return false;
    JudgeCommandLine(policy_.command_line, ipl.text, {.pcr = pcr, .event = number}, reasons_);
    lines_.push_back(std::move(ipl.text));
    return true;
  }

  bool IsAcceptedCommand(uint32_t pcr, const EventsRule& rule, size_t number,
                         const LoggedEvent& event) {
    if (rule.commands == BootCommands::kRefused || event.type != EventType::kIpl) return false;
    const GrubText kind = KindOfGrubText(event);
    if (kind == GrubText::kNone ||
        measure::CheckContent(log_, event, hasher_) != ContentCheck::kMatches) {
      return false;
    }
    const measure::IplEvent ipl = measure::ParseIplEvent(event.data);
    if (rule.commands == BootCommands::kListed) {
      return std::ranges::binary_search(rule.command_list, ipl.text);
    }
    if (kind != GrubText::kCommand) return false;
    const std::string_view line = LineOfLinuxCommand(ipl.text);
    if (rule.command_lines == CommandLines::kChecked && !line.empty()) {
      linux_commands_.emplace_back(MeasuredAt{.pcr = pcr, .event = number}, std::string(line));
    }
    return true;
  }

  // GRUB measures a kernel's line twice, in its command and as such. A line that is only in the
  // command was hidden under another name: as a command, which a relative file's name allows.
  void JudgeLinuxCommands() {
    std::vector<std::string> judged;
    judged.reserve(lines_.size());
    for (const std::string& line : lines_) judged.push_back(WithoutGrubQuotes(line));
    for (const auto& [at, line] : linux_commands_) {
      const auto its = std::ranges::find(judged, line);
      if (its == judged.end()) {
        JudgeCommandLine(policy_.command_line, line, at, reasons_);
      } else {
        judged.erase(its);
      }
    }
  }

  static ReasonId RefusalOf(uint32_t pcr, const LoggedEvent& event) {
    switch (pcr) {
      case 0:
      case 2:
        return ReasonId::kFirmwareNotAccepted;
      case 4:
        return ReasonId::kImageNotAccepted;
      case 8:
        return event.type == EventType::kIpl ? ReasonId::kCommandNotAccepted
                                             : ReasonId::kEventNotAccepted;
      case 9:
        return ReasonId::kFileNotAccepted;
    }
    return ReasonId::kEventNotAccepted;
  }

  void Refuse(uint32_t pcr, size_t number, const LoggedEvent& event, ByteView digest) {
    const std::string what = measure::DescribeEvent(log_, event);
    reasons_.Add(
        {.id = RefusalOf(pcr, event),
         .pcr = pcr,
         .event = number,
         .content = what,
         .expected = "one of pcr." + std::to_string(pcr) + ".accept",
         .actual = ToHex(digest),
         .fix = "add to pcr." + std::to_string(pcr) + ".accept: " + Snippet(bank_, digest, what)});
  }

  void Add(ReasonId id, uint32_t pcr, size_t number, std::string fix) {
    reasons_.Add({.id = id,
                  .pcr = pcr,
                  .event = number,
                  .content = measure::DescribeEvent(log_, log_.events()[number]),
                  .fix = std::move(fix)});
  }

  const AttestationPolicy& policy_;
  const EventLog& log_;
  const HostFacts& facts_;
  Reasons& reasons_;
  HashAlgorithm bank_;
  BankHasher hasher_;
  std::array<std::vector<size_t>, PcrIndex::kCount> events_;
  std::array<Bytes, 2> separators_;
  Bytes failure_;
  std::vector<Bytes> attempts_;
  std::vector<std::string> lines_;
  std::vector<std::pair<uint32_t, size_t>> load_options_;
  std::vector<std::pair<MeasuredAt, std::string>> linux_commands_;
};

void JudgeGolden(uint32_t pcr, const GoldenRule& rule, const PcrBanks& quoted, Reasons& reasons) {
  for (const auto& [bank, values] : quoted) {
    const auto value = values.find(*PcrIndex::Create(pcr));
    if (value == values.end() || rule.values.Has(bank, value->second)) continue;
    Reason reason{.id = ReasonId::kPcrValue, .pcr = pcr};
    for (const AcceptedDigest& each : rule.values.list()) {
      for (const BankDigest& digest : each.digests) {
        if (digest.bank != bank) continue;
        reason.expected += (reason.expected.empty() ? "" : " or ") + ToHex(digest.digest);
      }
    }
    reason.actual = ToHex(value->second);
    reason.fix =
        "add to pcr." + std::to_string(pcr) + ".values: " + Snippet(bank, value->second, "");
    reasons.Add(std::move(reason));
  }
}

Reason ReplayReason(const EventLog& log, HashAlgorithm bank, uint32_t pcr, const Bytes& replayed,
                    const Bytes& known) {
  Reason reason{.id = ReasonId::kEventLogReplay, .pcr = pcr};
  const measure::KnownRegister one{.index = pcr, .value = known};
  const auto compared = measure::CompareEventLog(log, bank, std::span(&one, 1));
  if (compared.has_value() && !compared->Agrees()) {
    reason.content = compared->first_difference->reason;
  }
  reason.expected = ToHex(known);
  reason.actual = ToHex(replayed);
  reason.fix =
      "do not believe this log; see whether the host's firmware or loader is known to log "
      "incompletely";
  return reason;
}

// What a log proves of one bank.
struct BankProof {
  uint32_t proven = 0;                // PCRs that it explains, or has no events of
  std::optional<std::string> phases;  // ReachedPhases(); nothing: PCR 11 is not quoted
};

// Adds what the log does not explain.
BankProof ProveBank(const AttestationPolicy& policy, const EventLog& log, HashAlgorithm bank,
                    const std::map<PcrIndex, Bytes>& values, Reasons& reasons) {
  const auto replay = measure::ReplayEventLog(log, bank);
  if (!replay.has_value()) {
    reasons.Add({.id = ReasonId::kEventLogBank, .actual = replay.error().message()});
    return {};
  }
  BankProof out;
  for (const auto& [index, value] : values) {
    const uint32_t pcr = index.value();
    const bool logged = replay->extends[pcr] > 0;
    const auto rule = policy.pcrs.find(pcr);
    // Of the firmware's PCRs the log says all: one that is left out of it is changed, too.
    const bool of_events =
        rule != policy.pcrs.end() &&
        (std::holds_alternative<EventsRule>(rule->second) ||
         std::holds_alternative<SecureBootRule>(rule->second) ||
         std::holds_alternative<ReferenceRule>(rule->second) ||
         (pcr < kFirmwarePcrs && std::holds_alternative<IgnoredRule>(rule->second)));
    if (pcr == kBootPhasePcr) out.phases = ReachedPhases(bank, replay->values[pcr], value);
    if (replay->values[pcr] == value || (pcr == kBootPhasePcr && out.phases.has_value())) {
      out.proven |= 1U << pcr;
    } else if (logged || of_events) {
      Reason reason = ReplayReason(log, bank, pcr, replay->values[pcr], value);
      if (policy.IsLateAndIgnored(pcr)) {
        reasons.Note(std::move(reason));
      } else {
        reasons.Add(std::move(reason));
      }
    }
  }
  return out;
}

// systemd extends every bank at once: banks that tell of different phases are not its work.
// Returns whether they agree.
bool JudgePhases(const std::vector<BankProof>& proofs, Reasons& reasons) {
  std::optional<std::string> phases;
  for (const BankProof& proof : proofs) {
    if (!proof.phases.has_value()) continue;
    if (phases.has_value() && *phases != *proof.phases) {
      reasons.Add({.id = ReasonId::kEventLogReplay,
                   .pcr = kBootPhasePcr,
                   .expected = "the same phases of the boot in each bank",
                   .actual = "\"" + *phases + "\" and \"" + *proof.phases + "\""});
      return false;
    }
    phases = proof.phases;
  }
  if (phases.has_value() && !phases->empty()) {
    reasons.Note({.id = ReasonId::kBootPhase, .pcr = kBootPhasePcr, .actual = *phases});
  }
  return true;
}

bool SaysWhatWasHashed(const LoggedEvent& event) {
  return measure::DigestCoversData(event.type) ||
         (event.type == EventType::kIpl && measure::GrubTextOf(event.data).has_value());
}

void CheckEventData(const AttestationPolicy& policy, const EventLog& log, uint32_t proven,
                    Reasons& reasons) {
  std::vector<size_t> events;
  for (size_t i = 0; i < log.events().size(); ++i) {
    const LoggedEvent& event = log.events()[i];
    if (log.Extends(event) && (proven >> event.index & 1U) != 0 && SaysWhatWasHashed(event)) {
      events.push_back(i);
    }
  }
  const HashAlgorithm bank = policy.banks.front();
  BankHasher hasher(bank);
  const std::vector<ContentCheck> checks = measure::CheckContent(log, events, hasher);
  for (size_t i = 0; i < events.size(); ++i) {
    if (checks[i] != ContentCheck::kDiffers) continue;
    const size_t number = events[i];
    Reason reason{.id = ReasonId::kEventData, .pcr = log.events()[number].index, .event = number};
    reason.content = measure::DescribeMismatch(log, {.event = number, .bank = bank});
    reason.fix = "if the host's loader is known to log so: event-log.mismatched-data = \"noted\"";
    if (policy.mismatched_data == MismatchedData::kNoted) {
      reasons.Note(std::move(reason));
    } else {
      reasons.Add(std::move(reason));
    }
  }
}

}  // namespace

uint32_t ProveEventLog(const AttestationPolicy& policy, const PcrBanks& quoted, const EventLog& log,
                       Reasons& reasons) {
  uint32_t proven = ~0U;
  std::vector<BankProof> proofs;
  for (const HashAlgorithm bank : policy.banks) {
    const auto values = quoted.find(bank);
    if (values == quoted.end()) {
      proven = 0;
      continue;
    }
    proofs.push_back(ProveBank(policy, log, bank, values->second, reasons));
    proven &= proofs.back().proven;
  }
  if (!JudgePhases(proofs, reasons)) proven &= ~(1U << kBootPhasePcr);
  for (const measure::LogBank& bank : log.banks()) {
    if (bank.hash.has_value() && quoted.contains(*bank.hash)) continue;
    reasons.Note({.id = ReasonId::kEventLogBank,
                  .actual = "the log's bank " + bank.Name() + " is not quoted: nothing proves it"});
  }
  CheckEventData(policy, log, proven, reasons);
  return proven;
}

PcrJudgement JudgePcrs(const AttestationPolicy& policy, const ProvenPcrs& pcrs,
                       const HostFacts& facts, Reasons& reasons) {
  uint32_t without_rule = 0;
  for (const auto& [bank, values] : pcrs.quoted) {
    for (const auto& [pcr, value] : values) without_rule |= 1U << pcr.value();
  }
  without_rule &= ~policy.PcrMask();
  for (uint32_t pcr = 0; pcr < PcrIndex::kCount; ++pcr) {
    if ((without_rule >> pcr & 1U) == 0) continue;
    reasons.Add({.id = ReasonId::kPcrWithoutRule,
                 .pcr = pcr,
                 .fix = "give it a rule: [pcr." + std::to_string(pcr) + "]"});
  }
  std::optional<EventsJudge> judge;
  if (pcrs.log != nullptr) judge.emplace(policy, pcrs, facts, reasons);
  bool checked = false;
  for (const auto& [number, rule] : policy.pcrs) {
    const uint32_t pcr = number;
    if (const auto* golden = std::get_if<GoldenRule>(&rule)) {
      JudgeGolden(pcr, *golden, pcrs.quoted, reasons);
      continue;
    }
    if (!judge.has_value() || (pcrs.proven >> pcr & 1U) == 0) continue;
    const auto* events = std::get_if<EventsRule>(&rule);
    checked = checked || (events != nullptr && events->command_lines == CommandLines::kChecked);
    std::visit([&](const auto& each) { judge->Judge(pcr, each); }, rule);
  }
  PcrJudgement out;
  if (judge.has_value()) out.command_lines = std::move(*judge).Finish(checked);
  return out;
}

}  // namespace vallum::attest

// SPDX-License-Identifier: Apache-2.0
#include "attest/learn.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "attest/rules.h"
#include "attest/rules_command_line.h"
#include "attest/rules_secure_boot.h"
#include "base/text.h"
#include "measure/bank_hasher.h"
#include "measure/event_content.h"
#include "measure/event_data.h"
#include "measure/event_describe.h"
#include "measure/event_digest.h"
#include "measure/event_log.h"
#include "measure/event_log_secure_boot.h"
#include "measure/ima_log.h"
#include "measure/ima_replay.h"

namespace vallum::attest {
namespace {

using measure::EventLog;
using measure::EventType;
using measure::LoggedEvent;

constexpr size_t kMaxWhat = 120;
// Arguments whose value is the host's own.
constexpr std::array<std::string_view, 8> kOwnValues = {
    "root", "resume", "initrd", "rd.luks.uuid", "rd.luks.name", "rd.lvm.lv", "crashkernel", "ip"};
// Arguments that a host must not lose.
constexpr std::array<std::string_view, 12> kProtecting = {
    "lockdown",   "intel_iommu",  "amd_iommu", "iommu", "iommu.strict", "module.sig_enforce",
    "ima_policy", "ima_appraise", "ima_hash",  "lsm",   "efi",          "init_on_alloc"};

bool IsUnused(const Bytes& value) {
  return std::ranges::all_of(value, [](std::byte b) { return b == std::byte{0}; }) ||
         std::ranges::all_of(value, [](std::byte b) { return b == std::byte{0xff}; });
}

class Learner {
 public:
  Learner(const std::string& name, TpmKind tpm, const HostEvidence& evidence,
          const PcrBanks& quoted, const EventLog* log, uint32_t proven)
      : evidence_(evidence), quoted_(quoted), log_(log), proven_(proven) {
    policy_.name = name;
    policy_.version = 1;
    for (const auto& [bank, values] : quoted) policy_.banks.push_back(bank);
    // Events are judged in the first bank: the one that says most.
    std::ranges::stable_sort(policy_.banks, {}, [](HashAlgorithm bank) {
      return bank == HashAlgorithm::kSha256 ? 0 : bank == HashAlgorithm::kSha1 ? 2 : 1;
    });
    for (const HashAlgorithm bank : policy_.banks) {
      if (bank == HashAlgorithm::kSha1) policy_.sha1 = Sha1Use::kAllowed;
    }
    if (tpm == TpmKind::kEmulated) {
      policy_.emulated_tpm = EmulatedTpm::kAllowed;
      remarks_["tpm"] =
          "this host's TPM is a program: whoever runs it can make it say anything; leave this out "
          "where hosts have chips";
    }
    remarks_[""] =
        "A draft from the evidence of one host: read it, and remove what it should not "
        "admit.";
  }

  Result<LearnedPolicy> Run() && {
    for (const auto& [pcr, value] : quoted_.at(bank())) LearnPcr(pcr.value(), value);
    LearnFacts();
    LearnCommandLine();
    LearnedPolicy out;
    if (policy_.ImaPcr() != nullptr) {
      ASSIGN_OR_RETURN(out.ima_list, LearnIma());
      policy_.ima.allow_list = policy_.name + "-files";
      policy_.ima.allow_list_sha256 = Digest(HashAlgorithm::kSha256, AsBytes(out.ima_list));
      remarks_["ima"] =
          "the files that this host had measured; a longer list is better made from "
          "packages";
    }
    out.document = FormatPolicy(policy_, remarks_);
    out.policy = std::move(policy_);
    return out;
  }

 private:
  HashAlgorithm bank() const { return policy_.banks.front(); }
  bool Proven(uint32_t pcr) const { return log_ != nullptr && (proven_ >> pcr & 1U) != 0; }

  void Set(uint32_t pcr, PcrRule rule, std::string remark) {
    policy_.pcrs.insert_or_assign(pcr, std::move(rule));
    remarks_["pcr." + std::to_string(pcr)] = std::move(remark);
  }

  void Golden(uint32_t pcr, std::string remark) {
    AcceptedDigest value{.what = "", .digests = {}};
    for (const HashAlgorithm each : policy_.banks) {
      const auto found = quoted_.at(each).find(*PcrIndex::Create(pcr));
      if (found != quoted_.at(each).end()) {
        value.digests.push_back({.bank = each, .digest = found->second});
      }
    }
    Set(pcr, GoldenRule{.values = AcceptedDigests({value})}, std::move(remark));
  }

  void LearnPcr(uint32_t pcr, const Bytes& value) {
    if (pcr == measure::kImaPcr) {
      if (evidence_.ima_log.empty()) {
        Set(pcr, IgnoredRule{.because = "IMA's list was not at hand"}, "better: rule = \"ima\"");
      } else {
        Set(pcr, ImaPcrRule{}, "by the list that [ima] names");
      }
      return;
    }
    if (IsUnused(value)) return Golden(pcr, "nothing measures into it, and nothing may");
    switch (pcr) {
      case 1:
        return Set(pcr, IgnoredRule{.because = "boot order, setup and inventory of one machine"},
                   "changes with hardware and settings that decide nothing here");
      case 6:
        return Set(pcr, IgnoredRule{.because = "the manufacturer's own, such as a serial number"},
                   "other on each machine");
      case 0:
      case 2:
      case 3:
        return Golden(pcr, "the firmware; a firmware update needs its new value here");
      case 7:
        return LearnSecureBoot();
    }
    if (Proven(pcr)) return LearnEvents(pcr);
    if (log_ != nullptr && IsLogged(pcr)) {
      return Set(pcr, IgnoredRule{.because = "the running system extends it, too"},
                 "what the firmware's log says of it does not account for its value");
    }
    Golden(pcr, "no log explains it: this value or none");
  }

  bool IsLogged(uint32_t pcr) const {
    return std::ranges::any_of(log_->events(), [&](const LoggedEvent& event) {
      return event.index == pcr && log_->Extends(event);
    });
  }

  void LearnSecureBoot() {
    if (!Proven(7)) return Golden(7, "no log explains it: this value or none");
    const measure::LoggedSecureBootPolicy seen = measure::ReadSecureBootPolicy(*log_, bank());
    if (seen.state != measure::LoggedSecureBoot::kOn || !seen.problems.empty()) {
      return Golden(7, "Secure Boot was " + std::string(LoggedSecureBootName(seen.state)) +
                           ", or oddly measured: who signed says nothing, so that this value or "
                           "none is accepted");
    }
    SecureBootRule rule;
    std::string remark = "Secure Boot must be on; it may start what these have signed:";
    for (const measure::LoggedAuthority& each : seen.authorities) {
      const auto variable = measure::ParseVariableEvent(log_->events()[each.event].data);
      if (each.variable == "SbatLevel" || !variable.has_value()) continue;
      rule.signers.push_back(NameOfSigner(each.variable, variable->data));
      remark += "\n" + each.variable + ": " + each.description;
    }
    std::ranges::sort(rule.signers);
    const auto twice = std::ranges::unique(rule.signers);
    rule.signers.erase(twice.begin(), twice.end());
    if (rule.signers.empty()) return Golden(7, "no signer was measured");
    signed_ = true;
    Set(7, std::move(rule), std::move(remark));
  }

  // Digests that the rule accepts anyway need not be listed.
  bool IsCommon(ByteView digest) const {
    const auto same = [&](const Bytes& each) { return std::ranges::equal(each, digest); };
    return same(measure::SeparatorDigest(bank()));
  }

  static bool IsAttempt(const LoggedEvent& event) {
    const std::string_view text = AsText(event.data);
    return event.type == EventType::kEfiAction &&
           (text.starts_with("Calling EFI Application") || text.starts_with("Exit Boot Services") ||
            text.starts_with("Returning from EFI Application"));
  }

  void LearnEvents(uint32_t pcr) {
    EventsRule rule;
    // Digests by what they are of, so that PCR 7 must have been looked at: it decides on images.
    std::vector<AcceptedDigest> accept;
    std::set<Bytes> seen;
    for (const LoggedEvent& event : log_->events()) {
      const ByteView digest = log_->DigestOf(event, bank());
      if (event.index != pcr || !log_->Extends(event) || digest.empty() || IsCommon(digest) ||
          IsAttempt(event) || LearnBootEvent(event, rule)) {
        continue;
      }
      if (!seen.insert(ToBytes(digest)).second) continue;
      AcceptedDigest each{.what = Printable(measure::DescribeEvent(*log_, event), kMaxWhat),
                          .digests = {}};
      for (const HashAlgorithm other : policy_.banks) {
        const ByteView its = log_->DigestOf(event, other);
        if (!its.empty()) each.digests.push_back({.bank = other, .digest = ToBytes(its)});
      }
      accept.push_back(std::move(each));
    }
    // Nothing but systemd's phases.
    if (!IsLogged(pcr)) rule.empty = EmptyPcr::kAccepted;
    rule.accept = AcceptedDigests(std::move(accept));
    Set(pcr, std::move(rule), RemarkOn(pcr));
  }

  static std::string RemarkOn(uint32_t pcr) {
    switch (pcr) {
      case 4:
        return "loaders and kernels, in any order; add those of the next update before it comes";
      case 5:
        return "partition tables and remarks of the firmware";
      case 8:
        return "GRUB's commands change with its configuration; what they load is measured into "
               "PCRs 4 and 9";
      case 9:
        return "files that GRUB read: a new kernel, initrd or grub.cfg needs its digest here";
      case 11:
        return "sections of the unified kernel image; the phases of the boot that systemd measures "
               "after them are accepted anyway";
      case 14:
        return "shim's own keys (MokList) and settings";
    }
    return "what was measured, in any order";
  }

  // Whether the event needs no digest in the list: what it says is judged.
  bool LearnBootEvent(const LoggedEvent& event, EventsRule& rule) {
    if (event.type == EventType::kBootServicesApplication && event.index == 4 && Signed()) {
      rule.signed_images = SignedImages::kAccepted;
      return true;
    }
    if (event.type == EventType::kEventTag) return LearnLoadOptions(event, rule);
    if (event.type != EventType::kIpl) return false;
    measure::BankHasher hasher(bank());
    if (measure::CheckContent(*log_, event, hasher) != measure::ContentCheck::kMatches) {
      return false;
    }
    const measure::IplEvent ipl = measure::ParseIplEvent(event.data);
    const GrubText kind = KindOfGrubText(event);
    if (kind == GrubText::kCommand) {
      rule.commands = BootCommands::kAny;
      return true;
    }
    if (kind == GrubText::kCommandLine ||
        (ipl.kind == measure::IplKind::kUtf16Text && event.index == 12)) {
      rule.command_lines = CommandLines::kChecked;
      lines_.push_back(ipl.text);
      return true;
    }
    return false;
  }

  bool LearnLoadOptions(const LoggedEvent& event, EventsRule& rule) {
    const auto tagged = measure::ParseTaggedEvent(event.data);
    if (!tagged.has_value() || tagged->id != kLoadOptionsTag) return false;
    std::vector<std::string> candidates = lines_;
    if (!evidence_.facts.command_line.empty()) candidates.push_back(evidence_.facts.command_line);
    measure::BankHasher hasher(bank());
    const auto line = FindLoadOptions(candidates, log_->DigestOf(event, bank()), hasher);
    if (!line.has_value()) return false;
    rule.command_lines = CommandLines::kChecked;
    lines_.push_back(*line);
    return true;
  }

  bool Signed() {
    const auto rule = policy_.pcrs.find(7);
    if (rule == policy_.pcrs.end() && quoted_.at(bank()).contains(PcrIndex::Of<7>())) {
      LearnSecureBoot();
    }
    return signed_;
  }

  void LearnCommandLine() {
    if (lines_.empty()) return;
    std::set<std::string> allowed;
    std::set<std::string> required;
    for (const std::string& line : lines_) {
      for (const std::string& each : KernelArguments(line)) {
        const std::string name = each.substr(0, each.find('='));
        if (std::ranges::find(kProtecting, name) != kProtecting.end()) {
          required.insert(each);
        } else if (std::ranges::find(kOwnValues, name) != kOwnValues.end()) {
          allowed.insert(name);
        } else {
          allowed.insert(each);
        }
      }
    }
    policy_.command_line.required.assign(required.begin(), required.end());
    policy_.command_line.allowed.assign(allowed.begin(), allowed.end());
    remarks_["command-line"] =
        "the kernel's path may change, its arguments may not; a name without a value allows any";
  }

  void LearnFacts() {
    const HostFacts& facts = evidence_.facts;
    FactsRule& rule = policy_.facts;
    if (facts.lockdown == "integrity" || facts.lockdown == "confidentiality") {
      rule.lockdown = {facts.lockdown};
    }
    if (facts.iommu == "on") rule.iommu = {"on"};
    if (facts.kdump == "none") rule.kdump = {"none"};
    if (facts.swap == "none" || facts.swap == "encrypted") rule.swap = {"none", "encrypted"};
    if (facts.secure_boot == "on") rule.secure_boot = {"on"};
    remarks_["facts"] = "the host's own word: no proof, but a host that says otherwise is refused";
  }

  // Of the list from its first entry on, what the quote proves.
  Result<size_t> ProvenImaEntries(const measure::ImaLog& log) const {
    std::vector<HashAlgorithm> banks;
    std::vector<measure::ImaPcrValue> quoted;
    for (const auto& [bank, values] : quoted_) {
      const auto value = values.find(*PcrIndex::Create(measure::kImaPcr));
      if (value == values.end()) continue;
      banks.push_back(bank);
      quoted.push_back({.bank = bank, .value = value->second});
    }
    if (banks.empty()) {
      return Denied("nothing is learned from a list of IMA whose PCR was not quoted");
    }
    ASSIGN_OR_RETURN(const measure::ImaReplay replay,
                     measure::ReplayImaLog(log, measure::StartOfImaReplay(banks), quoted));
    if (!replay.Reached() || replay.proven == 0) {
      return Denied("nothing is learned from a list of IMA that is not proven: " +
                    (replay.Reached() ? "IMA measured nothing" : replay.refusal));
    }
    return replay.proven;
  }

  // "HEX  path" for each file, by the path; a path that needs escaping is left out.
  Result<std::string> LearnIma() const {
    ASSIGN_OR_RETURN_CONTEXT(
        const measure::ImaLog log,
        measure::ImaLog::Parse(evidence_.ima_log, measure::ImaTemplateHash::kDetect),
        "reading IMA's list");
    ASSIGN_OR_RETURN(const size_t proven, ProvenImaEntries(log));
    std::set<std::string> lines;
    for (const measure::ImaEntry& entry : log.entries().first(proven)) {
      const bool plain = entry.path.find_first_of("\\\n\r") == std::string_view::npos;
      if (entry.violation || entry.path.empty() || !plain || entry.digest.bytes.empty()) continue;
      lines.insert(ToHex(entry.digest.bytes) + "  " + std::string(entry.path) + "\n");
    }
    std::string out;
    for (const std::string& line : lines) out += line;
    return out;
  }

  const HostEvidence& evidence_;
  const PcrBanks& quoted_;
  const EventLog* log_;
  uint32_t proven_;
  AttestationPolicy policy_;
  std::map<std::string, std::string> remarks_;
  std::vector<std::string> lines_;
  bool signed_ = false;
};

}  // namespace

Result<LearnedPolicy> LearnPolicy(const std::string& name, const BoundTpm& tpm,
                                  const HostEvidence& evidence, ByteView nonce) {
  const QuoteVerdict quote = VerifyQuote(tpm.key,
                                         {.message = evidence.quote,
                                          .signature = evidence.signature,
                                          .format = evidence.format,
                                          .pcrs = evidence.pcrs},
                                         {.nonce = ToBytes(nonce),
                                          .pcrs = {},
                                          .signer = AnySigner{},
                                          .previous = FirstQuote{},
                                          .sha1 = Sha1Policy::kAccepted});
  if (!quote.Accepted()) {
    const QuoteFinding& first = quote.rejections.front();
    return Denied("nothing is learned from a quote that is not believed: " + first.what + " (" +
                  std::string(QuoteReasonName(first.reason)) + ")");
  }
  if (quote.pcrs.empty()) return InvalidInput("the quote covers no PCR");
  std::optional<EventLog> log;
  uint32_t proven = 0;
  if (!evidence.event_log.empty()) {
    ASSIGN_OR_RETURN_CONTEXT(log, EventLog::Parse(evidence.event_log, measure::EventLogKind::kTpm),
                             "reading the event log");
    // Only what the log must explain counts here: which banks and PCRs.
    AttestationPolicy all;
    all.mismatched_data = MismatchedData::kNoted;
    for (const auto& [bank, values] : quote.pcrs) all.banks.push_back(bank);
    for (uint32_t pcr = 8; pcr < PcrIndex::kCount; ++pcr) {
      all.pcrs.emplace(pcr, IgnoredRule{.because = "extended by the running system"});
    }
    Reasons reasons;
    proven = ProveEventLog(all, quote.pcrs, *log, reasons);
    const std::vector<Reason> list = std::move(reasons).TakeReasons();
    if (!list.empty()) {
      return Denied("nothing is learned from a log that explains nothing: " +
                    DescribeReason(list.front()));
    }
  }
  return Learner(name, tpm.kind, evidence, quote.pcrs, log.has_value() ? &*log : nullptr, proven)
      .Run();
}

}  // namespace vallum::attest

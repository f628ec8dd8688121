// SPDX-License-Identifier: Apache-2.0
#include "attest/reason.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "base/text.h"

namespace vallum::attest {
namespace {

constexpr size_t kMaxText = 500;

struct Row {
  ReasonId id;
  std::string_view name;
  std::string_view sentence;
};

constexpr std::array<Row, kReasonCount> kRows = {{
    {ReasonId::kNeverAttested, "never-attested", "the host never gave evidence"},
    {ReasonId::kTooOld, "too-old", "the last evidence is older than the policy admits"},
    {ReasonId::kPolicyDiffers, "policy-differs", "the evidence was made for another policy"},
    {ReasonId::kAkUnknown, "ak-unknown", "no attestation key is bound to the host"},
    {ReasonId::kAkDiffers, "ak-differs", "the quote is by another key than the host's"},
    {ReasonId::kAkUnfit, "ak-unfit", "the key is no restricted signing key of a TPM"},
    {ReasonId::kTpmEmulated, "tpm-emulated", "the TPM is emulated"},
    {ReasonId::kQuoteMalformed, "quote-malformed", "the quote cannot be read"},
    {ReasonId::kQuoteUnsupported, "quote-unsupported", "the signature's scheme is not accepted"},
    {ReasonId::kQuoteSha1, "quote-sha1", "SHA-1 signs or backs the quote"},
    {ReasonId::kQuoteSignature, "quote-signature", "the signature is not the key's"},
    {ReasonId::kQuoteNonce, "quote-nonce", "the quote answers another question"},
    {ReasonId::kQuoteSelection, "quote-selection", "the quote covers other PCRs than its values"},
    {ReasonId::kPcrValuesMalformed, "pcr-values-malformed", "the PCR values cannot be read"},
    {ReasonId::kPcrDigest, "pcr-digest", "the quote was made over other PCR values"},
    {ReasonId::kTpmClock, "tpm-clock", "the TPM's counters went backwards"},
    {ReasonId::kTpmFirmware, "tpm-firmware", "the TPM's firmware is not accepted"},
    {ReasonId::kEventLogAbsent, "event-log-absent", "rules need events and no log was given"},
    {ReasonId::kEventLogMalformed, "event-log-malformed", "the event log cannot be read"},
    {ReasonId::kEventLogBank, "event-log-bank", "the event log lacks a quoted bank"},
    {ReasonId::kEventLogReplay, "event-log-replay", "the event log does not explain the PCR"},
    {ReasonId::kEventData, "event-data", "an event's digest is not that of what it says"},
    {ReasonId::kBootPhase, "boot-phase", "systemd measured how far the boot came"},
    {ReasonId::kPcrWithoutRule, "pcr-without-rule", "a quoted PCR has no rule"},
    {ReasonId::kPcrNotQuoted, "pcr-not-quoted", "a PCR that has a rule was not quoted"},
    {ReasonId::kPcrValue, "pcr-value", "the PCR's value is not an accepted one"},
    {ReasonId::kNothingMeasured, "nothing-measured", "nothing was measured into the PCR"},
    {ReasonId::kSeparatorAbsent, "separator-absent", "the firmware did not end its part"},
    {ReasonId::kMeasuringFailed, "measuring-failed", "the firmware says that measuring failed"},
    {ReasonId::kFirmwareNotAccepted, "firmware-not-accepted", "firmware is not accepted"},
    {ReasonId::kImageNotAccepted, "image-not-accepted", "a loader or kernel is not accepted"},
    {ReasonId::kFileNotAccepted, "file-not-accepted", "a file that was loaded is not accepted"},
    {ReasonId::kCommandNotAccepted, "command-not-accepted", "a boot command is not accepted"},
    {ReasonId::kEventNotAccepted, "event-not-accepted", "a measurement is not accepted"},
    {ReasonId::kReferenceNotMatched, "reference-not-matched",
     "the measurements are not those of the reference components"},
    {ReasonId::kSecureBootOff, "secure-boot-off", "Secure Boot was not on"},
    {ReasonId::kSecureBootPolicy, "secure-boot-policy", "what was measured of Secure Boot is odd"},
    {ReasonId::kSecureBootKey, "secure-boot-key", "a Secure Boot key is not accepted"},
    {ReasonId::kSecureBootRevocation, "secure-boot-revocation", "a revocation is missing in dbx"},
    {ReasonId::kSignerNotAccepted, "signer-not-accepted", "a signer's programs are not accepted"},
    {ReasonId::kSbatLevel, "sbat-level", "shim's revocation level is too old"},
    {ReasonId::kCommandLineNotMeasured, "command-line-not-measured",
     "no command line of a kernel was measured"},
    {ReasonId::kCommandLineUnproven, "command-line-unproven",
     "nothing tells which command line was measured"},
    {ReasonId::kArgumentMissing, "argument-missing", "a required kernel argument is missing"},
    {ReasonId::kArgumentForbidden, "argument-forbidden", "a kernel argument is forbidden"},
    {ReasonId::kArgumentNotAllowed, "argument-not-allowed", "a kernel argument is not allowed"},
    {ReasonId::kCommandLineNotAccepted, "command-line-not-accepted",
     "the kernel's command line is not one of those accepted"},
    {ReasonId::kImaLogAbsent, "ima-log-absent", "a rule needs IMA's list and none was given"},
    {ReasonId::kImaLogGap, "ima-log-gap", "IMA's list does not go on where the last one ended"},
    {ReasonId::kImaLogMalformed, "ima-log-malformed", "IMA's list cannot be read"},
    {ReasonId::kImaReplay, "ima-replay", "IMA's list does not explain the PCR"},
    {ReasonId::kImaEntryDamaged, "ima-entry-damaged", "an entry is not what its digest says"},
    {ReasonId::kImaAllowList, "ima-allow-list", "the policy's allow list is not at hand"},
    {ReasonId::kImaViolation, "ima-violation", "a file was open for writing while measured"},
    {ReasonId::kImaFileUnknown, "ima-file-unknown", "a file is not in the allow list"},
    {ReasonId::kImaFileDigest, "ima-file-digest", "a file's content is not an allowed one"},
    {ReasonId::kImaFileSignature, "ima-file-signature", "a file's signature is not valid"},
    {ReasonId::kImaKeyNotAccepted, "ima-key-not-accepted", "a key in a keyring is not accepted"},
    {ReasonId::kImaEntryNotAccepted, "ima-entry-not-accepted", "an entry of IMA is not accepted"},
    {ReasonId::kFactAbsent, "fact-absent", "the host does not say what a rule asks for"},
    {ReasonId::kFactContradicted, "fact-contradicted", "what the host says was not measured so"},
    {ReasonId::kFactNotAccepted, "fact-not-accepted", "what the host says is not accepted"},
    {ReasonId::kMoreReasons, "more-reasons", "there are more reasons than are listed"},
}};

consteval bool InOrder() {
  for (size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<size_t>(kRows[i].id) != i) return false;
  }
  return true;
}
static_assert(InOrder(), "each reason has its row, at its place");

auto OrderOf(const Reason& reason) { return std::tuple(reason.id, reason.pcr, reason.event); }

void Clean(Reason& reason) {
  for (std::string* text : {&reason.content, &reason.expected, &reason.actual, &reason.fix}) {
    *text = Printable(*text, kMaxText);
  }
}

// Keeps one place for the remark that there were more.
void Keep(std::vector<Reason>& list, Reason reason) {
  if (list.size() + 1 < kMaxReasons) {
    Clean(reason);
    list.push_back(std::move(reason));
  } else if (list.size() < kMaxReasons) {
    list.push_back({.id = ReasonId::kMoreReasons});
  }
}

std::vector<Reason> Sorted(std::vector<Reason> list) {
  std::ranges::stable_sort(list, {}, OrderOf);
  return list;
}

nlohmann::ordered_json ReasonToJson(const Reason& reason) {
  nlohmann::ordered_json out = {{"id", ReasonName(reason.id)},
                                {"means", ReasonSentence(reason.id)}};
  if (reason.pcr.has_value()) out["pcr"] = *reason.pcr;
  if (reason.event.has_value()) out["event"] = *reason.event;
  const auto add = [&out](const char* name, const std::string& text) {
    if (!text.empty()) out[name] = text;
  };
  add("content", reason.content);
  add("expected", reason.expected);
  add("actual", reason.actual);
  add("fix", reason.fix);
  return out;
}

}  // namespace

std::string_view ReasonName(ReasonId id) { return kRows[static_cast<size_t>(id)].name; }

std::string_view ReasonSentence(ReasonId id) { return kRows[static_cast<size_t>(id)].sentence; }

std::optional<ReasonId> ReasonFromName(std::string_view name) {
  const auto* row = std::ranges::find(kRows, name, &Row::name);
  return row == kRows.end() ? std::nullopt : std::optional(row->id);
}

std::string_view HostVerdictName(HostVerdictKind kind) {
  switch (kind) {
    case HostVerdictKind::kTrusted:
      return "trusted";
    case HostVerdictKind::kUntrusted:
      return "untrusted";
    case HostVerdictKind::kUnknown:
      return "unknown";
    case HostVerdictKind::kStale:
      return "stale";
  }
  return "unknown";
}

void Reasons::Add(Reason reason) {
  ++added_;
  Keep(reasons_, std::move(reason));
}
void Reasons::Note(Reason reason) { Keep(notes_, std::move(reason)); }
std::vector<Reason> Reasons::TakeReasons() && { return Sorted(std::move(reasons_)); }
std::vector<Reason> Reasons::TakeNotes() && { return Sorted(std::move(notes_)); }

std::string DescribeReason(const Reason& reason) {
  std::string out(ReasonName(reason.id));
  const auto add = [&out](std::string_view word, const std::string& text) {
    if (!text.empty()) out.append(": ").append(word).append(text);
  };
  if (reason.pcr.has_value()) add("PCR ", std::to_string(*reason.pcr));
  if (reason.event.has_value()) add("event ", std::to_string(*reason.event));
  add("", reason.content);
  add("expected ", reason.expected);
  add("actual ", reason.actual);
  return out;
}

nlohmann::ordered_json VerdictToJson(const Verdict& verdict) {
  nlohmann::ordered_json out = {{"verdict", HostVerdictName(verdict.kind)},
                                {"policy", verdict.policy},
                                {"policyVersion", verdict.policy_version},
                                {"reasons", nlohmann::ordered_json::array()},
                                {"notes", nlohmann::ordered_json::array()}};
  for (const Reason& reason : verdict.reasons) out["reasons"].push_back(ReasonToJson(reason));
  for (const Reason& note : verdict.notes) out["notes"].push_back(ReasonToJson(note));
  return out;
}

}  // namespace vallum::attest

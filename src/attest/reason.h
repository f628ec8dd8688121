// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vallum::attest {

// What can be wrong with a host, in the order in which it is looked for. The names are an
// interface: never reused, never changed. docs/attestation-policy.md lists them with what to do.
enum class ReasonId {
  // Whose evidence it is.
  kNeverAttested,
  kTooOld,
  kPolicyDiffers,
  kAkUnknown,
  kAkDiffers,
  kAkUnfit,
  kTpmEmulated,
  // The quote.
  kQuoteMalformed,
  kQuoteUnsupported,
  kQuoteSha1,
  kQuoteSignature,
  kQuoteNonce,
  kQuoteSelection,
  kPcrValuesMalformed,
  kPcrDigest,
  kTpmClock,
  kTpmFirmware,
  // The event log.
  kEventLogAbsent,
  kEventLogMalformed,
  kEventLogBank,
  kEventLogReplay,
  kEventData,
  kBootPhase,  // a note only
  // Rules over PCRs.
  kPcrWithoutRule,
  kPcrNotQuoted,
  kPcrValue,
  kNothingMeasured,
  kSeparatorAbsent,
  kMeasuringFailed,
  kFirmwareNotAccepted,
  kImageNotAccepted,
  kFileNotAccepted,
  kCommandNotAccepted,
  kEventNotAccepted,
  kReferenceNotMatched,
  kSecureBootOff,
  kSecureBootPolicy,
  kSecureBootKey,
  kSecureBootRevocation,
  kSignerNotAccepted,
  kSbatLevel,
  // The kernel's command line.
  kCommandLineNotMeasured,
  kCommandLineUnproven,
  kArgumentMissing,
  kArgumentForbidden,
  kArgumentNotAllowed,
  kCommandLineNotAccepted,
  // The list of files that IMA measured.
  kImaLogAbsent,
  kImaLogGap,
  kImaLogMalformed,
  kImaReplay,
  kImaEntryDamaged,
  kImaAllowList,
  kImaViolation,
  kImaFileUnknown,
  kImaFileDigest,
  kImaFileSignature,
  kImaKeyNotAccepted,
  kImaEntryNotAccepted,
  // What the host says of itself.
  kFactAbsent,
  kFactContradicted,
  kFactNotAccepted,
  // There are more reasons than kMaxReasons.
  kMoreReasons,
};
inline constexpr size_t kReasonCount = static_cast<size_t>(ReasonId::kMoreReasons) + 1;

// "pcr-without-rule".
std::string_view ReasonName(ReasonId id);
std::optional<ReasonId> ReasonFromName(std::string_view name);
// One sentence on what the reason means, without what it is about.
std::string_view ReasonSentence(ReasonId id);

// One thing that is wrong, or, among the notes of a verdict, worth knowing. Texts are printable and
// bounded; empty when there is nothing to say.
struct Reason {
  ReasonId id = ReasonId::kMoreReasons;
  std::optional<uint32_t> pcr = std::nullopt;
  std::optional<size_t> event = std::nullopt;  // its number in the event log or in the list of IMA
  std::string content = {};                    // what the event says, decoded
  std::string expected = {};
  std::string actual = {};
  std::string fix = {};  // what to approve, or else what to do
  bool operator==(const Reason&) const = default;
};

enum class HostVerdictKind {
  kTrusted,
  kUntrusted,  // evidence says no
  kUnknown,    // never attested, or no policy is its
  kStale,      // the last evidence is too old
};
// "trusted", "untrusted", "unknown", "stale".
std::string_view HostVerdictName(HostVerdictKind kind);

// The judgement of one host by one policy. A value.
struct Verdict {
  HostVerdictKind kind = HostVerdictKind::kUnknown;
  std::string policy;  // its name
  uint64_t policy_version = 0;
  std::vector<Reason> reasons;  // empty only if trusted; in order of id, PCR, event
  std::vector<Reason> notes;    // what did not decide
  bool operator==(const Verdict&) const = default;
};
inline constexpr size_t kMaxReasons = 256;

// Collects reasons while a host is judged, at most kMaxReasons. Not thread-safe.
class Reasons {
 public:
  void Add(Reason reason);
  void Note(Reason reason);
  bool empty() const { return reasons_.empty(); }
  // How many were added; those beyond kMaxReasons count, too.
  size_t added() const { return added_; }
  // In order.
  std::vector<Reason> TakeReasons() &&;
  std::vector<Reason> TakeNotes() &&;

 private:
  size_t added_ = 0;
  std::vector<Reason> reasons_;
  std::vector<Reason> notes_;
};

// "pcr-value: PCR 7: expected ..., actual ...", one printable line.
std::string DescribeReason(const Reason& reason);

// {"verdict", "policy", "policyVersion", "reasons": [{"id", "pcr", "event", ...}], "notes"}.
nlohmann::ordered_json VerdictToJson(const Verdict& verdict);

}  // namespace vallum::attest

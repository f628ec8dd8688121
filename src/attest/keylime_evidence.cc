// SPDX-License-Identifier: Apache-2.0
#include "attest/keylime_evidence.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "attest/attestation.h"
#include "attest/host_verification.h"
#include "attest/keylime_quote.h"
#include "attest/quote_key.h"
#include "attest/serialized_pcrs.h"
#include "attest/tpm_public.h"
#include "base/text.h"
#include "base/units.h"
#include "formats/bounded_json.h"
#include "measure/ima_allow_list.h"

namespace vallum::attest {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr formats::JsonLimits kBodyLimits = {.depth = 10, .values = 400000};
constexpr formats::JsonLimits kTpmPolicyLimits = {.depth = 3, .values = kMaxTpmPolicyValues + 64};
constexpr formats::JsonLimits kRefstateLimits = {.depth = 10, .values = 16384};
constexpr uint32_t kImaPcr = 10;
constexpr size_t kMaxKeyText = 4096;

struct Failure {
  std::string type;
  OrderedJson context;
};

Failure MakeFailure(std::string type, const std::string& message) {
  return {.type = std::move(type), .context = {{"message", message}}};
}

// Keylime's own spelling: clients compare it.
Failure QuoteFailure(const std::string& message) {
  return MakeFailure("qoute_validation.quote_validation", message);
}

KeylimeReply Reply(int code, std::string_view status, OrderedJson results) {
  const OrderedJson body = {{"code", code}, {"status", status}, {"results", std::move(results)}};
  return {.status = code, .body = body.dump(-1, ' ', false, OrderedJson::error_handler_t::replace)};
}

KeylimeReply Refusal(const std::string& words) { return Reply(400, words, OrderedJson::object()); }

OrderedJson Results(const std::vector<Failure>& failures, const Json& claims) {
  OrderedJson list = OrderedJson::array();
  for (const Failure& each : failures) {
    list.push_back({{"type", each.type}, {"context", each.context}});
  }
  return {
      {"valid", failures.empty()}, {"failures", std::move(list)}, {"claims", OrderedJson(claims)}};
}

KeylimeReply Verdict200(const std::vector<Failure>& failures, const Json& data) {
  return Reply(200, "Success", Results(failures, failures.empty() ? data : Json::object()));
}

std::string OfPcr(std::string_view type, const Reason& reason) {
  return std::string(type) + (reason.pcr.has_value() ? std::to_string(*reason.pcr) : "");
}

// What Keylime calls a reason: component, parts, event.
std::string FailureType(const Reason& reason) {
  switch (reason.id) {
    case ReasonId::kQuoteSha1:
      return "qoute_validation.invalid_hash_alg";
    case ReasonId::kAkUnknown:
    case ReasonId::kAkDiffers:
    case ReasonId::kAkUnfit:
    case ReasonId::kTpmEmulated:
    case ReasonId::kQuoteMalformed:
    case ReasonId::kQuoteUnsupported:
    case ReasonId::kQuoteSignature:
    case ReasonId::kQuoteNonce:
    case ReasonId::kQuoteSelection:
    case ReasonId::kPcrValuesMalformed:
    case ReasonId::kPcrDigest:
    case ReasonId::kTpmClock:
    case ReasonId::kTpmFirmware:
      return "qoute_validation.quote_validation";
    case ReasonId::kPcrNotQuoted:
      return "pcr_validation.missing_pcrs";
    case ReasonId::kPcrWithoutRule:
    case ReasonId::kImaLogAbsent:
    case ReasonId::kEventLogAbsent:
      return OfPcr("pcr_validation.unused_pcr_", reason);
    case ReasonId::kPcrValue:
    case ReasonId::kNothingMeasured:
    case ReasonId::kReferenceNotMatched:
      return OfPcr("pcr_validation.invalid_pcr_", reason);
    case ReasonId::kEventLogReplay:
      return OfPcr("measured_boot.invalid_pcr_", reason);
    case ReasonId::kEventLogMalformed:
    case ReasonId::kEventLogBank:
    case ReasonId::kEventData:
    case ReasonId::kBootPhase:
      return "measured_boot.parser.tpm2_eventlog";
    case ReasonId::kSeparatorAbsent:
    case ReasonId::kMeasuringFailed:
    case ReasonId::kFirmwareNotAccepted:
    case ReasonId::kImageNotAccepted:
    case ReasonId::kFileNotAccepted:
    case ReasonId::kCommandNotAccepted:
    case ReasonId::kEventNotAccepted:
    case ReasonId::kSecureBootOff:
    case ReasonId::kSecureBootPolicy:
    case ReasonId::kSecureBootKey:
    case ReasonId::kSecureBootRevocation:
    case ReasonId::kSignerNotAccepted:
    case ReasonId::kSbatLevel:
    case ReasonId::kCommandLineNotMeasured:
    case ReasonId::kCommandLineUnproven:
    case ReasonId::kArgumentMissing:
    case ReasonId::kArgumentForbidden:
    case ReasonId::kArgumentNotAllowed:
    case ReasonId::kCommandLineNotAccepted:
      return "measured_boot.policy_vallum";
    case ReasonId::kImaLogGap:
    case ReasonId::kImaReplay:
      return "ima.pcr_mismatch";
    case ReasonId::kImaLogMalformed:
    case ReasonId::kImaEntryDamaged:
      return "ima.parser.entry";
    case ReasonId::kImaViolation:
      return "ima.tomtou";
    case ReasonId::kImaFileUnknown:
    case ReasonId::kImaAllowList:
    case ReasonId::kImaEntryNotAccepted:
      return "ima.validation.ima-ng.not_in_allowlist";
    case ReasonId::kImaFileDigest:
      return "ima.validation.ima-ng.runtime_policy_hash";
    case ReasonId::kImaFileSignature:
      return "ima.validation.ima-sig.invalid_signature";
    case ReasonId::kImaKeyNotAccepted:
      return "ima.validation.ima-buf.not_in_allowlist";
    case ReasonId::kNeverAttested:
    case ReasonId::kTooOld:
    case ReasonId::kPolicyDiffers:
    case ReasonId::kFactAbsent:
    case ReasonId::kFactContradicted:
    case ReasonId::kFactNotAccepted:
    case ReasonId::kMoreReasons:
      return "default." + std::string(ReasonName(reason.id));
  }
  return "default.unknown";
}

Failure FailureOf(const Reason& reason) {
  std::string message = reason.id == ReasonId::kImaFileUnknown
                            ? "File not found in allowlist: " + reason.content
                            : DescribeReason(reason);
  Failure out = MakeFailure(FailureType(reason), message);
  out.context["reason"] = ReasonName(reason.id);
  if (!reason.actual.empty()) out.context["got"] = reason.actual;
  if (!reason.expected.empty()) out.context["expected"] = reason.expected;
  return out;
}

// "db, dbx, kernels", safe to print.
std::string MemberNames(const Json& object) {
  std::vector<std::string> names;
  for (const auto& [name, value] : object.items()) names.push_back(name);
  return Printable(Join(names, ", "));
}

std::optional<HashAlgorithm> BankOf(std::string_view name) {
  for (const HashAlgorithm bank : {HashAlgorithm::kSha1, HashAlgorithm::kSha256,
                                   HashAlgorithm::kSha384, HashAlgorithm::kSha512}) {
    if (name == HashAlgorithmName(bank)) return bank;
  }
  return std::nullopt;
}

// A text; of an object, its JSON: clients send policies either way.
std::string TextOf(const Json& data, const char* name) {
  const auto found = data.find(name);
  if (found == data.end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  return found->dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<uint32_t> ParseMask(const Json& value) {
  if (value.is_number_unsigned() && value.get<uint64_t>() < (uint64_t{1} << PcrIndex::kCount)) {
    return value.get<uint32_t>();
  }
  const std::string text = value.is_string() ? value.get<std::string>() : "";
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  const char* const begin = text.data() + (hex ? 2 : 0);
  const char* const end = text.data() + text.size();
  uint32_t mask = 0;
  const auto parsed = std::from_chars(begin, end, mask, hex ? 16 : 10);
  if (parsed.ec != std::errc() || parsed.ptr != end || mask >= (1U << PcrIndex::kCount)) {
    return InvalidInput("tpm_policy: mask is none of PCRs 0 to 23");
  }
  return mask;
}

Result<GoldenRule> ParseValues(const std::string& pcr, const Json& value, HashAlgorithm bank) {
  const Json list = value.is_array() ? value : Json::array({value});
  std::vector<AcceptedDigest> out;
  for (const Json& each : list) {
    if (!each.is_string()) return InvalidInput("tpm_policy: PCR " + pcr + ": a value is no text");
    std::string_view text = each.get_ref<const std::string&>();
    if (text.starts_with("0x")) text.remove_prefix(2);
    ASSIGN_OR_RETURN_CONTEXT(Bytes digest, FromHex(text), "reading tpm_policy, PCR " + pcr);
    if (digest.size() != DigestSize(bank)) {
      return InvalidInput("tpm_policy: PCR " + pcr + ": a value is no digest of bank " +
                          std::string(HashAlgorithmName(bank)));
    }
    out.push_back({.what = "tpm_policy", .digests = {{.bank = bank, .digest = std::move(digest)}}});
  }
  return GoldenRule{.values = AcceptedDigests(std::move(out))};
}

// A member that the question must have. Errors: kInvalidInput.
Result<std::string> Required(const Json& data, const char* name) {
  std::string text = TextOf(data, name);
  if (text.empty()) {
    return InvalidInput("missing required parameter '" + std::string(name) + "'");
  }
  return text;
}

constexpr uint32_t kFirmwareMask = (1U << kFirmwarePcrs) - 1;

// Judges one question. The policies are the caller's, so that what is wrong with them is an error;
// the evidence is the host's, so that what is wrong with it is a failure.
class EvidenceQuestion {
 public:
  explicit EvidenceQuestion(const Json& data) : data_(data) {}

  // Errors: kInvalidInput, kExhausted: the question cannot be decided.
  Result<std::vector<Failure>> Judge() {
    RETURN_IF_ERROR(ReadParameters());
    RETURN_IF_ERROR(ReadPolicies());
    std::optional<QuoteKey> key = ReadKeys();
    ReadQuote();
    const std::string log = TextOf(data_, data_.contains("mb_list") ? "mb_list" : "mb_log");
    auto event_log = FromBase64(log);
    if (!event_log.has_value()) {
      failures_.push_back(
          MakeFailure("measured_boot.parser.tpm2_eventlog", "the boot event log is no base64"));
    }
    if (!failures_.empty() || !key.has_value()) return std::move(failures_);
    const std::string ima = TextOf(data_, "ima_measurement_list");
    const HostEvidence evidence = {.quote = quote_.message,
                                   .signature = quote_.signature,
                                   .pcrs = pcrs_,
                                   .event_log = *event_log,
                                   .ima_log = AsBytes(ima),
                                   .facts = {}};
    IgnoreTheRest();
    const SharedPolicy policy = PreparePolicy(policy_, allow_list_);
    const HostJudgement judged = VerifyHost({.key = *std::move(key), .kind = TpmKind::kUnknown},
                                            evidence, HostState{}, *policy, Nonce());
    for (const Reason& each : judged.verdict.reasons) failures_.push_back(FailureOf(each));
    if (failures_.empty() && judged.verdict.kind != HostVerdictKind::kTrusted) {
      failures_.push_back(QuoteFailure("the evidence proves nothing"));
    }
    return std::move(failures_);
  }

 private:
  Result<void> ReadParameters() {
    ASSIGN_OR_RETURN(quote_text_, Required(data_, "quote"));
    ASSIGN_OR_RETURN(nonce_, Required(data_, "nonce"));
    ASSIGN_OR_RETURN(const std::string hash, Required(data_, "hash_alg"));
    ASSIGN_OR_RETURN(ek_, Required(data_, "tpm_ek"));
    ASSIGN_OR_RETURN(ak_, Required(data_, "tpm_ak"));
    const auto bank = BankOf(hash);
    if (!bank.has_value()) {
      return InvalidInput("hash_alg is none of sha1, sha256, sha384, sha512");
    }
    if (nonce_.size() > 2 * kMaxNonce) return InvalidInput("nonce is longer than a TPM takes");
    policy_.name = "keylime";
    policy_.banks = {*bank};
    // As Keylime has it: what a loader logs of what it hashed is information.
    policy_.mismatched_data = MismatchedData::kNoted;
    return Ok();
  }

  Result<void> ReadPolicies() {
    const std::string tpm = TextOf(data_, "tpm_policy");
    const std::string runtime = TextOf(data_, "runtime_policy");
    const std::string boot = TextOf(data_, "mb_policy");
    if (!tpm.empty()) {
      ASSIGN_OR_RETURN(KeylimeTpmPolicy parsed, ParseKeylimeTpmPolicy(tpm, policy_.banks.front()));
      for (auto& [pcr, rule] : parsed.golden) policy_.pcrs.insert_or_assign(pcr, std::move(rule));
      mask_ = parsed.mask;
    }
    // A tpm_policy that asks for nothing is none.
    if (policy_.pcrs.empty() && mask_ == 0 && runtime.empty() && boot.empty()) {
      return InvalidInput(
          "at least one policy (tpm_policy, runtime_policy, or mb_policy) must be provided");
    }
    if (!runtime.empty()) {
      if (policy_.pcrs.contains(kImaPcr)) {
        return InvalidInput("tpm_policy gives values of PCR 10, which runtime_policy is about");
      }
      ASSIGN_OR_RETURN_CONTEXT(allow_list_, measure::ImportKeylimePolicy(runtime),
                               "reading runtime_policy");
      policy_.pcrs.insert_or_assign(kImaPcr, ImaPcrRule{});
      policy_.ima.allow_list = "runtime_policy";
    }
    return ReadBootPolicy(boot);
  }

  // An empty one asks that the log replays to the quote, which is asked of any log that is given,
  // and that the quote covers the firmware's PCRs: a log of others is nobody's word.
  Result<void> ReadBootPolicy(const std::string& text) {
    if (text.empty()) return Ok();
    ASSIGN_OR_RETURN_CONTEXT(const Json json, formats::ParseBoundedJson(text, kRefstateLimits),
                             "reading mb_policy");
    if (!json.is_object()) return InvalidInput("mb_policy is no object");
    if (!json.empty()) {
      return InvalidInput(
                 "mb_policy: reference states of Keylime's boot policies are not judged; "
                 "this one has " +
                 MemberNames(json))
          .WithFix("send {} to have the log compared with the quote, and judge boots by a policy");
    }
    mask_ |= kFirmwareMask;
    if (TextOf(data_, "mb_list").empty() && TextOf(data_, "mb_log").empty()) {
      failures_.push_back(
          MakeFailure("pcr_validation.unused_pcr_0", "mb_policy is given, but no boot event log"));
    }
    return Ok();
  }

  std::optional<QuoteKey> ReadKeys() {
    const auto read = [this](const std::string& text, const char* name) {
      auto bytes =
          text.size() > kMaxKeyText ? Result<Bytes>(Exhausted("too long")) : FromBase64(Trim(text));
      auto key = bytes.has_value() ? ParseTpm2bPublic(*bytes) : Result<TpmPublic>(bytes.error());
      if (!key.has_value()) {
        failures_.push_back(
            QuoteFailure(std::string(name) + " is no TPM2B_PUBLIC: " + key.error().Describe()));
      }
      return key;
    };
    static_cast<void>(read(ek_, "tpm_ek"));
    const auto ak = read(ak_, "tpm_ak");
    if (!ak.has_value()) return std::nullopt;
    auto key = QuoteKey::Create(*ak);
    if (key.has_value()) return *std::move(key);
    failures_.push_back(QuoteFailure("tpm_ak: " + key.error().Describe()));
    return std::nullopt;
  }

  void ReadQuote() {
    auto quote = ParseKeylimeQuote(quote_text_);
    if (!quote.has_value()) {
      failures_.push_back(QuoteFailure(quote.error().Describe()));
      return;
    }
    quote_ = *std::move(quote);
    auto pcrs = ParseSerializedPcrs(quote_.pcrs);
    if (pcrs.has_value()) {
      pcrs_ = *std::move(pcrs);
    } else {
      failures_.push_back(QuoteFailure("the PCRs of the quote: " + pcrs.error().Describe()));
    }
  }

  // A nonce is text, and stands for its own bytes; some clients write bytes as hexadecimal. Both
  // say which nonce is asked for.
  Bytes Nonce() const {
    const auto hex = FromHex(nonce_);
    const auto quoted = ParseAttestation(quote_.message);
    if (hex.has_value() && quoted.has_value() && quoted->nonce == *hex) return *hex;
    return ToBytes(AsBytes(nonce_));
  }

  // Of PCRs that no policy is about nothing is asked, but to be quoted if the mask says so.
  void IgnoreTheRest() {
    uint32_t rest = mask_;
    if (const auto quoted = pcrs_.find(policy_.banks.front()); quoted != pcrs_.end()) {
      for (const auto& [pcr, value] : quoted->second) rest |= 1U << pcr.value();
    }
    for (uint32_t pcr = 0; pcr < PcrIndex::kCount; ++pcr) {
      if ((rest >> pcr & 1U) == 0) continue;
      policy_.pcrs.emplace(pcr, IgnoredRule{.because = "no policy of the question is about it"});
    }
  }

  const Json& data_;
  std::string quote_text_;
  std::string nonce_;
  std::string ek_;
  std::string ak_;
  AttestationPolicy policy_;
  uint32_t mask_ = 0;
  measure::SharedImaAllowList allow_list_;
  KeylimeQuote quote_;
  PcrBanks pcrs_;
  std::vector<Failure> failures_;
};

}  // namespace

Result<KeylimeTpmPolicy> ParseKeylimeTpmPolicy(std::string_view text, HashAlgorithm bank) {
  ASSIGN_OR_RETURN_CONTEXT(const Json json, formats::ParseBoundedJson(text, kTpmPolicyLimits),
                           "reading tpm_policy");
  if (!json.is_object()) return InvalidInput("tpm_policy is no object");
  KeylimeTpmPolicy out;
  size_t count = 0;
  for (const auto& [name, value] : json.items()) {
    if (name == "mask") {
      ASSIGN_OR_RETURN(out.mask, ParseMask(value));
      continue;
    }
    uint32_t pcr = PcrIndex::kCount;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), pcr);
    if (parsed.ec != std::errc() || parsed.ptr != name.data() + name.size() ||
        pcr >= PcrIndex::kCount) {
      return InvalidInput("tpm_policy: \"" + Printable(name, 40) + "\" is no PCR");
    }
    ASSIGN_OR_RETURN(GoldenRule rule, ParseValues(name, value, bank));
    count += rule.values.list().size();
    if (count > kMaxTpmPolicyValues) return Exhausted("tpm_policy has too many values");
    // "1" and "01" are the same PCR.
    if (!out.golden.emplace(pcr, std::move(rule)).second) {
      return InvalidInput("tpm_policy: PCR " + std::to_string(pcr) + " is there twice");
    }
  }
  return out;
}

KeylimeReply VerifyKeylimeEvidence(std::string_view body) {
  if (body.size() > kMaxKeylimeBody) return Refusal("the body is too large");
  const auto json = formats::ParseBoundedJson(body, kBodyLimits);
  if (!json.has_value()) return Refusal(json.error().Describe());
  if (!json->is_object()) return Refusal("the body is no object");
  const std::string type = TextOf(*json, "type");
  if (type.empty()) return Refusal("missing parameter 'type'");
  const auto data = json->find("data");
  if (data == json->end() || !data->is_object() || data->empty()) {
    return Refusal("missing parameter 'data'");
  }
  if (type == "tee") return Refusal("evidence of type 'tee' is not supported: send type 'tpm'");
  if (type != "tpm") return Refusal("invalid evidence type");
  const auto failures = EvidenceQuestion(*data).Judge();
  if (failures.has_value()) return Verdict200(*failures, *data);
  std::string words = failures.error().Describe();
  if (!failures.error().fix().empty()) words += "; " + failures.error().fix();
  return Reply(400, "Bad Request",
               Results({MakeFailure("default.invalid_param", words)}, Json::object()));
}

KeylimeReply KeylimeVersion() {
  return Reply(200, "Success", {{"current_version", "2.5"}, {"supported_versions", {"2.5"}}});
}

}  // namespace vallum::attest

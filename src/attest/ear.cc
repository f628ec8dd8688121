// SPDX-License-Identifier: Apache-2.0
#include "attest/ear.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"
#include "formats/bounded_json.h"

namespace vallum::attest {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr formats::JsonLimits kLimits = {.depth = 12, .values = 16384};
constexpr size_t kMaxEarText = 4096;

constexpr std::array<std::string_view, kEarClaimCount> kClaimNames = {
    "instance-identity", "configuration",  "executables",    "file-system",
    "hardware",          "runtime-opaque", "storage-opaque", "sourced-data"};

// Values of AR4SI, section 2.3.4, that are used here.
constexpr int8_t kApproved = 2;           // of each claim
constexpr int8_t kApprovedAtBoot = 3;     // executables: what ran later is not known
constexpr int8_t kContraindicated = 96;   // of each claim
constexpr int8_t kUnrecognized = 97;      // instance-identity, hardware
constexpr int8_t kNotCryptographic = 99;  // the evidence itself does not verify

struct Contradiction {
  EarClaim claim;
  int8_t value;
};

// Firmware is in PCRs 0 and 2, configuration in 1, 3, 5, 6 and 7: PC Client Platform Firmware
// Profile 1.06, section 3.3.4. What loaders and the system measure is in the others.
EarClaim ClaimOfPcr(std::optional<uint32_t> pcr) {
  if (!pcr.has_value()) return EarClaim::kExecutables;
  if (*pcr == 0 || *pcr == 2) return EarClaim::kHardware;
  if (*pcr == 1 || *pcr == 3 || (*pcr >= 5 && *pcr <= 7)) return EarClaim::kConfiguration;
  return EarClaim::kExecutables;
}

// Nothing: the reason is about no claim, or about all of them (see IsOfEvidence).
std::optional<Contradiction> ContradictionOf(const Reason& reason) {
  switch (reason.id) {
    case ReasonId::kAkUnknown:
    case ReasonId::kAkDiffers:
    case ReasonId::kAkUnfit:
      return Contradiction{EarClaim::kInstanceIdentity, kUnrecognized};
    case ReasonId::kTpmEmulated:
      return Contradiction{EarClaim::kHardware, kUnrecognized};
    case ReasonId::kTpmFirmware:
    case ReasonId::kFirmwareNotAccepted:
      return Contradiction{EarClaim::kHardware, kContraindicated};
    case ReasonId::kPcrWithoutRule:
    case ReasonId::kPcrNotQuoted:
    case ReasonId::kPcrValue:
    case ReasonId::kNothingMeasured:
    case ReasonId::kSeparatorAbsent:
    case ReasonId::kMeasuringFailed:
    case ReasonId::kReferenceNotMatched:
    case ReasonId::kEventNotAccepted:
      return Contradiction{ClaimOfPcr(reason.pcr), kContraindicated};
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
    case ReasonId::kFactAbsent:
    case ReasonId::kFactContradicted:
    case ReasonId::kFactNotAccepted:
      return Contradiction{EarClaim::kConfiguration, kContraindicated};
    case ReasonId::kEventLogAbsent:
    case ReasonId::kEventLogMalformed:
    case ReasonId::kEventLogBank:
    case ReasonId::kEventLogReplay:
    case ReasonId::kEventData:
    case ReasonId::kBootPhase:
    case ReasonId::kImageNotAccepted:
    case ReasonId::kFileNotAccepted:
    case ReasonId::kCommandNotAccepted:
    case ReasonId::kImaLogAbsent:
    case ReasonId::kImaLogGap:
    case ReasonId::kImaLogMalformed:
    case ReasonId::kImaReplay:
    case ReasonId::kImaEntryDamaged:
    case ReasonId::kImaAllowList:
    case ReasonId::kImaViolation:
    case ReasonId::kImaFileUnknown:
    case ReasonId::kImaFileDigest:
    case ReasonId::kImaFileSignature:
    case ReasonId::kImaKeyNotAccepted:
    case ReasonId::kImaEntryNotAccepted:
      return Contradiction{EarClaim::kExecutables, kContraindicated};
    case ReasonId::kNeverAttested:
    case ReasonId::kTooOld:
    case ReasonId::kPolicyDiffers:
    case ReasonId::kQuoteMalformed:
    case ReasonId::kQuoteUnsupported:
    case ReasonId::kQuoteSha1:
    case ReasonId::kQuoteSignature:
    case ReasonId::kQuoteNonce:
    case ReasonId::kQuoteSelection:
    case ReasonId::kPcrValuesMalformed:
    case ReasonId::kPcrDigest:
    case ReasonId::kTpmClock:
    case ReasonId::kMoreReasons:
      return std::nullopt;
  }
  return std::nullopt;
}

// The quote is not believed, so that nothing is known of any claim.
bool IsOfEvidence(ReasonId id) {
  return id >= ReasonId::kQuoteMalformed && id <= ReasonId::kTpmClock;
}

TrustVector VectorOfTrusted(const HostStanding& host) {
  TrustVector out;
  out[EarClaim::kInstanceIdentity] = kApproved;
  out[EarClaim::kConfiguration] = kApproved;
  out[EarClaim::kExecutables] = host.files_judged ? kApproved : kApprovedAtBoot;
  // Of a program that acts as a TPM, no claim on hardware can be made.
  if (host.hardware_tpm) out[EarClaim::kHardware] = kApproved;
  return out;
}

TrustVector VectorOfUntrusted(const HostStanding& host) {
  TrustVector out;
  for (const Reason& reason : host.reasons) {
    if (IsOfEvidence(reason.id)) {
      out.values.fill(kNotCryptographic);
      return out;
    }
    if (const auto found = ContradictionOf(reason); found.has_value()) {
      std::optional<int8_t>& value = out[found->claim];
      value = std::max(value.value_or(found->value), found->value);
    }
  }
  return out;
}

OrderedJson AppraisalJson(const EarAppraisal& appraisal) {
  OrderedJson out = {{"ear.status", EarStatusName(appraisal.status)}};
  OrderedJson vector = OrderedJson::object();
  for (size_t i = 0; i < kEarClaimCount; ++i) {
    if (appraisal.vector.values[i].has_value()) {
      vector[std::string(kClaimNames[i])] = static_cast<int>(*appraisal.vector.values[i]);
    }
  }
  if (!vector.empty()) out["ear.trustworthiness-vector"] = std::move(vector);
  if (!appraisal.policy_id.empty()) out["ear.appraisal-policy-id"] = appraisal.policy_id;
  if (!appraisal.reasons.empty()) {
    out["ear.veraison.policy-claims"] = {{"problem", appraisal.reasons.front()},
                                         {"reasons", appraisal.reasons}};
  }
  return out;
}

Error Wrong(const std::string& name, std::string_view what) {
  return InvalidInput("EAR: " + name + " " + std::string(what));
}

Result<std::string> Text(const Json& object, const std::string& name) {
  const auto found = object.find(name);
  if (found == object.end()) return Wrong(name, "is missing");
  if (!found->is_string()) return Wrong(name, "is no text");
  const auto& text = found->get_ref<const std::string&>();
  if (text.size() > kMaxEarText) return Exhausted("EAR: " + name + " is too long");
  return text;
}

Result<std::string> OptionalText(const Json& object, const std::string& name) {
  if (!object.contains(name)) return std::string();
  return Text(object, name);
}

Result<EarStatus> ParseStatus(const std::string& text) {
  for (const EarStatus status : {EarStatus::kNone, EarStatus::kAffirming, EarStatus::kWarning,
                                 EarStatus::kContraindicated}) {
    if (text == EarStatusName(status)) return status;
  }
  return Wrong("ear.status", "is \"" + Printable(text, 40) + "\", which is no tier");
}

Result<TrustVector> ParseVector(const Json& json) {
  if (!json.is_object()) return Wrong("ear.trustworthiness-vector", "is no object");
  TrustVector out;
  for (const auto& [name, value] : json.items()) {
    const auto* const found = std::ranges::find(kClaimNames, name);
    if (found == kClaimNames.end()) return Wrong(Printable(name, 40), "is no claim");
    if (!value.is_number_integer() || value < INT8_MIN || value > INT8_MAX) {
      return Wrong(name, "is no whole number from -128 to 127");
    }
    out.values[static_cast<size_t>(found - kClaimNames.begin())] = value.get<int8_t>();
  }
  return out;
}

Result<std::vector<std::string>> ParseReasons(const Json& appraisal) {
  const auto claims = appraisal.find("ear.veraison.policy-claims");
  if (claims == appraisal.end()) return std::vector<std::string>();
  if (!claims->is_object()) return Wrong("ear.veraison.policy-claims", "is no object");
  const auto list = claims->find("reasons");
  if (list == claims->end()) {
    ASSIGN_OR_RETURN(const std::string problem, OptionalText(*claims, "problem"));
    return problem.empty() ? std::vector<std::string>() : std::vector<std::string>{problem};
  }
  if (!list->is_array() || list->empty() || list->size() > kMaxReasons) {
    return Wrong("reasons", "is no list of 1 to " + std::to_string(kMaxReasons));
  }
  std::vector<std::string> out;
  for (const Json& each : *list) {
    if (!each.is_string()) return Wrong("reasons", "has what is no text");
    out.push_back(each.get<std::string>());
  }
  return out;
}

Result<EarAppraisal> ParseAppraisal(const Json& json) {
  if (!json.is_object()) return Wrong("an appraisal", "is no object");
  EarAppraisal out;
  ASSIGN_OR_RETURN(const std::string status, Text(json, "ear.status"));
  ASSIGN_OR_RETURN(out.status, ParseStatus(status));
  if (const auto vector = json.find("ear.trustworthiness-vector"); vector != json.end()) {
    ASSIGN_OR_RETURN(out.vector, ParseVector(*vector));
  }
  ASSIGN_OR_RETURN(out.policy_id, OptionalText(json, "ear.appraisal-policy-id"));
  ASSIGN_OR_RETURN(out.reasons, ParseReasons(json));
  return out;
}

Result<std::map<std::string, EarAppraisal>> SubmodsOf(const Json& json) {
  if (!json.is_object() || json.empty()) return Wrong("submods", "has no appraisal");
  if (json.size() > kMaxEarSubmods) return Exhausted("EAR: too many submods");
  std::map<std::string, EarAppraisal> out;
  for (const auto& [name, value] : json.items()) {
    ASSIGN_OR_RETURN_CONTEXT(EarAppraisal appraisal, ParseAppraisal(value),
                             "reading submod " + Printable(name, 80));
    out.emplace(name, std::move(appraisal));
  }
  return out;
}

Result<Json> ParseText(std::string_view text) {
  if (text.size() > kMaxEar) return Exhausted("an EAR of more than 256 KiB");
  ASSIGN_OR_RETURN(Json json, formats::ParseBoundedJson(text, kLimits));
  return json;
}

}  // namespace

std::string_view EarStatusName(EarStatus status) {
  switch (status) {
    case EarStatus::kNone:
      return "none";
    case EarStatus::kAffirming:
      return "affirming";
    case EarStatus::kWarning:
      return "warning";
    case EarStatus::kContraindicated:
      return "contraindicated";
  }
  return "none";
}

EarStatus TierOf(int8_t value) {
  if (value >= -1 && value <= 1) return EarStatus::kNone;
  if (value >= -32 && value <= 31) return EarStatus::kAffirming;
  if (value >= -96 && value <= 95) return EarStatus::kWarning;
  return EarStatus::kContraindicated;
}

std::string_view EarClaimName(EarClaim claim) { return kClaimNames[static_cast<size_t>(claim)]; }

EarStatus TrustVector::Tier() const {
  EarStatus out = EarStatus::kNone;
  for (const auto& value : values) {
    if (value.has_value()) out = std::max(out, TierOf(*value));
  }
  return out;
}

EarAppraisal AppraiseHost(const HostStanding& host) {
  EarAppraisal out;
  switch (host.kind) {
    case HostVerdictKind::kTrusted:
      out.status = EarStatus::kAffirming;
      out.vector = VectorOfTrusted(host);
      break;
    case HostVerdictKind::kStale:
      // Whose key it is does not age; all else was true at another time.
      out.status = EarStatus::kWarning;
      out.vector[EarClaim::kInstanceIdentity] = kApproved;
      break;
    case HostVerdictKind::kUntrusted:
      out.status = EarStatus::kContraindicated;
      out.vector = VectorOfUntrusted(host);
      break;
    case HostVerdictKind::kUnknown:
      out.status = EarStatus::kNone;
      break;
  }
  if (!host.policy.empty()) {
    out.policy_id = "policy:" + host.policy + ":" + std::to_string(host.policy_version);
  }
  for (const Reason& reason : host.reasons) out.reasons.push_back(DescribeReason(reason));
  return out;
}

std::string FormatEar(const Ear& ear) {
  OrderedJson out = {{"eat_profile", kEarProfile},
                     {"iat", ear.issued_at},
                     {"ear.verifier-id", {{"developer", ear.developer}, {"build", ear.build}}}};
  if (!ear.nonce.empty()) out["eat_nonce"] = ear.nonce;
  OrderedJson submods = OrderedJson::object();
  for (const auto& [name, appraisal] : ear.submods) submods[name] = AppraisalJson(appraisal);
  out["submods"] = std::move(submods);
  return out.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

Result<Ear> ParseEar(std::string_view text) {
  ASSIGN_OR_RETURN(const Json json, ParseText(text));
  if (!json.is_object()) return Wrong("it", "is no object");
  ASSIGN_OR_RETURN(const std::string profile, Text(json, "eat_profile"));
  if (profile != kEarProfile) return Wrong("eat_profile", "is not " + std::string(kEarProfile));
  Ear out;
  const auto issued = json.find("iat");
  if (issued == json.end() || !issued->is_number_integer() ||
      (issued->is_number_unsigned() && issued->get<uint64_t>() > INT64_MAX)) {
    return Wrong("iat", "is no whole number");
  }
  out.issued_at = issued->get<int64_t>();
  const auto verifier = json.find("ear.verifier-id");
  if (verifier == json.end() || !verifier->is_object()) {
    return Wrong("ear.verifier-id", "is no object");
  }
  ASSIGN_OR_RETURN(out.developer, Text(*verifier, "developer"));
  ASSIGN_OR_RETURN(out.build, Text(*verifier, "build"));
  ASSIGN_OR_RETURN(out.nonce, OptionalText(json, "eat_nonce"));
  const auto submods = json.find("submods");
  if (submods == json.end()) return Wrong("submods", "is missing");
  ASSIGN_OR_RETURN(out.submods, SubmodsOf(*submods));
  return out;
}

Result<std::map<std::string, EarAppraisal>> ParseEarSubmods(std::string_view text) {
  ASSIGN_OR_RETURN(const Json json, ParseText(text));
  return SubmodsOf(json);
}

std::string EarSigningInput(const Ear& ear, const std::vector<Bytes>& chain) {
  OrderedJson header = {{"alg", "ES256"}, {"typ", "JWT"}, {"x5c", OrderedJson::array()}};
  for (const Bytes& certificate : chain) header["x5c"].push_back(ToBase64(certificate));
  return ToBase64Url(AsBytes(header.dump())) + "." + ToBase64Url(AsBytes(FormatEar(ear)));
}

}  // namespace vallum::attest

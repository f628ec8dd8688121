// SPDX-License-Identifier: Apache-2.0
#include "images/inspection_json.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "formats/pe.h"
#include "images/boot_binaries.h"
#include "images/boot_chain.h"
#include "images/inspection.h"
#include "measure/extend_log.h"
#include "measure/prediction.h"

namespace vallum::images {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxFacts = 1024;
constexpr size_t kMaxText = 4096;
constexpr size_t kMaxBanks = 4;
constexpr size_t kMaxApplications = 4096;  // as many as a firmware has files

Json BinaryToJson(const BootBinary& b) {
  Json signatures = Json::array();
  for (const Bytes& signature : b.signatures) signatures.push_back(ToBase64(signature));
  Json certificates = Json::array();
  for (const Bytes& certificate : b.certificates) certificates.push_back(ToBase64(certificate));
  return {{"path", b.path},
          {"size", b.size},
          {"authenticodeSha256", b.authenticode_sha256},
          {"signer", b.signer},
          {"signerCertificate", ToBase64(b.signer_certificate)},
          {"signatures", std::move(signatures)},
          {"vendorCertSection", ToBase64(b.vendor_cert_section)},
          {"sbatLevelSection", ToBase64(b.sbat_level_section)},
          {"certificates", std::move(certificates)},
          {"sbat", b.sbat}};
}

Json ApplicationToJson(const measure::FirmwareApplication& application) {
  return {{"name", application.name},
          {"authenticodeSha256", ToHex(application.authenticode_sha256)}};
}

Json LinkToJson(const LinkReport& link) {
  return {{"path", link.path},
          {"role", LinkRoleName(link.role)},
          {"authenticodeSha256", link.authenticode_sha256},
          {"signer", link.signer},
          {"sbat", link.sbat},
          {"verifiedBy", link.verified_by},
          {"allowed", link.allowed},
          {"authority", link.authority},
          {"reasons", link.reasons},
          {"fixes", link.fixes}};
}

Json ReportToJsonObject(const KeySetReport& report) {
  Json chain = Json::array();
  for (const LinkReport& link : report.chain) chain.push_back(LinkToJson(link));
  return {{"keySet", report.key_set},
          {"readiness", ReadinessName(report.readiness)},
          {"bootable", BootableName(report.bootable)},
          {"chain", std::move(chain)},
          {"reasons", report.reasons},
          {"fixes", report.fixes}};
}

Json PredictionToJson(const measure::Prediction& prediction) {
  Json pcrs = Json::array();
  for (const measure::PcrPrediction& pcr : prediction.pcrs) {
    Json events = Json::array();
    for (const measure::PredictedEvent& event : pcr.events) {
      events.push_back({{"digest", ToHex(event.digest)}, {"description", event.description}});
    }
    pcrs.push_back({{"pcr", pcr.pcr.value()},
                    {"state", measure::PcrKnowledgeName(pcr.state)},
                    {"reason", pcr.reason},
                    {"value", ToHex(pcr.value)},
                    {"events", std::move(events)}});
  }
  return {{"bank", HashAlgorithmName(prediction.bank)}, {"pcrs", std::move(pcrs)}};
}

Error NoReport(std::string_view member) {
  return InvalidInput("the inspector's report has no valid \"" + std::string(member) + "\"");
}

Result<std::string> TextOf(const Json& json, const char* member, size_t limit) {
  const auto it = json.find(member);
  if (it == json.end() || !it->is_string()) return NoReport(member);
  std::string text = it->get<std::string>();
  if (text.size() > limit) return NoReport(member);
  return text;
}

Result<uint64_t> NumberOf(const Json& json, const char* member) {
  const auto it = json.find(member);
  if (it == json.end() || !it->is_number_unsigned()) return NoReport(member);
  return it->get<uint64_t>();
}

Result<Bytes> BytesOf(const Json& json, const char* member, size_t limit) {
  ASSIGN_OR_RETURN(const std::string text, TextOf(json, member, limit));
  return FromBase64(text);
}

Result<std::vector<Bytes>> BytesListOf(const Json& json, const char* member, size_t limit) {
  const auto list = json.find(member);
  if (list == json.end() || !list->is_array() || list->size() > limit) return NoReport(member);
  std::vector<Bytes> out;
  for (const Json& item : *list) {
    if (!item.is_string()) return NoReport(member);
    ASSIGN_OR_RETURN(Bytes bytes, FromBase64(item.get<std::string>()));
    out.push_back(std::move(bytes));
  }
  return out;
}

Result<BootBinary> BinaryFromJson(const Json& json) {
  constexpr size_t kMaxDer = size_t{1} << 20U;
  if (!json.is_object()) return NoReport("bootBinaries");
  BootBinary b;
  ASSIGN_OR_RETURN(b.path, TextOf(json, "path", kMaxText));
  ASSIGN_OR_RETURN(b.size, NumberOf(json, "size"));
  ASSIGN_OR_RETURN(b.authenticode_sha256, TextOf(json, "authenticodeSha256", 64));
  ASSIGN_OR_RETURN(b.signer, TextOf(json, "signer", kMaxText));
  ASSIGN_OR_RETURN(b.signer_certificate, BytesOf(json, "signerCertificate", kMaxDer));
  ASSIGN_OR_RETURN(b.vendor_cert_section, BytesOf(json, "vendorCertSection", kMaxDer));
  ASSIGN_OR_RETURN(b.sbat_level_section, BytesOf(json, "sbatLevelSection", kMaxDer));
  ASSIGN_OR_RETURN(b.certificates, BytesListOf(json, "certificates", kMaxBinaryCertificates));
  ASSIGN_OR_RETURN(b.sbat, TextOf(json, "sbat", kMaxSbatBytes));
  ASSIGN_OR_RETURN(b.signatures, BytesListOf(json, "signatures", formats::kPeMaxCertificates));
  return b;
}

Result<measure::FirmwareApplication> ApplicationFromJson(const Json& json) {
  if (!json.is_object()) return NoReport("firmwareApplications");
  measure::FirmwareApplication out;
  ASSIGN_OR_RETURN(out.name, TextOf(json, "name", kMaxText));
  ASSIGN_OR_RETURN(const std::string digest, TextOf(json, "authenticodeSha256", 64));
  ASSIGN_OR_RETURN(out.authenticode_sha256, FromHex(digest));
  return out;
}

Result<std::vector<std::string>> LinesOf(const Json& json, const char* member) {
  const auto list = json.find(member);
  if (list == json.end() || !list->is_array() || list->size() > kMaxFacts) return NoReport(member);
  std::vector<std::string> out;
  for (const Json& line : *list) {
    if (!line.is_string()) return NoReport(member);
    out.push_back(Printable(line.get<std::string>(), kMaxText));
  }
  return out;
}

// The value whose name the member holds.
template <typename T>
Result<T> ChoiceOf(const Json& json, const char* member, std::initializer_list<T> values,
                   std::string_view (*name)(T)) {
  ASSIGN_OR_RETURN(const std::string text, TextOf(json, member, kMaxText));
  for (const T value : values) {
    if (name(value) == text) return value;
  }
  return NoReport(member);
}

Result<bool> FlagOf(const Json& json, const char* member) {
  const auto it = json.find(member);
  if (it == json.end() || !it->is_boolean()) return NoReport(member);
  return it->get<bool>();
}

Result<LinkReport> LinkFromJson(const Json& json) {
  if (!json.is_object()) return NoReport("chain");
  LinkReport link;
  ASSIGN_OR_RETURN(link.path, TextOf(json, "path", kMaxText));
  ASSIGN_OR_RETURN(link.role, ChoiceOf(json, "role",
                                       {LinkRole::kShim, LinkRole::kFallback, LinkRole::kGrub,
                                        LinkRole::kBootManager, LinkRole::kUnifiedKernel,
                                        LinkRole::kKernel, LinkRole::kOther},
                                       LinkRoleName));
  ASSIGN_OR_RETURN(link.authenticode_sha256, TextOf(json, "authenticodeSha256", 64));
  ASSIGN_OR_RETURN(link.signer, TextOf(json, "signer", kMaxText));
  ASSIGN_OR_RETURN(link.sbat, LinesOf(json, "sbat"));
  ASSIGN_OR_RETURN(link.verified_by, TextOf(json, "verifiedBy", kMaxText));
  ASSIGN_OR_RETURN(link.allowed, FlagOf(json, "allowed"));
  ASSIGN_OR_RETURN(link.authority, TextOf(json, "authority", kMaxText));
  ASSIGN_OR_RETURN(link.reasons, LinesOf(json, "reasons"));
  ASSIGN_OR_RETURN(link.fixes, LinesOf(json, "fixes"));
  return link;
}

Result<KeySetReport> KeySetReportFromJson(const Json& json) {
  if (!json.is_object()) return NoReport("reports");
  KeySetReport report;
  ASSIGN_OR_RETURN(report.key_set, TextOf(json, "keySet", kMaxText));
  ASSIGN_OR_RETURN(report.readiness,
                   ChoiceOf(json, "readiness",
                            {SecureBootReadiness::kNotSupported, SecureBootReadiness::kDisabled,
                             SecureBootReadiness::kFirstBoot, SecureBootReadiness::kReady,
                             SecureBootReadiness::kReadyNoDbx, SecureBootReadiness::kSetupMode,
                             SecureBootReadiness::kCertsIncomplete},
                            ReadinessName));
  ASSIGN_OR_RETURN(
      report.bootable,
      ChoiceOf(json, "bootable", {Bootable::kYes, Bootable::kAsFarAsKnown, Bootable::kNo},
               BootableName));
  ASSIGN_OR_RETURN(report.reasons, LinesOf(json, "reasons"));
  ASSIGN_OR_RETURN(report.fixes, LinesOf(json, "fixes"));
  const auto chain = json.find("chain");
  if (chain == json.end() || !chain->is_array() || chain->size() > kMaxChainLinks) {
    return NoReport("chain");
  }
  for (const Json& item : *chain) {
    ASSIGN_OR_RETURN(LinkReport link, LinkFromJson(item));
    report.chain.push_back(std::move(link));
  }
  return report;
}

Result<measure::PcrPrediction> PcrFromJson(const Json& json) {
  constexpr size_t kMaxEvents = 8192;
  if (!json.is_object()) return NoReport("pcrs");
  ASSIGN_OR_RETURN(const uint64_t number, NumberOf(json, "pcr"));
  ASSIGN_OR_RETURN(
      const PcrIndex index,
      PcrIndex::Create(static_cast<uint32_t>(std::min<uint64_t>(number, PcrIndex::kCount))));
  measure::PcrPrediction pcr{.pcr = index, .state = {}, .reason = {}, .events = {}, .value = {}};
  ASSIGN_OR_RETURN(pcr.state,
                   ChoiceOf(json, "state",
                            {measure::PcrKnowledge::kExact, measure::PcrKnowledge::kPartial,
                             measure::PcrKnowledge::kUnknown},
                            measure::PcrKnowledgeName));
  ASSIGN_OR_RETURN(pcr.reason, TextOf(json, "reason", kMaxText));
  ASSIGN_OR_RETURN(const std::string value, TextOf(json, "value", kMaxText));
  ASSIGN_OR_RETURN(pcr.value, FromHex(value));
  const auto events = json.find("events");
  if (events == json.end() || !events->is_array() || events->size() > kMaxEvents) {
    return NoReport("events");
  }
  for (const Json& item : *events) {
    if (!item.is_object()) return NoReport("events");
    ASSIGN_OR_RETURN(const std::string digest, TextOf(item, "digest", kMaxText));
    ASSIGN_OR_RETURN(Bytes bytes, FromHex(digest));
    ASSIGN_OR_RETURN(std::string description, TextOf(item, "description", kMaxText));
    pcr.events.push_back({.pcr = index,
                          .digest = std::move(bytes),
                          .description = Printable(description, kMaxText)});
  }
  return pcr;
}

Result<measure::Prediction> PredictionFromJson(const Json& json) {
  if (!json.is_object()) return NoReport("predictions");
  measure::Prediction prediction;
  ASSIGN_OR_RETURN(const std::string bank, TextOf(json, "bank", kMaxText));
  ASSIGN_OR_RETURN(prediction.bank, measure::ParseBankName(bank));
  const auto pcrs = json.find("pcrs");
  if (pcrs == json.end() || !pcrs->is_array() || pcrs->size() > PcrIndex::kCount) {
    return NoReport("pcrs");
  }
  for (const Json& item : *pcrs) {
    ASSIGN_OR_RETURN(measure::PcrPrediction pcr, PcrFromJson(item));
    prediction.pcrs.push_back(std::move(pcr));
  }
  return prediction;
}

Result<ContentFormat> ParseContentFormat(std::string_view name) {
  for (const ContentFormat format :
       {ContentFormat::kGpt, ContentFormat::kMbr, ContentFormat::kRaw}) {
    if (name == ContentFormatName(format)) return format;
  }
  return NoReport("contentFormat");
}

Result<Inspection> InspectionFromJson(const Json& json) {
  Inspection out;
  ASSIGN_OR_RETURN(const std::string format, TextOf(json, "format", kMaxText));
  ASSIGN_OR_RETURN(out.format, ParseDeclaredFormat(format));
  ASSIGN_OR_RETURN(const std::string content, TextOf(json, "contentFormat", kMaxText));
  ASSIGN_OR_RETURN(out.content, ParseContentFormat(content));
  ASSIGN_OR_RETURN(out.file_size, NumberOf(json, "fileSize"));
  ASSIGN_OR_RETURN(out.virtual_size, NumberOf(json, "virtualSize"));
  ASSIGN_OR_RETURN(out.cluster_size, NumberOf(json, "clusterSize"));
  ASSIGN_OR_RETURN(out.subformat, TextOf(json, "subformat", kMaxText));
  ASSIGN_OR_RETURN(out.bootable, FlagOf(json, "bootable"));
  ASSIGN_OR_RETURN(out.facts, LinesOf(json, "facts"));
  const auto binaries = json.find("bootBinaries");
  if (binaries == json.end() || !binaries->is_array() || binaries->size() > kMaxBootBinaries) {
    return NoReport("bootBinaries");
  }
  for (const Json& binary : *binaries) {
    ASSIGN_OR_RETURN(BootBinary b, BinaryFromJson(binary));
    out.boot_binaries.push_back(std::move(b));
  }
  const auto reports = json.find("reports");
  if (reports == json.end() || !reports->is_array() || reports->size() > kMaxFacts) {
    return NoReport("reports");
  }
  for (const Json& item : *reports) {
    ASSIGN_OR_RETURN(KeySetReport report, KeySetReportFromJson(item));
    out.reports.push_back(std::move(report));
  }
  const auto predictions = json.find("predictions");
  if (predictions == json.end() || !predictions->is_array() || predictions->size() > kMaxBanks) {
    return NoReport("predictions");
  }
  for (const Json& item : *predictions) {
    ASSIGN_OR_RETURN(measure::Prediction prediction, PredictionFromJson(item));
    out.predictions.push_back(std::move(prediction));
  }
  const auto applications = json.find("firmwareApplications");
  if (applications == json.end() || !applications->is_array() ||
      applications->size() > kMaxApplications) {
    return NoReport("firmwareApplications");
  }
  for (const Json& item : *applications) {
    ASSIGN_OR_RETURN(measure::FirmwareApplication application, ApplicationFromJson(item));
    out.firmware_applications.push_back(std::move(application));
  }
  ASSIGN_OR_RETURN(const std::string problem, TextOf(json, "predictionProblem", kMaxText));
  out.prediction_problem = Printable(problem, kMaxText);
  return out;
}

Json InspectionToObject(const Inspection& inspection) {
  Json binaries = Json::array();
  for (const BootBinary& b : inspection.boot_binaries) binaries.push_back(BinaryToJson(b));
  Json predictions = Json::array();
  for (const measure::Prediction& p : inspection.predictions) {
    predictions.push_back(PredictionToJson(p));
  }
  Json applications = Json::array();
  for (const measure::FirmwareApplication& a : inspection.firmware_applications) {
    applications.push_back(ApplicationToJson(a));
  }
  Json reports = Json::array();
  for (const KeySetReport& r : inspection.reports) reports.push_back(ReportToJsonObject(r));
  return {{"format", DeclaredFormatName(inspection.format)},
          {"contentFormat", ContentFormatName(inspection.content)},
          {"fileSize", inspection.file_size},
          {"virtualSize", inspection.virtual_size},
          {"clusterSize", inspection.cluster_size},
          {"subformat", inspection.subformat},
          {"bootable", inspection.bootable},
          {"reports", std::move(reports)},
          {"predictions", std::move(predictions)},
          {"firmwareApplications", std::move(applications)},
          {"predictionProblem", inspection.prediction_problem},
          {"facts", inspection.facts},
          {"bootBinaries", std::move(binaries)}};
}

}  // namespace

std::string InspectionToJson(const Inspection& inspection) {
  return InspectionToObject(inspection).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string ReportToJson(const Result<Inspection>& outcome) {
  Json report;
  if (!outcome.has_value()) {
    const Error& e = outcome.error();
    report["refused"] = {
        {"code", ErrorCodeName(e.code())}, {"message", e.Describe()}, {"fix", e.fix()}};
  } else {
    report["inspection"] = InspectionToObject(*outcome);
  }
  // Names on a hostile disk need not be UTF-8.
  return report.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<Inspection> ReportFromJson(std::string_view json) {
  const Json report = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!report.is_object()) return NoReport("inspection");
  if (const auto refused = report.find("refused"); refused != report.end()) {
    if (!refused->is_object()) return NoReport("refused");
    ASSIGN_OR_RETURN(const std::string code, TextOf(*refused, "code", kMaxText));
    ASSIGN_OR_RETURN(const std::string message, TextOf(*refused, "message", kMaxText));
    ASSIGN_OR_RETURN(const std::string fix, TextOf(*refused, "fix", kMaxText));
    return Error(ErrorCodeFromName(code).value_or(ErrorCode::kInternal),
                 Printable(message, kMaxText))
        .WithFix(Printable(fix, kMaxText));
  }
  const auto inspection = report.find("inspection");
  if (inspection == report.end() || !inspection->is_object()) return NoReport("inspection");
  return InspectionFromJson(*inspection);
}

}  // namespace vallum::images

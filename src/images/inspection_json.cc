// SPDX-License-Identifier: Apache-2.0
#include "images/inspection_json.h"

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
#include "images/inspection.h"

namespace vallum::images {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxFacts = 1024;
constexpr size_t kMaxText = 4096;

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
  const auto bootable = json.find("bootable");
  if (bootable == json.end() || !bootable->is_boolean()) return NoReport("bootable");
  out.bootable = bootable->get<bool>();
  const auto facts = json.find("facts");
  if (facts == json.end() || !facts->is_array() || facts->size() > kMaxFacts) {
    return NoReport("facts");
  }
  for (const Json& fact : *facts) {
    if (!fact.is_string()) return NoReport("facts");
    out.facts.push_back(Printable(fact.get<std::string>(), kMaxText));
  }
  const auto binaries = json.find("bootBinaries");
  if (binaries == json.end() || !binaries->is_array() || binaries->size() > kMaxBootBinaries) {
    return NoReport("bootBinaries");
  }
  for (const Json& binary : *binaries) {
    ASSIGN_OR_RETURN(BootBinary b, BinaryFromJson(binary));
    out.boot_binaries.push_back(std::move(b));
  }
  return out;
}

}  // namespace

std::string ReportToJson(const Result<Inspection>& outcome) {
  Json report;
  if (!outcome.has_value()) {
    const Error& e = outcome.error();
    report["refused"] = {
        {"code", ErrorCodeName(e.code())}, {"message", e.Describe()}, {"fix", e.fix()}};
  } else {
    Json binaries = Json::array();
    for (const BootBinary& b : outcome->boot_binaries) binaries.push_back(BinaryToJson(b));
    report["inspection"] = {{"format", DeclaredFormatName(outcome->format)},
                            {"contentFormat", ContentFormatName(outcome->content)},
                            {"fileSize", outcome->file_size},
                            {"virtualSize", outcome->virtual_size},
                            {"bootable", outcome->bootable},
                            {"facts", outcome->facts},
                            {"bootBinaries", std::move(binaries)}};
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

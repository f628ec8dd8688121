// SPDX-License-Identifier: Apache-2.0
#include "cli/image_report.h"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "base/units.h"

namespace vallum::cli {
namespace {

constexpr size_t kLineLimit = 400;

std::vector<std::string> LinesAt(const Json& object, std::string_view path) {
  std::vector<std::string> lines;
  for (const Json& line : At(object, path)) {
    if (line.is_string()) lines.push_back(Printable(line.get<std::string>(), kLineLimit));
  }
  return lines;
}

bool FlagAt(const Json& object, const char* member) {
  const Json flag = At(object, member);
  return flag.is_boolean() && flag.get<bool>();
}

std::string DescribeLink(const Json& link) {
  const bool allowed = FlagAt(link, "allowed");
  const std::string signer = TextAt(link, "signer");
  std::string out = std::string(allowed ? "  allowed  " : "  REFUSED  ") +
                    Printable(TextAt(link, "path")) + " (" + Printable(TextAt(link, "role")) +
                    ", by " + Printable(TextAt(link, "verifiedBy")) + ")\n    sha256 " +
                    Printable(TextAt(link, "authenticodeSha256")) + ", " +
                    (signer.empty() ? "unsigned" : "signed by " + Printable(signer)) + "\n";
  const std::vector<std::string> sbat = LinesAt(link, "sbat");
  if (!sbat.empty()) out += "    sbat " + Join(sbat, " ") + "\n";
  const std::string authority = TextAt(link, "authority");
  if (!authority.empty()) out += "    by " + Printable(authority, kLineLimit) + "\n";
  if (allowed) return out;
  for (const std::string& reason : LinesAt(link, "reasons")) out += "    because " + reason + "\n";
  return out;
}

std::string Field(std::string_view name, const std::string& value) {
  if (value.empty()) return {};
  std::string out = "  " + std::string(name);
  out.resize(16, ' ');
  return out + Printable(value, kLineLimit) + "\n";
}

std::string BytesField(std::string_view name, const Json& image, std::string_view path) {
  const int64_t bytes = NumberAt(image, path);
  if (bytes <= 0) return {};
  return Field(name, FormatByteCount(ByteCount::Bytes(static_cast<uint64_t>(bytes))));
}

}  // namespace

std::string DescribeBootReport(const Json& report) {
  std::string out = "bootable under key set " + Printable(TextAt(report, "keySet")) + ": " +
                    Printable(TextAt(report, "bootable")) + " (" +
                    Printable(TextAt(report, "readiness")) + ")\n";
  for (const std::string& reason : LinesAt(report, "reasons")) out += "  because " + reason + "\n";
  for (const Json& link : At(report, "chain")) out += DescribeLink(link);
  for (const std::string& fix : LinesAt(report, "fixes")) out += "  fix: " + fix + "\n";
  return out;
}

std::string DescribeImage(const Json& image, WallTime now) {
  std::string out = "image " + Printable(TextAt(image, "metadata.name")) + "\n";
  out += Field("state", FriendlyEnum(TextAt(image, "status.state"))) +
         Field("reason", TextAt(image, "status.reason")) +
         Field("declared", TextAt(image, "spec.diskFormat")) +
         Field("kept as", TextAt(image, "status.detectedFormat")) +
         Field("content", TextAt(image, "status.contentFormat")) +
         Field("subformat", TextAt(image, "status.subformat")) +
         BytesField("size", image, "status.sizeBytes") +
         BytesField("disk", image, "status.virtualSizeBytes") +
         Field("sha256", TextAt(image, "status.sha256")) +
         Field("imported as", TextAt(image, "status.sourceFormat")) +
         Field("of sha256", TextAt(image, "status.sourceSha256")) +
         Field("labels", TextAt(image, "metadata.labels")) +
         Field("properties", TextAt(image, "spec.properties")) +
         Field("created", FriendlyAge(TextAt(image, "metadata.createTime"), now)) +
         Field("description", TextAt(image, "spec.description"));
  for (const std::string& fact : LinesAt(image, "status.facts")) out += "  - " + fact + "\n";
  for (const Json& report : At(image, "status.bootReports")) out += DescribeBootReport(report);
  return out;
}

}  // namespace vallum::cli

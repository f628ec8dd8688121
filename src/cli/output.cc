// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <limits>

#include "base/text.h"
#include "base/units.h"

namespace vallum::cli {
namespace {

constexpr size_t kCellLimit = 120;
constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();

std::string ScalarText(const Json& value) {
  if (value.is_null()) return {};
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array()) {
    std::vector<std::string> parts;
    for (const Json& item : value) parts.push_back(ScalarText(item));
    return Join(parts, ",");
  }
  if (value.is_object()) {
    std::vector<std::string> parts;
    for (const auto& [key, item] : value.items()) parts.push_back(key + "=" + ScalarText(item));
    return Join(parts, ",");
  }
  return value.dump();
}

void EmitYaml(YAML::Emitter* out, const Json& value) {
  if (value.is_object()) {
    *out << YAML::BeginMap;
    for (const auto& [key, item] : value.items()) {
      *out << YAML::Key << key << YAML::Value;
      EmitYaml(out, item);
    }
    *out << YAML::EndMap;
  } else if (value.is_array()) {
    *out << YAML::BeginSeq;
    for (const Json& item : value) EmitYaml(out, item);
    *out << YAML::EndSeq;
  } else if (value.is_string()) {
    // Quoted, so that "no" and "12" stay text and control characters are escaped.
    *out << YAML::DoubleQuoted << value.get<std::string>();
  } else if (value.is_null()) {
    *out << YAML::Null;
  } else {
    *out << value.dump();
  }
}

std::string Table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      out += row[i];
      if (i + 1 < row.size()) out.append(widths[i] - row[i].size() + 2, ' ');
    }
    out += '\n';
  }
  return out;
}

std::string CsvCell(const Json& object, const Column& column) {
  const Json value = At(object, column.path);
  if (column.style == Style::kNumber && value.is_null()) return "0";
  if (column.style == Style::kBool && value.is_null()) return "false";
  // Programs take a cell that begins like this for a formula, which could run or send anything.
  const std::string text = ScalarText(value);
  const bool formula =
      !text.empty() && std::string_view("=+-@\t").find(text.front()) != std::string_view::npos;
  return (formula ? "'" : "") + Printable(text, kNoLimit);
}

}  // namespace

Result<OutputFormat> ParseOutputFormat(std::string_view name) {
  if (name == "table") return OutputFormat::kTable;
  if (name == "wide") return OutputFormat::kWide;
  if (name == "json") return OutputFormat::kJson;
  if (name == "yaml") return OutputFormat::kYaml;
  if (name == "csv") return OutputFormat::kCsv;
  return InvalidInput("unknown output format '" + Printable(name) + "'")
      .WithFix("use -o table, wide, json, yaml or csv");
}

Json At(const Json& object, std::string_view path) {
  const Json* current = &object;
  for (const std::string& part : Split(path, '.')) {
    if (!current->is_object()) return nullptr;
    const auto it = current->find(part);
    if (it == current->end()) return nullptr;
    current = &*it;
  }
  return *current;
}

std::string TextAt(const Json& object, std::string_view path) {
  return ScalarText(At(object, path));
}

int64_t NumberAt(const Json& object, std::string_view path) {
  const Json value = At(object, path);
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_string()) return 0;
  const std::string text = value.get<std::string>();
  return std::strtoll(text.c_str(), nullptr, 10);
}

std::string FriendlyEnum(std::string_view name) {
  if (name.empty() || name.ends_with("_UNSPECIFIED")) return "-";
  static constexpr std::string_view kPrefixes[] = {
      "INSTANCE_",  "HOST_", "IMAGE_",       "BOOT_TYPE_", "BOOT_MODE_", "BOOT_",  "POWER_",
      "OPERATION_", "ROLE_", "SECURE_BOOT_", "ROLLOUT_",   "SNAPSHOT_",  "TRUST_", "POLICY_"};
  for (const std::string_view prefix : kPrefixes) {
    if (name.starts_with(prefix)) return ToLower(name.substr(prefix.size()));
  }
  return ToLower(name);
}

std::string FriendlyAge(std::string_view rfc3339, WallTime now) {
  std::tm parts = {};
  const std::string text(rfc3339);
  if (::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts) == nullptr) return text;
  const auto then = std::chrono::system_clock::from_time_t(::timegm(&parts));
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - then).count();
  const int64_t size = seconds < 0 ? -seconds : seconds;
  const std::string amount = size < 60      ? std::to_string(size) + "s"
                             : size < 3600  ? std::to_string(size / 60) + "m"
                             : size < 86400 ? std::to_string(size / 3600) + "h"
                                            : std::to_string(size / 86400) + "d";
  return seconds < 0 ? "in " + amount : amount + " ago";
}

std::string Cell(const Json& object, const Column& column, WallTime now) {
  const std::string text = TextAt(object, column.path);
  switch (column.style) {
    case Style::kNumber:
      return text.empty() ? "0" : Printable(text, kCellLimit);
    case Style::kBool:
      return text == "true" ? "yes" : "no";
    case Style::kEnum:
      return Printable(FriendlyEnum(text), kCellLimit);
    case Style::kAge:
      return text.empty() ? "-" : Printable(FriendlyAge(text, now), kCellLimit);
    case Style::kBytes: {
      const int64_t bytes = NumberAt(object, column.path);
      return bytes <= 0 ? "-" : FormatByteCount(ByteCount::Bytes(static_cast<uint64_t>(bytes)));
    }
    case Style::kText:
      return text.empty() ? "-" : Printable(text, kCellLimit);
  }
  return text;
}

std::string CsvRecord(const std::vector<std::string>& cells) {
  std::string out;
  for (size_t i = 0; i < cells.size(); ++i) {
    if (i > 0) out += ',';
    if (cells[i].find_first_of(",\"\r\n") == std::string::npos) {
      out += cells[i];
      continue;
    }
    out += '"';
    for (const char c : cells[i]) {
      if (c == '"') out += '"';
      out += c;
    }
    out += '"';
  }
  return out + "\r\n";
}

std::string ToYaml(const Json& value) {
  YAML::Emitter out;
  EmitYaml(&out, value);
  return std::string(out.c_str()) + "\n";
}

std::string Render(OutputFormat format, const std::vector<Column>& columns,
                   const std::vector<Json>& items, const Json& full, WallTime now) {
  if (format == OutputFormat::kJson) {
    return full.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  if (format == OutputFormat::kYaml) return ToYaml(full);
  const bool csv = format == OutputFormat::kCsv;
  std::vector<std::vector<std::string>> rows(1);
  std::vector<Column> shown;
  for (const Column& column : columns) {
    if (column.wide && format == OutputFormat::kTable) continue;
    shown.push_back(column);
    rows[0].push_back(column.title);
  }
  for (const Json& item : items) {
    std::vector<std::string>& row = rows.emplace_back();
    for (const Column& column : shown) {
      row.push_back(csv ? CsvCell(item, column) : Cell(item, column, now));
    }
  }
  if (!csv) return Table(rows);
  std::string out;
  for (const auto& row : rows) out += CsvRecord(row);
  return out;
}

}  // namespace vallum::cli

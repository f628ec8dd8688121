// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace vallum::cli {

using Json = nlohmann::ordered_json;

enum class OutputFormat { kTable, kWide, kJson, kYaml, kCsv };
// Errors: kInvalidInput with the fix.
Result<OutputFormat> ParseOutputFormat(std::string_view name);

enum class Style {
  kText,
  kEnum,    // "INSTANCE_RUNNING" as "running"
  kAge,     // a time as "3m ago"
  kBytes,   // a number of bytes as "1.5 GiB"
  kNumber,  // absent is 0
  kBool,    // absent is "no"
};
struct Column {
  std::string title;
  std::string path;  // "status.boot.measured.verdict"
  Style style = Style::kText;
  bool wide = false;  // in wide only (csv has all columns)
};

// The member at a dotted path; null when there is none.
Json At(const Json& object, std::string_view path);
// The member as text; empty when there is none.
std::string TextAt(const Json& object, std::string_view path);
// A whole number, which the protobuf mapping may write as a string; 0 when there is none.
int64_t NumberAt(const Json& object, std::string_view path);

// "INSTANCE_RUNNING" -> "running", "HOST_STATE_UNSPECIFIED" -> "-".
std::string FriendlyEnum(std::string_view name);
// "12s ago", "3m ago", "5h ago", "2d ago"; "in 3m" for the future. Unreadable times stay as they
// are.
std::string FriendlyAge(std::string_view rfc3339, WallTime now);

// One value as a table shows it: printable, "-" when absent.
std::string Cell(const Json& object, const Column& column, WallTime now);

// Renders a list of resources.
//   full: what json and yaml print: the server's own document.
std::string Render(OutputFormat format, const std::vector<Column>& columns,
                   const std::vector<Json>& items, const Json& full, WallTime now);

// The value as a YAML document with a line end; text is always quoted, so that it stays text.
std::string ToYaml(const Json& value);
// One record with its line end, quoted as RFC 4180 says. Cells are taken as they are: Render makes
// them safe for terminals and spreadsheets.
std::string CsvRecord(const std::vector<std::string>& cells);

}  // namespace vallum::cli

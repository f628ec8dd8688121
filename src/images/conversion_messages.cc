// SPDX-License-Identifier: Apache-2.0
#include "images/conversion_messages.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/result.h"
#include "images/inspection.h"
#include "images/inspection_json.h"

namespace vallum::images {

using Json = nlohmann::json;

std::string ConversionMessageToJson(const Result<uint64_t>& message) {
  if (!message.has_value()) return ReportToJson(Result<Inspection>(message.error())) + "\n";
  return Json{{"size", *message}}.dump() + "\n";
}

Result<uint64_t> ConversionMessageFromJson(std::string_view line) {
  const Json message = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (message.is_object() && message.contains("refused")) {
    const Result<Inspection> refused = ReportFromJson(line);
    if (!refused.has_value()) return refused.error();
  }
  const auto size = message.is_object() ? message.find("size") : message.end();
  if (size == message.end() || !size->is_number_unsigned()) {
    return InvalidInput("the converter said what nobody expects");
  }
  return size->get<uint64_t>();
}

}  // namespace vallum::images

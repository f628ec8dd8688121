// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "base/result.h"
#include "images/inspection_json.h"
#include "images/inspection_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace images = vallum::images;
  const std::string_view text = vallum::AsText(std::as_bytes(std::span(data, size)));
  const auto report = images::ReportFromJson(text);
  if (report.has_value()) {
    const std::string json = images::ReportToJson(report);
    const auto again = images::ReportFromJson(json);
    CHECK(again.has_value() && images::ReportToJson(again) == json);
  }
  const auto request = images::RequestFromJson(text);
  if (request.has_value()) {
    const std::string json = images::RequestToJson(*request);
    const auto again = images::RequestFromJson(json);
    CHECK(again.has_value() && images::RequestToJson(*again) == json);
  }
  return 0;
}

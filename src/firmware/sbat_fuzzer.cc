// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/check.h"
#include "firmware/sbat.h"

// A section and a level, split at the first 0xff.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace firmware = vallum::firmware;
  const vallum::ByteView input = std::as_bytes(std::span(data, size));
  const std::string_view text = vallum::AsText(input);
  const size_t split = text.find('\xff');
  const vallum::ByteView section = input.first(std::min(split, input.size()));
  const std::string_view level_text =
      split == std::string_view::npos ? text : text.substr(split + 1);
  static_cast<void>(firmware::ParseSbat(section));
  static_cast<void>(firmware::AppliedSbatLevel(level_text, {}, firmware::SbatPolicy::kAutomatic));
  const auto level = firmware::ParseSbatLevel(level_text);
  if (level.has_value()) {
    const auto verdict = firmware::CheckSbat(section, *level, firmware::SbatNeed::kRequired);
    CHECK(verdict.allowed == verdict.reasons.empty());
  }
  return 0;
}

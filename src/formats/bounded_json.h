// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "base/result.h"

namespace vallum::formats {

struct JsonLimits {
  size_t depth = 0;   // of nested objects and arrays
  size_t values = 0;  // of all kinds, in the whole text
};

// Parses untrusted JSON (RFC 8259, UTF-8, no comments). The limits are checked as the text is read,
// before any value is kept. A name that occurs twice in an object is refused: readers disagree on
// which one counts.
// Errors: kInvalidInput (not JSON, past a limit, a name twice), naming the position.
Result<nlohmann::json> ParseBoundedJson(std::string_view text, JsonLimits limits);

}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vallum::images {

// What a converting child says beside its output, one line of JSON: {"size": bytes}, the size of
// the output before its first byte, or {"refused": {"code", "message", "fix"}}. Ends in a newline.
std::string ConversionMessageToJson(const Result<uint64_t>& message);

// Reads a line back, from a process that is not trusted.
// Errors: the one that the line carries; kInvalidInput when it is no such line.
Result<uint64_t> ConversionMessageFromJson(std::string_view line);

}  // namespace vallum::images

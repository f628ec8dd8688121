// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "images/inspection.h"

namespace vallum::images {

// One line of JSON: {"inspection": {...}} or {"refused": {"code", "message", "fix"}}.
std::string ReportToJson(const Result<Inspection>& outcome);

// The object inside alone.
std::string InspectionToJson(const Inspection& inspection);

// Reads it back, from a process that is not trusted: everything is checked for its type, and the
// lists are bounded.
// Errors: the one that the report carries; kInvalidInput when the text is no report.
Result<Inspection> ReportFromJson(std::string_view json);

}  // namespace vallum::images

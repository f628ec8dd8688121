// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/clock.h"
#include "cli/output.h"

namespace vallum::cli {

// The pre-flight under one key set, for people: a BootReport of the API or a report of an
// inspection, whose members have the same names.
std::string DescribeBootReport(const Json& report);

// An image of the API with everything that was found in it.
std::string DescribeImage(const Json& image, WallTime now);

}  // namespace vallum::cli

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/error.h"

namespace vallum {

// The exit code by which our programs tell a script what to do: 2 bad input, 3 not found, 4
// conflict, 5 denied, 6 unavailable, 1 anything else. Pure.
int ExitCode(ErrorCode code);

}  // namespace vallum

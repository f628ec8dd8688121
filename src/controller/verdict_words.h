// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// "DIVERGED". Pure.
std::string VerdictWord(v1::BootVerdict verdict);

}  // namespace vallum::controller

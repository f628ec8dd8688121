// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/error.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// RFC 9457 problem details with code, detail and fix; the status is the one that HTTP would answer.
v1::Problem ToProblem(const Error& error);
// Back again, for an Operation's error. Unknown codes become kInternal.
Error FromProblem(const v1::Problem& problem);

}  // namespace vallum::controller

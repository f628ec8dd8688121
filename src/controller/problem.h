// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/error.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// The one place that maps an error to HTTP: kInvalidInput 400, kNotFound 404, kConflict 409,
// kDenied 403, kUnavailable 503, kExhausted 429, kCorrupt and kInternal 500.
int HttpStatus(ErrorCode code);
// RFC 9457 problem details with code, detail and fix.
v1::Problem ToProblem(const Error& error);
// Back again, for an Operation's error. Unknown codes become kInternal.
Error FromProblem(const v1::Problem& problem);

}  // namespace vallum::controller

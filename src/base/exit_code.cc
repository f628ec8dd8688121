// SPDX-License-Identifier: Apache-2.0
#include "base/exit_code.h"

#include "base/error.h"

namespace vallum {

int ExitCode(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidInput:
      return 2;
    case ErrorCode::kNotFound:
      return 3;
    case ErrorCode::kConflict:
      return 4;
    case ErrorCode::kDenied:
      return 5;
    case ErrorCode::kUnavailable:
      return 6;
    case ErrorCode::kCorrupt:
    case ErrorCode::kExhausted:
    case ErrorCode::kInternal:
      return 1;
  }
  return 1;
}

}  // namespace vallum

// SPDX-License-Identifier: Apache-2.0
#include "controller/problem.h"

#include <string>

#include "base/error.h"

namespace vallum::controller {
namespace {

constexpr ErrorCode kCodes[] = {
    ErrorCode::kInvalidInput, ErrorCode::kNotFound, ErrorCode::kConflict,  ErrorCode::kDenied,
    ErrorCode::kUnavailable,  ErrorCode::kCorrupt,  ErrorCode::kExhausted, ErrorCode::kInternal};

const char* Title(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidInput:
      return "The request is not valid";
    case ErrorCode::kNotFound:
      return "It does not exist";
    case ErrorCode::kConflict:
      return "It conflicts with the present state";
    case ErrorCode::kDenied:
      return "Not allowed";
    case ErrorCode::kUnavailable:
      return "Not available now";
    case ErrorCode::kCorrupt:
      return "Stored data is damaged";
    case ErrorCode::kExhausted:
      return "A limit is reached";
    case ErrorCode::kInternal:
      return "A fault in Vallum";
  }
  return "A fault in Vallum";
}

}  // namespace

int HttpStatus(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidInput:
      return 400;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kConflict:
      return 409;
    case ErrorCode::kDenied:
      return 403;
    case ErrorCode::kUnavailable:
      return 503;
    case ErrorCode::kExhausted:
      return 429;
    case ErrorCode::kCorrupt:
    case ErrorCode::kInternal:
      return 500;
  }
  return 500;
}

v1::Problem ToProblem(const Error& error) {
  v1::Problem problem;
  problem.set_type("about:blank");
  problem.set_title(Title(error.code()));
  problem.set_status(HttpStatus(error.code()));
  problem.set_code(std::string(ErrorCodeName(error.code())));
  problem.set_detail(error.Describe());
  problem.set_fix(error.fix());
  return problem;
}

Error FromProblem(const v1::Problem& problem) {
  ErrorCode code = ErrorCode::kInternal;
  for (const ErrorCode candidate : kCodes) {
    if (ErrorCodeName(candidate) == problem.code()) {
      code = candidate;
    }
  }
  return Error(code, problem.detail()).WithFix(problem.fix());
}

}  // namespace vallum::controller

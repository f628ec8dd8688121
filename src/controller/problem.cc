// SPDX-License-Identifier: Apache-2.0
#include "controller/problem.h"

#include <string>

#include "base/error.h"
#include "http/message.h"

namespace vallum::controller {

v1::Problem ToProblem(const Error& error) {
  const int status = http::StatusOf(error.code());
  v1::Problem problem;
  problem.set_type("about:blank");
  problem.set_title(std::string(http::StatusTitle(status)));
  problem.set_status(status);
  problem.set_code(std::string(ErrorCodeName(error.code())));
  problem.set_detail(error.Describe());
  problem.set_fix(error.fix());
  return problem;
}

Error FromProblem(const v1::Problem& problem) {
  return Error(ErrorCodeFromName(problem.code()).value_or(ErrorCode::kInternal), problem.detail())
      .WithFix(problem.fix());
}

}  // namespace vallum::controller

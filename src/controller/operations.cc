// SPDX-License-Identifier: Apache-2.0
#include "controller/operations.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "controller/problem.h"

namespace vallum::controller {
namespace {

using Write = ResourceStore::Change;

}  // namespace

v1::Operation Operations::Make(std::string_view kind, const Target& target,
                               std::string_view user) const {
  v1::Operation operation;
  operation.mutable_metadata()->set_name("op-" + NewUid());
  operation.mutable_metadata()->set_tenant(target.tenant);
  resources_.PrepareCreate(operation);
  operation.set_kind(std::string(kind));
  operation.set_target(std::string(KindPlural(target.kind)) + "/" + target.name);
  operation.set_target_uid(target.uid);
  operation.set_target_generation(target.generation);
  operation.set_state(v1::OPERATION_RUNNING);
  operation.set_user(std::string(user));
  return operation;
}

Result<v1::Operation> Operations::Create(std::string_view kind, const Target& target,
                                         std::string_view user) {
  return resources_.Create(Make(kind, target, user));
}

Result<void> Operations::Progress(std::string_view name, int percent, std::string_view message) {
  const int bounded = std::clamp(percent, 0, 100);
  RETURN_IF_ERROR(
      resources_.Modify<v1::Operation>(name, [&](v1::Operation& operation) -> Result<Write> {
        if (operation.state() != v1::OPERATION_RUNNING ||
            (operation.progress_percent() == bounded && operation.message() == message)) {
          return Write::kKeep;
        }
        operation.set_progress_percent(bounded);
        operation.set_message(std::string(message));
        return Write::kWrite;
      }));
  return Ok();
}

Result<void> Operations::Finish(std::string_view name, std::string_view message) {
  RETURN_IF_ERROR(
      resources_.Modify<v1::Operation>(name, [&](v1::Operation& operation) -> Result<Write> {
        if (operation.state() != v1::OPERATION_RUNNING) {
          return Write::kKeep;
        }
        operation.set_state(v1::OPERATION_DONE);
        operation.set_progress_percent(100);
        operation.set_message(std::string(message));
        *operation.mutable_end_time() = ToTimestamp(resources_.clock().Now());
        return Write::kWrite;
      }));
  return Ok();
}

Result<void> Operations::Fail(std::string_view name, const Error& error) {
  RETURN_IF_ERROR(
      resources_.Modify<v1::Operation>(name, [&](v1::Operation& operation) -> Result<Write> {
        if (operation.state() != v1::OPERATION_RUNNING) {
          return Write::kKeep;
        }
        operation.set_state(v1::OPERATION_FAILED);
        operation.set_message(error.message());
        *operation.mutable_error() = ToProblem(error);
        *operation.mutable_end_time() = ToTimestamp(resources_.clock().Now());
        return Write::kWrite;
      }));
  return Ok();
}

Result<int> Operations::CollectGarbage(const View& view, std::chrono::seconds age) {
  const WallTime limit = resources_.clock().Now() - age;
  int deleted = 0;
  for (const auto& operation : view.All<v1::Operation>()) {
    if (operation->state() == v1::OPERATION_RUNNING ||
        FromTimestamp(operation->end_time()) >= limit) {
      continue;
    }
    const Result<store::Revision> done =
        resources_.Delete(Kind::kOperation, operation->metadata().name(), 0);
    if (!done.has_value() && done.error().code() != ErrorCode::kNotFound) {
      return done.error();
    }
    ++deleted;
  }
  return deleted;
}

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#include <google/protobuf/util/message_differencer.h>

#include <memory>
#include <string>

#include "base/text.h"
#include "controller/key_set_content.h"
#include "controller/key_set_service.h"
#include "controller/reconciler_impl.h"
#include "controller/rollouts.h"

namespace vallum::controller {
namespace {

std::string Word(v1::RolloutState state) {
  const std::string name = v1::RolloutState_Name(state);
  return ToLower(name.substr(name.find('_') + 1));
}

std::string_view Severity(std::string_view state) {
  if (state == "bad") return "error";
  return state == "returned" || state == "skipped" ? "warning" : "info";
}

}  // namespace

void Reconciler::Impl::ReconcileRollouts() {
  for (const auto& rollout : parts_.view.All<v1::Rollout>()) {
    // What fails is looked at again at the next tick.
    if (IsUnderWay(*rollout)) static_cast<void>(Failed(ReconcileRollout(*rollout)));
  }
}

Result<void> Reconciler::Impl::ReconcileRollout(const v1::Rollout& rollout) {
  const RolloutStep step = AdvanceRollout(
      rollout, [&](const std::string& name) { return parts_.view.Get<v1::Instance>(name); });
  for (const KeySetChange& change : step.changes) RETURN_IF_ERROR(ApplyKeySet(change));
  if (google::protobuf::util::MessageDifferencer::Equals(step.status, rollout.status())) {
    return Ok();
  }
  v1::Rollout wanted = rollout;
  *wanted.mutable_status() = step.status;
  const Result<v1::Rollout> stored = parts_.resources.Update(wanted, rollout.metadata().revision());
  if (!stored.has_value()) {
    // Stopped meanwhile: the view will say so.
    return stored.error().code() == ErrorCode::kConflict ? Ok() : Result<void>(stored.error());
  }
  TellRollout(rollout, *stored);
  return parts_.view.WaitFor(stored->metadata().revision());
}

Result<void> Reconciler::Impl::ApplyKeySet(const KeySetChange& change) {
  const Result<v1::Instance> stored = parts_.resources.Modify<v1::Instance>(
      change.instance, [&](v1::Instance& current) -> Result<Write> {
        v1::InstanceSpec& spec = *current.mutable_spec();
        if (current.metadata().has_delete_time() || KeySetOf(current) != change.from_key_set ||
            spec.key_set_version() != change.from_version) {
          return Write::kKeep;
        }
        spec.set_key_set(change.key_set);
        spec.set_key_set_version(change.version);
        return Write::kWrite;
      });
  if (!stored.has_value()) {
    return stored.error().code() == ErrorCode::kNotFound ? Ok() : Result<void>(stored.error());
  }
  return parts_.view.WaitFor(stored->metadata().revision());
}

void Reconciler::Impl::TellRollout(const v1::Rollout& before, const v1::Rollout& after) {
  const std::string object = "rollouts/" + after.metadata().name();
  const std::string keys = VersionWords(after.spec().key_set(), after.spec().version());
  for (int i = 0; i < after.status().instances_size(); ++i) {
    const v1::RolloutInstance& one = after.status().instances(i);
    if (i < before.status().instances_size() &&
        before.status().instances(i).state() == one.state()) {
      continue;
    }
    Tell("rollout.instance-" + one.state(), Severity(one.state()), object,
         "instance " + one.instance() + ", key set " + keys + ": " + one.state() +
             (one.detail().empty() ? "" : ", " + one.detail()));
  }
  if (before.status().state() == after.status().state()) return;
  const bool bad = after.status().state() == v1::ROLLOUT_RETURNING ||
                   after.status().state() == v1::ROLLOUT_RETURNED;
  Tell("rollout." + Word(after.status().state()), bad ? "error" : "info", object,
       "key set " + keys + ": " + Word(after.status().state()) +
           (after.status().reason().empty() ? "" : ", " + after.status().reason()));
}

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#include <google/protobuf/util/message_differencer.h>

#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/text.h"
#include "controller/instance_keys.h"
#include "controller/instance_origin.h"
#include "controller/key_set_service.h"
#include "controller/problem.h"
#include "controller/reconciler_impl.h"

namespace vallum::controller {
namespace {

std::string Object(const std::string& name) { return "instances/" + name; }

// The agent's word on everything but what the controller itself decides.
v1::InstanceStatus Merge(const v1::Instance& current, const v1::InstanceStatus& reported) {
  v1::InstanceStatus status = reported;
  status.set_host(current.status().host());
  status.set_isolated(current.status().isolated());
  status.set_taking_snapshot(current.status().taking_snapshot());
  *status.mutable_left_on() = current.status().left_on();
  *status.mutable_boot()->mutable_requested() = current.status().boot().requested();
  if (current.metadata().has_delete_time()) {
    status.set_phase(v1::INSTANCE_DELETING);
  }
  return status;
}

bool Stable(v1::InstancePhase phase) {
  switch (phase) {
    case v1::INSTANCE_RUNNING:
    case v1::INSTANCE_PAUSED:
    case v1::INSTANCE_STOPPED:
    case v1::INSTANCE_CRASHED:
    case v1::INSTANCE_FAILED:
      return true;
    default:
      return false;
  }
}

// Whether the phase is what an operation of the kind is to bring about.
bool Reached(const std::string& kind, const v1::Instance& instance) {
  const v1::InstancePhase phase = instance.status().phase();
  if (kind == "instance.stop") {
    return phase == v1::INSTANCE_STOPPED || phase == v1::INSTANCE_CRASHED ||
           phase == v1::INSTANCE_FAILED;
  }
  if (kind == "instance.pause") {
    return phase == v1::INSTANCE_PAUSED;
  }
  if (kind == "instance.create") {
    switch (instance.spec().power()) {
      case v1::POWER_STOPPED:
        return phase == v1::INSTANCE_STOPPED;
      case v1::POWER_PAUSED:
        return phase == v1::INSTANCE_PAUSED;
      default:
        return phase == v1::INSTANCE_RUNNING;
    }
  }
  return phase == v1::INSTANCE_RUNNING;
}

Error WhyNot(const v1::Instance& instance) {
  const v1::InstanceStatus& status = instance.status();
  std::string text =
      "the instance " + std::string(status.phase() == v1::INSTANCE_CRASHED ? "crashed" : "failed");
  if (!status.reason().empty()) {
    text += ": " + status.reason();
  }
  if (!status.last_exit().empty()) {
    text += " (" + status.last_exit() + ")";
  }
  return Error(ErrorCode::kConflict, std::move(text)).WithFix(status.fix());
}

}  // namespace

std::shared_ptr<const v1::Instance> Reconciler::Impl::FindByUid(const std::string& uid) {
  std::string name;
  {
    const std::lock_guard lock(mutex_);
    const auto found = name_of_uid_.find(uid);
    if (found == name_of_uid_.end()) {
      return nullptr;
    }
    name = found->second;
  }
  auto instance = parts_.view.Get<v1::Instance>(name);
  return instance != nullptr && instance->metadata().uid() == uid ? instance : nullptr;
}

v1::DesiredInstance Reconciler::Impl::Desired(const v1::Instance& instance) const {
  v1::DesiredInstance desired;
  desired.set_uid(instance.metadata().uid());
  desired.set_name(instance.metadata().name());
  desired.set_generation(instance.metadata().generation());
  *desired.mutable_spec() = instance.spec();
  desired.set_remove(instance.metadata().has_delete_time());
  desired.set_isolate(instance.status().isolated());
  desired.set_needs_lease(NeedsLease(instance));
  *desired.mutable_boot() = instance.status().boot().requested();
  SetDesiredOrigin(parts_.view, instance, desired);
  desired.set_key_set_name(KeySetOf(instance));
  desired.set_key_set_version(instance.spec().key_set_version());
  // A set that is gone (which its use forbids) leaves the field out: the agent then refuses.
  if (Result<v1::KeySetContent> keys = ContentFor(parts_.view, instance);
      keys.has_value() && !desired.key_set_name().empty()) {
    *desired.mutable_key_set() = *std::move(keys);
  }
  return desired;
}

Result<void> Reconciler::Impl::ReconcileInstance(const std::string& name) {
  const auto instance = parts_.view.Get<v1::Instance>(name);
  RETURN_IF_ERROR(CloseOrphans(name, instance == nullptr ? "" : instance->metadata().uid()));
  if (instance == nullptr) {
    pending_.erase(name);
    return Ok();
  }
  const std::string& host = instance->status().host();
  if (instance->metadata().has_delete_time() &&
      (host.empty() || parts_.view.Get<v1::Host>(host) == nullptr) &&
      instance->status().left_on().empty()) {
    return scheduler_.Release(name);
  }
  RETURN_IF_ERROR(RemoveLeftBehind(*instance));
  if (instance->metadata().has_delete_time() && host.empty()) return Ok();
  if (host.empty()) {
    return Place(*instance);
  }
  pending_.erase(name);
  if (MustStop(*instance)) {
    return StopDiverged(name);  // which brings it here again
  }
  ASSIGN_OR_RETURN(const bool leaves, MoveAway(*instance));
  if (leaves) return CloseOperations(*instance);
  RETURN_IF_ERROR(Revive(*instance));
  const auto seen = seen_.find(host);
  const bool greeted = seen != seen_.end() && seen->second.greeted;
  if (greeted && (!IsLost(*instance) || instance->metadata().has_delete_time())) {
    gateway_->SendInstance(host, Desired(*instance));
  }
  return CloseOperations(*instance);
}

Result<void> Reconciler::Impl::Place(const v1::Instance& instance) {
  const std::string& name = instance.metadata().name();
  const Result<v1::Instance> placed = scheduler_.Place(name);
  if (!placed.has_value()) {
    if (placed.error().code() != ErrorCode::kExhausted) {
      return placed.error();
    }
    pending_.insert(name);
    return Refused(instance, placed.error());
  }
  pending_.erase(name);
  Tell("instance.placed", "info", Object(name), "placed on host " + placed->status().host(),
       instance.metadata().tenant());
  return Ok();
}

Result<void> Reconciler::Impl::Refused(const v1::Instance& instance, const Error& error) {
  const std::string& name = instance.metadata().name();
  if (instance.status().reason() != error.message()) {
    RETURN_IF_ERROR(
        parts_.resources.Modify<v1::Instance>(name, [&](v1::Instance& current) -> Result<Write> {
          if (!current.status().host().empty() ||
              current.metadata().uid() != instance.metadata().uid()) {
            return Write::kKeep;
          }
          current.mutable_status()->set_reason(error.message());
          current.mutable_status()->set_fix(error.fix());
          return Write::kWrite;
        }));
  }
  for (const auto& operation : parts_.view.RunningOperations(Object(name))) {
    const WallTime since = FromTimestamp(operation->metadata().create_time());
    const std::string& id = operation->metadata().name();
    if (parts_.clock.Now() >= since + options_.schedule_grace) {
      RETURN_IF_ERROR(parts_.operations.Fail(id, error));
    } else if (operation->message() != error.message()) {
      RETURN_IF_ERROR(parts_.operations.Progress(id, 0, error.message()));
    }
  }
  return Ok();
}

Result<void> Reconciler::Impl::ApplyReport(const std::string& host,
                                           const v1::InstanceReport& report) {
  Saw(host);
  const auto known = FindByUid(report.uid());
  // An instance that was moved or deleted meanwhile, or that another controller made: the agent
  // keeps it, and nothing here changes.
  if (known != nullptr && known->status().host() != host) {
    return report.gone() ? NoteRemoved(*known, host) : RemoveLeftBehind(*known);
  }
  if (known == nullptr || known->status().host() != host) {
    return Ok();
  }
  if (report.gone()) {
    return ApplyGone(*known, report);
  }
  const v1::InstanceStatus& reported = report.status();
  RETURN_IF_ERROR(parts_.verdicts.TakeWord(report.uid(), reported.boot().measured()));
  v1::Instance before;
  bool written = false;
  ASSIGN_OR_RETURN(
      const v1::Instance after,
      parts_.resources.Modify<v1::Instance>(
          known->metadata().name(), [&](v1::Instance& current) -> Result<Write> {
            before = current;
            written = false;
            if (current.metadata().uid() != report.uid() || current.status().host() != host) {
              return Write::kKeep;
            }
            *current.mutable_status() = Merge(current, reported);
            KeepTrustReason(before, current);
            JudgeBoot(current);
            written = !google::protobuf::util::MessageDifferencer::Equals(before.status(),
                                                                          current.status());
            return written ? Write::kWrite : Write::kKeep;
          }));
  if (written) {
    TellTransition(before, after);
  }
  return parts_.view.WaitFor(after.metadata().revision());
}

Result<void> Reconciler::Impl::ApplyGone(const v1::Instance& instance,
                                         const v1::InstanceReport& report) {
  const std::string& name = instance.metadata().name();
  if (instance.metadata().has_delete_time()) {
    if (!instance.status().left_on().empty()) return Unhost(instance);
    RETURN_IF_ERROR(scheduler_.Release(name));
    Tell("instance.deleted", "info", Object(name), "its host has removed every trace of it",
         instance.metadata().tenant());
    return Ok();
  }
  RETURN_IF_ERROR(
      parts_.resources.Modify<v1::Instance>(name, [&](v1::Instance& current) -> Result<Write> {
        if (current.metadata().uid() != report.uid()) {
          return Write::kKeep;
        }
        v1::InstanceStatus& status = *current.mutable_status();
        status.set_phase(v1::INSTANCE_FAILED);
        status.set_reason(report.status().reason().empty() ? "the host refused the instance"
                                                           : report.status().reason());
        status.set_fix(report.status().fix());
        status.set_observed_generation(current.metadata().generation());
        return Write::kWrite;
      }));
  return Ok();
}

// Deleted where it was, and there until no other host has a copy of it.
Result<void> Reconciler::Impl::Unhost(const v1::Instance& instance) {
  RETURN_IF_ERROR(parts_.resources.Modify<v1::Instance>(
      instance.metadata().name(), [&](v1::Instance& current) -> Result<Write> {
        if (current.metadata().uid() != instance.metadata().uid()) return Write::kKeep;
        current.mutable_status()->clear_host();
        return Write::kWrite;
      }));
  return Ok();
}

void Reconciler::Impl::TellTransition(const v1::Instance& before, const v1::Instance& after) {
  const std::string object = Object(after.metadata().name());
  const std::string& tenant = after.metadata().tenant();
  const v1::InstanceStatus& status = after.status();
  if (before.status().phase() != status.phase() && Stable(status.phase())) {
    const bool bad =
        status.phase() == v1::INSTANCE_CRASHED || status.phase() == v1::INSTANCE_FAILED;
    std::string word = v1::InstancePhase_Name(status.phase());
    word = ToLower(word.substr(word.find('_') + 1));
    const bool why = !status.reason().empty() && (bad || status.phase() == v1::INSTANCE_STOPPED);
    Tell("instance." + word, bad ? "error" : "info", object,
         why ? status.reason() : "is " + word + " on host " + status.host(), tenant);
  }
  TellVerdict(before, after);
}

Result<void> Reconciler::Impl::CloseOrphans(const std::string& name, const std::string& uid) {
  for (const auto& operation : parts_.view.RunningOperations(Object(name))) {
    if (operation->target_uid() == uid) {
      continue;
    }
    const std::string& id = operation->metadata().name();
    if (operation->kind() == "instance.delete") {
      RETURN_IF_ERROR(parts_.operations.Finish(id, "deleted"));
    } else {
      RETURN_IF_ERROR(parts_.operations.Fail(id, NotFound("the instance was deleted meanwhile")));
    }
  }
  return Ok();
}

Result<void> Reconciler::Impl::CloseOperations(const v1::Instance& instance) {
  for (const auto& operation : parts_.view.RunningOperations(Object(instance.metadata().name()))) {
    RETURN_IF_ERROR(CloseOperation(instance, *operation));
  }
  return Ok();
}

Result<void> Reconciler::Impl::CloseOperation(const v1::Instance& instance,
                                              const v1::Operation& operation) {
  const std::string& id = operation.metadata().name();
  const v1::InstanceStatus& status = instance.status();
  const bool deletes = operation.kind() == "instance.delete";
  if (!deletes && instance.metadata().has_delete_time()) {
    return parts_.operations.Fail(id, Conflict("the instance is being deleted"));
  }
  if (deletes || status.observed_generation() < operation.target_generation() ||
      !Stable(status.phase())) {
    const std::string& message =
        status.progress_message().empty() ? status.reason() : status.progress_message();
    if (status.progress_percent() == operation.progress_percent() &&
        message == operation.message()) {
      return Ok();
    }
    return parts_.operations.Progress(id, status.progress_percent(), message);
  }
  if (Reached(operation.kind(), instance)) {
    return parts_.operations.Finish(id, "done");
  }
  if (status.phase() == v1::INSTANCE_CRASHED || status.phase() == v1::INSTANCE_FAILED) {
    return parts_.operations.Fail(id, WhyNot(instance));
  }
  if (instance.metadata().generation() > operation.target_generation()) {
    return parts_.operations.Fail(id, Conflict("a later request took its place"));
  }
  return Ok();
}

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#include "agent/instance_worker.h"

#include <utility>

#include "agent/backoff.h"
#include "agent/messages.h"
#include "agent/state_files.h"
#include "base/text.h"

namespace vallum::agent {
namespace {

constexpr size_t kReasonLimit = 1000;

void SetReason(v1::InstanceStatus& status, const Error& error) {
  status.set_reason(Printable(error.Describe(), kReasonLimit));
  status.set_fix(Printable(error.fix(), kReasonLimit));
}

}  // namespace

InstanceWorker::InstanceWorker(std::string uid, StoredInstance stored,
                               const InstanceServices& services)
    : uid_(std::move(uid)),
      services_(services),
      paths_(MakeInstancePaths(services.config, uid_)),
      desired_(std::move(stored.desired)),
      desired_is_stored_(desired_.has_value()),
      refused_generation_(LoadLeaseRefusal(paths_)),
      damage_(std::move(stored.problem)) {
  if (stored.status) {
    status_ = *std::move(stored.status);
  }
  if (!damage_.empty()) {
    status_.set_phase(v1::INSTANCE_FAILED);
    status_.set_reason(Printable(damage_, kReasonLimit));
    status_.set_fix("delete the instance, or restore its state files from a backup");
  }
  // Hello names every instance that there is state of, also one whose adoption takes its time.
  Update(Durability::kReportOnly, [](v1::InstanceStatus&) {});
  thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
}

InstanceWorker::~InstanceWorker() {
  thread_.request_stop();
  thread_.join();
  Detach();
}

void InstanceWorker::SetDesired(const v1::DesiredInstance& desired) {
  const std::lock_guard lock(mutex_);
  if (desired_ && SameMessage(*desired_, desired)) {
    return;  // a reconnect says everything again
  }
  desired_ = desired;
  desired_is_stored_ = false;
  dirty_ = true;
  changed_.notify_all();
}

void InstanceWorker::TakeSnapshot(const v1::TakeSnapshot& request) {
  const std::lock_guard lock(mutex_);
  if (snapshot_ && snapshot_->snapshot_uid() == request.snapshot_uid()) {
    return;  // it is being taken
  }
  snapshot_ = request;
  dirty_ = true;
  changed_.notify_all();
}

void InstanceWorker::LeaseChanged() {
  const std::lock_guard lock(mutex_);
  dirty_ = true;
  changed_.notify_all();
}

std::shared_ptr<SerialHub> InstanceWorker::serial() const {
  const std::lock_guard lock(mutex_);
  return serial_;
}

Result<RunningVtpm> InstanceWorker::vtpm() const {
  const std::lock_guard lock(mutex_);
  if (vtpm_socket_.empty()) {
    return Conflict("no guest with a vTPM runs in this instance")
        .WithFix("start the instance; one without a vTPM is made anew with --tpm tpm-crb");
  }
  return RunningVtpm{vtpm_socket_, status_.vtpm().ek_certificate()};
}

bool InstanceWorker::WaitUntilAdopted(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline, [this] { return adopted_; });
}

v1::InstanceStatus InstanceWorker::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

std::optional<v1::DesiredInstance> InstanceWorker::desired() const {
  const std::lock_guard lock(mutex_);
  return desired_;
}

void InstanceWorker::Update(Durability durability, const Change& change) {
  const std::lock_guard order(report_mutex_);
  v1::InstanceReport report;
  report.set_uid(uid_);
  {
    const std::lock_guard lock(mutex_);
    change(status_);
    *report.mutable_status() = status_;
    report.mutable_status()->set_host(services_.config.host);
  }
  // A status that could not be stored is still the truth of this process: it is reported with the
  // trouble, and stored at the next change.
  if (durability == Durability::kStored && damage_.empty()) {
    if (auto stored = StoreStatus(paths_, report.status()); !stored) {
      report.mutable_status()->set_reason(
          Printable(stored.error().Describe() + "; " + report.status().reason(), kReasonLimit));
    }
  }
  services_.board.Put(std::move(report));
}

void InstanceWorker::Run(const std::stop_token& stop) {
  AdoptRunning();
  {
    const std::lock_guard lock(mutex_);
    adopted_ = true;
    changed_.notify_all();
  }
  while (!stop.stop_requested() && !gone_) {
    TakeEvents();
    if (!DoSnapshot(stop) && !Advance(stop)) {
      Wait(stop);
    }
  }
}

void InstanceWorker::Wait(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  const auto woken = [this] { return dirty_ || !events_.empty(); };
  if (retry_at_ == std::chrono::steady_clock::time_point::max()) {
    changed_.wait(lock, stop, woken);
  } else {
    changed_.wait_until(lock, stop, retry_at_, woken);
  }
  retry_at_ = std::chrono::steady_clock::time_point::max();
  dirty_ = false;
}

vm::EventCallback InstanceWorker::MakeCallback() {
  return [this](const vm::InstanceEvent& event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(event);
    changed_.notify_all();
  };
}

void InstanceWorker::TakeEvents() {
  while (true) {
    std::optional<vm::InstanceEvent> event;
    {
      const std::lock_guard lock(mutex_);
      if (events_.empty()) {
        return;
      }
      event = std::move(events_.front());
      events_.pop_front();
    }
    HandleEvent(*event);
  }
}

void InstanceWorker::HandleEvent(const vm::InstanceEvent& event) {
  if (runner_ == nullptr) {
    return;  // of a run that is over and accounted for
  }
  switch (event.kind) {
    case vm::EventKind::kReset:
      if (const auto wanted = desired(); wanted) {
        restart_ = NeedsNewVariables(*wanted);
      }
      [[fallthrough]];
    case vm::EventKind::kRunning:
      Update(Durability::kStored, [](v1::InstanceStatus& status) {
        if (status.phase() != v1::INSTANCE_RUNNING) {
          status.set_phase(v1::INSTANCE_RUNNING);
          ClearReasonOf(status);
        }
      });
      return;
    case vm::EventKind::kPaused:
      Update(Durability::kStored,
             [](v1::InstanceStatus& status) { status.set_phase(v1::INSTANCE_PAUSED); });
      return;
    case vm::EventKind::kGuestPanicked:
      Update(Durability::kStored, [&](v1::InstanceStatus& status) {
        status.set_phase(v1::INSTANCE_PAUSED);
        status.set_reason(Printable("the guest panicked and is kept as it is; " + event.detail));
        status.set_fix("look at its console, then reboot or stop it");
      });
      return;
    case vm::EventKind::kIoError:
      Update(Durability::kStored, [&](v1::InstanceStatus& status) {
        status.set_phase(v1::INSTANCE_PAUSED);
        status.set_reason(
            Printable("paused because the host cannot write its disk; " + event.detail));
        status.set_fix("free space on the host, then resume the instance");
      });
      return;
    case vm::EventKind::kVtpmLost:
      Update(Durability::kStored, [&](v1::InstanceStatus& status) {
        status.set_reason(Printable("the instance has lost its vTPM; " + event.detail));
        status.set_fix("stop and start the instance");
      });
      return;
    case vm::EventKind::kExited:
      Ended(event.exit.value_or(vm::ExitReport{}));
      return;
  }
}

void InstanceWorker::Ended(const vm::ExitReport& exit, EndedBy by) {
  Detach();
  const std::string words = Printable(exit.Describe(), kReasonLimit);
  const auto wanted = desired();
  Update(Durability::kStored, [&](v1::InstanceStatus& status) {
    status.set_last_exit(words);
    status.set_ended_by_itself(by == EndedBy::kItself && wanted &&
                               WantedPower(*wanted) != v1::POWER_STOPPED);
    status.clear_started_at();
    status.set_isolated(false);
    ClearReasonOf(status);
    if (exit.cause == vm::ExitCause::kCrashed) {
      status.set_phase(v1::INSTANCE_CRASHED);
      status.set_reason(words);
      status.set_fix("start the instance again");
    } else {
      status.set_phase(v1::INSTANCE_STOPPED);
      if (exit.cause == vm::ExitCause::kGuestShutdown) {
        status.set_reason("the guest powered itself off");
      }
    }
  });
}

Presence InstanceWorker::CurrentPresence() const {
  if (runner_ == nullptr) {
    return Presence::kAbsent;
  }
  switch (runner_->state()) {
    case vm::RunState::kRunning:
      return Presence::kRunning;
    case vm::RunState::kPaused:
      return Presence::kPaused;
    case vm::RunState::kPanicked:
      return Presence::kPanicked;
    case vm::RunState::kIoError:
      return Presence::kIoError;
    case vm::RunState::kExited:
      return Presence::kRunning;  // its last event is on its way and is handled first
  }
  return Presence::kRunning;
}

bool InstanceWorker::Advance(const std::stop_token& stop) {
  const auto wanted = desired();
  if (!wanted || retry_at_ != std::chrono::steady_clock::time_point::max()) {
    return false;
  }
  if (runner_ != nullptr && runner_->state() == vm::RunState::kExited) {
    return false;
  }
  if (!damage_.empty() && !wanted->remove()) {
    return false;
  }
  if (adopt_again_ && !wanted->remove()) {
    if (!WantsForcedEnd(*wanted)) {
      AdoptRunning();
      return retry_at_ == std::chrono::steady_clock::time_point::max();
    }
    return EndUnadopted(*wanted);
  }
  const Step step = NextStep(*wanted);
  if (runner_ != nullptr && isolated_ != wanted->isolate() && step != Step::kRemove) {
    if (auto set = SetIsolation(*wanted); !set) {
      SetRetry(set.error());
      return false;
    }
  }
  if (restart_ && RestartsAfterReset(*wanted, step, CurrentPresence())) {
    Restart(*wanted, stop);
    return true;
  }
  if (step == Step::kNothing) {
    Settle(*wanted);
    return false;
  }
  bool stored = false;
  {
    const std::lock_guard lock(mutex_);
    stored = desired_is_stored_;
  }
  if (!stored && damage_.empty()) {
    // Before acting: an agent that dies in the middle knows afterwards what it was doing.
    if (auto written = StoreDesired(paths_, *wanted); !written && step != Step::kRemove) {
      StartFailed(*wanted, written.error());
      return false;
    }
  }
  if (!LeaseAllows(step, *wanted)) {
    return false;
  }
  DoStep(step, *wanted, stop);
  return true;
}

bool InstanceWorker::NeedsNewVariables(const v1::DesiredInstance& desired) const {
  return VariablesOutdated(desired, status().boot().effective());
}

void InstanceWorker::SetRetry(const Error& error) {
  Update(Durability::kReportOnly, [&](v1::InstanceStatus& status) { SetReason(status, error); });
  retry_at_ = std::chrono::steady_clock::now() + ReconnectDelay(++failures_, 0);
}

void InstanceWorker::Settle(const v1::DesiredInstance& desired) {
  bool stored = false;
  {
    const std::lock_guard lock(mutex_);
    stored = desired_is_stored_;
  }
  if (!stored) {
    stored = StoreDesired(paths_, desired).has_value();
    const std::lock_guard lock(mutex_);
    desired_is_stored_ = stored && desired_ && SameMessage(*desired_, desired);
  }
  const v1::InstanceStatus now = status();
  if (now.observed_generation() == desired.generation() &&
      now.phase() != v1::INSTANCE_PHASE_UNSPECIFIED && now.phase() != v1::INSTANCE_STOPPING) {
    return;
  }
  const bool stopped = WantedPower(desired) == v1::POWER_STOPPED;
  Update(Durability::kStored, [&](v1::InstanceStatus& status) {
    status.set_observed_generation(desired.generation());
    if (stopped) {
      status.set_ended_by_itself(false);
    }
    if (runner_ == nullptr && !status.ended_by_itself() &&
        (status.phase() == v1::INSTANCE_PHASE_UNSPECIFIED ||
         status.phase() == v1::INSTANCE_STARTING || status.phase() == v1::INSTANCE_STOPPING ||
         status.phase() == v1::INSTANCE_FAILED || status.phase() == v1::INSTANCE_CRASHED)) {
      status.set_phase(v1::INSTANCE_STOPPED);
      ClearReasonOf(status);
    }
  });
}

void InstanceWorker::DoStep(Step step, const v1::DesiredInstance& desired,
                            const std::stop_token& stop) {
  Result<void> done;
  switch (step) {
    case Step::kNothing:
      return;
    case Step::kRemove:
      Remove(desired);
      return;
    case Step::kStart:
      done = Start(desired, Beginning::kStart, stop);
      if (!done && !stop.stop_requested()) {
        StartFailed(desired, done.error());
      }
      return;
    case Step::kStop:
    case Step::kForceStop:
      Stop(desired, step, stop);
      return;
    case Step::kReboot:
      if (NeedsNewVariables(desired)) {
        Restart(desired, stop);
        return;
      }
      done = runner_->Reboot(std::chrono::milliseconds(0));
      break;
    case Step::kPause:
      done = runner_->Pause();
      break;
    case Step::kResume:
      done = runner_->Resume();
      break;
  }
  Update(Durability::kStored, [&](v1::InstanceStatus& status) {
    status.set_observed_reboot_count(desired.spec().reboot_count());
    status.set_observed_generation(desired.generation());
    if (!done) {
      SetReason(status,
                std::move(done).error().Context("trying to " + std::string(StepName(step))));
      return;
    }
    ClearReasonOf(status);
    status.set_phase(step == Step::kPause ? v1::INSTANCE_PAUSED : v1::INSTANCE_RUNNING);
  });
  if (!done) {
    // Asked again at once, it would fail again at once.
    retry_at_ = std::chrono::steady_clock::now() + ReconnectDelay(++failures_, 0);
  }
}

}  // namespace vallum::agent

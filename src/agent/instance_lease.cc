// SPDX-License-Identifier: Apache-2.0
// The part of InstanceWorker that lets a guest begin to run only on a host that is trusted, where
// its pool wants that.
#include <chrono>

#include "agent/instance_worker.h"
#include "base/text.h"

namespace vallum::agent {
namespace {

constexpr size_t kReasonLimit = 1000;
// What a controller needs to ask for evidence, judge it and send a lease, with a slow TPM.
constexpr std::chrono::seconds kLeaseWait{30};

bool BeginsToRun(Step step, Presence presence) {
  switch (step) {
    case Step::kStart:
    case Step::kResume:
      return true;
    case Step::kReboot:  // a guest that stands still goes on by it
      return presence != Presence::kRunning;
    case Step::kNothing:
    case Step::kRemove:
    case Step::kStop:
    case Step::kForceStop:
    case Step::kPause:
      return false;
  }
  return true;
}

}  // namespace

Result<void> InstanceWorker::CheckLease(const v1::DesiredInstance& desired,
                                        Beginning beginning) const {
  const bool asks = desired.needs_lease() && beginning == Beginning::kStart;
  return asks ? services_.leases.Check(desired.spec().pool()) : Ok();
}

void InstanceWorker::NoteLeaseRefusal(std::optional<int64_t> generation) {
  if (refused_generation_ != generation) {
    refused_generation_ = generation;
    // Lost, it costs the instance a start by hand after a restart of the agent.
    static_cast<void>(StoreLeaseRefusal(paths_, generation));
  }
}

Step InstanceWorker::NextStep(const v1::DesiredInstance& desired) const {
  const Presence presence = CurrentPresence();
  const v1::InstanceStatus now = status();
  const Step step = DecideStep(desired, now, presence);
  const bool refused_before =
      refused_generation_ == desired.generation() && WantedPower(desired) != v1::POWER_STOPPED;
  if (step != Step::kNothing || !refused_before || !CheckLease(desired, Beginning::kStart)) {
    return step;
  }
  if (presence == Presence::kAbsent) {
    return now.phase() == v1::INSTANCE_FAILED ? Step::kStart : step;
  }
  return presence == Presence::kIoError ? Step::kResume : step;
}

bool InstanceWorker::LeaseAllows(Step step, const v1::DesiredInstance& desired) {
  if (!BeginsToRun(step, CurrentPresence())) {
    return true;
  }
  const auto live = CheckLease(desired, Beginning::kStart);
  const auto now = std::chrono::steady_clock::now();
  if (live) {
    lease_deadline_.reset();
    NoteLeaseRefusal(std::nullopt);
    return true;
  }
  // Refused and told so; an agent that died in between tells it now. A lease wakes this worker.
  if (refused_generation_ == desired.generation() &&
      status().observed_generation() >= desired.generation()) {
    return false;
  }
  if (!lease_deadline_) {
    lease_deadline_ = now + kLeaseWait;
    services_.board.WantLease(Printable("instance " + desired.name() + " is to " +
                                        std::string(StepName(step)) + "; " +
                                        live.error().Describe()));
    Update(Durability::kReportOnly, [&](v1::InstanceStatus& status) {
      if (step == Step::kStart) {
        status.set_phase(v1::INSTANCE_STARTING);
      }
      status.set_progress_message("waiting until this host is found TRUSTED");
    });
  }
  if (now < *lease_deadline_) {
    retry_at_ = *lease_deadline_;
    return false;
  }
  lease_deadline_.reset();
  RefuseForLease(step, desired, live.error());
  return false;
}

void InstanceWorker::RefuseForLease(Step step, const v1::DesiredInstance& desired,
                                    const Error& error) {
  // First: who was told of the refusal relies on the start that follows a lease.
  NoteLeaseRefusal(desired.generation());
  if (step == Step::kStart) {
    StartFailed(desired, error);
  } else {
    Update(Durability::kStored, [&](v1::InstanceStatus& status) {
      status.set_reason(Printable("the guest stays as it is; " + error.Describe(), kReasonLimit));
      status.set_fix(Printable(error.fix(), kReasonLimit));
      status.clear_progress_message();
      status.set_observed_generation(desired.generation());
      status.set_observed_reboot_count(desired.spec().reboot_count());
    });
  }
}

}  // namespace vallum::agent

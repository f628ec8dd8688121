// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile.h"

namespace vallum::agent {
namespace {

bool AskedAnew(const v1::DesiredInstance& desired, const v1::InstanceStatus& status) {
  return desired.generation() > status.observed_generation();
}

// A new generation alone may be other keys, of a roll-out too, for when the guest starts next.
bool StartAsked(const v1::DesiredInstance& desired, const v1::InstanceStatus& status) {
  return desired.spec().reboot_count() > status.observed_reboot_count();
}

Step DecideAbsent(const v1::DesiredInstance& desired, const v1::InstanceStatus& status) {
  if (WantedPower(desired) == v1::POWER_STOPPED) {
    return Step::kNothing;
  }
  switch (status.phase()) {
    case v1::INSTANCE_STOPPED:
    case v1::INSTANCE_CRASHED:
    case v1::INSTANCE_FAILED:
      if (status.ended_by_itself() && !StartAsked(desired, status)) {
        return Step::kNothing;
      }
      return AskedAnew(desired, status) ? Step::kStart : Step::kNothing;
    default:  // it never ran, or was on its way up when the agent ended
      return Step::kStart;
  }
}

Step DecidePresent(const v1::DesiredInstance& desired, const v1::InstanceStatus& status,
                   Presence presence) {
  if (WantedPower(desired) == v1::POWER_STOPPED) {
    // A guest whose processors stand still cannot follow the power button.
    const bool can_follow = presence == Presence::kRunning;
    return desired.spec().force_stop() || !can_follow ? Step::kForceStop : Step::kStop;
  }
  if (desired.spec().reboot_count() > status.observed_reboot_count()) {
    return Step::kReboot;
  }
  const bool wants_pause = WantedPower(desired) == v1::POWER_PAUSED;
  switch (presence) {
    case Presence::kRunning:
      return wants_pause ? Step::kPause : Step::kNothing;
    case Presence::kPaused:
      return wants_pause ? Step::kNothing : Step::kResume;
    case Presence::kIoError:
      return !wants_pause && AskedAnew(desired, status) ? Step::kResume : Step::kNothing;
    case Presence::kPanicked:
    case Presence::kAbsent:
      return Step::kNothing;
  }
  return Step::kNothing;
}

}  // namespace

std::string_view StepName(Step step) {
  switch (step) {
    case Step::kNothing:
      return "nothing";
    case Step::kRemove:
      return "remove";
    case Step::kStart:
      return "start";
    case Step::kStop:
      return "stop";
    case Step::kForceStop:
      return "force stop";
    case Step::kReboot:
      return "reboot";
    case Step::kPause:
      return "pause";
    case Step::kResume:
      return "resume";
  }
  return "?";
}

bool RestartsAfterReset(const v1::DesiredInstance& desired, Step step, Presence presence) {
  return step == Step::kNothing && presence == Presence::kRunning &&
         WantedPower(desired) == v1::POWER_RUNNING;
}

v1::PowerState WantedPower(const v1::DesiredInstance& desired) {
  const v1::PowerState power = desired.spec().power();
  return power == v1::POWER_STATE_UNSPECIFIED ? v1::POWER_RUNNING : power;
}

bool WantsForcedEnd(const v1::DesiredInstance& desired) {
  return desired.remove() ||
         (WantedPower(desired) == v1::POWER_STOPPED && desired.spec().force_stop());
}

Step DecideStep(const v1::DesiredInstance& desired, const v1::InstanceStatus& status,
                Presence presence) {
  if (desired.remove()) {
    return Step::kRemove;
  }
  return presence == Presence::kAbsent ? DecideAbsent(desired, status)
                                       : DecidePresent(desired, status, presence);
}

}  // namespace vallum::agent

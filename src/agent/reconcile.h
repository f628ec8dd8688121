// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// What is there of an instance's processes.
enum class Presence {
  kAbsent,
  kRunning,
  kPaused,    // by us
  kPanicked,  // the guest stopped itself with an error; kept for inspection
  kIoError,   // QEMU stopped it because the host could not write
};

// The one next thing to do about an instance.
enum class Step {
  kNothing,
  kRemove,  // end it by force and remove every trace
  kStart,
  kStop,  // press the power button, then by force after the grace
  kForceStop,
  kReboot,
  kPause,
  kResume,
};
std::string_view StepName(Step step);

// Compares what is wanted with what is there and says what to do next; called again after each
// step until it says kNothing. A guest that ended by itself or crashed is left as it is until a
// start is asked for (a higher reboot_count, or a stop in between), one that failed to start until
// the controller asks for anything anew (a higher generation).
//   status: as last reported; observed_generation is the generation last acted on.
// Pure; thread-safe.
Step DecideStep(const v1::DesiredInstance& desired, const v1::InstanceStatus& status,
                Presence presence);

// True when a blocking step is to be cut short because the controller now wants the guest gone:
// remove, or a forced stop.
bool WantsForcedEnd(const v1::DesiredInstance& desired);

// Whether a guest that reset itself, and whose new boot needs other keys, is now to be started anew
// by new processes. That needs no lease, as it runs already: so it must run, and be wanted to.
//   step: what DecideStep says.
bool RestartsAfterReset(const v1::DesiredInstance& desired, Step step, Presence presence);

// The power state that is wanted; unspecified reads as running.
v1::PowerState WantedPower(const v1::DesiredInstance& desired);

}  // namespace vallum::agent

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "vm/vm_spec.h"

namespace vallum::vm {

enum class RunState {
  kRunning,
  kPaused,    // by Pause()
  kPanicked,  // the guest said so (pvpanic); it is kept as it is, for inspection
  kIoError,   // QEMU paused it: the host cannot write its disk
  kExited,
};
std::string_view RunStateName(RunState state);  // "running", "paused", ...

enum class ExitCause {
  kGuestShutdown,  // the guest powered itself off
  kStopped,        // Stop() was called and the guest followed
  kForced,         // ForceStop(), or Stop() ran into its time limit
  kCrashed,        // nobody asked for it
};
std::string_view ExitCauseName(ExitCause cause);

struct ExitReport {
  ExitCause cause = ExitCause::kCrashed;
  // "exit status 1", "signal 9 (Killed)", or why it is not known (after adoption).
  std::string process_status;
  std::vector<std::string> last_lines;  // the end of QEMU's stderr, printable, may be empty
  // One sentence for people, made from the above.
  std::string Describe() const;
};

enum class EventKind {
  kRunning,
  kPaused,
  kReset,  // the guest rebooted, or Reboot()
  kGuestPanicked,
  kIoError,
  kVtpmLost,  // vallum-vtpm ended while QEMU runs; the guest has no TPM any more
  kExited,    // last event; exit is set
};
std::string_view EventKindName(EventKind kind);

struct InstanceEvent {
  EventKind kind = EventKind::kRunning;
  std::string detail;              // in words, may be empty
  std::optional<ExitReport> exit;  // kExited only
};

// Called on the runner's thread, in order. It must not call the runner and should return soon.
using EventCallback = std::function<void(const InstanceEvent&)>;

// The processes of one instance on this host: vallum-vtpm (with swtpm as its child) and QEMU.
// Owns a thread that watches them; does not own their lives: a destroyed runner leaves the guest
// running, to be adopted later. Public methods block, are thread-safe and may be called from any
// thread but the callback's.
class InstanceRunner {
 public:
  // Starts an instance and returns when the guest runs.
  //   spec: files exist; nothing of this instance runs.
  // Errors: kInvalidInput (ValidateVmSpec); kConflict (it runs already); kUnavailable or kInternal
  // with QEMU's own words when it ended early. Nothing is left running after an error.
  static Result<std::unique_ptr<InstanceRunner>> Start(VmSpec spec, EventCallback callback);

  // Takes over an instance that an earlier process of the agent started. The first event tells the
  // state found; a guest that powered off meanwhile gives kExited with the right cause.
  //   spec: the same as for Start.
  // Errors: kNotFound (nothing of it runs: ExitReportFromLogs tells what is known);
  // kUnavailable (QEMU runs but does not answer).
  static Result<std::unique_ptr<InstanceRunner>> Adopt(VmSpec spec, EventCallback callback);

  // Ends whatever still runs of an instance that has no runner, such as vallum-vtpm after QEMU
  // crashed while no agent watched, or a QEMU that does not answer. Never touches a process that
  // only has the same number.
  // Errors: those of Process::Open but kNotFound and kCorrupt; then all is left as it is, to be
  // tried again.
  static Result<void> CleanUp(const VmSpec& spec);

  // What can be known about an instance that ended while nobody watched: the end of its log.
  static ExitReport ExitReportFromLogs(const VmSpec& spec);

  ~InstanceRunner();
  InstanceRunner(const InstanceRunner&) = delete;
  InstanceRunner& operator=(const InstanceRunner&) = delete;

  // Presses the power button; when the guest does not follow in time, ends it by force.
  //   interrupt: gives up waiting; the guest is then left as it is, with its button pressed.
  // Errors: kUnavailable (interrupted, or QEMU hangs in the kernel).
  Result<ExitReport> Stop(std::chrono::milliseconds grace, const std::stop_token& interrupt = {});
  Result<ExitReport> ForceStop();
  // Presses the power button and starts the guest again in the same process; after the grace, or
  // at once when it is zero, resets the machine as its reset button would.
  Result<void> Reboot(std::chrono::milliseconds grace);
  Result<void> Pause();
  Result<void> Resume();
  // Of every network device; stays so over resets of the guest. Doing it again does no harm.
  Result<void> SetLinks(LinkState state);
  // Makes QEMU write what it holds of a disk, so that whoever reads its file sees what the guest
  // wrote until now.
  //   disk: its id.
  Result<void> Flush(const std::string& disk);

  RunState state() const;
  // Waits for the end; empty when it did not end in time.
  std::optional<ExitReport> WaitForExit(std::chrono::milliseconds limit);
  const VmSpec& spec() const;
  pid_t qemu_pid() const;
  // Facts about what could not be applied, in words: such as "limits not applied: cgroup v2 is
  // not delegated to the agent". Empty: all was applied.
  const std::vector<std::string>& notes() const;

 private:
  class Impl;
  explicit InstanceRunner(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vallum::vm

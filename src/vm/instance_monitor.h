// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "vm/instance_runner.h"
#include "vm/launch.h"

namespace vallum::vm {

inline constexpr size_t kReportedLines = 10;

// Watches the processes of one instance on its own thread, the only one that uses the monitor
// connection; callers hand it work and wait. Ending the object detaches from the instance.
class InstanceMonitor {
 public:
  InstanceMonitor(VmSpec spec, Launched launched, EventCallback callback);
  ~InstanceMonitor();
  InstanceMonitor(const InstanceMonitor&) = delete;
  InstanceMonitor& operator=(const InstanceMonitor&) = delete;

  // See InstanceRunner for these.
  Result<ExitReport> Stop(std::chrono::milliseconds grace, const std::stop_token& interrupt);
  Result<ExitReport> ForceStop();
  Result<void> Reboot(std::chrono::milliseconds grace);
  // Runs one QMP command without arguments.
  Result<void> Run(std::string command);
  Result<void> SetLinks(LinkState state);
  Result<void> Flush(const std::string& disk);
  std::optional<ExitReport> WaitForExit(std::chrono::milliseconds limit);
  RunState state() const;
  const VmSpec& spec() const { return spec_; }
  pid_t qemu_pid() const { return launched_.qemu->pid(); }
  const std::vector<std::string>& notes() const { return launched_.notes; }

 private:
  enum class Asked { kNothing, kStop, kForce };
  // What a guest's power-off means.
  enum class OnPowerOff { kEnd, kRestart };
  using Work = std::packaged_task<Result<void>()>;

  Result<void> RunOnThread(std::function<Result<void>()> work);
  void Wake() const;

  // All below: on the thread.
  void Loop();
  void Begin();
  // Waits for something to do; false when the loop is to end.
  bool WaitOnce();
  // Keeps what the guest writes bounded, when it is time to; returns the milliseconds to the next
  // time.
  int TrimLogs();
  void RunWork();
  Result<void> Command(std::string_view name);
  void ReadMonitor();
  void HandleEvents();
  void HandleEvent(const QmpEvent& event);
  void HandleStop();
  void HandleShutdown();
  void HandleReset(const QmpEvent& event);
  void HandleVtpmEnd();
  void HandleQemuEnd();
  ExitCause CauseOfEnd();
  void SetState(RunState state, EventKind kind, std::string detail);
  void Emit(InstanceEvent event) const;

  const VmSpec spec_;
  const VmPaths paths_;
  const EventCallback callback_;
  Launched launched_;  // qmp and vtpm: the thread's; qemu: signalled by all, waited for by it
  UniqueFd wake_;
  std::chrono::steady_clock::time_point next_trim_;  // the thread's; the first is at once
  bool powered_off_ = false;                         // the thread's
  bool cont_at_reset_ = false;                       // the thread's

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> work_;
  RunState state_ = RunState::kRunning;
  Asked asked_ = Asked::kNothing;
  OnPowerOff on_power_off_ = OnPowerOff::kEnd;
  uint64_t resets_ = 0;
  std::optional<ExitReport> exit_;
  bool detach_ = false;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace vallum::vm

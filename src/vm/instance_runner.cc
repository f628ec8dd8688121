// SPDX-License-Identifier: Apache-2.0
#include "vm/instance_runner.h"

#include "base/text.h"
#include "vm/instance_monitor.h"
#include "vm/launch.h"

namespace vallum::vm {

namespace {

constexpr std::chrono::milliseconds kTermLimit{3000};

}  // namespace

class InstanceRunner::Impl {
 public:
  Impl(VmSpec spec, Launched launched, EventCallback callback)
      : monitor(std::move(spec), std::move(launched), std::move(callback)) {}
  InstanceMonitor monitor;
};

InstanceRunner::InstanceRunner(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
InstanceRunner::~InstanceRunner() = default;

Result<std::unique_ptr<InstanceRunner>> InstanceRunner::Start(VmSpec spec, EventCallback callback) {
  ASSIGN_OR_RETURN(Launched launched, LaunchInstance(spec));
  auto impl = std::make_unique<Impl>(std::move(spec), std::move(launched), std::move(callback));
  return std::unique_ptr<InstanceRunner>(new InstanceRunner(std::move(impl)));
}

Result<std::unique_ptr<InstanceRunner>> InstanceRunner::Adopt(VmSpec spec, EventCallback callback) {
  ASSIGN_OR_RETURN(Launched launched, FindInstance(spec));
  auto impl = std::make_unique<Impl>(std::move(spec), std::move(launched), std::move(callback));
  return std::unique_ptr<InstanceRunner>(new InstanceRunner(std::move(impl)));
}

Result<void> InstanceRunner::CleanUp(const VmSpec& spec) {
  const VmPaths paths = MakeVmPaths(spec);
  for (const std::string& identity : {paths.qemu_identity, paths.vtpm_identity}) {
    auto process = Process::Open(identity, spec.run_as);
    if (process.has_value()) {
      EndProcess(**process, std::chrono::milliseconds(0), kTermLimit);
    } else if (process.error().code() != ErrorCode::kNotFound &&
               process.error().code() != ErrorCode::kCorrupt) {
      // It may run: without its identity nobody would find it again.
      return std::move(process).error().Context("cleaning up after instance " + spec.name);
    }
  }
  RemoveRunFiles(spec);
  return Ok();
}

ExitReport InstanceRunner::ExitReportFromLogs(const VmSpec& spec) {
  ExitReport report;
  report.process_status = "exit status unknown (it ended while no agent watched)";
  report.last_lines = ReadLastLines(MakeVmPaths(spec).qemu_log, kReportedLines);
  return report;
}

Result<ExitReport> InstanceRunner::Stop(std::chrono::milliseconds grace,
                                        const std::stop_token& interrupt) {
  return impl_->monitor.Stop(grace, interrupt);
}
Result<ExitReport> InstanceRunner::ForceStop() { return impl_->monitor.ForceStop(); }
Result<void> InstanceRunner::Reboot(std::chrono::milliseconds grace) {
  return impl_->monitor.Reboot(grace);
}
Result<void> InstanceRunner::Pause() { return impl_->monitor.Run("stop"); }
Result<void> InstanceRunner::Resume() { return impl_->monitor.Run("cont"); }
Result<void> InstanceRunner::SetLinks(LinkState state) { return impl_->monitor.SetLinks(state); }
Result<void> InstanceRunner::Flush(const std::string& disk) { return impl_->monitor.Flush(disk); }
RunState InstanceRunner::state() const { return impl_->monitor.state(); }
std::optional<ExitReport> InstanceRunner::WaitForExit(std::chrono::milliseconds limit) {
  return impl_->monitor.WaitForExit(limit);
}
const VmSpec& InstanceRunner::spec() const { return impl_->monitor.spec(); }
pid_t InstanceRunner::qemu_pid() const { return impl_->monitor.qemu_pid(); }
const std::vector<std::string>& InstanceRunner::notes() const { return impl_->monitor.notes(); }

std::string_view RunStateName(RunState state) {
  switch (state) {
    case RunState::kRunning:
      return "running";
    case RunState::kPaused:
      return "paused";
    case RunState::kPanicked:
      return "panicked";
    case RunState::kIoError:
      return "io-error";
    case RunState::kExited:
      return "exited";
  }
  return "";
}

std::string_view ExitCauseName(ExitCause cause) {
  switch (cause) {
    case ExitCause::kGuestShutdown:
      return "guest-shutdown";
    case ExitCause::kStopped:
      return "stopped";
    case ExitCause::kForced:
      return "forced";
    case ExitCause::kCrashed:
      return "crashed";
  }
  return "";
}

std::string_view EventKindName(EventKind kind) {
  switch (kind) {
    case EventKind::kRunning:
      return "running";
    case EventKind::kPaused:
      return "paused";
    case EventKind::kReset:
      return "reset";
    case EventKind::kGuestPanicked:
      return "guest-panicked";
    case EventKind::kIoError:
      return "io-error";
    case EventKind::kVtpmLost:
      return "vtpm-lost";
    case EventKind::kExited:
      return "exited";
  }
  return "";
}

std::string ExitReport::Describe() const {
  switch (cause) {
    case ExitCause::kGuestShutdown:
      return "the guest powered itself off";
    case ExitCause::kStopped:
      return "stopped on request";
    case ExitCause::kForced:
      return "ended by force on request";
    case ExitCause::kCrashed:
      break;
  }
  std::string text = "QEMU ended unasked: " + process_status;
  if (!last_lines.empty()) {
    text += "; its last words: " + Join(last_lines, "; ");
  }
  return text;
}

}  // namespace vallum::vm

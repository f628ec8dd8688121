// SPDX-License-Identifier: Apache-2.0
#include "vm/instance_monitor.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "base/check.h"
#include "base/text.h"
#include "vm/process_files.h"

namespace vallum::vm {
namespace {

constexpr std::chrono::milliseconds kTermLimit{3000};
constexpr std::chrono::milliseconds kVtpmLimit{2000};
// QEMU closes its sockets a moment before it ends, so the vTPM can end first.
constexpr std::chrono::milliseconds kQemuFollowsLimit{1000};
// What a guest writes goes to logs without end; this is how often they are looked at.
constexpr std::chrono::milliseconds kLogCheckInterval{5000};
constexpr ByteCount kLogLimit = ByteCount::MiB(8);

std::string TextOf(const Json& data, const char* key) {
  const auto found = data.is_object() ? data.find(key) : data.end();
  return found != data.end() && found->is_string() ? Printable(found->get<std::string>()) : "";
}

}  // namespace

InstanceMonitor::InstanceMonitor(VmSpec spec, Launched launched, EventCallback callback)
    : spec_(std::move(spec)),
      paths_(MakeVmPaths(spec_)),
      callback_(std::move(callback)),
      launched_(std::move(launched)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  CHECK(wake_.valid());
  thread_ = std::thread([this] { Loop(); });
}

InstanceMonitor::~InstanceMonitor() {
  {
    const std::scoped_lock lock(mutex_);
    detach_ = true;
  }
  Wake();
  thread_.join();
}

Result<ExitReport> InstanceMonitor::Stop(std::chrono::milliseconds grace,
                                         const std::stop_token& interrupt) {
  {
    const std::scoped_lock lock(mutex_);
    asked_ = Asked::kStop;
    on_power_off_ = OnPowerOff::kEnd;
  }
  // A guest that does not run cannot see its power button.
  if (state() == RunState::kPaused) {
    static_cast<void>(Run("cont"));  // force follows when this failed
  }
  if (Run("system_powerdown").has_value()) {
    const std::stop_callback wake(interrupt, [this] {
      const std::scoped_lock lock(mutex_);
      changed_.notify_all();
    });
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, grace, [&] { return exit_.has_value() || interrupt.stop_requested(); });
    if (exit_.has_value()) {
      return *exit_;
    }
    if (interrupt.stop_requested()) {
      return Unavailable("waiting for the guest of instance " + spec_.name + " was interrupted");
    }
  }
  return ForceStop();
}

Result<ExitReport> InstanceMonitor::ForceStop() {
  {
    const std::scoped_lock lock(mutex_);
    asked_ = Asked::kForce;
  }
  // SIGTERM before SIGKILL: QEMU then closes the disk images as it should. Not over the monitor,
  // which may hang. QEMU before 8.1 hangs at SIGTERM for ever when firmware writes a variable just
  // then: its end holds back the write that the vCPU waits for, and waits for the vCPU.
  RETURN_IF_ERROR(launched_.qemu->Signal(SIGTERM));
  if (auto report = WaitForExit(kTermLimit)) {
    return *std::move(report);
  }
  RETURN_IF_ERROR(launched_.qemu->Signal(SIGKILL));
  if (auto report = WaitForExit(kQmpLimit)) {
    return *std::move(report);
  }
  return Unavailable("QEMU of instance " + spec_.name + " hangs in the kernel after SIGKILL");
}

Result<void> InstanceMonitor::Reboot(std::chrono::milliseconds grace) {
  uint64_t before = 0;
  {
    const std::scoped_lock lock(mutex_);
    before = resets_;
    on_power_off_ = grace.count() > 0 ? OnPowerOff::kRestart : OnPowerOff::kEnd;
  }
  if (grace.count() > 0) {
    RETURN_IF_ERROR(Run("system_powerdown"));
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, grace, [&] { return resets_ != before || exit_.has_value(); });
    on_power_off_ = OnPowerOff::kEnd;
    if (resets_ != before) {
      return Ok();
    }
  }
  return RunOnThread([this]() -> Result<void> {
    cont_at_reset_ = true;  // one that panicked or was paused shall run again
    return Command("system_reset");
  });
}

Result<void> InstanceMonitor::Run(std::string command) {
  return RunOnThread([this, name = std::move(command)] { return Command(name); });
}

Result<void> InstanceMonitor::SetLinks(LinkState state) {
  return RunOnThread([this, state]() -> Result<void> {
    if (launched_.qmp == nullptr) {
      return Unavailable("the monitor connection of instance " + spec_.name + " is lost");
    }
    return vm::SetLinks(spec_, *launched_.qmp, state);
  });
}

// QMP itself has no command that only flushes.
Result<void> InstanceMonitor::Flush(const std::string& disk) {
  return RunOnThread([this, disk]() -> Result<void> {
    if (launched_.qmp == nullptr) {
      return Unavailable("the monitor connection of instance " + spec_.name + " is lost");
    }
    ASSIGN_OR_RETURN(
        const Json said,
        launched_.qmp->Execute("human-monitor-command",
                               {{"command-line", "qemu-io " + disk + " flush"}}, kQmpLimit));
    // It says what went wrong, and nothing else.
    return said == "" ? Ok() : Unavailable("flushing disk " + disk + ": " + Printable(said.dump()));
  });
}

std::optional<ExitReport> InstanceMonitor::WaitForExit(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, limit, [&] { return exit_.has_value(); });
  return exit_;
}

RunState InstanceMonitor::state() const {
  const std::scoped_lock lock(mutex_);
  return state_;
}

Result<void> InstanceMonitor::RunOnThread(std::function<Result<void>()> work) {
  std::future<Result<void>> done;
  {
    const std::scoped_lock lock(mutex_);
    if (exit_.has_value()) {
      return Conflict("instance " + spec_.name + " does not run");
    }
    // The events that come with an answer count before the caller goes on: state() is then right.
    work_.emplace_back([this, inner = std::move(work)] {
      auto result = inner();
      ReadMonitor();
      return result;
    });
    done = work_.back().get_future();
  }
  Wake();
  return done.get();
}

void InstanceMonitor::Wake() const {
  const uint64_t one = 1;
  // Full means that a wake-up waits already.
  static_cast<void>(!write(wake_.get(), &one, sizeof one));
}

void InstanceMonitor::Loop() {
  Begin();
  while (WaitOnce()) {
  }
}

void InstanceMonitor::Begin() {
  const std::string found = launched_.status;
  if (found == "shutdown") {
    HandleShutdown();
  } else if (found == "guest-panicked") {
    SetState(RunState::kPanicked, EventKind::kGuestPanicked, "");
  } else if (found == "io-error") {
    SetState(RunState::kIoError, EventKind::kIoError, "");
  } else if (found == "running") {
    SetState(RunState::kRunning, EventKind::kRunning, "");
  } else {
    SetState(RunState::kPaused, EventKind::kPaused, found);
  }
  if (spec_.vtpm.has_value() && launched_.vtpm == nullptr) {
    Emit({.kind = EventKind::kVtpmLost, .detail = "vallum-vtpm does not run", .exit = {}});
  }
  ReadMonitor();
}

int InstanceMonitor::TrimLogs() {
  const auto now = std::chrono::steady_clock::now();
  // By the clock, not when nothing else happens: a busy guest decides what happens.
  if (now >= next_trim_) {
    next_trim_ = now + kLogCheckInterval;
    // A log that cannot be shortened now is tried again.
    static_cast<void>(TrimLog(paths_.serial_log, kLogLimit));
    static_cast<void>(TrimLog(paths_.firmware_log, kLogLimit));
  }
  return static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(next_trim_ - now).count());
}

bool InstanceMonitor::WaitOnce() {
  // poll ignores negative descriptors.
  std::array<pollfd, 4> entries = {
      pollfd{.fd = wake_.get(), .events = POLLIN, .revents = 0},
      pollfd{.fd = launched_.qemu->pidfd(), .events = POLLIN, .revents = 0},
      pollfd{.fd = launched_.qmp ? launched_.qmp->fd() : -1, .events = POLLIN, .revents = 0},
      pollfd{.fd = launched_.vtpm ? launched_.vtpm->pidfd() : -1, .events = POLLIN, .revents = 0}};
  const int ready = poll(entries.data(), entries.size(), TrimLogs());
  if (ready <= 0) {
    return true;
  }
  if (entries[0].revents != 0) {
    uint64_t count = 0;
    static_cast<void>(!read(wake_.get(), &count, sizeof count));
    RunWork();
  }
  if (entries[2].revents != 0) {
    ReadMonitor();
  }
  if (entries[1].revents != 0) {
    HandleQemuEnd();
    return false;
  }
  if (entries[3].revents != 0) {
    HandleVtpmEnd();
  }
  const std::scoped_lock lock(mutex_);
  return !detach_;
}

void InstanceMonitor::RunWork() {
  for (;;) {
    Work work;
    {
      const std::scoped_lock lock(mutex_);
      if (work_.empty()) {
        return;
      }
      work = std::move(work_.front());
      work_.pop_front();
    }
    work();
  }
}

Result<void> InstanceMonitor::Command(std::string_view name) {
  if (launched_.qmp == nullptr) {
    return Unavailable("the monitor connection of instance " + spec_.name + " is lost");
  }
  ASSIGN_OR_RETURN([[maybe_unused]] const Json nothing,
                   launched_.qmp->Execute(name, Json::object(), kQmpLimit));
  return Ok();
}

void InstanceMonitor::ReadMonitor() {
  if (launched_.qmp == nullptr) {
    return;
  }
  const auto read = launched_.qmp->Pump();
  HandleEvents();
  if (!read.has_value()) {
    launched_.qmp.reset();
  }
}

void InstanceMonitor::HandleEvents() {
  // Handling one can bring more.
  for (auto events = launched_.qmp->TakeEvents(); !events.empty();
       events = launched_.qmp->TakeEvents()) {
    for (const QmpEvent& event : events) {
      HandleEvent(event);
    }
  }
}

void InstanceMonitor::HandleEvent(const QmpEvent& event) {
  if (event.name == "RESUME") {
    SetState(RunState::kRunning, EventKind::kRunning, "");
  } else if (event.name == "STOP") {
    HandleStop();
  } else if (event.name == "RESET") {
    HandleReset(event);
  } else if (event.name == "SHUTDOWN") {
    if (TextOf(event.data, "reason") == "guest-shutdown") {
      HandleShutdown();
    }
  } else if (event.name == "GUEST_PANICKED") {
    SetState(RunState::kPanicked, EventKind::kGuestPanicked, TextOf(event.data, "action"));
  } else if (event.name == "BLOCK_IO_ERROR" && TextOf(event.data, "action") == "stop") {
    SetState(RunState::kIoError, EventKind::kIoError,
             TextOf(event.data, "node-name") + ": " + TextOf(event.data, "reason"));
  }
}

// STOP follows every event that pauses a guest; alone, it is Pause().
void InstanceMonitor::HandleStop() {
  const RunState now = state();
  if (now == RunState::kRunning && !powered_off_) {
    SetState(RunState::kPaused, EventKind::kPaused, "");
  }
}

// With -action shutdown=pause QEMU stays until told, so a power-off is known as one even when
// nobody watched, and a reboot can use it.
void InstanceMonitor::HandleShutdown() {
  OnPowerOff meaning = OnPowerOff::kEnd;
  {
    const std::scoped_lock lock(mutex_);
    meaning = on_power_off_;
  }
  if (meaning == OnPowerOff::kRestart) {
    cont_at_reset_ = true;
    if (Command("system_reset").has_value()) {
      return;
    }
  }
  powered_off_ = true;
  if (!Command("quit").has_value() && !launched_.qemu->HasEnded()) {
    static_cast<void>(launched_.qemu->Signal(SIGTERM));
  }
}

void InstanceMonitor::HandleReset(const QmpEvent& event) {
  if (cont_at_reset_) {
    cont_at_reset_ = false;
    static_cast<void>(Command("cont"));  // its RESUME, or the lack of it, tells
  }
  {
    const std::scoped_lock lock(mutex_);
    ++resets_;
  }
  Emit({.kind = EventKind::kReset, .detail = TextOf(event.data, "reason"), .exit = {}});
  changed_.notify_all();
}

void InstanceMonitor::HandleVtpmEnd() {
  const std::string end = launched_.vtpm->Wait(std::chrono::milliseconds(0)).value_or("");
  launched_.vtpm.reset();
  if (WaitReadable(launched_.qemu->pidfd(), kQemuFollowsLimit)) {
    return;
  }
  const auto lines = ReadLastLines(paths_.vtpm_log, kReportedLines);
  Emit({.kind = EventKind::kVtpmLost,
        .detail = "vallum-vtpm ended: " + end + (lines.empty() ? "" : "; ") + Join(lines, "; "),
        .exit = {}});
}

ExitCause InstanceMonitor::CauseOfEnd() {
  const std::scoped_lock lock(mutex_);
  if (powered_off_) {
    return asked_ == Asked::kNothing ? ExitCause::kGuestShutdown : ExitCause::kStopped;
  }
  return asked_ == Asked::kForce ? ExitCause::kForced : ExitCause::kCrashed;
}

void InstanceMonitor::HandleQemuEnd() {
  ReadMonitor();
  ExitReport report;
  report.process_status =
      launched_.qemu->Wait(std::chrono::milliseconds(0)).value_or("exit status unknown");
  report.cause = CauseOfEnd();
  report.last_lines = ReadLastLines(paths_.qemu_log, kReportedLines);
  if (launched_.vtpm != nullptr) {
    EndProcess(*launched_.vtpm, kVtpmLimit, kVtpmLimit);
  }
  RemoveRunFiles(spec_);
  Emit({.kind = EventKind::kExited, .detail = report.Describe(), .exit = report});
  std::deque<Work> late;
  {
    const std::scoped_lock lock(mutex_);
    state_ = RunState::kExited;
    exit_ = report;
    late.swap(work_);
  }
  changed_.notify_all();
  launched_.qmp.reset();
  for (Work& work : late) {
    work();  // each fails: there is no monitor
  }
}

void InstanceMonitor::SetState(RunState new_state, EventKind kind, std::string detail) {
  {
    const std::scoped_lock lock(mutex_);
    state_ = new_state;
  }
  Emit({.kind = kind, .detail = std::move(detail), .exit = {}});
}

void InstanceMonitor::Emit(InstanceEvent event) const {
  if (callback_) {
    callback_(event);
  }
}

}  // namespace vallum::vm

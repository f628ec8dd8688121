// SPDX-License-Identifier: Apache-2.0
// The part of InstanceWorker that begins and ends the life of a guest.
#include <sys/stat.h>

#include <future>
#include <utility>

#include "agent/backoff.h"
#include "agent/gateway.h"
#include "agent/instance_worker.h"
#include "agent/messages.h"
#include "agent/state_files.h"
#include "base/text.h"

namespace vallum::agent {
namespace {

constexpr size_t kReasonLimit = 1000;
constexpr std::chrono::milliseconds kStopPoll{100};

bool WasAlive(v1::InstancePhase phase) {
  return phase == v1::INSTANCE_RUNNING || phase == v1::INSTANCE_PAUSED ||
         phase == v1::INSTANCE_STARTING || phase == v1::INSTANCE_STOPPING ||
         phase == v1::INSTANCE_DELETING;
}

bool IsMeasured(const v1::BootEffective& effective) {
  return effective.type() == v1::BOOT_TYPE_UEFI && effective.tpm_model() != "none";
}

// The image under the root disk.
std::string BaseOf(const vm::VmSpec& spec) {
  return spec.disks.empty() || !spec.disks.front().base ? std::string()
                                                        : spec.disks.front().base->path;
}

}  // namespace

Result<std::optional<vm::RunAs>> InstanceWorker::User(const v1::BootEffective& effective) {
  if (services_.users == nullptr) {
    return std::optional<vm::RunAs>();
  }
  ASSIGN_OR_RETURN(const uid_t user, services_.users->Allocate(uid_));
  vm::RunAs run_as;
  run_as.uid = user;
  run_as.gid = user;
  run_as.groups = {services_.users->image_group()};
  struct stat kvm{};
  if (effective.accelerator() == "kvm" && stat("/dev/kvm", &kvm) == 0) {
    run_as.groups.push_back(kvm.st_gid);
  }
  return std::optional<vm::RunAs>(std::move(run_as));
}

Result<vm::VmSpec> InstanceWorker::SpecOfRunning(const v1::DesiredInstance& desired,
                                                 const v1::BootEffective& effective) {
  ASSIGN_OR_RETURN(const std::optional<vm::RunAs> user, User(effective));
  const std::filesystem::path image =
      services_.config.state_dir / "blobs" / desired.image_sha256();  // not opened when adopting
  return MakeVmSpec(services_.config, desired, effective, LaunchFiles{image.string(), user});
}

void InstanceWorker::AdoptRunning() {
  const auto wanted = desired();
  const v1::InstanceStatus before = status();
  const bool again = std::exchange(adopt_again_, false);
  if (!wanted || !before.has_boot() || !before.boot().has_effective()) {
    return;
  }
  auto adopted = TryAdopt(*wanted, before);
  if (!adopted && !WasAlive(before.phase())) {
    return StartFailed(*wanted, adopted.error());
  }
  if (!adopted) {
    return AdoptLater(adopted.error());
  }
  if (again && runner_ != nullptr) {
    Update(Durability::kStored, ClearReasonOf);
  }
}

Result<void> InstanceWorker::TryAdopt(const v1::DesiredInstance& desired,
                                      const v1::InstanceStatus& before) {
  ASSIGN_OR_RETURN(const vm::VmSpec spec, SpecOfRunning(desired, before.boot().effective()));
  auto runner = vm::InstanceRunner::Adopt(spec, MakeCallback());
  if (runner) {
    Attach(*std::move(runner), desired, {});
    // Not known: an earlier agent may have ended in the middle of it.
    isolated_.reset();
    return Ok();
  }
  if (runner.error().code() != ErrorCode::kNotFound &&
      runner.error().code() != ErrorCode::kCorrupt) {
    return std::move(runner).error();
  }
  vm::ExitReport exit = vm::InstanceRunner::ExitReportFromLogs(spec);
  RETURN_IF_ERROR(vm::InstanceRunner::CleanUp(spec));
  if (!WasAlive(before.phase()) || before.phase() == v1::INSTANCE_STARTING) {
    return Ok();
  }
  if (LoadBootId(paths_) != CurrentBootId()) {
    exit.cause = vm::ExitCause::kCrashed;
    exit.process_status = "the host was restarted";
    exit.last_lines.clear();
    Ended(exit, EndedBy::kHostRestart);
    return Ok();
  }
  Ended(exit);
  return Ok();
}

// The guest may well run, so neither it nor what finds it is touched.
void InstanceWorker::AdoptLater(const Error& error) {
  adopt_again_ = true;
  Update(Durability::kReportOnly, [&](v1::InstanceStatus& status) {
    status.set_reason(
        Printable("the agent cannot take the guest over yet and tries again; " + error.Describe(),
                  kReasonLimit));
    status.set_fix("if this does not pass, stop the instance with force and start it again");
  });
  retry_at_ = std::chrono::steady_clock::now() + ReconnectDelay(++failures_, 0);
}

bool InstanceWorker::EndUnadopted(const v1::DesiredInstance& desired) {
  auto ended = [&]() -> Result<void> {
    ASSIGN_OR_RETURN(const vm::VmSpec spec, SpecOfRunning(desired, status().boot().effective()));
    return vm::InstanceRunner::CleanUp(spec);
  }();
  if (!ended) {
    AdoptLater(ended.error());
    return false;
  }
  adopt_again_ = false;
  vm::ExitReport exit;
  exit.cause = vm::ExitCause::kForced;
  Ended(exit);
  return true;
}

Result<LaunchFiles> InstanceWorker::FetchImage(const v1::DesiredInstance& desired,
                                               const std::stop_token& stop) {
  ImageRequest request;
  request.sha256 = desired.image_sha256();
  request.size = static_cast<uint64_t>(std::max<int64_t>(desired.image_size_bytes(), 0));
  request.format = desired.image_format();
  int last_percent = -1;
  const auto progress = [&](uint64_t done, uint64_t total) {
    const int percent = total == 0 ? 0 : static_cast<int>(done * 100 / total);
    if (percent == last_percent) {
      return;
    }
    last_percent = percent;
    Update(Durability::kReportOnly, [&](v1::InstanceStatus& status) {
      status.set_progress_percent(percent);
      status.set_progress_message("fetching image " + desired.spec().image());
    });
  };
  ASSIGN_OR_RETURN(const std::filesystem::path path, services_.images.Get(request, progress, stop));
  return LaunchFiles{path.string(), std::nullopt};
}

Result<void> InstanceWorker::Start(const v1::DesiredInstance& desired, Beginning beginning,
                                   const std::stop_token& stop) {
  Update(Durability::kStored, [&](v1::InstanceStatus& status) {
    status.set_phase(v1::INSTANCE_STARTING);
    ClearReasonOf(status);
    status.set_progress_percent(0);
    status.clear_boot();
    *status.mutable_boot()->mutable_requested() = desired.boot();
  });
  ASSIGN_OR_RETURN(const LaunchPlan plan, PlanLaunch(desired, services_.facts));
  ASSIGN_OR_RETURN(LaunchFiles files, FetchImage(desired, stop));
  ASSIGN_OR_RETURN(files.user, User(plan.effective));
  RETURN_IF_ERROR(services_.snapshots.PlaceParts(desired, paths_))
      .context("taking over what the snapshot has");
  ASSIGN_OR_RETURN(const std::vector<std::string> rebuilt,
                   PrepareFiles(paths_, desired, plan, services_.clock.Now(), files.user));
  ASSIGN_OR_RETURN(vm::VmSpec spec, MakeVmSpec(services_.config, desired, plan.effective, files));
  RETURN_IF_ERROR(StoreBootId(paths_));
  Update(Durability::kStored, [&](v1::InstanceStatus& status) {
    *status.mutable_boot()->mutable_effective() = plan.effective;
    status.set_progress_percent(100);
    status.set_progress_message("starting the guest");
  });
  // What an agent that died in the middle of a start left behind would be in the way.
  RETURN_IF_ERROR(vm::InstanceRunner::CleanUp(spec));
  // While QEMU starts, the vTPM gets its certificate.
  KeepVtpm(spec);
  const WallTime started_at = services_.clock.Now();
  // Beside QEMU's own start, so that it costs no time: the guest needs much longer until anything
  // of its own runs that could write the disk, and if it did, that is seen.
  std::future<BootForecast> forecast;
  if (IsMeasured(plan.effective)) {
    forecast = std::async(std::launch::async,
                          [this, source = MakeForecastSource(desired, files.image_path)] {
                            return MakeForecast(services_.inspector, source);
                          });
  }
  // Fetching its image may have outlasted the lease.
  if (auto allowed = CheckLease(desired, beginning); !allowed) {
    NoteLeaseRefusal(desired.generation());
    return allowed;
  }
  ASSIGN_OR_RETURN(auto runner, vm::InstanceRunner::Start(std::move(spec), MakeCallback()));
  failures_ = 0;
  Update(Durability::kStored, [&](v1::InstanceStatus& status) {
    status.set_phase(v1::INSTANCE_RUNNING);
    status.set_reason(Printable(Join(rebuilt, "; "), kReasonLimit));
    status.clear_last_exit();
    status.clear_ended_by_itself();
    status.mutable_notes()->Assign(runner->notes().begin(), runner->notes().end());
    for (const std::string& note : rebuilt) {
      status.add_notes(Printable(note, kReasonLimit));
    }
    status.set_isolated(desired.isolate());
    status.clear_progress_percent();
    status.clear_progress_message();
    *status.mutable_started_at() = ToTimestamp(started_at);
    status.set_observed_generation(desired.generation());
    status.set_observed_reboot_count(desired.spec().reboot_count());
  });
  Attach(std::move(runner), desired, std::move(forecast));
  return Ok();
}

void InstanceWorker::StartFailed(const v1::DesiredInstance& desired, const Error& error) {
  keeper_.reset();
  const bool try_again = error.code() == ErrorCode::kUnavailable;
  Update(Durability::kStored, [&](v1::InstanceStatus& status) {
    status.set_reason(Printable(error.Describe(), kReasonLimit));
    status.set_fix(Printable(error.fix(), kReasonLimit));
    status.clear_progress_percent();
    status.clear_progress_message();
    if (try_again) {
      status.set_phase(v1::INSTANCE_STARTING);
      status.set_progress_message("waiting to try again");
      return;
    }
    status.set_phase(v1::INSTANCE_FAILED);
    status.set_ended_by_itself(false);
    status.set_observed_generation(desired.generation());
    status.set_observed_reboot_count(desired.spec().reboot_count());
  });
  if (try_again) {
    retry_at_ = std::chrono::steady_clock::now() + ReconnectDelay(++failures_, 0);
  }
}

void InstanceWorker::KeepVtpm(const vm::VmSpec& spec) {
  if (!spec.vtpm.has_value()) {
    return Update(Durability::kStored, [](v1::InstanceStatus& status) { status.clear_vtpm(); });
  }
  keeper_ = std::make_unique<VtpmKeeper>(
      VtpmKeeperOptions{.control_socket = vm::MakeVmPaths(spec).vtpm_control_socket,
                        .certificate_path = paths_.directory / "ek.pem"},
      [this](ByteView key_der, const std::stop_token& stop) {
        return CallIssueVtpm(services_.channel.Get(), uid_, key_der, kIssueTimeout, stop);
      },
      [this](const v1::VtpmIdentity& identity) {
        Update(Durability::kStored,
               [&](v1::InstanceStatus& status) { *status.mutable_vtpm() = identity; });
      });
}

ForecastSource InstanceWorker::MakeForecastSource(const v1::DesiredInstance& desired,
                                                  const std::string& image_path) const {
  const v1::BootEffective effective = status().boot().effective();
  ForecastSource source{.overlay = paths_.root_disk,
                        .base = image_path,
                        .base_format = desired.image_format(),
                        .variables = paths_.variables,
                        .firmware = effective.firmware(),
                        .machine = std::nullopt};
  // What KVM tells a guest of the processor is the host's; only TCG's is known for certain.
  if (effective.accelerator() == "tcg") {
    source.machine = {
        .memory = ByteCount::Bytes(static_cast<uint64_t>(desired.spec().memory_bytes())),
        .vcpus = static_cast<uint32_t>(desired.spec().vcpus()),
        .cpu = measure::TcgCpu()};
  }
  return source;
}

void InstanceWorker::Publish(const v1::BootMeasured& measured) {
  const bool keep = measured.verdict() != v1::BOOT_PENDING;
  Update(keep ? Durability::kStored : Durability::kReportOnly, [&](v1::InstanceStatus& status) {
    *status.mutable_boot()->mutable_measured() = measured;
  });
}

void InstanceWorker::Attach(std::unique_ptr<vm::InstanceRunner> runner,
                            const v1::DesiredInstance& desired,
                            std::future<BootForecast> forecast) {
  runner_ = std::move(runner);
  isolated_ = desired.isolate();
  restart_ = false;
  const vm::VmPaths paths = vm::MakeVmPaths(runner_->spec());
  const v1::InstanceStatus now = status();
  const v1::BootEffective& effective = now.boot().effective();
  if (IsMeasured(effective)) {
    BootMonitorOptions options;
    options.control_socket = paths.vtpm_control_socket;
    options.variables_path = paths_.variables.string();
    options.firmware_log = paths.firmware_log;
    options.evidence_path = paths_.evidence;
    options.mode = effective.mode();
    options.assigned = LoadAssignedKeys(paths_);
    options.binaries = ToMeasureBinaries(desired.boot_binaries());
    options.started_at = FromTimestamp(now.started_at());
    options.previous = now.boot().measured();
    options.stored = LoadEvidence(paths_.evidence);
    // Of a later boot. What QEMU still holds of the disk must be in its file to be read.
    options.forecast = [this, running = runner_.get(),
                        source = MakeForecastSource(desired, BaseOf(runner_->spec()))] {
      static_cast<void>(running->Flush("root"));
      return MakeForecast(services_.inspector, source);
    };
    if (!now.boot().has_measured()) {
      v1::BootMeasured pending;
      pending.set_verdict(v1::BOOT_PENDING);
      pending.set_secure_boot(v1::SECURE_BOOT_UNKNOWN);
      Publish(pending);
    }
    monitor_ = std::make_unique<BootMonitor>(
        std::move(options), services_.clock,
        BootMonitor::Callbacks{[this](const v1::BootMeasured& measured) { Publish(measured); },
                               [this](const v1::BootEvidence& evidence) {
                                 services_.board.PutEvidence(uid_, evidence);
                               }},
        std::move(forecast));
  } else if (!now.boot().has_measured()) {
    v1::BootMeasured unmeasured = UnmeasuredBoot(effective);
    *unmeasured.mutable_measured_at() = ToTimestamp(services_.clock.Now());
    Publish(unmeasured);
  }
  BootMonitor* const monitor = monitor_.get();
  auto hub = SerialHub::Connect(paths.serial_socket, paths.serial_log, [monitor](ByteView output) {
    if (monitor != nullptr) {
      monitor->OnSerial(output);
    }
  });
  if (keeper_ == nullptr) {
    KeepVtpm(runner_->spec());  // of a guest that an earlier agent started
  }
  const std::lock_guard lock(mutex_);
  vtpm_socket_ = runner_->spec().vtpm.has_value() ? paths.vtpm_control_socket : "";
  // Without its console the guest still runs; OpenConsole says why there is none.
  serial_ = hub ? std::shared_ptr<SerialHub>(*std::move(hub)) : nullptr;
}

void InstanceWorker::Detach() {
  std::shared_ptr<SerialHub> hub;
  {
    const std::lock_guard lock(mutex_);
    hub = std::move(serial_);
    serial_.reset();
    vtpm_socket_.clear();
    events_.clear();
  }
  // The hub calls the monitor, so it ends first; a console that still holds it only reads.
  if (hub) {
    hub->Close();
  }
  monitor_.reset();
  keeper_.reset();
  runner_.reset();
  restart_ = false;  // of that run; the next one starts with new keys in any case
}

Result<vm::ExitReport> InstanceWorker::StopInterruptibly(std::chrono::milliseconds grace,
                                                         const std::stop_token& stop) {
  auto stopping =
      std::async(std::launch::async, [this, grace, stop] { return runner_->Stop(grace, stop); });
  while (stopping.wait_for(kStopPoll) != std::future_status::ready) {
    const auto wanted = desired();
    if (wanted && WantsForcedEnd(*wanted)) {
      static_cast<void>(runner_->ForceStop());
    }
  }
  return stopping.get();
}

void InstanceWorker::Stop(const v1::DesiredInstance& desired, Step step,
                          const std::stop_token& stop) {
  Update(Durability::kStored, [](v1::InstanceStatus& status) {
    status.set_phase(v1::INSTANCE_STOPPING);
    ClearReasonOf(status);
  });
  const bool force = step == Step::kForceStop;
  auto exit = force ? runner_->ForceStop() : StopInterruptibly(StopGrace(desired.spec()), stop);
  if (!exit && stop.stop_requested()) {
    return;  // the next agent finds it STOPPING and goes on
  }
  if (exit) {
    Ended(*exit);
  }
  Update(Durability::kStored, [&](v1::InstanceStatus& status) {
    status.set_observed_generation(desired.generation());
    status.set_observed_reboot_count(desired.spec().reboot_count());
    if (!exit) {
      status.set_reason(Printable(exit.error().Describe(), kReasonLimit));
      status.set_fix(exit.error().fix());
      return;
    }
    status.set_phase(v1::INSTANCE_STOPPED);
    // A start that was asked for meanwhile counts.
    status.set_ended_by_itself(false);
    ClearReasonOf(status);
  });
  if (!exit) {
    retry_at_ = std::chrono::steady_clock::now() + ReconnectDelay(++failures_, 0);
  }
}

// Its processes too: QEMU reads the variable store when it starts, and only then.
void InstanceWorker::Restart(const v1::DesiredInstance& desired, const std::stop_token& stop) {
  restart_ = false;
  const auto ended = runner_->ForceStop();
  if (!ended) {
    return StartFailed(desired, ended.error());
  }
  if (ended->cause != vm::ExitCause::kForced) {
    return Ended(*ended);  // by itself meanwhile: it no longer runs, so that a lease counts
  }
  Detach();
  if (auto started = Start(desired, Beginning::kAfterReset, stop);
      !started && !stop.stop_requested()) {
    StartFailed(desired, started.error());
  }
}

Result<void> InstanceWorker::SetIsolation(const v1::DesiredInstance& desired) {
  const bool down = desired.isolate();
  RETURN_IF_ERROR(runner_->SetLinks(down ? vm::LinkState::kDown : vm::LinkState::kUp));
  isolated_ = down;
  Update(Durability::kStored, [&](v1::InstanceStatus& status) { status.set_isolated(down); });
  return Ok();
}

void InstanceWorker::Remove(const v1::DesiredInstance& desired) {
  Update(Durability::kStored,
         [](v1::InstanceStatus& status) { status.set_phase(v1::INSTANCE_DELETING); });
  auto removed = [&]() -> Result<void> {
    if (runner_ != nullptr) {
      RETURN_IF_ERROR(runner_->ForceStop());
      Detach();
    }
    vm::VmSpec remains;
    remains.uid = uid_;
    remains.run_dir = paths_.run_dir.string();
    remains.log_dir = paths_.log_dir.string();
    if (const v1::InstanceStatus now = status(); now.boot().has_effective()) {
      ASSIGN_OR_RETURN(remains.run_as, User(now.boot().effective()));
    }
    RETURN_IF_ERROR(vm::InstanceRunner::CleanUp(remains));
    RETURN_IF_ERROR(RemoveFiles(paths_));
    services_.images.Release(uid_);
    return services_.users == nullptr ? Ok() : services_.users->Release(uid_);
  }();
  if (!removed) {
    Update(Durability::kReportOnly, [&](v1::InstanceStatus& status) {
      status.set_reason(Printable(removed.error().Describe(), kReasonLimit));
      status.set_fix(removed.error().fix());
      status.set_observed_generation(desired.generation());
    });
    retry_at_ = std::chrono::steady_clock::now() + ReconnectDelay(++failures_, 0);
    return;
  }
  v1::InstanceReport report;
  report.set_uid(uid_);
  report.set_gone(true);
  services_.board.Put(std::move(report));
  gone_ = true;
}

bool InstanceWorker::DoSnapshot(const std::stop_token& stop) {
  std::optional<v1::TakeSnapshot> request;
  {
    const std::lock_guard lock(mutex_);
    request = snapshot_;
  }
  if (!request) {
    return false;
  }
  const Result<void> sent = SendSnapshot(*request, stop);
  // Whoever asks after a broken transfer asks again.
  if (!sent && sent.error().code() != ErrorCode::kUnavailable && !stop.stop_requested()) {
    services_.snapshots.Refuse(*request, sent.error());
  }
  const std::lock_guard lock(mutex_);
  if (snapshot_ && snapshot_->snapshot_uid() == request->snapshot_uid()) {
    snapshot_.reset();
  }
  return true;
}

Result<void> InstanceWorker::SendSnapshot(const v1::TakeSnapshot& request,
                                          const std::stop_token& stop) {
  const auto wanted = desired();
  const v1::InstanceStatus now = status();
  const bool ended = now.phase() == v1::INSTANCE_STOPPED || now.phase() == v1::INSTANCE_CRASHED;
  if (runner_ != nullptr || adopt_again_ || !wanted || !ended) {
    return Conflict("the instance is not stopped on this host")
        .WithFix("stop it, then take the snapshot");
  }
  if (!now.boot().has_effective()) {
    return Conflict("the instance was never started on this host")
        .WithFix("make another instance from its image");
  }
  ASSIGN_OR_RETURN(const LaunchFiles files, FetchImage(*wanted, stop));
  // FetchImage told of its progress.
  Update(Durability::kReportOnly, [](v1::InstanceStatus& status) {
    status.clear_progress_percent();
    status.clear_progress_message();
  });
  return services_.snapshots.Send(request, *wanted, now.boot().effective(), paths_,
                                  files.image_path, stop);
}

}  // namespace vallum::agent

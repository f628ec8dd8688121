// SPDX-License-Identifier: Apache-2.0
#include "vm/launch.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "base/text.h"
#include "vm/command.h"
#include "vm/host_resources.h"
#include "vm/process_files.h"

namespace vallum::vm {
namespace {

constexpr std::chrono::milliseconds kHandshakeLimit{30000};  // a host under load starts slowly
constexpr size_t kLastLines = 5;

Result<void> MakeRunDir(const VmSpec& spec) {
  if (mkdir(spec.run_dir.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoError(errno, "make " + spec.run_dir);
  }
  // Also for one that was there: a wider mode would let others reach the monitor.
  if (chmod(spec.run_dir.c_str(), 0700) != 0) {
    return ErrnoError(errno, "chmod " + spec.run_dir);
  }
  if (spec.run_as.has_value() &&
      lchown(spec.run_dir.c_str(), spec.run_as->uid, spec.run_as->gid) != 0) {
    return ErrnoError(errno, "give " + spec.run_dir + " to its user");
  }
  return Ok();
}

// Each start has its own logs, so that nobody reads an earlier boot's messages as this one's; one
// older generation is kept.
Result<void> RotateLogs(const VmSpec& spec) {
  const VmPaths paths = MakeVmPaths(spec);
  std::vector<std::string> logs = {paths.qemu_log, paths.serial_log, paths.firmware_log};
  if (spec.vtpm.has_value()) {
    logs.insert(logs.end(), {paths.vtpm_log, paths.swtpm_log});
  }
  for (const std::string& log : logs) {
    if (rename(log.c_str(), (log + ".1").c_str()) != 0 && errno != ENOENT) {
      return ErrnoError(errno, "rename " + log);
    }
    RETURN_IF_ERROR(EnsureOwnedFile(log, spec.run_as));
  }
  return Ok();
}

Result<std::unique_ptr<Process>> StartVtpm(const VmSpec& spec, const std::string& cgroup) {
  if (!spec.vtpm.has_value()) {
    return std::unique_ptr<Process>();
  }
  const VmPaths paths = MakeVmPaths(spec);
  ASSIGN_OR_RETURN(const UniqueFd listen, ListenUnix(paths.vtpm_qemu_socket, spec.run_as));
  ASSIGN_OR_RETURN(const UniqueFd control, ListenUnix(paths.vtpm_control_socket, spec.run_as));
  return Process::Spawn({.command = MakeVtpmCommand(spec),
                         .descriptors = {listen.get(), control.get()},
                         .run_as = spec.run_as,
                         .output_path = paths.vtpm_log,
                         .identity_path = paths.vtpm_identity,
                         .cgroup_dir = cgroup});
}

Result<std::vector<UniqueFd>> MakeTaps(const VmSpec& spec) {
  std::vector<UniqueFd> taps;
  for (const Nic& nic : spec.nics) {
    const auto* bridged = std::get_if<BridgeNetwork>(&nic.network);
    if (bridged != nullptr) {
      ASSIGN_OR_RETURN_CONTEXT(UniqueFd tap, MakeTap(bridged->bridge), "connecting nic " + nic.id);
      taps.push_back(std::move(tap));
    }
  }
  return taps;
}

Result<void> StartQemu(const VmSpec& spec, const std::string& cgroup, Launched& launched) {
  const VmPaths paths = MakeVmPaths(spec);
  ASSIGN_OR_RETURN(const UniqueFd qmp, ListenUnix(paths.qmp_socket, spec.run_as));
  ASSIGN_OR_RETURN(const UniqueFd serial, ListenUnix(paths.serial_socket, spec.run_as));
  ASSIGN_OR_RETURN(const std::vector<UniqueFd> taps, MakeTaps(spec));
  std::vector<int> descriptors = {qmp.get(), serial.get()};
  for (const UniqueFd& tap : taps) {
    descriptors.push_back(tap.get());
  }
  // Connected before QEMU exists: the connection waits in the listener's queue, and ends when QEMU
  // does, so there is nothing to poll for.
  ASSIGN_OR_RETURN(launched.qmp, QmpClient::Dial(paths.qmp_socket));
  ASSIGN_OR_RETURN(launched.qemu, Process::Spawn({.command = MakeQemuCommand(spec),
                                                  .descriptors = descriptors,
                                                  .run_as = spec.run_as,
                                                  .output_path = paths.qemu_log,
                                                  .identity_path = paths.qemu_identity,
                                                  .cgroup_dir = cgroup}));
  return Ok();
}

Result<void> LetRun(const VmSpec& spec, QmpClient& qmp) {
  RETURN_IF_ERROR(qmp.Handshake(kHandshakeLimit));
  if (spec.links == LinkState::kDown) {
    RETURN_IF_ERROR(SetLinks(spec, qmp, LinkState::kDown));
  }
  ASSIGN_OR_RETURN([[maybe_unused]] const Json nothing,
                   qmp.Execute("cont", Json::object(), kHandshakeLimit));
  return Ok();
}

// Ends what was started and says why it failed in the programs' own words.
Error FailLaunch(const VmSpec& spec, Launched& launched, Error error) {
  constexpr std::chrono::milliseconds kShort{500};
  const VmPaths paths = MakeVmPaths(spec);
  launched.qmp.reset();
  if (launched.qemu != nullptr) {
    // A QEMU that closed its monitor is about to end and has said why.
    const std::string end = EndProcess(*launched.qemu, kShort, kShort);
    const auto lines = ReadLastLines(paths.qemu_log, kLastLines);
    if (!lines.empty()) {
      error = Unavailable("QEMU did not start (" + end + "): " + Join(lines, "; "));
    }
  }
  if (launched.vtpm != nullptr) {
    // One that ended badly by itself is the cause of QEMU's failure, not its consequence.
    const auto end = launched.vtpm->Wait(kShort);
    if (!end.has_value()) {
      EndProcess(*launched.vtpm, std::chrono::milliseconds(0), kShort);
    } else if (*end != "exit status 0") {
      error = Unavailable("vallum-vtpm did not start (" + *end +
                          "): " + Join(ReadLastLines(paths.vtpm_log, kLastLines), "; "));
    }
  }
  RemoveRunFiles(spec);
  return std::move(error).Context("starting instance " + spec.name);
}

Result<void> StartProcesses(const VmSpec& spec, Launched& launched) {
  std::string cgroup;
  if (!spec.limits.cgroup_parent.empty()) {
    ASSIGN_OR_RETURN(cgroup, MakeCgroup(spec));
  }
  RETURN_IF_ERROR(RotateLogs(spec));
  ASSIGN_OR_RETURN(launched.vtpm, StartVtpm(spec, cgroup));
  RETURN_IF_ERROR(StartQemu(spec, cgroup, launched));
  return LetRun(spec, *launched.qmp);
}

Result<void> AskMonitor(const VmSpec& spec, const VmPaths& paths, Launched& launched) {
  ASSIGN_OR_RETURN(launched.qmp, QmpClient::Dial(paths.qmp_socket));
  RETURN_IF_ERROR(launched.qmp->Handshake(kHandshakeLimit));
  ASSIGN_OR_RETURN(const Json status,
                   launched.qmp->Execute("query-status", Json::object(), kQmpLimit));
  if (!status.is_object() || !status.contains("status") || !status["status"].is_string()) {
    return InvalidInput("QEMU's answer to query-status has no status");
  }
  launched.status = status["status"].get<std::string>();
  if (launched.status == "prelaunch") {  // its agent died between starting it and letting it run
    if (spec.links == LinkState::kDown) {
      RETURN_IF_ERROR(SetLinks(spec, *launched.qmp, LinkState::kDown));
    }
    ASSIGN_OR_RETURN([[maybe_unused]] const Json nothing,
                     launched.qmp->Execute("cont", Json::object(), kQmpLimit));
    launched.status = "running";
  }
  return Ok();
}

}  // namespace

Result<void> SetLinks(const VmSpec& spec, QmpClient& qmp, LinkState state) {
  for (const Nic& nic : spec.nics) {
    const Json arguments = {{"name", NicDeviceId(nic)}, {"up", state == LinkState::kUp}};
    RETURN_IF_ERROR(qmp.Execute("set_link", arguments, kQmpLimit))
        .context("setting the link of nic " + nic.id);
  }
  return Ok();
}

Result<Launched> LaunchInstance(const VmSpec& spec) {
  RETURN_IF_ERROR(ValidateVmSpec(spec));
  RETURN_IF_ERROR(MakeRunDir(spec));
  if (Process::Open(MakeVmPaths(spec).qemu_identity, spec.run_as).has_value()) {
    return Conflict("instance " + spec.name + " runs already")
        .WithFix("adopt it, or stop it first");
  }
  RETURN_IF_ERROR(InstanceRunner::CleanUp(spec));  // a vTPM left from a crash
  Launched launched;
  const ResourceLimits& limits = spec.limits;
  const bool limited = limits.memory_max.has_value() || limits.cpu_weight.has_value() ||
                       limits.cpu_percent.has_value() || limits.pids_max.has_value();
  if (limits.cgroup_parent.empty() && limited) {
    launched.notes.push_back("limits not applied: no delegated cgroup v2 directory");
  }
  if (auto started = StartProcesses(spec, launched); !started.has_value()) {
    return FailLaunch(spec, launched, std::move(started).error());
  }
  launched.status = "running";
  return launched;
}

Result<Launched> FindInstance(const VmSpec& spec) {
  RETURN_IF_ERROR(ValidateVmSpec(spec));
  const VmPaths paths = MakeVmPaths(spec);
  const std::string context = "adopting instance " + spec.name;
  Launched launched;
  ASSIGN_OR_RETURN_CONTEXT(launched.qemu, Process::Open(paths.qemu_identity, spec.run_as), context);
  if (auto vtpm = Process::Open(paths.vtpm_identity, spec.run_as); vtpm.has_value()) {
    launched.vtpm = std::move(*vtpm);
  }
  if (auto asked = AskMonitor(spec, paths, launched); !asked.has_value()) {
    // Whatever the monitor's trouble is: "not found" is only what does not run.
    const std::string what = asked.error().message();
    return (launched.qemu->HasEnded() ? NotFound("QEMU ended meanwhile: " + what)
                                      : Unavailable("QEMU runs, but: " + what))
        .Context(context);
  }
  return launched;
}

std::string EndProcess(Process& process, std::chrono::milliseconds by_itself,
                       std::chrono::milliseconds after_term) {
  auto end = process.Wait(by_itself);
  if (!end.has_value()) {
    static_cast<void>(process.Signal(SIGTERM));  // SIGKILL follows if this could not be sent
    end = process.Wait(after_term);
  }
  if (!end.has_value()) {
    static_cast<void>(process.Signal(SIGKILL));
    end = process.Wait(std::chrono::seconds(10));
  }
  return end.value_or("still there after SIGKILL: it hangs in the kernel");
}

void RemoveRunFiles(const VmSpec& spec) {
  const VmPaths paths = MakeVmPaths(spec);
  for (const std::string& path :
       {paths.qmp_socket, paths.serial_socket, paths.vtpm_qemu_socket, paths.vtpm_control_socket,
        paths.qemu_identity, paths.vtpm_identity}) {
    unlink(path.c_str());
  }
  RemoveCgroup(spec);
}

}  // namespace vallum::vm

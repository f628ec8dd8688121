// SPDX-License-Identifier: Apache-2.0
#include <malloc.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "agent/agent.h"
#include "base/clock.h"
#include "base/exit_code.h"

namespace vallum::agent {
namespace {

// A host's memory is for its guests: few arenas, and what is freed goes back to the kernel.
void LimitMemory() {
  mallopt(M_ARENA_MAX, 2);
  mallopt(M_MMAP_THRESHOLD, 64 * 1024);
  mallopt(M_TRIM_THRESHOLD, 128 * 1024);
}

// Memory of the agent holds its key, so it goes to no core dump and no debugger of another user.
void HardenProcess() {
  umask(077);
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  // What the TPM refuses is told in our words; its library would write its own to stderr.
  setenv("TSS2_LOG", "all+none", 0);
  // A controller that goes away while we write must not end the agent.
  std::signal(SIGPIPE, SIG_IGN);
}

void Log(LogLevel level, const std::string& text) {
  const char* name = level == LogLevel::kInfo      ? "info"
                     : level == LogLevel::kWarning ? "warning"
                                                   : "error";
  std::fprintf(stderr, "%s vallum-agent %s: %s\n", FormatTime(SystemClock().Now()).c_str(), name,
               text.c_str());
}

std::string ProgramBeside(const char* name) {
  std::error_code failure;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", failure);
  return (self.parent_path() / name).string();
}

int Fail(const Error& error) {
  Log(LogLevel::kError, error.Describe());
  if (!error.fix().empty()) {
    Log(LogLevel::kError, "fix: " + error.fix());
  }
  return ExitCode(error.code());
}

int Serve(const AgentConfig& config) {
  // Blocked before the first thread starts, so that only the waiting thread takes them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const SystemClock clock;
  auto agent = Agent::Open(config, clock, Log);
  if (!agent) {
    return Fail(agent.error());
  }
  std::thread waiter([&signals, &agent] {
    int signal = 0;
    sigwait(&signals, &signal);
    Log(LogLevel::kInfo, "stopping; instances keep running");
    (*agent)->Stop();
  });
  (*agent)->Run();
  waiter.join();
  return 0;
}

int Main(int argc, char** argv) {
  LimitMemory();
  HardenProcess();
  AgentConfig config;
  config.vtpm_program = ProgramBeside("vallum-vtpm");
  CLI::App app("Runs the instances of one host for a Vallum controller.", "vallum-agent");
  app.footer(
      "Example:\n  vallum-agent --state-dir /var/lib/vallum-agent --run-dir /run/vallum-agent "
      "--name node7 --join-token-file node7.join");
  std::string token_file;
  app.add_option("--state-dir", config.state_dir, "identity, images and instances")->required();
  app.add_option("--run-dir", config.run_dir, "sockets; short path, emptied by a reboot")
      ->required();
  app.add_option("--name", config.host, "name of this host")->required();
  app.add_option("--join-token-file", token_file, "join token; read only while not joined");
  app.add_option("--qemu", config.qemu_program, "QEMU")->capture_default_str();
  app.add_option("--swtpm", config.swtpm_program, "swtpm")->capture_default_str();
  app.add_option("--vtpm", config.vtpm_program, "vallum-vtpm; vallum-inspect is beside it");
  app.add_option("--firmware-dir", config.firmware_directories,
                 "firmware descriptors, instead of QEMU's own directories; repeatable");
  app.add_option("--cgroup-parent", config.cgroup_parent, "delegated cgroup v2 directory");
  app.add_option("--tpm", config.tpm,
                 "the host's own TPM: auto, none, device:/dev/tpmrm0, swtpm:host=H,port=P, "
                 "swtpm:path=/run/tpm.sock")
      ->capture_default_str();
  app.add_option("--host-root", config.host_root,
                 "where /proc and /sys of this host are, for evidence")
      ->capture_default_str();
  app.add_option("--first-uid", config.first_user, "first user of the range for instances")
      ->capture_default_str();
  app.add_option("--uid-count", config.user_count, "size of that range")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (!token_file.empty()) {
    config.join_token_file = token_file;
  }
  return Serve(config);
}

}  // namespace
}  // namespace vallum::agent

int main(int argc, char** argv) { return vallum::agent::Main(argc, argv); }

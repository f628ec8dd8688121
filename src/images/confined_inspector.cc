// SPDX-License-Identifier: Apache-2.0
#include "images/confined_inspector.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "images/inspection.h"
#include "images/inspection_json.h"

namespace vallum::images {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kImageDescriptor = 3;
constexpr int kAboveStandard = 10;
constexpr size_t kMaxReport = size_t{8} << 20U;

class UniqueFd {
 public:
  explicit UniqueFd(int fd = -1) : fd_(fd) {}
  ~UniqueFd() { Reset(); }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  int get() const { return fd_; }
  void Reset() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

// A started inspector. Killed and reaped when it goes out of scope.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  ~Child() { Kill(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void Kill() {
    if (pid_ < 0) return;
    kill(pid_, SIGKILL);
    static_cast<void>(Wait());
  }
  int Wait() {
    int status = 0;
    const pid_t pid = std::exchange(pid_, -1);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
  }

 private:
  pid_t pid_;
};

// The child gets nothing (0), the report's pipe (1), nothing (2) and the image (3); no environment.
Result<pid_t> Spawn(const std::string& program, DeclaredFormat declared, int image, int report) {
  posix_spawn_file_actions_t actions;
  if (posix_spawn_file_actions_init(&actions) != 0) return Exhausted("no memory to start a child");
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, report, STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, image, kImageDescriptor);
  posix_spawn_file_actions_addclosefrom_np(&actions, kImageDescriptor + 1);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // The caller's signal mask and ignored signals are not the child's.
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::string name = "vallum-inspect";
  std::string format(DeclaredFormatName(declared));
  std::array<char*, 3> argv = {name.data(), format.data(), nullptr};
  std::array<char*, 1> environment = {nullptr};
  pid_t pid = -1;
  const int error =
      posix_spawn(&pid, program.c_str(), &actions, &attributes, argv.data(), environment.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return ErrnoError(error, "start " + program)
        .WithFix("install vallum-inspect beside vallum-agent");
  }
  return pid;
}

Error TimedOut(milliseconds timeout) {
  return InvalidInput(
             fmt::format("the inspection did not end within {} ms, so the image is refused",
                         timeout.count()))
      .WithFix("make a new image of it: qemu-img convert -O qcow2");
}

Result<std::string> ReadReport(int pipe, milliseconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  std::string report;
  std::array<char, 16384> buffer{};
  while (true) {
    const auto left =
        std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now()).count();
    if (left <= 0) return TimedOut(timeout);
    pollfd poll_fd{pipe, POLLIN, 0};
    const int ready = poll(&poll_fd, 1, static_cast<int>(left));
    if (ready < 0 && errno != EINTR) return ErrnoError(errno, "poll the inspector");
    if (ready <= 0) continue;
    const ssize_t got = read(pipe, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoError(errno, "read the inspector's report");
    if (got == 0) return report;
    report.append(buffer.data(), static_cast<size_t>(got));
    if (report.size() > kMaxReport) return InvalidInput("the inspector's report has no end");
  }
}

Result<void> CheckExit(int status) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return Ok();
  const std::string how = WIFSIGNALED(status)
                              ? fmt::format("was ended by signal {} ({})", WTERMSIG(status),
                                            strsignal(WTERMSIG(status)))
                              : fmt::format("ended with status {}", WEXITSTATUS(status));
  return InvalidInput("the inspector " + how + " while it read the image, so the image is refused")
      .WithFix("make a new image of it: qemu-img convert -O qcow2");
}

}  // namespace

Result<InspectedImage> ConfinedInspector::Inspect(int image, DeclaredFormat declared,
                                                  const Sha256Digest& digest) const {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return ErrnoError(errno, "pipe for the inspector");
  UniqueFd read_end(ends[0]);
  UniqueFd low_write_end(ends[1]);
  // Above the child's numbers, so that setting one does not overwrite another.
  UniqueFd write_end(fcntl(ends[1], F_DUPFD_CLOEXEC, kAboveStandard));
  const UniqueFd source(fcntl(image, F_DUPFD_CLOEXEC, kAboveStandard));
  if (write_end.get() < 0 || source.get() < 0) return ErrnoError(errno, "duplicate a descriptor");
  struct stat before{};
  if (fstat(image, &before) != 0) return ErrnoError(errno, "fstat the image");

  ASSIGN_OR_RETURN(const pid_t pid,
                   Spawn(options_.program, declared, source.get(), write_end.get()));
  Child child(pid);
  write_end.Reset();
  low_write_end.Reset();
  ASSIGN_OR_RETURN(const std::string report, ReadReport(read_end.get(), options_.timeout));
  RETURN_IF_ERROR(CheckExit(child.Wait()));
  ASSIGN_OR_RETURN(Inspection inspection, ReportFromJson(report));
  // What the child says about anything but the content is known here.
  if (inspection.format != declared ||
      inspection.file_size != static_cast<uint64_t>(before.st_size)) {
    return InvalidInput("the inspector's report is not about this image");
  }
  return InspectedImage(std::move(inspection), digest);
}

}  // namespace vallum::images

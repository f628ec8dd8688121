// SPDX-License-Identifier: Apache-2.0
#include "vm/process.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <csignal>
#include <cstring>

#include "vm/process_files.h"

extern "C" {
#include <sys/pidfd.h>  // glibc 2.36 forgot to say so itself
}

namespace vallum::vm {
namespace {

// The environment of every program: messages in one language, nothing of ours.
constexpr std::array<const char*, 3> kEnvironment = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", nullptr};

enum class Step : int {
  kSession,
  kDescriptors,
  kCgroup,
  kIdentity,
  kLimits,
  kPrivileges,
  kUser,
  kExec
};

const char* StepName(Step step) {
  switch (step) {
    case Step::kSession:
      return "make a session for";
    case Step::kDescriptors:
      return "hand descriptors to";
    case Step::kCgroup:
      return "join the cgroup of";
    case Step::kIdentity:
      return "write the identity of";
    case Step::kLimits:
      return "set the limits of";
    case Step::kPrivileges:
      return "take privileges from";
    case Step::kUser:
      return "change the user of";
    case Step::kExec:
      return "execute";
  }
  return "";
}

struct ChildFailure {
  Step step;
  int error;
};

// All that the child needs, made before the fork: after it, a child of a process with threads may
// call async-signal-safe functions only (signal-safety(7)).
struct ChildPlan {
  std::vector<char*> argv;
  std::vector<int> descriptors;
  UniqueFd null;
  UniqueFd output;
  UniqueFd identity;
  UniqueFd cgroup_procs;
  std::string identity_tail;  // " <boot id>\n"
  std::optional<RunAs> run_as;
};

[[noreturn]] void FailChild(int error_pipe, Step step) {
  const ChildFailure failure{.step = step, .error = errno};
  static_cast<void>(!write(error_pipe, &failure, sizeof failure));
  _exit(127);
}

// Moves descriptors to 0, 1, 2, 3, ... by way of high numbers, so that none overwrites another.
int MoveDescriptors(const ChildPlan& plan, int error_pipe) {
  constexpr int kHigh = 512;
  const int first_free = 3 + static_cast<int>(plan.descriptors.size());
  const int pipe_copy = fcntl(error_pipe, F_DUPFD_CLOEXEC, kHigh);
  if (pipe_copy < 0) {
    FailChild(error_pipe, Step::kDescriptors);
  }
  std::array<int, 64> high{};
  for (size_t i = 0; i < plan.descriptors.size(); ++i) {
    high[i] = fcntl(plan.descriptors[i], F_DUPFD_CLOEXEC, kHigh);
    if (high[i] < 0) {
      FailChild(pipe_copy, Step::kDescriptors);
    }
  }
  const int null = fcntl(plan.null.get(), F_DUPFD_CLOEXEC, kHigh);
  const int output = fcntl(plan.output.get(), F_DUPFD_CLOEXEC, kHigh);
  if (null < 0 || output < 0 || dup2(null, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0) {
    FailChild(pipe_copy, Step::kDescriptors);
  }
  for (size_t i = 0; i < plan.descriptors.size(); ++i) {
    if (dup2(high[i], 3 + static_cast<int>(i)) < 0) {
      FailChild(pipe_copy, Step::kDescriptors);
    }
  }
  if (dup3(pipe_copy, first_free, O_CLOEXEC) < 0 ||
      close_range(static_cast<unsigned>(first_free) + 1, UINT_MAX, 0) != 0) {
    FailChild(pipe_copy, Step::kDescriptors);
  }
  return first_free;
}

bool WriteIdentity(const ChildPlan& plan) {
  std::array<char, 1024> stat{};
  const int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  const ssize_t got = fd < 0 ? -1 : read(fd, stat.data(), stat.size());
  if (got <= 0) {
    return false;
  }
  close(fd);
  const std::string_view text(stat.data(), static_cast<size_t>(got));
  const std::string_view pid = text.substr(0, text.find(' '));
  const std::string_view start = StartTimeOfStat(text);
  std::array<char, 256> line{};
  size_t used = 0;
  for (const std::string_view part :
       {pid, std::string_view(" "), start, std::string_view(plan.identity_tail)}) {
    if (part.empty() || used + part.size() > line.size()) {
      errno = EOVERFLOW;
      return false;
    }
    memcpy(line.data() + used, part.data(), part.size());
    used += part.size();
  }
  return write(plan.identity.get(), line.data(), used) == static_cast<ssize_t>(used);
}

bool DropUser(const RunAs& run_as) {
  return setgroups(run_as.groups.size(), run_as.groups.data()) == 0 &&
         setresgid(run_as.gid, run_as.gid, run_as.gid) == 0 &&
         setresuid(run_as.uid, run_as.uid, run_as.uid) == 0;
}

void ResetSignals() {
  for (int number = 1; number < NSIG; ++number) {
    signal(number, SIG_DFL);  // fails for SIGKILL and SIGSTOP, as it should
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

[[noreturn]] void RunChild(const ChildPlan& plan, int error_pipe) {
  ResetSignals();
  if (setsid() < 0) {
    FailChild(error_pipe, Step::kSession);
  }
  if (plan.cgroup_procs.valid() && write(plan.cgroup_procs.get(), "0\n", 2) != 2) {
    FailChild(error_pipe, Step::kCgroup);
  }
  if (plan.identity.valid() && !WriteIdentity(plan)) {
    FailChild(error_pipe, Step::kIdentity);
  }
  error_pipe = MoveDescriptors(plan, error_pipe);
  umask(077);
  const rlimit no_core{.rlim_cur = 0, .rlim_max = 0};
  if (setrlimit(RLIMIT_CORE, &no_core) != 0 || chdir("/") != 0) {
    FailChild(error_pipe, Step::kLimits);
  }
  if (plan.run_as.has_value() && !DropUser(*plan.run_as)) {
    FailChild(error_pipe, Step::kUser);
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    FailChild(error_pipe, Step::kPrivileges);
  }
  execve(plan.argv[0], plan.argv.data(), const_cast<char**>(kEnvironment.data()));
  FailChild(error_pipe, Step::kExec);
}

Result<ChildPlan> MakeChildPlan(const SpawnSpec& spec) {
  ChildPlan plan;
  for (const std::string& argument : spec.command.argv) {
    plan.argv.push_back(const_cast<char*>(argument.c_str()));
  }
  plan.argv.push_back(nullptr);
  plan.descriptors = spec.descriptors;
  plan.run_as = spec.run_as;
  if (plan.descriptors.size() > 64) {
    return Internal("more than 64 descriptors for one process");
  }
  ASSIGN_OR_RETURN(plan.null, OpenFile("/dev/null", O_RDWR));
  ASSIGN_OR_RETURN(plan.output, OpenFile(spec.output_path, O_WRONLY | O_CREAT | O_APPEND));
  if (!spec.identity_path.empty()) {
    ASSIGN_OR_RETURN(plan.identity, OpenFile(spec.identity_path, O_WRONLY | O_CREAT | O_TRUNC));
    ASSIGN_OR_RETURN(const std::string boot_id, ReadBootId());
    plan.identity_tail = " " + boot_id + "\n";
  }
  if (!spec.cgroup_dir.empty()) {
    ASSIGN_OR_RETURN(plan.cgroup_procs, OpenFile(spec.cgroup_dir + "/cgroup.procs", O_WRONLY));
  }
  return plan;
}

// Not the owner of /proc/<pid>: that is root's for a process that is not dumpable.
std::optional<uid_t> UserOf(pid_t pid) {
  const auto status = ReadSmallFile("/proc/" + std::to_string(pid) + "/status");
  const size_t at = status.has_value() ? status->find("\nUid:\t") : std::string::npos;
  if (at == std::string::npos) {
    return std::nullopt;
  }
  const char* begin = status->data() + at + strlen("\nUid:\t");
  uid_t user = 0;
  const auto [end, error] = std::from_chars(begin, status->data() + status->size(), user);
  return error == std::errc() ? std::optional<uid_t>(user) : std::nullopt;
}

Result<void> ReadChildFailure(int error_pipe, const std::string& program) {
  ChildFailure failure{};
  ssize_t got = 0;
  do {
    got = read(error_pipe, &failure, sizeof failure);
  } while (got < 0 && errno == EINTR);
  if (got == 0) {
    return Ok();
  }
  if (got != sizeof failure) {
    return Internal("the new process of " + program + " ended before it could start");
  }
  return ErrnoError(failure.error, std::string(StepName(failure.step)) + " " + program);
}

}  // namespace

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    Reset();
    fd_ = other.Release();
  }
  return *this;
}

int UniqueFd::Release() { return std::exchange(fd_, -1); }

void UniqueFd::Reset() {
  if (fd_ >= 0) {
    close(fd_);
  }
  fd_ = -1;
}

Result<std::unique_ptr<Process>> Process::Spawn(const SpawnSpec& spec) {
  const std::string& program = spec.command.argv.at(0);
  ASSIGN_OR_RETURN(const ChildPlan plan, MakeChildPlan(spec));
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return ErrnoError(errno, "make a pipe");
  }
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  // No handler of ours may run in the child between fork and its reset.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  if (pid == 0) {
    RunChild(plan, write_end.get());
  }
  const int fork_error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) {
    return ErrnoError(fork_error, "fork for " + program);
  }
  write_end.Reset();
  UniqueFd pidfd(pidfd_open(pid, 0));
  const int pidfd_error = errno;
  auto started = ReadChildFailure(read_end.get(), program);
  if (started.has_value() && !pidfd.valid()) {
    kill(pid, SIGKILL);  // our own child, not yet waited for
    started = ErrnoError(pidfd_error, "open a pidfd of " + program);
  }
  if (!started.has_value()) {
    waitpid(pid, nullptr, 0);
    unlink(spec.identity_path.c_str());
    return std::move(started).error();
  }
  return std::unique_ptr<Process>(new Process(pid, std::move(pidfd)));
}

Result<std::unique_ptr<Process>> Process::Open(const std::string& identity_path,
                                               const std::optional<RunAs>& run_as) {
  ASSIGN_OR_RETURN(const std::string text, ReadOwnFile(identity_path));
  ASSIGN_OR_RETURN_CONTEXT(const ProcessIdentity identity, ParseProcessIdentity(text),
                           "reading " + identity_path);
  ASSIGN_OR_RETURN(const std::string boot_id, ReadBootId());
  const std::string who = "process " + std::to_string(identity.pid);
  if (identity.boot_id != boot_id) {
    return NotFound(who + " belonged to an earlier boot of this host");
  }
  UniqueFd pidfd(pidfd_open(identity.pid, 0));
  if (!pidfd.valid()) {
    return errno == ESRCH ? NotFound(who + " has ended") : ErrnoError(errno, "open " + who);
  }
  // The pidfd came first: if the start time read now is the right one, the pidfd is of that
  // process.
  auto stat = ReadSmallFile("/proc/" + std::to_string(identity.pid) + "/stat");
  if (!stat.has_value() || StartTimeOfStat(*stat) != identity.start_time) {
    return NotFound(who + " has ended; the number is another's now");
  }
  auto process = std::unique_ptr<Process>(new Process(identity.pid, std::move(pidfd)));
  const auto user = UserOf(identity.pid);
  if (process->HasEnded()) {
    return NotFound(who + " has ended");
  }
  if (run_as.has_value() && user != run_as->uid) {
    return Denied(who + ", named by " + identity_path + ", does not run as user " +
                  std::to_string(run_as->uid) + " of the instance")
        .WithFix("find out who wrote that file, then remove it");
  }
  return process;
}

Result<void> Process::Signal(int number) const {
  if (pidfd_send_signal(pidfd_.get(), number, nullptr, 0) != 0 && errno != ESRCH) {
    return ErrnoError(errno, "signal process " + std::to_string(pid_));
  }
  return Ok();
}

bool Process::HasEnded() const {
  pollfd entry{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
  return poll(&entry, 1, 0) == 1;
}

std::optional<std::string> Process::Wait(std::chrono::milliseconds limit) {
  if (!WaitReadable(pidfd_.get(), limit)) {
    return std::nullopt;
  }
  siginfo_t info{};
  if (waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED) == 0) {
    return DescribeWaitStatus(info.si_code, info.si_status);
  }
  return "exit status unknown (started by an earlier process of the agent)";
}

std::string DescribeWaitStatus(int code, int status) {
  if (code == CLD_EXITED) {
    return "exit status " + std::to_string(status);
  }
  const char* words = sigdescr_np(status);
  return "signal " + std::to_string(status) + " (" + (words == nullptr ? "unknown" : words) + ")" +
         (code == CLD_DUMPED ? ", core dumped" : "");
}

}  // namespace vallum::vm

// SPDX-License-Identifier: Apache-2.0
#include "vtpm/swtpm.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>

#include "base/text.h"
#include "vtpm/channel.h"
#include "vtpm/key_command.h"
#include "vtpm/tpm_command.h"

namespace vallum::vtpm {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;
constexpr int kFirstFreeDescriptor = 3;
constexpr int kExecFailed = 127;

// The value of "key=" in the comma-separated argument that follows an option.
std::optional<std::string> OptionValue(const std::vector<std::string>& argv,
                                       std::string_view option, std::string_view key) {
  for (size_t i = 0; i + 1 < argv.size(); ++i) {
    if (argv[i] != option) {
      continue;
    }
    for (const std::string& part : Split(argv[i + 1], ',')) {
      if (part.size() > key.size() && part.starts_with(key) && part[key.size()] == '=') {
        return part.substr(key.size() + 1);
      }
    }
  }
  return std::nullopt;
}

Result<void> WaitReadable(int fd, SteadyTime deadline) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd item{fd, POLLIN, 0};
    const int ready = poll(&item, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
    if (ready > 0) {
      return Ok();
    }
    if (ready == 0) {
      return Unavailable("swtpm did not answer in time");
    }
    if (errno != EINTR) {
      return ErrnoError(errno, "poll");
    }
  }
}

// Reads until size(received) says that the message is whole.
template <typename SizeOf>
Result<Bytes> ReadMessage(int fd, Bytes received, SteadyTime deadline, SizeOf size_of) {
  std::byte buffer[8192];
  for (;;) {
    ASSIGN_OR_RETURN(const std::optional<size_t> size, size_of(received));
    if (size.has_value() && received.size() >= *size) {
      if (received.size() > *size) {
        return Corrupt("swtpm answered more than it was asked");
      }
      return received;
    }
    RETURN_IF_ERROR(WaitReadable(fd, deadline));
    const ssize_t count = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (count > 0) {
      received.insert(received.end(), buffer, buffer + count);
    } else if (count == 0) {
      return Unavailable("swtpm closed its channel");
    } else if (errno != EAGAIN && errno != EINTR) {
      return ErrnoError(errno, "receive from swtpm");
    }
  }
}

Result<void> SendAll(int fd, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t count = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0 && errno != EINTR) {
      return ErrnoError(errno, "send to swtpm");
    }
    bytes = bytes.subspan(static_cast<size_t>(std::max<ssize_t>(0, count)));
  }
  return Ok();
}

Result<std::pair<UniqueFd, UniqueFd>> SocketPair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    return ErrnoError(errno, "socketpair");
  }
  return std::pair(UniqueFd(fds[0]), UniqueFd(fds[1]));
}

// In the child: becomes swtpm, with nothing but standard streams and the control channel.
[[noreturn]] void BecomeSwtpm(char* const* argv, int control, int number, pid_t parent) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  // vallum-vtpm and swtpm live and die together; whoever started both may die before.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (getppid() == parent && null >= 0 && dup2(null, STDIN_FILENO) == STDIN_FILENO) {
    // dup2 leaves close-on-exec set when both numbers are the same.
    const bool same = control == number;
    const bool passed = same ? fcntl(control, F_SETFD, 0) == 0 : dup2(control, number) == number;
    const auto first = static_cast<unsigned>(kFirstFreeDescriptor);
    const auto kept = static_cast<unsigned>(number);
    if (kept > first) {
      syscall(SYS_close_range, first, kept - 1, 0);
    }
    syscall(SYS_close_range, kept + 1, ~0U, 0);
    if (passed) {
      execvp(argv[0], argv);
    }
  }
  _exit(kExecFailed);
}

}  // namespace

SwtpmState InspectState(const std::vector<std::string>& swtpm_argv) {
  SwtpmState state;
  state.directory = OptionValue(swtpm_argv, "--tpmstate", "dir").value_or("");
  if (!state.directory.empty()) {
    const std::string permanent = state.directory + "/tpm2-00.permall";
    const std::string volatile_state = state.directory + "/tpm2-00.volatilestate";
    state.is_new = access(permanent.c_str(), F_OK) != 0 && errno == ENOENT;
    state.has_volatile = access(volatile_state.c_str(), F_OK) == 0;
  }
  return state;
}

Result<int> ControlDescriptor(const std::vector<std::string>& swtpm_argv) {
  const std::string text = OptionValue(swtpm_argv, "--ctrl", "clientfd").value_or("");
  int number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number < kFirstFreeDescriptor ||
      number > 1000) {
    return InvalidInput("swtpm's arguments name no control descriptor from 3 on")
        .WithFix("add --ctrl type=unixio,clientfd=3");
  }
  return number;
}

Result<Swtpm> Swtpm::Start(const std::vector<std::string>& argv, Timeout timeout) {
  ASSIGN_OR_RETURN(const int number, ControlDescriptor(argv));
  ASSIGN_OR_RETURN(auto control, SocketPair());
  std::vector<char*> arguments;
  for (const std::string& argument : argv) {
    arguments.push_back(const_cast<char*>(argument.c_str()));  // execvp's historical signature
  }
  arguments.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) {
    return ErrnoError(errno, "fork");
  }
  if (pid == 0) {
    BecomeSwtpm(arguments.data(), control.second.get(), number, parent);
  }
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  Swtpm swtpm(pid, std::move(pidfd), std::move(control.first));
  control.second.Reset();
  if (!swtpm.pidfd_.valid()) {
    return ErrnoError(errno, "pidfd_open");
  }
  if (const auto given = swtpm.GiveDataChannel(timeout); !given.has_value()) {
    const std::string status = swtpm.End(Timeout(0));
    return Internal("swtpm (" + argv[0] + ") did not start: " + given.error().Describe() + "; " +
                    (status == "exit status 127" ? "the program cannot be run" : status))
        .WithFix("see swtpm's log, and that its state directory belongs to the user it runs as");
  }
  return swtpm;
}

Swtpm::Swtpm(Swtpm&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::move(other.pidfd_)),
      control_(std::move(other.control_)),
      data_(std::move(other.data_)) {}

Swtpm::~Swtpm() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
}

Result<void> Swtpm::GiveDataChannel(Timeout timeout) {
  ASSIGN_OR_RETURN(auto pair, SocketPair());
  RETURN_IF_ERROR(SendWithDescriptor(control_.get(), MakeControlRequest(ControlCommand::kSetDataFd),
                                     pair.second.get()))
      .context("giving swtpm its data channel");
  ASSIGN_OR_RETURN(const Bytes response, Control({}, timeout));
  ASSIGN_OR_RETURN(const uint32_t result, ControlResult(response));
  if (result != kControlSuccess) {
    return Internal("swtpm refused its data channel with result " + std::to_string(result));
  }
  data_ = std::move(pair.first);
  return Ok();
}

Result<Bytes> Swtpm::Control(ByteView request, Timeout timeout) {
  const SteadyTime deadline = std::chrono::steady_clock::now() + timeout;
  RETURN_IF_ERROR(SendAll(control_.get(), request));
  const ControlCommand command = ControlCommandOf(request).value_or(ControlCommand::kSetDataFd);
  return ReadMessage(control_.get(), {}, deadline, [command](ByteView received) {
    return ControlResponseSize(command, received);
  });
}

Result<Bytes> Swtpm::Command(ByteView command, Timeout timeout) {
  RETURN_IF_ERROR(SendAll(data_.get(), command));
  return AwaitResponse({}, timeout);
}

Result<Bytes> Swtpm::AwaitResponse(Bytes received, Timeout timeout) {
  return ReadMessage(data_.get(), std::move(received), std::chrono::steady_clock::now() + timeout,
                     TpmMessageSize);
}

Result<void> Swtpm::PowerOn(Timeout timeout) {
  ASSIGN_OR_RETURN(const Bytes init, Control(MakeControlInit(), timeout));
  if (ControlResult(init).value_or(~0U) != kControlSuccess) {
    return Internal("swtpm could not initialise the TPM");
  }
  ASSIGN_OR_RETURN(const Bytes response,
                   Command(MakeStartup(measure::StartupType::kClear), timeout));
  return CheckSuccess(response, "start");
}

Result<void> Swtpm::PowerOff(Timeout timeout) {
  ASSIGN_OR_RETURN(const Bytes response,
                   Command(MakeShutdown(measure::StartupType::kClear), timeout));
  RETURN_IF_ERROR(CheckSuccess(response, "shut down"));
  ASSIGN_OR_RETURN(const Bytes stop, Control(MakeControlRequest(ControlCommand::kStop), timeout));
  return ControlResult(stop).value_or(~0U) == kControlSuccess
             ? Ok()
             : Result<void>(Internal("swtpm could not stop the TPM"));
}

std::string Swtpm::Reap() {
  int status = 0;
  if (pid_ <= 0) {
    return "ended before";
  }
  const pid_t found = waitpid(pid_, &status, WNOHANG);
  if (found == 0 || (found < 0 && errno == EINTR)) {
    return "still running";
  }
  pid_ = -1;
  return found < 0 ? "status unknown" : DescribeStatus(status);
}

std::string Swtpm::End(Timeout patience) {
  if (pid_ <= 0) {
    return Reap();
  }
  const auto wait_for_exit = [this](Timeout timeout) {
    return WaitReadable(pidfd_.get(), std::chrono::steady_clock::now() + timeout).has_value();
  };
  if (!wait_for_exit(Timeout(0)) && patience > Timeout(0)) {
    // Whether it answers or has ended already shows in the process's end.
    static_cast<void>(Control(MakeControlRequest(ControlCommand::kShutdown), patience));
  }
  if (!wait_for_exit(patience)) {
    kill(pid_, SIGTERM);
    if (!wait_for_exit(patience)) {
      kill(pid_, SIGKILL);
      static_cast<void>(wait_for_exit(Timeout(10'000)));
    }
  }
  return Reap();
}

std::string DescribeStatus(int status) {
  if (WIFSIGNALED(status)) {
    const char* name = sigdescr_np(WTERMSIG(status));
    return "signal " + std::to_string(WTERMSIG(status)) + " (" +
           (name == nullptr ? "unknown" : name) + ")";
  }
  return "exit status " + std::to_string(WEXITSTATUS(status));
}

}  // namespace vallum::vtpm

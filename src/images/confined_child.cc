// SPDX-License-Identifier: Apache-2.0
#include "images/confined_child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/result.h"

namespace vallum::images {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kAboveStandard = 10;
constexpr size_t kReadAtOnce = size_t{256} << 10U;  // bytes, also the size asked for the pipe
constexpr std::string_view kMakeNewImage = "make a new image of it: qemu-img convert -O qcow2";

class UniqueFd {
 public:
  explicit UniqueFd(int fd = -1) : fd_(fd) {}
  ~UniqueFd() { Reset(); }
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  void Reset() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

int MillisecondsUntil(steady_clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now());
  return static_cast<int>(std::clamp<milliseconds::rep>(left.count(), 0, INT_MAX));
}

// A started child. Killed and reaped when it goes out of scope.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  ~Child() {
    if (pid_ < 0) return;
    kill(pid_, SIGKILL);
    static_cast<void>(Wait());
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Its status, or nothing when it has not ended by then: it may close its pipes and stay.
  Result<std::optional<int>> WaitUntil(steady_clock::time_point deadline) {
    // glibc 2.36 declares pidfd_open for C alone.
    const UniqueFd ended(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
    if (ended.get() < 0) return ErrnoError(errno, "pidfd_open");
    while (true) {
      pollfd poll_fd{ended.get(), POLLIN, 0};
      const int ready = poll(&poll_fd, 1, MillisecondsUntil(deadline));
      if (ready < 0 && errno != EINTR) return ErrnoError(errno, "poll a confined child's end");
      if (ready > 0) return std::optional(Wait());
      if (ready == 0) return std::optional<int>();
    }
  }

 private:
  int Wait() {
    int status = 0;
    const pid_t pid = std::exchange(pid_, -1);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
  }

  pid_t pid_;
};

// Above the child's numbers, so that setting one does not overwrite another.
Result<UniqueFd> Above(int fd) {
  UniqueFd above(fcntl(fd, F_DUPFD_CLOEXEC, kAboveStandard));
  if (above.get() < 0) return ErrnoError(errno, "duplicate a descriptor");
  return above;
}

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

Result<Pipe> MakePipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return ErrnoError(errno, "pipe for a confined child");
  Pipe pipe{.read_end = UniqueFd(ends[0]), .write_end = UniqueFd(ends[1])};
  ASSIGN_OR_RETURN(pipe.write_end, Above(pipe.write_end.get()));
  // Only speed: a user's allowance of pipe memory may be used up.
  static_cast<void>(fcntl(pipe.read_end.get(), F_SETPIPE_SZ, static_cast<int>(kReadAtOnce)));
  return pipe;
}

// Anonymous memory that nobody can change any more.
Result<UniqueFd> MakeRequest(std::string_view text) {
  if (text.size() > kMaxRequestBytes) {
    return Exhausted(
        fmt::format("a request of {} bytes for a confined child is too large", text.size()));
  }
  const UniqueFd low(memfd_create("vallum-request", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (low.get() < 0) return ErrnoError(errno, "memfd_create for a confined child");
  while (!text.empty()) {
    const ssize_t written = write(low.get(), text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return ErrnoError(errno, "write the request for a confined child");
    text.remove_prefix(static_cast<size_t>(written));
  }
  constexpr int kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  if (fcntl(low.get(), F_ADD_SEALS, kSeals) != 0 || lseek(low.get(), 0, SEEK_SET) != 0) {
    return ErrnoError(errno, "seal the request for a confined child");
  }
  return Above(low.get());
}

// The child's descriptor and ours that it gets; -1: /dev/null.
struct Given {
  int number;
  int ours;
};

class SpawnSettings {
 public:
  SpawnSettings() {
    CHECK(posix_spawn_file_actions_init(&actions_) == 0 && posix_spawnattr_init(&attributes_) == 0);
    // The caller's signal mask and ignored signals are not the child's.
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  ~SpawnSettings() {
    posix_spawnattr_destroy(&attributes_);
    posix_spawn_file_actions_destroy(&actions_);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  // Exactly these descriptors.
  void Give(std::span<const Given> table) {
    int last = -1;
    for (const Given& given : table) {
      if (given.ours < 0) {
        posix_spawn_file_actions_addopen(&actions_, given.number, "/dev/null", O_RDWR, 0);
      } else {
        posix_spawn_file_actions_adddup2(&actions_, given.ours, given.number);
      }
      last = std::max(last, given.number);
    }
    posix_spawn_file_actions_addclosefrom_np(&actions_, last + 1);
  }

  Result<pid_t> Spawn(const std::string& program, std::vector<std::string> arguments) const {
    std::string name = "vallum-inspect";
    std::vector<char*> argv = {name.data()};
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    std::array<char*, 1> environment = {nullptr};
    pid_t pid = -1;
    const int error = posix_spawn(&pid, program.c_str(), &actions_, &attributes_, argv.data(),
                                  environment.data());
    if (error != 0) {
      return ErrnoError(error, "start " + program)
          .WithFix("install vallum-inspect beside the program that starts it");
    }
    return pid;
  }

 private:
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
};

Error TimedOut(const ConfinedCommand& command) {
  return InvalidInput(fmt::format("the {} did not end within {} ms, so the image is refused",
                                  command.work, command.timeout.count()))
      .WithFix(std::string(kMakeNewImage));
}

Result<void> CheckExit(std::string_view work, int status) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return Ok();
  const std::string how = WIFSIGNALED(status)
                              ? fmt::format("was ended by signal {} ({})", WTERMSIG(status),
                                            strsignal(WTERMSIG(status)))
                              : fmt::format("ended with status {}", WEXITSTATUS(status));
  return InvalidInput(
             fmt::format("the {} {} while it read the image, so the image is refused", work, how))
      .WithFix(std::string(kMakeNewImage));
}

// Hands on what comes out of a child's pipes, until both have ended.
class Drain {
 public:
  explicit Drain(const ConfinedCommand& command)
      : command_(command), deadline_(steady_clock::now() + command.timeout), buffer_(kReadAtOnce) {}

  void Add(int pipe, const TakeBytes& take) {
    polled_.push_back({pipe, POLLIN, 0});
    takers_.push_back(&take);
  }

  Result<void> ToTheEnd() {
    size_t open = polled_.size();
    while (open > 0) {
      const int wait = MillisecondsUntil(deadline_);
      if (wait == 0) return TimedOut(command_);
      const int ready = poll(polled_.data(), polled_.size(), wait);
      if (ready < 0 && errno != EINTR) return ErrnoError(errno, "poll a confined child");
      if (ready <= 0) continue;
      for (size_t i = 0; i < polled_.size(); ++i) {
        if (polled_[i].fd < 0 || polled_[i].revents == 0) continue;
        ASSIGN_OR_RETURN(const bool ended, ReadOnce(i));
        if (!ended) continue;
        polled_[i].fd = -1;  // poll skips it
        --open;
      }
    }
    return Ok();
  }
  steady_clock::time_point deadline() const { return deadline_; }

 private:
  Result<bool> ReadOnce(size_t i) {
    const ssize_t got = read(polled_[i].fd, buffer_.data(), buffer_.size());
    if (got < 0 && errno == EINTR) return false;
    if (got < 0) return ErrnoError(errno, "read from a confined child");
    if (got == 0) return true;
    const auto before = steady_clock::now();
    RETURN_IF_ERROR((*takers_[i])(ByteView(buffer_).first(static_cast<size_t>(got))));
    deadline_ += steady_clock::now() - before;
    return false;
  }

  const ConfinedCommand& command_;
  steady_clock::time_point deadline_;
  Bytes buffer_;
  std::vector<pollfd> polled_;
  std::vector<const TakeBytes*> takers_;
};

}  // namespace

Result<void> RunConfined(const ConfinedCommand& command, const TakeBytes& output,
                         const TakeBytes& messages) {
  ASSIGN_OR_RETURN(Pipe out, MakePipe());
  Pipe said;
  if (messages) {
    ASSIGN_OR_RETURN(said, MakePipe());
  }
  UniqueFd request;
  if (!command.request.empty()) {
    ASSIGN_OR_RETURN(request, MakeRequest(command.request));
  }
  ASSIGN_OR_RETURN(const UniqueFd image, Above(command.image));
  UniqueFd base;
  if (command.base >= 0) {
    ASSIGN_OR_RETURN(base, Above(command.base));
  }

  SpawnSettings settings;
  std::vector<Given> given = {{STDIN_FILENO, -1},
                              {STDOUT_FILENO, out.write_end.get()},
                              {STDERR_FILENO, -1},
                              {kImageDescriptor, image.get()},
                              {kRequestDescriptor, request.get()},
                              {kMessagesDescriptor, said.write_end.get()}};
  if (command.base >= 0) given.push_back({kBaseDescriptor, base.get()});
  settings.Give(given);
  ASSIGN_OR_RETURN(const pid_t pid, settings.Spawn(command.program, command.arguments));
  Child child(pid);
  out.write_end.Reset();
  said.write_end.Reset();

  Drain drain(command);
  drain.Add(out.read_end.get(), output);
  if (messages) drain.Add(said.read_end.get(), messages);
  RETURN_IF_ERROR(drain.ToTheEnd());
  ASSIGN_OR_RETURN(const std::optional<int> status, child.WaitUntil(drain.deadline()));
  return status.has_value() ? CheckExit(command.work, *status) : TimedOut(command);
}

}  // namespace vallum::images

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "vm/command.h"
#include "vm/vm_spec.h"

namespace vallum::vm {

// Owns a file descriptor. Move only.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  ~UniqueFd() { Reset(); }
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release();
  void Reset();

 private:
  int fd_ = -1;
};

struct SpawnSpec {
  Command command;
  // Descriptors that the program gets as 3, 4, 5, ... in this order; all others are closed in it.
  std::vector<int> descriptors;
  std::optional<RunAs> run_as;
  std::string output_path;    // stdout and stderr are appended; made 0600 when missing
  std::string identity_path;  // written by the new process before it becomes the program
  std::string cgroup_dir;     // joined before exec; empty: none
};

// A process that we started, or that an earlier process of ours did. Refers to it by pidfd, so that
// a process that got the same number later is never signalled. A destroyed handle leaves the
// process alone. Thread-safe but for Wait, which one thread calls.
class Process {
 public:
  // Starts a program: no shell, own session, umask 077, no core dumps, no new privileges, default
  // signals, a minimal environment, and the user, groups and cgroup of the spec.
  // Errors: kNotFound, kDenied, ... with the step that failed and the program's path.
  static Result<std::unique_ptr<Process>> Spawn(const SpawnSpec& spec);

  // Finds the process that an identity file names. An identity decides whom the caller signals, so
  // it is believed only when the caller wrote it and the process runs as the instance does.
  //   run_as: as it was spawned.
  // Errors: kNotFound (no file; the process ended; its number now belongs to another; the host was
  // booted again), kCorrupt (not an identity file), kDenied (the file or the process belongs to
  // another user).
  static Result<std::unique_ptr<Process>> Open(const std::string& identity_path,
                                               const std::optional<RunAs>& run_as);

  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  // Readable when the process has ended.
  int pidfd() const { return pidfd_.get(); }
  // Ending meanwhile is no error.
  Result<void> Signal(int number) const;
  bool HasEnded() const;
  // Waits for the end and returns it in words, see DescribeWaitStatus; empty when the time is over.
  std::optional<std::string> Wait(std::chrono::milliseconds limit);

 private:
  Process(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
  pid_t pid_;
  UniqueFd pidfd_;
};

// "exit status 1", "signal 9 (Killed)". Pure.
//   code, status: as in siginfo_t of waitid.
std::string DescribeWaitStatus(int code, int status);

// What an identity file says: "<pid> <start time in clock ticks> <boot id>\n".
struct ProcessIdentity {
  pid_t pid = 0;
  std::string start_time;
  std::string boot_id;
};
// Errors: kCorrupt. Pure.
Result<ProcessIdentity> ParseProcessIdentity(std::string_view text);

// Field 22 of /proc/<pid>/stat; the program's name in it may hold spaces and parentheses.
// Empty when the text is not of that form. Pure; async-signal-safe.
std::string_view StartTimeOfStat(std::string_view stat);

// The last lines of a file, made printable; empty when it cannot be read. Reads at most 16 KiB.
std::vector<std::string> ReadLastLines(const std::string& path, size_t count);

// Keeps a log that a program appends to (O_APPEND) bounded: above the limit, all but its last
// quarter goes. Bytes that the program writes meanwhile may be lost.
Result<void> TrimLog(const std::string& path, ByteCount limit);

// A listening stream socket at a path, replacing what was there; 0600.
//   owner: whom it shall belong to, if not the caller.
Result<UniqueFd> ListenUnix(const std::string& path, const std::optional<RunAs>& owner);

}  // namespace vallum::vm

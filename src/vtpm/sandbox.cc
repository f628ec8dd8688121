// SPDX-License-Identifier: Apache-2.0
#include "vtpm/sandbox.h"

#include <grp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <memory>
#include <string>

#include "base/text.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define VALLUM_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define VALLUM_SANITIZED 1
#endif
#endif

namespace vallum::vtpm {
namespace {

// What a relay does after it has started: its sockets, its record file, swtpm's end, memory.
constexpr std::array kAllowed = {
    SCMP_SYS(accept4),         SCMP_SYS(brk),          SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_nanosleep), SCMP_SYS(close),        SCMP_SYS(exit),
    SCMP_SYS(exit_group),      SCMP_SYS(fcntl),        SCMP_SYS(flock),
    SCMP_SYS(fstat),           SCMP_SYS(ftruncate),    SCMP_SYS(futex),
    SCMP_SYS(getpid),          SCMP_SYS(getrandom),    SCMP_SYS(gettid),
    SCMP_SYS(gettimeofday),    SCMP_SYS(kill),         SCMP_SYS(lseek),
    SCMP_SYS(madvise),         SCMP_SYS(mremap),       SCMP_SYS(munmap),
    SCMP_SYS(newfstatat),      SCMP_SYS(openat),       SCMP_SYS(poll),
    SCMP_SYS(ppoll),           SCMP_SYS(pread64),      SCMP_SYS(read),
    SCMP_SYS(recvfrom),        SCMP_SYS(recvmsg),      SCMP_SYS(rename),
    SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),    SCMP_SYS(sched_yield),  SCMP_SYS(sendmsg),
    SCMP_SYS(sendto),          SCMP_SYS(tgkill),       SCMP_SYS(unlink),
    SCMP_SYS(wait4),           SCMP_SYS(write),        SCMP_SYS(writev)};

constexpr unsigned kProtectionArgument = 2;  // of mmap and of mprotect

using Filter = std::unique_ptr<void, decltype(&seccomp_release)>;

[[maybe_unused]] Result<void> AddRules(const Filter& filter) {
  for (const int call : kAllowed) {
    if (const int error = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 0); error != 0) {
      return ErrnoError(-error, "add a system call to the filter");
    }
  }
  // Memory, but none to run code from.
  for (const int call : {SCMP_SYS(mmap), SCMP_SYS(mprotect)}) {
    const scmp_arg_cmp not_executable{kProtectionArgument, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0};
    if (const int error =
            seccomp_rule_add_array(filter.get(), SCMP_ACT_ALLOW, call, 1, &not_executable);
        error != 0) {
      return ErrnoError(-error, "add a memory call to the filter");
    }
  }
  return Ok();
}

Result<uint32_t> ParseId(std::string_view text) {
  uint32_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc{} || end != text.data() + text.size() || id == 0 || id == UINT32_MAX) {
    return InvalidInput("'" + Printable(text) + "' is no unprivileged user or group id");
  }
  return id;
}

}  // namespace

Result<UserIds> ParseUserIds(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) {
    return InvalidInput("'" + Printable(text) + "' is not uid:gid").WithFix("such as 1000:1000");
  }
  ASSIGN_OR_RETURN(const uint32_t uid, ParseId(text.substr(0, colon)));
  ASSIGN_OR_RETURN(const uint32_t gid, ParseId(text.substr(colon + 1)));
  return UserIds{uid, gid};
}

Result<void> HardenProcess() {
  const rlimit none{0, 0};
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || setrlimit(RLIMIT_CORE, &none) != 0 ||
      prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return ErrnoError(errno, "give up privileges");
  }
  return Ok();
}

Result<void> DropPrivileges(UserIds user) {
  if (geteuid() == user.uid && getegid() == user.gid) {
    return Ok();
  }
  if (setgroups(0, nullptr) != 0 || setresgid(user.gid, user.gid, user.gid) != 0 ||
      setresuid(user.uid, user.uid, user.uid) != 0) {
    return ErrnoError(errno, "become user " + std::to_string(user.uid));
  }
  // A change of user makes a process dumpable according to fs.suid_dumpable.
  return HardenProcess();
}

Result<void> RestrictSystemCalls() {
#ifdef VALLUM_SANITIZED
  return Ok();
#else
  const Filter filter(seccomp_init(SCMP_ACT_KILL_PROCESS), &seccomp_release);
  if (filter == nullptr) {
    return Internal("the system call filter cannot be made");
  }
  RETURN_IF_ERROR(AddRules(filter));
  if (const int error = seccomp_load(filter.get()); error != 0) {
    return ErrnoError(-error, "install the system call filter");
  }
  return Ok();
#endif
}

}  // namespace vallum::vtpm

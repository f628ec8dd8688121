// SPDX-License-Identifier: Apache-2.0
#include "images/confine.h"

#include <grp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>

#include "base/error.h"
#include "base/result.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define VALLUM_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define VALLUM_SANITIZED 1
#endif
#endif

namespace vallum::images {
namespace {

constexpr uid_t kNobody = 65534;

#ifdef VALLUM_SANITIZED
constexpr bool kSanitized = true;
// What a sanitizer's runtime does beside us: it asks for its signal stack, tries addresses by
// writing them into a pipe, and yields in its locks. Still no file, no socket and no process.
constexpr std::array kSanitizerCalls = {SCMP_SYS(sigaltstack), SCMP_SYS(pipe2), SCMP_SYS(write),
                                        SCMP_SYS(close), SCMP_SYS(sched_yield)};
#else
constexpr bool kSanitized = false;
constexpr std::array<int, 0> kSanitizerCalls = {};
#endif

Result<void> Limit(decltype(RLIMIT_AS) resource, rlim_t value) {
  const struct rlimit limit{value, value};
  if (setrlimit(resource, &limit) != 0) return ErrnoError(errno, "setrlimit");
  return Ok();
}

Result<void> LimitResources(unsigned cpu_seconds) {
  // A sanitizer's shadow takes terabytes of address space, its pipes take descriptors.
  if (!kSanitized) {
    RETURN_IF_ERROR(Limit(RLIMIT_AS, kInspectMemory.bytes()));
    RETURN_IF_ERROR(Limit(RLIMIT_NOFILE, 0));
  }
  RETURN_IF_ERROR(Limit(RLIMIT_CPU, cpu_seconds));
  RETURN_IF_ERROR(Limit(RLIMIT_FSIZE, 0));
  RETURN_IF_ERROR(Limit(RLIMIT_NPROC, 0));
  return Limit(RLIMIT_CORE, 0);
}

Result<void> DropIdentity() {
  if (geteuid() != 0) return Ok();
  if (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
      setresuid(kNobody, kNobody, kNobody) != 0) {
    return ErrnoError(errno, "give up root's identity");
  }
  return Ok();
}

bool Allow(scmp_filter_ctx filter, int call) {
  return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, 0, nullptr) == 0;
}

bool AllowIf(scmp_filter_ctx filter, int call, scmp_arg_cmp condition) {
  return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, 1, &condition) == 0;
}

Result<void> FilterSystemCalls(const Confinement& confinement) {
  const std::unique_ptr<void, decltype(&seccomp_release)> filter(
      seccomp_init(SCMP_ACT_KILL_PROCESS), &seccomp_release);
  if (filter == nullptr) return Internal("seccomp_init failed");
  constexpr std::array kAlways = {
      SCMP_SYS(brk),           SCMP_SYS(munmap),      SCMP_SYS(mremap), SCMP_SYS(madvise),
      SCMP_SYS(futex),         SCMP_SYS(getrandom),   SCMP_SYS(exit),   SCMP_SYS(exit_group),
      SCMP_SYS(clock_gettime), SCMP_SYS(rt_sigreturn)};
  bool good = true;
  for (const int call : kAlways) good = good && Allow(filter.get(), call);
  for (const int call : kSanitizerCalls) good = good && Allow(filter.get(), call);
  for (const int input : {confinement.image, confinement.base}) {
    if (input < 0) continue;
    const auto fd = static_cast<scmp_datum_t>(input);
    for (const int call :
         {SCMP_SYS(pread64), SCMP_SYS(lseek), SCMP_SYS(fstat), SCMP_SYS(newfstatat)}) {
      good = good && AllowIf(filter.get(), call, {0, SCMP_CMP_EQ, fd, 0});
    }
  }
  for (const int output : confinement.outputs) {
    const auto out = static_cast<scmp_datum_t>(output);
    good = good && AllowIf(filter.get(), SCMP_SYS(write), {0, SCMP_CMP_EQ, out, 0});
  }
  // Memory, but no code and no files.
  good = good && AllowIf(filter.get(), SCMP_SYS(mmap), {2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0});
  good = good && AllowIf(filter.get(), SCMP_SYS(mprotect), {2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0});
  if (!good || seccomp_load(filter.get()) != 0) return Internal("the seccomp list was refused");
  return Ok();
}

}  // namespace

Result<void> ConfineSelf(const Confinement& confinement) {
  RETURN_IF_ERROR(DropIdentity());
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return ErrnoError(errno, "prctl");
  }
  RETURN_IF_ERROR(LimitResources(confinement.cpu_seconds));
  return FilterSystemCalls(confinement);
}

}  // namespace vallum::images

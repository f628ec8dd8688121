// SPDX-License-Identifier: Apache-2.0
#include "vtpm/daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <utility>

#include "base/text.h"
#include "vtpm/provision.h"
#include "vtpm/record_file.h"
#include "vtpm/relay.h"
#include "vtpm/swtpm.h"
#include "vtpm/unique_fd.h"

namespace vallum::vtpm {
namespace {

constexpr std::chrono::milliseconds kSwtpmTimeout{10'000};
constexpr int kBacklog = 16;

Result<void> CheckPrivateDirectory(const std::string& socket_path) {
  std::string directory = std::filesystem::path(socket_path).parent_path().string();
  if (directory.empty()) {
    directory = ".";
  }
  struct stat info{};
  if (stat(directory.c_str(), &info) != 0) {
    return ErrnoError(errno, "stat " + directory);
  }
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return Denied("others can write the directory of " + socket_path)
        .WithFix("use a directory with mode 0700");
  }
  return Ok();
}

Result<UniqueFd> ListenAt(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return InvalidInput("'" + Printable(path) + "' does not fit a unix socket address (" +
                        std::to_string(sizeof(address.sun_path) - 1) + " bytes)")
        .WithFix("use a shorter run directory");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  RETURN_IF_ERROR(CheckPrivateDirectory(path));
  // The record's lock is held: a socket that is there is one that a dead process left.
  struct stat info{};
  if (lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) {
    unlink(path.c_str());
  }
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const mode_t before = umask(S_IXUSR | S_IRWXG | S_IRWXO);
  const bool bound = fd.valid() && bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                                        sizeof(address)) == 0;
  const int bind_error = errno;
  umask(before);
  if (!bound) {
    return ErrnoError(bind_error, "bind " + path);
  }
  if (listen(fd.get(), kBacklog) != 0) {
    return ErrnoError(errno, "listen " + path);
  }
  return fd;
}

Result<UniqueFd> OpenListener(const Listener& listener) {
  if (const auto* path = std::get_if<SocketPath>(&listener)) {
    return ListenAt(path->path);
  }
  const int fd = std::get<InheritedSocket>(listener).fd;
  int accepts = 0;
  socklen_t size = sizeof(accepts);
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &size) != 0 || accepts == 0) {
    return InvalidInput("descriptor " + std::to_string(fd) + " is no listening socket");
  }
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
    return ErrnoError(errno, "set up descriptor " + std::to_string(fd));
  }
  return UniqueFd(fd);
}

void Unlink(const Listener& listener) {
  if (const auto* path = std::get_if<SocketPath>(&listener)) {
    unlink(path->path.c_str());
  }
}

// SIGTERM and SIGINT become readable; the agent's terminal and the peers' ends are no reason to
// die.
Result<UniqueFd> MakeStopDescriptor() {
  signal(SIGHUP, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  if (sigprocmask(SIG_BLOCK, &set, nullptr) != 0) {
    return ErrnoError(errno, "block signals");
  }
  UniqueFd fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  return fd.valid() ? Result<UniqueFd>(std::move(fd)) : ErrnoError(errno, "signalfd");
}

// Uses the TPM once before QEMU does, while the passwords of a new one are empty.
Result<VtpmIdentity> Provision(const DaemonOptions& options, const SwtpmState& state,
                               Swtpm& swtpm) {
  RETURN_IF_ERROR(swtpm.PowerOn(kSwtpmTimeout));
  // What libtpms makes has all its PCR banks active, so firmware would hash everything four times.
  if (state.is_new && !options.pcr_banks.empty()) {
    RETURN_IF_ERROR(AllocateBanks(swtpm, options.pcr_banks, kSwtpmTimeout));
  }
  auto identity = EnsureIdentity(swtpm, kSwtpmTimeout);
  RETURN_IF_ERROR(swtpm.PowerOff(kSwtpmTimeout));
  return identity;
}

// libtpms makes a TPM with seeds of its own when there is no state: nothing is ever copied.
// Returns the identity, or why it cannot be had of a TPM that a guest has used.
Result<Result<VtpmIdentity>> Prepare(const DaemonOptions& options, const SwtpmState& state,
                                     Swtpm& swtpm) {
  if (state.has_volatile) {
    return Result<VtpmIdentity>(
        Unavailable("the TPM goes on from a saved state, so its identity was not read")
            .WithFix("stop the instance and start it again"));
  }
  auto identity = Provision(options, state, swtpm);
  if (!identity.has_value() && state.is_new) {
    // The next start makes it from scratch instead of finding half of it.
    static_cast<void>(swtpm.End(kSwtpmTimeout));
    unlink((state.directory + "/tpm2-00.permall").c_str());
    return std::move(identity).error();
  }
  return identity;
}

Result<std::string> Conclude(const RelayEnd& end, const std::string& swtpm_status) {
  std::string text = end.reason + "; swtpm: " + swtpm_status;
  switch (end.cause) {
    case EndCause::kQemuGone:
    case EndCause::kStopped:
      return text;
    case EndCause::kNoQemu:
      return Unavailable(std::move(text));
    case EndCause::kTpmLost:
    case EndCause::kProtocol:
      return Internal(std::move(text));
  }
  return text;
}

// libcrypto reads its configuration when it is first used; the system call filter comes after.
void WarmUpDigests() {
  for (const HashAlgorithm bank : {HashAlgorithm::kSha1, HashAlgorithm::kSha256,
                                   HashAlgorithm::kSha384, HashAlgorithm::kSha512}) {
    static_cast<void>(Digest(bank, {}));
  }
}

}  // namespace

Result<std::string> RunDaemon(const DaemonOptions& options, const Clock& clock) {
  RETURN_IF_ERROR(HardenProcess());
  setsid();  // fails for a group leader, which is as good
  ASSIGN_OR_RETURN(UniqueFd stop, MakeStopDescriptor());
  if (options.user.has_value()) {
    RETURN_IF_ERROR(DropPrivileges(*options.user));
  }
  ASSIGN_OR_RETURN(const auto record, RecordFile::Open(options.record_path, clock));
  // Before the TPM, so that QEMU can connect while it starts.
  ASSIGN_OR_RETURN(UniqueFd qemu, OpenListener(options.qemu));
  ASSIGN_OR_RETURN(UniqueFd control, OpenListener(options.control));
  const SwtpmState state = InspectState(options.swtpm_argv);
  ASSIGN_OR_RETURN(Swtpm swtpm, Swtpm::Start(options.swtpm_argv, kSwtpmTimeout));
  ASSIGN_OR_RETURN(Result<VtpmIdentity> identity, Prepare(options, state, swtpm));
  Relay relay(std::move(qemu), std::move(control), std::move(stop), swtpm, *record);
  relay.SetIdentity(std::move(identity));
  relay.AwaitCertificate(options.certificate_timeout);
  if (state.has_volatile) {
    relay.ExpectForeignState();
  }
  WarmUpDigests();
  RETURN_IF_ERROR(RestrictSystemCalls());
  const RelayEnd end = relay.Run(options.connect_timeout);
  auto conclusion = Conclude(end, relay.EndTpm());
  record->Append(measure::LogNote{
      "ended: " + (conclusion.has_value() ? *conclusion : conclusion.error().message())});
  Unlink(options.qemu);
  Unlink(options.control);
  return conclusion;
}

}  // namespace vallum::vtpm

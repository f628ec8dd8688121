// SPDX-License-Identifier: Apache-2.0
#include "vtpm/test_support.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/check.h"
#include "measure/extend_log.h"
#include "vtpm/channel.h"
#include "vtpm/swtpm.h"
#include "vtpm/tpm_command.h"

namespace vallum::vtpm::testing {
namespace {

bool Readable(int fd, std::chrono::milliseconds timeout) {
  pollfd item{fd, POLLIN, 0};
  return poll(&item, 1, static_cast<int>(timeout.count())) == 1;
}

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  CHECK(path.size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

std::vector<UniqueFd> Listeners(const TempDir& dir) {
  std::vector<UniqueFd> listeners;
  listeners.push_back(ListenOn(dir / "qemu.sock"));
  listeners.push_back(ListenOn(dir / "control.sock"));
  return listeners;
}

std::vector<std::string> VtpmArgv(const TempDir& dir, const std::vector<std::string>& extra) {
  std::filesystem::create_directory(dir / "state");
  std::vector<std::string> argv = {VALLUM_BIN_DIR "/vallum-vtpm",
                                   "--listen-fd",
                                   "3",
                                   "--control-fd",
                                   "4",
                                   "--record",
                                   dir / "record"};
  argv.insert(argv.end(), extra.begin(), extra.end());
  const std::vector<std::string> swtpm = {"--",         "swtpm",
                                          "socket",     "--tpm2",
                                          "--ctrl",     "type=unixio,clientfd=3",
                                          "--tpmstate", "dir=" + (dir / "state") + ",mode=0600",
                                          "--seccomp",  "action=kill",
                                          "--log",      "level=20,file=" + (dir / "swtpm.log")};
  argv.insert(argv.end(), swtpm.begin(), swtpm.end());
  return argv;
}

}  // namespace

TempDir::TempDir() {
  char name[] = "/tmp/vallum-vtpm-XXXXXX";
  CHECK(mkdtemp(name) != nullptr);
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Process::Process(const std::vector<std::string>& argv, const std::string& stderr_path,
                 std::vector<UniqueFd> inherited) {
  std::vector<char*> arguments;
  for (const std::string& argument : argv) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  // High numbers first, so that none is overwritten before it is moved.
  std::vector<UniqueFd> high;
  for (const UniqueFd& fd : inherited) {
    high.emplace_back(fcntl(fd.get(), F_DUPFD_CLOEXEC, 100));
  }
  pid_ = fork();
  CHECK(pid_ >= 0);
  if (pid_ == 0) {
    const int output =
        open(stderr_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, S_IRUSR | S_IWUSR);
    dup2(output, STDERR_FILENO);
    for (size_t i = 0; i < high.size(); ++i) {
      dup2(high[i].get(), static_cast<int>(3 + i));
    }
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
}

Process::~Process() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

std::string Process::Wait() {
  const UniqueFd pidfd = OpenPidfd(pid_);
  if (!WaitForEnd(pidfd.get())) {
    return "still running";
  }
  int status = 0;
  waitpid(std::exchange(pid_, -1), &status, 0);
  return DescribeStatus(status);
}

UniqueFd OpenPidfd(pid_t pid) {
  return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
}

bool WaitForEnd(int pidfd) { return Readable(pidfd, kTestTimeout); }

VtpmUnderTest::VtpmUnderTest(const TempDir& dir, const std::vector<std::string>& extra)
    : dir_(dir), process_(VtpmArgv(dir, extra), dir / "stderr", Listeners(dir)) {}

ControlClient VtpmUnderTest::Client() const {
  auto client = ControlClient::Connect(dir_ / "control.sock", kTestTimeout);
  CHECK(client.has_value());
  return *std::move(client);
}

FakeQemu::FakeQemu(const std::string& socket_path) : control_(ConnectTo(socket_path)) {
  int fds[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  data_ = UniqueFd(fds[0]);
  const UniqueFd given(fds[1]);
  CHECK(SendWithDescriptor(control_.get(), MakeControlRequest(ControlCommand::kSetDataFd),
                           given.get())
            .has_value());
  EXPECT_EQ(Receive(control_.get()), MakeControlResult(0));
}

Bytes FakeQemu::Receive(int fd) {
  Bytes buffer(65536);
  if (!Readable(fd, kTestTimeout)) {
    ADD_FAILURE() << "no answer in time";
    return {};
  }
  const ssize_t count = recv(fd, buffer.data(), buffer.size(), 0);
  buffer.resize(count > 0 ? static_cast<size_t>(count) : 0);
  return buffer;
}

Bytes FakeQemu::Control(const Bytes& request) {
  EXPECT_EQ(send(control_.get(), request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  return Receive(control_.get());
}

void FakeQemu::Init() { EXPECT_EQ(Control(MakeControlInit()), MakeControlResult(0)); }

void FakeQemu::SetLocality(uint8_t locality) {
  EXPECT_EQ(Control(MakeControlSetLocality(locality)), MakeControlResult(0));
}

void FakeQemu::Hash(std::string_view data) {
  EXPECT_EQ(Control(MakeControlRequest(ControlCommand::kHashStart)), MakeControlResult(0));
  ByteWriter writer;
  writer.U32Be(static_cast<uint32_t>(ControlCommand::kHashData));
  writer.U32Be(static_cast<uint32_t>(data.size())).Raw(AsBytes(data));
  EXPECT_EQ(Control(writer.bytes()), MakeControlResult(0));
  EXPECT_EQ(Control(MakeControlRequest(ControlCommand::kHashEnd)), MakeControlResult(0));
}

Bytes FakeQemu::Raw(const Bytes& bytes) {
  EXPECT_EQ(send(data_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(bytes.size()));
  return Receive(data_.get());
}

Bytes FakeQemu::Command(const Bytes& command) {
  Bytes response = Raw(command);
  sent_.push_back(command);
  received_.push_back(response);
  return response;
}

Bytes FakeQemu::Succeed(const Bytes& command) {
  Bytes response = Command(command);
  EXPECT_EQ(ResponseCode(response).value_or(~0U), kTpmSuccess) << ToHex(command);
  return response;
}

bool FakeQemu::Closed() const {
  char byte = 0;
  return Readable(control_.get(), kTestTimeout) && recv(control_.get(), &byte, 1, 0) <= 0 &&
         Readable(data_.get(), kTestTimeout) && recv(data_.get(), &byte, 1, 0) <= 0;
}

void FakeQemu::Close() {
  control_.Reset();
  data_.Reset();
}

Bytes MakeAuthorized(uint32_t code, const std::vector<uint32_t>& handles, ByteView parameters) {
  ByteWriter body;
  for (const uint32_t handle : handles) {
    body.U32Be(handle);
  }
  body.U32Be(9).U32Be(0x40000009).U16Be(0).U8(0).U16Be(0).Raw(parameters);
  return MakeCommand(TpmTag::kSessions, code, body.bytes());
}

Bytes MakeExtend(uint32_t pcr_handle, HashAlgorithm bank, std::string_view text) {
  ByteWriter parameters;
  parameters.U32Be(1).U16Be(measure::TpmAlgorithmId(bank)).Raw(Digest(bank, AsBytes(text)));
  return MakeAuthorized(0x182, {pcr_handle}, parameters.bytes());
}

Bytes MakeEvent(uint32_t pcr_handle, std::string_view data) {
  ByteWriter parameters;
  parameters.U16Be(static_cast<uint16_t>(data.size())).Raw(AsBytes(data));
  return MakeAuthorized(0x13C, {pcr_handle}, parameters.bytes());
}

Bytes MakePcrResetCommand(uint32_t pcr_handle) { return MakeAuthorized(0x13D, {pcr_handle}, {}); }

PcrSelection AllPcrs() {
  PcrSelection all;
  for (uint32_t i = 0; i < PcrIndex::kCount; ++i) {
    all.push_back(PcrIndex::Create(i).value());
  }
  return all;
}

UniqueFd ConnectTo(const std::string& path) {
  const sockaddr_un address = AddressOf(path);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    fd.Reset();
  }
  return fd;
}

UniqueFd ListenOn(const std::string& path) {
  const sockaddr_un address = AddressOf(path);
  unlink(path.c_str());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  CHECK(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  CHECK(listen(fd.get(), 16) == 0);
  return fd;
}

}  // namespace vallum::vtpm::testing

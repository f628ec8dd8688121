// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/units.h"
#include "vtpm/control_client.h"
#include "vtpm/control_message.h"
#include "vtpm/unique_fd.h"

namespace vallum::vtpm::testing {

inline constexpr std::chrono::milliseconds kTestTimeout{20'000};

// A directory of its own for a test, 0700, removed at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::string ReadFile(const std::string& path);

// A program that is waited for, or killed at the end.
class Process {
 public:
  //   inherited: become the descriptors 3, 4, ...
  Process(const std::vector<std::string>& argv, const std::string& stderr_path,
          std::vector<UniqueFd> inherited);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  pid_t pid() const { return pid_; }
  // "exit status 0", "signal 9 (Killed)"; "still running" after the timeout.
  std::string Wait();

 private:
  pid_t pid_ = -1;
};

// Waits for the end of a process that is not a child. False: it still runs after the timeout.
bool WaitForEnd(int pidfd);
UniqueFd OpenPidfd(pid_t pid);

// The real vallum-vtpm with the real swtpm, on sockets in a directory.
class VtpmUnderTest {
 public:
  explicit VtpmUnderTest(const TempDir& dir, const std::vector<std::string>& extra = {});

  std::string qemu_socket() const { return dir_ / "qemu.sock"; }
  std::string record() const { return dir_ / "record"; }
  std::string swtpm_log() const { return ReadFile(dir_ / "swtpm.log"); }
  std::string output() const { return ReadFile(dir_ / "stderr"); }
  Process& process() { return process_; }
  ControlClient Client() const;

 private:
  const TempDir& dir_;
  Process process_;
};

// QEMU's side of the control and data channels. Fails the test on anything unexpected.
class FakeQemu {
 public:
  // Connects and hands over a data channel.
  explicit FakeQemu(const std::string& socket_path);

  Bytes Control(const Bytes& request);
  // CMD_INIT, which must succeed.
  void Init();
  void SetLocality(uint8_t locality);
  Bytes Command(const Bytes& command);
  // Must be answered with success.
  Bytes Succeed(const Bytes& command);
  // Sends bytes that need not make a command; reads what comes back at once.
  Bytes Raw(const Bytes& bytes);
  void Hash(std::string_view data);
  // True when the other side has closed both channels.
  bool Closed() const;
  void Close();

  // All commands sent and responses received on the data channel.
  const std::vector<Bytes>& sent() const { return sent_; }
  const std::vector<Bytes>& received() const { return received_; }

 private:
  Bytes Receive(int fd);
  UniqueFd control_;
  UniqueFd data_;
  std::vector<Bytes> sent_;
  std::vector<Bytes> received_;
};

Bytes MakeExtend(uint32_t pcr_handle, HashAlgorithm bank, std::string_view text);
Bytes MakeEvent(uint32_t pcr_handle, std::string_view data);
Bytes MakePcrResetCommand(uint32_t pcr_handle);

// A command with one authorization, by the empty password, behind its handles.
Bytes MakeAuthorized(uint32_t code, const std::vector<uint32_t>& handles, ByteView parameters);

PcrSelection AllPcrs();
UniqueFd ConnectTo(const std::string& path);
UniqueFd ListenOn(const std::string& path);

}  // namespace vallum::vtpm::testing

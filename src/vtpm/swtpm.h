// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "vtpm/control_message.h"
#include "vtpm/unique_fd.h"

namespace vallum::vtpm {

// Where swtpm keeps its state, read from its own arguments.
struct SwtpmState {
  std::string directory;  // empty: --tpmstate names none (another backend)
  bool is_new = false;    // the TPM is about to be made
  bool has_volatile = false;
};
SwtpmState InspectState(const std::vector<std::string>& swtpm_argv);

// The descriptor number under which swtpm's arguments expect its control channel ("clientfd=").
// Errors: kInvalidInput (no such argument, or a number below 3).
Result<int> ControlDescriptor(const std::vector<std::string>& swtpm_argv);

// A running swtpm and both channels to it. Owns the process: destroying it kills what still runs.
// swtpm gets SIGTERM from the kernel when this process dies. Not thread-safe.
class Swtpm {
 public:
  using Timeout = std::chrono::milliseconds;

  // Starts swtpm and gives it a data channel.
  // Errors: kNotFound, kDenied (the program); kInternal with swtpm's status when it ends at once.
  static Result<Swtpm> Start(const std::vector<std::string>& argv, Timeout timeout);

  ~Swtpm();
  Swtpm(Swtpm&& other) noexcept;
  Swtpm& operator=(Swtpm&&) = delete;

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }  // readable once swtpm has ended
  int control_fd() const { return control_.get(); }
  int data_fd() const { return data_.get(); }

  // One message and its answer, while nothing else is under way on that channel.
  // Errors: kUnavailable (no answer in time, or swtpm ended); kCorrupt (not an answer).
  Result<Bytes> Control(ByteView request, Timeout timeout);
  Result<Bytes> Command(ByteView command, Timeout timeout);
  // Reads an answer whose command was sent before.
  //   received: the part of it that is there already.
  Result<Bytes> AwaitResponse(Bytes received, Timeout timeout);

  // Initialises the TPM and starts it with a clear state, as a machine's power button does; and
  // shuts it down in order and turns it off.
  Result<void> PowerOn(Timeout timeout);
  Result<void> PowerOff(Timeout timeout);

  // Ends swtpm in steps: CMD_SHUTDOWN, SIGTERM, SIGKILL. Returns how it ended: "exit status 0".
  std::string End(Timeout patience);
  // Takes the status of an swtpm that has ended; "still running" otherwise.
  std::string Reap();

 private:
  Swtpm(pid_t pid, UniqueFd pidfd, UniqueFd control)
      : pid_(pid), pidfd_(std::move(pidfd)), control_(std::move(control)) {}
  Result<void> GiveDataChannel(Timeout timeout);

  pid_t pid_ = -1;
  UniqueFd pidfd_;
  UniqueFd control_;
  UniqueFd data_;
};

// "exit status 1", "signal 9 (Killed)" for a status of waitpid(2).
std::string DescribeStatus(int status);

}  // namespace vallum::vtpm

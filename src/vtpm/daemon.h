// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/digest.h"
#include "base/result.h"
#include "vtpm/sandbox.h"

namespace vallum::vtpm {

// A listening socket: made at a path (0600, in a directory that only its owner can write), or
// inherited under a number.
struct SocketPath {
  std::string path;
};
struct InheritedSocket {
  int fd = -1;
};
using Listener = std::variant<SocketPath, InheritedSocket>;

struct DaemonOptions {
  Listener qemu;
  Listener control;
  std::string record_path;
  std::vector<HashAlgorithm> pcr_banks;  // of a TPM that is made now; an existing one keeps its own
  std::optional<UserIds> user;
  std::chrono::milliseconds connect_timeout{120'000};
  // How long QEMU waits for the certificate of a TPM that has none; 0: not at all.
  std::chrono::milliseconds certificate_timeout{0};
  std::vector<std::string> swtpm_argv;
};

// Serves one TPM from its start to its end.
//   clock: outlives the call.
// Returns why it ended, for the log.
// Errors: could not start; swtpm was lost; QEMU broke the protocol or never came.
Result<std::string> RunDaemon(const DaemonOptions& options, const Clock& clock);

}  // namespace vallum::vtpm

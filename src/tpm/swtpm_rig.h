// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tpm/address.h"

namespace vallum::tpm {

// A real swtpm on sockets in a directory of its own, for tests; ended and removed with this.
class SwtpmRig {
 public:
  SwtpmRig();
  ~SwtpmRig();
  SwtpmRig(const SwtpmRig&) = delete;
  SwtpmRig& operator=(const SwtpmRig&) = delete;

  // As --tpm and tpm2-tools take it.
  std::string text() const { return "swtpm:path=" + (directory_ / "tpm.sock").string(); }
  TpmAddress address() const { return ParseTpmAddress(text()).value(); }
  // As a restarted host: the TPM is reset, its seeds stay.
  void Restart();
  // As a host whose TPM was replaced.
  void Replace();
  // Runs a tool of tpm2-tools on it; it must succeed.
  void Tool(const std::vector<std::string>& argv) const;
  // Holds the process, so that it answers nothing.
  void Freeze() const;
  const std::filesystem::path& directory() const { return directory_; }

 private:
  void Start();
  void End();
  std::filesystem::path directory_;
  pid_t pid_ = -1;
};

}  // namespace vallum::tpm

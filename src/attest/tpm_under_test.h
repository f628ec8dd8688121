// SPDX-License-Identifier: Apache-2.0
// A real TPM of swtpm that tpm2-tools talk to, for tests.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/bytes.h"

namespace vallum::attest {

// Owns a directory, and swtpm as a child until the end. Not thread-safe.
class TpmUnderTest {
 public:
  TpmUnderTest();
  ~TpmUnderTest();
  TpmUnderTest(const TpmUnderTest&) = delete;
  TpmUnderTest& operator=(const TpmUnderTest&) = delete;

  // False: swtpm or tpm2-tools are not there.
  static bool Available();
  // Runs a shell command in the directory, with tpm2-tools' TPM set. Fails the test, with what the
  // command printed, unless it succeeds.
  void Run(const std::string& command);
  // Whether it succeeds.
  bool Try(const std::string& command);
  // Power off without notice, and on again.
  void Reset();

  Bytes Read(const std::string& name) const;
  void Write(const std::string& name, ByteView content) const;

 private:
  void Start();
  void Stop();
  std::string path_;
  std::string output_;
  pid_t swtpm_ = -1;
};

}  // namespace vallum::attest

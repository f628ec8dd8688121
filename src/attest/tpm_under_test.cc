// SPDX-License-Identifier: Apache-2.0
#include "attest/tpm_under_test.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/check.h"

namespace vallum::attest {

TpmUnderTest::TpmUnderTest() {
  std::string name = std::filesystem::temp_directory_path() / "vallum-attest-XXXXXX";
  CHECK(mkdtemp(name.data()) != nullptr);
  path_ = name;
  Start();
}

TpmUnderTest::~TpmUnderTest() {
  Stop();
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

bool TpmUnderTest::Available() {
  return std::filesystem::exists("/usr/bin/swtpm") &&
         std::filesystem::exists("/usr/bin/tpm2_quote");
}

void TpmUnderTest::Start() {
  // The socket exists, and listens, before swtpm goes into the background.
  const std::string command =
      "exec swtpm socket --tpm2 --tpmstate dir=. --server type=unixio,path=tpm "
      "--ctrl type=unixio,path=tpm.ctrl --flags not-need-init,startup-clear >swtpm.log 2>&1";
  swtpm_ = fork();
  CHECK(swtpm_ >= 0);
  if (swtpm_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (chdir(path_.c_str()) == 0) execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  Run("for i in $(seq 200); do [ -S tpm ] && tpm2_getrandom 1 >/dev/null && exit 0; sleep 0.02; "
      "done; exit 1");
}

void TpmUnderTest::Stop() {
  kill(swtpm_, SIGKILL);
  waitpid(swtpm_, nullptr, 0);
  std::filesystem::remove(path_ + "/tpm");
  std::filesystem::remove(path_ + "/tpm.ctrl");
}

void TpmUnderTest::Reset() {
  Stop();
  Start();
}

bool TpmUnderTest::Try(const std::string& command) {
  const std::string whole = "( cd '" + path_ + "' && export TPM2TOOLS_TCTI=swtpm:path='" + path_ +
                            "/tpm' && set -e && " + command + " ) 2>&1 </dev/null";
  std::FILE* pipe = popen(whole.c_str(), "r");
  CHECK(pipe != nullptr);
  output_.clear();
  std::array<char, 4096> buffer{};
  while (const size_t count = fread(buffer.data(), 1, buffer.size(), pipe)) {
    output_.append(buffer.data(), count);
  }
  return pclose(pipe) == 0;
}

void TpmUnderTest::Run(const std::string& command) {
  ASSERT_TRUE(Try(command)) << command << "\n" << output_;
}

Bytes TpmUnderTest::Read(const std::string& name) const {
  std::ifstream in(path_ + "/" + name, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return ToBytes(AsBytes(text.str()));
}

void TpmUnderTest::Write(const std::string& name, ByteView content) const {
  std::ofstream out(path_ + "/" + name, std::ios::binary);
  out << AsText(content);
}

}  // namespace vallum::attest

// SPDX-License-Identifier: Apache-2.0
#include "tpm/swtpm_rig.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <system_error>
#include <thread>

#include "base/check.h"

namespace vallum::tpm {
namespace {

pid_t Spawn(std::vector<std::string> words, const std::string& output) {
  const pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid > 0) {
    return pid;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int log = open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  _exit(127);
}

bool Listens(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  CHECK(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.data(), path.size());
  const bool connected =
      connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  close(fd);
  return connected;
}

}  // namespace

SwtpmRig::SwtpmRig() {
  std::string pattern = "/tmp/vtpmrig-XXXXXX";
  directory_ = mkdtemp(pattern.data());
  Start();
}

SwtpmRig::~SwtpmRig() {
  End();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

void SwtpmRig::Start() {
  const std::filesystem::path state = directory_ / "state";
  std::filesystem::create_directories(state);
  const std::string socket = (directory_ / "tpm.sock").string();
  const std::string control = socket + ".ctrl";
  pid_ = Spawn({"swtpm", "socket", "--tpm2", "--tpmstate", "dir=" + state.string(), "--server",
                "type=unixio,path=" + socket, "--ctrl", "type=unixio,path=" + control, "--flags",
                "not-need-init,startup-clear"},
               (directory_ / "swtpm.log").string());
  // The control channel is made first. swtpm goes on when somebody connects and closes at once.
  for (int tries = 0; !Listens(control) || !Listens(socket); ++tries) {
    CHECK(tries < 500);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

void SwtpmRig::End() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  std::error_code ignored;
  std::filesystem::remove(directory_ / "tpm.sock", ignored);
  std::filesystem::remove(directory_ / "tpm.sock.ctrl", ignored);
}

void SwtpmRig::Restart() {
  End();
  Start();
}

void SwtpmRig::Replace() {
  End();
  std::filesystem::remove_all(directory_ / "state");
  Start();
}

void SwtpmRig::Tool(const std::vector<std::string>& argv) const {
  std::vector<std::string> words = argv;
  words.insert(words.end(), {"-T", text()});
  int status = 0;
  CHECK(waitpid(Spawn(words, (directory_ / "tools.log").string()), &status, 0) > 0);
  CHECK(status == 0);
}

void SwtpmRig::Freeze() const { kill(pid_, SIGSTOP); }

}  // namespace vallum::tpm

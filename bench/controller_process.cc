// SPDX-License-Identifier: Apache-2.0
#include "controller_process.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/secret_bytes.h"
#include "base/text.h"

namespace vallum::bench {
namespace {

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Agents dial the same port after a restart, so that the controller cannot choose it.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  close(fd);
  return ntohs(address.sin_port);
}

}  // namespace

ControllerProcess::ControllerProcess(std::filesystem::path program, std::filesystem::path state_dir,
                                     int cpu)
    : program_(std::move(program)),
      state_dir_(std::move(state_dir)),
      cpu_(cpu),
      api_port_(FreePort()),
      agent_port_(FreePort()) {}

ControllerProcess::~ControllerProcess() { Stop(); }

Result<void> ControllerProcess::Spawn() {
  const std::vector<std::string> words = {program_,
                                          "--state-dir",
                                          state_dir_,
                                          "--listen",
                                          "127.0.0.1:" + std::to_string(api_port_),
                                          "--agent-listen",
                                          agent_endpoint()};
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const std::string log = state_dir_ / "controller.log";
  pid_ = fork();
  if (pid_ < 0) return ErrnoError(errno, "fork");
  if (pid_ == 0) {
    const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(out, STDERR_FILENO);
    if (cpu_ >= 0) {
      cpu_set_t cpus;
      CPU_ZERO(&cpus);
      CPU_SET(static_cast<size_t>(cpu_), &cpus);
      sched_setaffinity(0, sizeof cpus, &cpus);
    }
    execv(words[0].c_str(), arguments.data());
    _exit(127);
  }
  return Ok();
}

Result<void> ControllerProcess::AwaitApi() {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (std::chrono::steady_clock::now() < deadline) {
    if (waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = -1;
      return Unavailable("the controller has ended: " + ReadFile(state_dir_ / "controller.log"));
    }
    const auto client = NewClient();
    http::ClientRequest request;
    request.target = "/v1/pools/default";
    if (client.has_value()) {
      const auto answer = (*client)->Send(request);
      if (answer.has_value() && answer->status == 200) return Ok();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return Unavailable("the controller's API does not answer");
}

void ControllerProcess::Stop() {
  if (pid_ <= 0) return;
  kill(pid_, SIGTERM);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

Result<std::unique_ptr<http::Client>> ControllerProcess::NewClient() const {
  http::ClientOptions options;
  options.server = "https://127.0.0.1:" + std::to_string(api_port_);
  options.ca_pem = ReadFile(state_dir_ / "ca.pem");
  ASSIGN_OR_RETURN(auto client, http::Client::Create(options));
  const std::string token = ReadFile(state_dir_ / "admin.token");
  client->SetBearerToken(SecretBytes(AsBytes(Trim(token))));
  return client;
}

double ControllerProcess::CpuSeconds() const {
  clockid_t clock{};
  timespec spent{};
  if (clock_getcpuclockid(pid_, &clock) != 0 || clock_gettime(clock, &spent) != 0) return 0;
  return static_cast<double>(spent.tv_sec) + static_cast<double>(spent.tv_nsec) / 1e9;
}

std::string ControllerProcess::Status(const std::string& field) const {
  std::istringstream lines(ReadFile("/proc/" + std::to_string(pid_) + "/status"));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(field + ":")) return line.substr(field.size() + 1);
  }
  return "0";
}

int64_t ControllerProcess::ResidentBytes() const { return std::stoll(Status("VmRSS")) * 1024; }
int64_t ControllerProcess::Threads() const { return std::stoll(Status("Threads")); }

}  // namespace vallum::bench

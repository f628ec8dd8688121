// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "base/result.h"
#include "http/client.h"

namespace vallum::bench {

// The program vallum-controller on a state directory, started and stopped as systemd would.
class ControllerProcess {
 public:
  //   cpu: the only one it runs on; -1: any.
  ControllerProcess(std::filesystem::path program, std::filesystem::path state_dir, int cpu);
  ~ControllerProcess();
  ControllerProcess(const ControllerProcess&) = delete;
  ControllerProcess& operator=(const ControllerProcess&) = delete;

  // Returns as soon as the process exists. Its log goes to controller.log in the state directory.
  Result<void> Spawn();
  // Waits until the API answers. Errors: kUnavailable (it has ended, or a minute passed).
  Result<void> AwaitApi();
  void Stop();

  // A client of its API with the administrator's token.
  Result<std::unique_ptr<http::Client>> NewClient() const;
  std::string agent_endpoint() const { return "127.0.0.1:" + std::to_string(agent_port_); }

  // Of the running process.
  double CpuSeconds() const;  // user and system
  int64_t ResidentBytes() const;
  int64_t Threads() const;

 private:
  std::string Status(const std::string& field) const;

  const std::filesystem::path program_;
  const std::filesystem::path state_dir_;
  const int cpu_;
  const int api_port_;
  const int agent_port_;
  pid_t pid_ = -1;
};

}  // namespace vallum::bench

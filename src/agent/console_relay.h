// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "agent/gateway.h"
#include "agent/serial_hub.h"
#include "base/result.h"
#include "vallum/v1/agent.grpc.pb.h"

namespace vallum::agent {

// Carries serial consoles between the controller and the guests: one stream and one thread pair
// each. Thread-safe.
class ConsoleRelay {
 public:
  static constexpr size_t kMaxConsoles = 32;

  //   channel: outlives the relay.
  explicit ConsoleRelay(const ChannelSlot& channel);
  // Ends all consoles.
  ~ConsoleRelay();
  ConsoleRelay(const ConsoleRelay&) = delete;
  ConsoleRelay& operator=(const ConsoleRelay&) = delete;

  // Dials the controller for one console and returns at once.
  //   line: the guest's serial line, or why there is none, which the controller is then told.
  void Open(const std::string& session_id, Result<std::shared_ptr<SerialHub>> line);

 private:
  struct Console;
  void Run(Console& console);
  void Pump(Console& console, SerialHub& line);

  const ChannelSlot& channel_;
  std::mutex mutex_;
  std::list<std::unique_ptr<Console>> consoles_;
};

}  // namespace vallum::agent

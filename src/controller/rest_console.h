// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/result.h"
#include "controller/console_hub.h"
#include "controller/controller.h"
#include "http/message.h"
#include "http/stream.h"

namespace vallum::controller {

// The consoles that are open: two threads each, which carry bytes between a WebSocket and an agent.
// Thread-safe. The destructor waits for them; stop the HTTP server first, which closes their
// sockets.
class ConsoleSessions {
 public:
  static constexpr size_t kMaximum = 64;
  static constexpr size_t kMaximumEach = 16;  // of one principal

  struct Session {
    std::shared_ptr<http::WebSocket> socket;
    std::shared_ptr<ConsolePipe> pipe;
    std::string user;                    // whose it is
    std::function<bool()> may_continue;  // asked every few seconds; thread-safe
  };

  ConsoleSessions() = default;
  ~ConsoleSessions();
  ConsoleSessions(const ConsoleSessions&) = delete;
  ConsoleSessions& operator=(const ConsoleSessions&) = delete;

  // Carries bytes until either end closes or it may not go on. Closes both when there are too many
  // consoles.
  void Run(Session session);

 private:
  bool Enter(const std::string& user);
  void Leave(const std::string& user);

  std::mutex mutex_;
  std::condition_variable left_;
  size_t threads_ = 0;
  std::map<std::string, size_t> threads_of_;  // by user
};

// GET /v1/consoles/{token}: the ticket is the authentication.
// Errors: kDenied (ticket unknown, used or expired), kUnavailable, kConflict.
Result<http::Response> OpenConsole(Controller& controller, ConsoleSessions& sessions,
                                   const http::Request& request);

}  // namespace vallum::controller

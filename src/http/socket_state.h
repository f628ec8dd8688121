// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "http/stream.h"

namespace vallum::http {

// The two queues between a WebSocket's user, on any thread, and its network end. Thread-safe.
class SocketState {
 public:
  // wake: tells the network end that something changed; called under the lock, must not block.
  SocketState(size_t queue_limit, std::function<void()> wake);

  // The user's side; see WebSocket.
  Result<void> Send(ByteView message, std::chrono::milliseconds timeout);
  Result<std::optional<Bytes>> Receive(std::chrono::milliseconds timeout);
  void Close(const std::string& reason);
  bool closed() const;
  void OnClosed(std::function<void()> callback);

  // The network's side. Next message to write; *end: none will follow.
  std::optional<Bytes> TakeOutgoing(bool* end);
  // False: the queue is full now, do not read on before being woken with HasRoom().
  bool PushIncoming(Bytes message);
  bool HasRoom() const;
  std::string close_reason() const;
  // Nothing moves any more; the wake function is not called again.
  void NetworkClosed(const std::string& why);

 private:
  const size_t limit_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> wake_;
  std::deque<Bytes> outgoing_;
  std::deque<Bytes> incoming_;
  size_t outgoing_bytes_ = 0;
  size_t incoming_bytes_ = 0;
  bool closing_ = false;
  bool closed_ = false;
  std::string reason_;
  std::function<void()> on_closed_;
};

inline constexpr size_t kMaxSocketMessage = size_t{1} << 20U;

}  // namespace vallum::http

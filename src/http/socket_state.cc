// SPDX-License-Identifier: Apache-2.0
#include "http/socket_state.h"

#include <utility>

namespace vallum::http {

SocketState::SocketState(size_t queue_limit, std::function<void()> wake)
    : limit_(queue_limit), wake_(std::move(wake)) {}

Result<void> SocketState::Send(ByteView message, std::chrono::milliseconds timeout) {
  if (message.size() > kMaxSocketMessage) return InvalidInput("message is larger than 1 MiB");
  std::unique_lock lock(mutex_);
  // One message is always accepted by an empty queue, whatever its size.
  const auto can_go = [&] {
    return closed_ || closing_ || outgoing_.empty() || outgoing_bytes_ + message.size() <= limit_;
  };
  if (!changed_.wait_for(lock, timeout, can_go)) {
    return Exhausted("the peer of the WebSocket reads too slowly");
  }
  if (closed_ || closing_) {
    return Unavailable("the WebSocket is closed" + (reason_.empty() ? "" : ": " + reason_));
  }
  outgoing_.push_back(ToBytes(message));
  outgoing_bytes_ += message.size();
  wake_();
  return Ok();
}

Result<std::optional<Bytes>> SocketState::Receive(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, timeout, [&] { return closed_ || !incoming_.empty(); })) {
    return std::optional<Bytes>();
  }
  // What arrived before the end is delivered first.
  if (incoming_.empty()) {
    return Unavailable("the WebSocket is closed" + (reason_.empty() ? "" : ": " + reason_));
  }
  Bytes message = std::move(incoming_.front());
  incoming_.pop_front();
  const bool was_full = incoming_bytes_ >= limit_;
  incoming_bytes_ -= message.size();
  if (was_full && incoming_bytes_ < limit_) wake_();
  return std::optional<Bytes>(std::move(message));
}

void SocketState::Close(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (closed_ || closing_) return;
  closing_ = true;
  reason_ = reason.substr(0, 120);
  changed_.notify_all();
  wake_();
}

bool SocketState::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_ || closing_;
}

void SocketState::OnClosed(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) {
      on_closed_ = std::move(callback);
      return;
    }
  }
  callback();
}

std::optional<Bytes> SocketState::TakeOutgoing(bool* end) {
  const std::lock_guard lock(mutex_);
  *end = closing_ || closed_;
  if (outgoing_.empty()) return std::nullopt;
  Bytes message = std::move(outgoing_.front());
  outgoing_.pop_front();
  outgoing_bytes_ -= message.size();
  changed_.notify_all();
  return message;
}

bool SocketState::PushIncoming(Bytes message) {
  const std::lock_guard lock(mutex_);
  incoming_bytes_ += message.size();
  incoming_.push_back(std::move(message));
  changed_.notify_all();
  return incoming_bytes_ < limit_;
}

bool SocketState::HasRoom() const {
  const std::lock_guard lock(mutex_);
  return incoming_bytes_ < limit_;
}

std::string SocketState::close_reason() const {
  const std::lock_guard lock(mutex_);
  return reason_;
}

void SocketState::NetworkClosed(const std::string& why) {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
    if (reason_.empty()) reason_ = why;
    wake_ = [] {};
    changed_.notify_all();
    callback = std::exchange(on_closed_, nullptr);
  }
  if (callback) callback();
}

}  // namespace vallum::http

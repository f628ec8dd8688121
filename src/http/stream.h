// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::http {

// One server-sent event (HTML standard, "Server-sent events").
struct ServerEvent {
  std::string id;
  std::string event;
  std::string data;  // line feeds are allowed; each line becomes a "data:" line
};

// The server's end of an open text/event-stream. Thread-safe; never blocks. Closing it, or dropping
// the last reference, ends the stream.
class EventStream {
 public:
  virtual ~EventStream() = default;
  // Queues an event. False: the stream is closed, or was closed just now because the client reads
  // too slowly (more than Limits::event_queue_bytes waiting); the caller lets go of it.
  virtual bool Send(const ServerEvent& event) = 0;
  // Ends the stream after what is queued.
  virtual void Close() = 0;
  virtual bool closed() const = 0;
  // Called once, on any thread, when the stream is closed for whatever reason; at once when it is
  // closed already. It must not block. Replaces an earlier one.
  virtual void OnClosed(std::function<void()> callback) = 0;
};

// One end, server's or client's, of a WebSocket with binary messages. Thread-safe. Dropping the
// last reference closes it.
class WebSocket {
 public:
  virtual ~WebSocket() = default;
  // Queues a message, waiting for room for at most the timeout.
  // Errors: kExhausted (no room in time; the socket stays open), kUnavailable (closed),
  // kInvalidInput (more than 1 MiB).
  virtual Result<void> Send(ByteView message, std::chrono::milliseconds timeout) = 0;
  // Waits for the next message; empty when the timeout passed without one. Reading from the network
  // pauses while unread messages pile up.
  // Errors: kUnavailable (closed; the message says why).
  virtual Result<std::optional<Bytes>> Receive(std::chrono::milliseconds timeout) = 0;
  // Sends what is queued, then says good-bye. reason: at most 120 bytes.
  virtual void Close(const std::string& reason) = 0;
  virtual bool closed() const = 0;
  // As EventStream::OnClosed.
  virtual void OnClosed(std::function<void()> callback) = 0;
};

}  // namespace vallum::http

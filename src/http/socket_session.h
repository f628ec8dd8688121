// SPDX-License-Identifier: Apache-2.0
// The network end of a WebSocket, for server and client. Internal; includes Beast.
#pragma once

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket.hpp>
#include <memory>
#include <string>

#include "http/core.h"
#include "http/socket_state.h"

namespace vallum::http {

// Moves messages between a SocketState and the network. All calls on the thread that runs the
// stream's I/O context; it keeps itself alive while an operation is pending.
class SocketSession final : public Connection, public std::enable_shared_from_this<SocketSession> {
 public:
  using WebSocketStream = beast::websocket::stream<Stream>;

  // ticket: null in a client.
  SocketSession(asio::io_context* io, std::unique_ptr<WebSocketStream> stream,
                std::unique_ptr<Registry::Ticket> ticket, size_t queue_limit);
  ~SocketSession() override;

  const std::shared_ptr<SocketState>& MakeState();
  // After the handshake succeeded.
  void Run();
  // Instead, when it failed.
  void Fail(const std::string& why);

  void Drain() override;
  void Abort() override;

  WebSocketStream& stream() { return *stream_; }

 private:
  void Read();
  void Pump();

  asio::io_context* io_;
  std::unique_ptr<Registry::Ticket> ticket_;
  std::unique_ptr<WebSocketStream> stream_;
  const size_t queue_limit_;
  std::shared_ptr<SocketState> state_;
  // While open: neither a read nor a write may be pending when the user reads slowly.
  std::shared_ptr<SocketSession> self_;
  beast::flat_buffer buffer_{kMaxSocketMessage};
  Bytes writing_message_;
  bool running_ = false;
  bool reading_ = false;
  bool writing_ = false;
  bool ended_ = false;
};

// Sets message size, time-outs and pings as both ends use them.
void Configure(SocketSession::WebSocketStream* stream, std::chrono::milliseconds idle);

}  // namespace vallum::http

// SPDX-License-Identifier: Apache-2.0
#include "http/socket_session.h"

#include <boost/asio/post.hpp>
#include <utility>

namespace vallum::http {
namespace {

namespace websocket = beast::websocket;

class ServerSocket final : public WebSocket {
 public:
  explicit ServerSocket(std::shared_ptr<SocketState> state) : state_(std::move(state)) {}
  ~ServerSocket() override { state_->Close("the server let go"); }

  Result<void> Send(ByteView message, std::chrono::milliseconds timeout) override {
    return state_->Send(message, timeout);
  }
  Result<std::optional<Bytes>> Receive(std::chrono::milliseconds timeout) override {
    return state_->Receive(timeout);
  }
  void Close(const std::string& reason) override { state_->Close(reason); }
  bool closed() const override { return state_->closed(); }
  void OnClosed(std::function<void()> callback) override { state_->OnClosed(std::move(callback)); }

 private:
  std::shared_ptr<SocketState> state_;
};

}  // namespace

void Configure(SocketSession::WebSocketStream* stream, std::chrono::milliseconds idle) {
  websocket::stream_base::timeout timeouts{};
  timeouts.handshake_timeout = std::chrono::seconds(5);
  timeouts.idle_timeout = idle;
  timeouts.keep_alive_pings = true;
  stream->set_option(timeouts);
  stream->read_message_max(kMaxSocketMessage);
  stream->binary(true);
  // The WebSocket layer keeps time from here on; two timers on one socket end it early.
  beast::get_lowest_layer(*stream).expires_never();
}

SocketSession::SocketSession(asio::io_context* io, std::unique_ptr<WebSocketStream> stream,
                             std::unique_ptr<Registry::Ticket> ticket, size_t queue_limit)
    : io_(io), ticket_(std::move(ticket)), stream_(std::move(stream)), queue_limit_(queue_limit) {}

SocketSession::~SocketSession() {
  if (state_ != nullptr) state_->NetworkClosed("the connection ended");
}

const std::shared_ptr<SocketState>& SocketSession::MakeState() {
  if (ticket_ != nullptr) ticket_->Assign(weak_from_this());
  state_ = std::make_shared<SocketState>(queue_limit_, [io = io_, weak = weak_from_this()] {
    asio::post(*io, [weak] {
      const auto self = weak.lock();
      if (self == nullptr || !self->running_) return;
      self->Read();
      self->Pump();
    });
  });
  return state_;
}

void SocketSession::Run() {
  running_ = true;
  self_ = shared_from_this();
  Read();
  Pump();
}

void SocketSession::Fail(const std::string& why) {
  if (std::exchange(ended_, true)) return;
  beast::get_lowest_layer(*stream_).close();
  state_->NetworkClosed(why);
  self_ = nullptr;
}

void SocketSession::Drain() { state_->Close("the server stops"); }
void SocketSession::Abort() {
  const auto keep = shared_from_this();
  Fail("the server stops");
}

void SocketSession::Read() {
  if (reading_ || ended_ || !state_->HasRoom()) return;
  reading_ = true;
  stream_->async_read(buffer_, [self = shared_from_this()](beast::error_code error, size_t) {
    self->reading_ = false;
    if (error) {
      const bool good_bye = error == websocket::error::closed;
      const auto& reason = self->stream_->reason().reason;
      return self->Fail(good_bye ? std::string(reason.data(), reason.size()) : error.message());
    }
    const auto data = self->buffer_.cdata();
    const auto* bytes = static_cast<const std::byte*>(data.data());
    self->state_->PushIncoming(Bytes(bytes, bytes + data.size()));
    self->buffer_.consume(self->buffer_.size());
    self->Read();
  });
}

void SocketSession::Pump() {
  if (writing_ || ended_) return;
  bool end = false;
  std::optional<Bytes> message = state_->TakeOutgoing(&end);
  if (message.has_value()) {
    writing_ = true;
    writing_message_ = *std::move(message);
    stream_->async_write(asio::buffer(writing_message_.data(), writing_message_.size()),
                         [self = shared_from_this()](beast::error_code error, size_t) {
                           self->writing_ = false;
                           if (error) return self->Fail(error.message());
                           self->Pump();
                         });
  } else if (end) {
    writing_ = true;
    websocket::close_reason reason(websocket::close_code::normal);
    reason.reason = state_->close_reason();
    stream_->async_close(reason, [self = shared_from_this()](beast::error_code) {
      self->Fail(self->state_->close_reason());
    });
  }
}

void ServeWebSocket(Core* core, Stream stream, std::unique_ptr<Registry::Ticket> ticket,
                    UpgradeRequest request, const Response& response) {
  auto socket = std::make_unique<SocketSession::WebSocketStream>(std::move(stream));
  Configure(socket.get(), core->limits().heartbeat * 2);
  const auto session = std::make_shared<SocketSession>(
      &core->io, std::move(socket), std::move(ticket), core->limits().socket_queue.bytes());
  const auto handle = std::make_shared<ServerSocket>(session->MakeState());
  const auto upgrade = std::make_shared<UpgradeRequest>(std::move(request));
  session->stream().async_accept(*upgrade, [core, session, handle, upgrade,
                                            start = response.web_socket](beast::error_code error) {
    if (error) return session->Fail(error.message());
    session->Run();
    if (core->draining) session->Drain();
    core->pool.SubmitNext([start, handle] { start(handle); });
  });
}

}  // namespace vallum::http

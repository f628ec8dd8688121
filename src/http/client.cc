// SPDX-License-Identifier: Apache-2.0
#include "http/client.h"

#include <unistd.h>

#include <algorithm>
#include <boost/asio/write.hpp>
#include <boost/beast/http.hpp>
#include <thread>
#include <utility>

#include "base/text.h"
#include "http/connector.h"
#include "http/socket_session.h"

namespace vallum::http {
namespace {

namespace bhttp = beast::http;
using std::chrono::steady_clock;
using StringRequest = bhttp::request<bhttp::string_body>;
using StringParser = bhttp::response_parser<bhttp::string_body>;

constexpr size_t kUploadStep = 256 * 1024;
constexpr size_t kMaxEventBytes = size_t{8} << 20U;
// The server sends a comment every 15 s; a silence this long means that it is gone.
constexpr std::chrono::seconds kMaxSilence{60};

bhttp::verb VerbOf(Method method) {
  return bhttp::string_to_verb({MethodName(method).data(), MethodName(method).size()});
}

Response ToResponse(StringParser* parser) {
  Response response;
  auto message = parser->release();
  response.status = static_cast<int>(message.result_int());
  for (const auto& field : message) {
    response.headers.Add({field.name_string().data(), field.name_string().size()},
                         {field.value().data(), field.value().size()});
  }
  response.body = std::move(message.body());
  return response;
}

}  // namespace

class Client::Impl {
 public:
  explicit Impl(std::shared_ptr<const Target> target) : target_(std::move(target)) {}

  void SetBearerToken(SecretBytes token) { token_ = std::move(token); }

  Result<Response> Send(const ClientRequest& request) {
    StringRequest message = MakeMessage(request);
    message.body() = request.body;
    message.prepare_payload();
    const bool reused = stream_ != nullptr;
    bool answered = false;
    Result<Response> response = Exchange(request.method, message, &answered);
    const bool repeatable = request.method != Method::kPost && request.method != Method::kPatch;
    if (!response.has_value() && reused && repeatable && !answered && !timed_out_) {
      return Exchange(request.method, message, &answered);
    }
    return response;
  }

  Result<Response> Upload(const ClientRequest& request, const UploadSource& source,
                          const std::function<void(uint64_t)>& progress) {
    bhttp::request<bhttp::empty_body> message(MakeMessage(request).base());
    message.content_length(source.length);
    message.set(bhttp::field::expect, "100-continue");
    RETURN_IF_ERROR(Ensure());
    Arm();
    beast::error_code error =
        Await(&io_, [&](auto done) { bhttp::async_write(*stream_, message, done); });
    if (error) return Broken(error);
    ASSIGN_OR_RETURN(std::optional<Response> early, ReadContinue());
    if (early.has_value()) return *std::move(early);
    if (Result<void> sent = SendFile(source, progress); !sent.has_value()) {
      stream_.reset();
      return std::move(sent).error();
    }
    bool answered = false;
    return ReadResponse(request.method, &answered);
  }

  // The header fields that every request has.
  StringRequest MakeMessage(const ClientRequest& request) const {
    StringRequest message(VerbOf(request.method), request.target, 11);
    message.set(bhttp::field::host, target_->authority);
    message.set(bhttp::field::user_agent, target_->options.user_agent);
    for (const auto& [name, value] : request.headers.items()) message.insert(name, value);
    if (!token_.empty()) {
      const std::string_view token = AsText(token_.Reveal(SecretAccess("authenticating")));
      message.set(bhttp::field::authorization, "Bearer " + std::string(token));
    }
    return message;
  }

  const std::shared_ptr<const Target>& target() const { return target_; }

 private:
  void Arm() { beast::get_lowest_layer(*stream_).expires_after(target_->options.request_timeout); }

  Result<void> Ensure() {
    timed_out_ = false;
    if (stream_ != nullptr) return Ok();
    buffer_.clear();
    ASSIGN_OR_RETURN(stream_, Connect(&io_, *target_));
    return Ok();
  }

  Error Broken(beast::error_code error) {
    stream_.reset();
    timed_out_ = error == beast::error::timeout;
    return Unreachable(*target_, error);
  }

  Result<Response> Exchange(Method method, const StringRequest& message, bool* answered) {
    RETURN_IF_ERROR(Ensure());
    Arm();
    const beast::error_code error =
        Await(&io_, [&](auto done) { bhttp::async_write(*stream_, message, done); });
    if (error) return Broken(error);
    return ReadResponse(method, answered);
  }

  Result<Response> ReadResponse(Method method, bool* answered) {
    Arm();
    StringParser parser;
    parser.body_limit(target_->options.response_limit.bytes());
    parser.skip(method == Method::kHead);
    const beast::error_code error =
        Await(&io_, [&](auto done) { bhttp::async_read(*stream_, buffer_, parser, done); });
    *answered = parser.is_header_done();
    return Finish(&parser, error);
  }

  Result<Response> Finish(StringParser* parser, beast::error_code error) {
    if (error == bhttp::error::body_limit) {
      stream_.reset();
      return Exhausted("the server's answer is larger than " +
                       FormatByteCount(target_->options.response_limit));
    }
    if (error) return Broken(error);
    if (!parser->keep_alive()) stream_.reset();
    return ToResponse(parser);
  }

  // Empty when the server wants the body; else its answer.
  Result<std::optional<Response>> ReadContinue() {
    StringParser parser;
    parser.body_limit(target_->options.response_limit.bytes());
    beast::error_code error =
        Await(&io_, [&](auto done) { bhttp::async_read_header(*stream_, buffer_, parser, done); });
    if (error) return Broken(error);
    if (parser.get().result() == bhttp::status::continue_) return std::optional<Response>();
    error = Await(&io_, [&](auto done) { bhttp::async_read(*stream_, buffer_, parser, done); });
    ASSIGN_OR_RETURN(Response response, Finish(&parser, error));
    // The server still expects a body on this connection, or closes it.
    stream_.reset();
    return std::optional<Response>(std::move(response));
  }

  // Stops early, without an error, when the server answers meanwhile or stops taking bytes.
  Result<void> SendFile(const UploadSource& source, const std::function<void(uint64_t)>& progress) {
    std::string chunk(std::min<uint64_t>(kUploadStep, std::max<uint64_t>(source.length, 1)), '\0');
    uint64_t sent = 0;
    while (sent < source.length) {
      const size_t want =
          static_cast<size_t>(std::min<uint64_t>(chunk.size(), source.length - sent));
      const ssize_t got =
          ::pread(source.fd, chunk.data(), want, static_cast<off_t>(source.offset + sent));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return ErrnoError(errno, "read the file to upload");
      if (got == 0) return InvalidInput("the file became shorter while it was uploaded");
      beast::error_code error;
      if (beast::get_lowest_layer(*stream_).socket().available(error) > 0 || error) return Ok();
      Arm();
      error = Await(&io_, [&](auto done) {
        asio::async_write(*stream_, asio::buffer(chunk.data(), static_cast<size_t>(got)), done);
      });
      if (error) return Ok();
      sent += static_cast<uint64_t>(got);
      if (progress) progress(sent);
    }
    return Ok();
  }

  std::shared_ptr<const Target> target_;
  SecretBytes token_;
  asio::io_context io_{1};
  std::unique_ptr<Stream> stream_;
  beast::flat_buffer buffer_;
  bool timed_out_ = false;
};

namespace {

// Reads the stream through one read that stays pending between calls of Next.
class SseReader final : public EventReader {
 public:
  explicit SseReader(std::shared_ptr<const Target> target) : target_(std::move(target)) {}

  Result<void> Open(const StringRequest& message) {
    ASSIGN_OR_RETURN(stream_, Connect(&io_, *target_));
    beast::get_lowest_layer(*stream_).expires_after(target_->options.request_timeout);
    beast::error_code error =
        Await(&io_, [&](auto done) { bhttp::async_write(*stream_, message, done); });
    if (error) return Unreachable(*target_, error);
    parser_.body_limit(std::numeric_limits<uint64_t>::max());
    error =
        Await(&io_, [&](auto done) { bhttp::async_read_header(*stream_, buffer_, parser_, done); });
    if (error) return Unreachable(*target_, error);
    if (parser_.get().result() != bhttp::status::ok) return ReadProblem();
    beast::get_lowest_layer(*stream_).expires_never();
    last_byte_ = steady_clock::now();
    return Ok();
  }

  Result<std::optional<ServerEvent>> Next(std::chrono::milliseconds timeout) override {
    const auto deadline = steady_clock::now() + timeout;
    while (true) {
      if (std::optional<ServerEvent> event = TakeEvent()) return event;
      if (failed_) return Unavailable("the server ended the event stream");
      if (text_.size() > kMaxEventBytes) return Unavailable("an event is larger than 8 MiB");
      const auto now = steady_clock::now();
      if (now - last_byte_ > kMaxSilence) return Unavailable("the server has fallen silent");
      StartRead();
      io_.restart();
      if (pending_ && io_.run_one_until(deadline) == 0 && steady_clock::now() >= deadline) {
        return std::optional<ServerEvent>();
      }
    }
  }

 private:
  Error ReadProblem() {
    std::string body(64 * 1024, '\0');
    parser_.get().body().data = body.data();
    parser_.get().body().size = body.size();
    static_cast<void>(
        Await(&io_, [&](auto done) { bhttp::async_read(*stream_, buffer_, parser_, done); }));
    body.resize(body.size() - parser_.get().body().size);
    return ErrorFromProblem(static_cast<int>(parser_.get().result_int()), body);
  }

  void StartRead() {
    if (pending_) return;
    if (parser_.is_done()) {
      failed_ = true;
      return;
    }
    pending_ = true;
    parser_.get().body().data = chunk_;
    parser_.get().body().size = sizeof chunk_;
    bhttp::async_read_some(*stream_, buffer_, parser_, [this](beast::error_code error, size_t) {
      pending_ = false;
      text_.append(chunk_, sizeof chunk_ - parser_.get().body().size);
      last_byte_ = steady_clock::now();
      failed_ = error && error != bhttp::error::need_buffer;
    });
  }

  // HTML standard: fields until an empty line; ':' begins a comment.
  std::optional<ServerEvent> TakeEvent() {
    while (true) {
      const size_t end = text_.find("\n\n");
      if (end == std::string::npos) return std::nullopt;
      const std::string block = text_.substr(0, end);
      text_.erase(0, end + 2);
      ServerEvent event;
      bool has_data = false;
      for (const std::string& line : Split(block, '\n')) {
        const size_t colon = line.find(':');
        const std::string name = line.substr(0, colon);
        std::string value = colon == std::string::npos ? "" : line.substr(colon + 1);
        if (value.starts_with(' ')) value.erase(0, 1);
        if (name == "id") event.id = value;
        if (name == "event") event.event = value;
        if (name == "data") {
          if (has_data) event.data += '\n';
          event.data += value;
          has_data = true;
        }
      }
      if (has_data) return event;
    }
  }

  std::shared_ptr<const Target> target_;
  asio::io_context io_{1};
  std::unique_ptr<Stream> stream_;
  beast::flat_buffer buffer_;
  bhttp::response_parser<bhttp::buffer_body> parser_;
  char chunk_[16 * 1024];
  std::string text_;
  bool pending_ = false;
  bool failed_ = false;
  steady_clock::time_point last_byte_;
};

// A WebSocket with the thread that serves it.
class ClientSocket final : public WebSocket {
 public:
  explicit ClientSocket(std::shared_ptr<const Target> target) : target_(std::move(target)) {}
  ~ClientSocket() override {
    if (state_ != nullptr) state_->Close("done");
    // Ends when the good-bye is done, which has a time-out.
    if (thread_.joinable()) thread_.join();
  }

  Result<void> Open(const StringRequest& message) {
    ASSIGN_OR_RETURN(std::unique_ptr<Stream> stream, Connect(&io_, *target_));
    auto socket = std::make_unique<SocketSession::WebSocketStream>(std::move(*stream));
    Configure(socket.get(), std::chrono::seconds(30));
    socket->set_option(beast::websocket::stream_base::decorator(
        [message](beast::websocket::request_type& upgrade) {
          for (const auto& field : message) {
            if (field.name() != bhttp::field::host) upgrade.set(field.name_string(), field.value());
          }
        }));
    beast::websocket::response_type answer;
    const beast::error_code error = Await(&io_, [&](auto done) {
      socket->async_handshake(answer, target_->authority, message.target(), done);
    });
    if (error == beast::websocket::error::upgrade_declined) {
      return ErrorFromProblem(static_cast<int>(answer.result_int()), answer.body());
    }
    if (error) return Unreachable(*target_, error);
    const auto session =
        std::make_shared<SocketSession>(&io_, std::move(socket), nullptr, size_t{1} << 20U);
    state_ = session->MakeState();
    session->Run();
    io_.restart();
    thread_ = std::thread([this] { io_.run(); });
    return Ok();
  }

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
  std::shared_ptr<const Target> target_;
  asio::io_context io_{1};
  std::shared_ptr<SocketState> state_;
  std::thread thread_;
};

}  // namespace

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

Result<std::unique_ptr<Client>> Client::Create(ClientOptions options) {
  ASSIGN_OR_RETURN(auto target, MakeTarget(std::move(options)));
  return std::unique_ptr<Client>(new Client(std::make_unique<Impl>(std::move(target))));
}

void Client::SetBearerToken(SecretBytes token) { impl_->SetBearerToken(std::move(token)); }

Result<Response> Client::Send(const ClientRequest& request) { return impl_->Send(request); }

Result<Response> Client::Upload(const ClientRequest& request, const UploadSource& source,
                                const std::function<void(uint64_t)>& progress) {
  return impl_->Upload(request, source, progress);
}

Result<std::unique_ptr<EventReader>> Client::OpenEvents(const ClientRequest& request) {
  auto reader = std::make_unique<SseReader>(impl_->target());
  RETURN_IF_ERROR(reader->Open(impl_->MakeMessage(request)));
  return std::unique_ptr<EventReader>(std::move(reader));
}

Result<std::shared_ptr<WebSocket>> Client::OpenWebSocket(const ClientRequest& request) {
  auto socket = std::make_shared<ClientSocket>(impl_->target());
  RETURN_IF_ERROR(socket->Open(impl_->MakeMessage(request)));
  return std::shared_ptr<WebSocket>(std::move(socket));
}

}  // namespace vallum::http

// SPDX-License-Identifier: Apache-2.0
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket/rfc6455.hpp>
#include <exception>
#include <limits>
#include <optional>
#include <utility>

#include "base/text.h"
#include "http/core.h"

namespace vallum::http {
namespace {

namespace bhttp = beast::http;
using std::chrono::steady_clock;

// How much of a refused body is read and thrown away, so that the client sees the answer instead of
// a reset.
constexpr size_t kDrainBytes = size_t{16} << 20U;
constexpr std::chrono::seconds kDrainTime{2};
constexpr size_t kBodyStep = 64 * 1024;

std::optional<Method> MethodOf(bhttp::verb verb) {
  switch (verb) {
    case bhttp::verb::get:
      return Method::kGet;
    case bhttp::verb::head:
      return Method::kHead;
    case bhttp::verb::post:
      return Method::kPost;
    case bhttp::verb::put:
      return Method::kPut;
    case bhttp::verb::patch:
      return Method::kPatch;
    case bhttp::verb::delete_:
      return Method::kDelete;
    default:
      return std::nullopt;
  }
}

std::string_view View(beast::string_view text) { return {text.data(), text.size()}; }

// Handlers use libraries that throw; whatever comes out of one is an answer, not the server's end.
template <typename Run>
Response Guarded(const Run& run) {
  try {
    return run();
  } catch (const std::exception& error) {
    return ProblemResponse(Internal(std::string("the handler failed: ") + error.what()));
  }
}

// One HTTP connection. Its members belong to the I/O thread; while a handler runs on the pool, only
// that handler touches request_ and sink_.
class Session final : public Connection, public std::enable_shared_from_this<Session> {
 public:
  Session(Core* core, asio::ip::tcp::socket socket, std::shared_ptr<asio::ssl::context> tls,
          Peer peer, std::unique_ptr<Registry::Ticket> ticket)
      : core_(core),
        ticket_(std::move(ticket)),
        tls_(std::move(tls)),
        peer_(std::move(peer)),
        stream_(std::in_place, std::move(socket), *tls_) {}

  ~Session() override {
    ReleaseBody();
    // A sink closes files; that may block.
    if (sink_ != nullptr) {
      core_->pool.SubmitNext([sink = std::shared_ptr<UploadSink>(std::move(sink_))] {});
    }
  }

  void Start() {
    ticket_->Assign(weak_from_this());
    socket().expires_after(core_->limits().handshake_timeout);
    stream_->async_handshake(asio::ssl::stream_base::server,
                             [self = shared_from_this()](beast::error_code error) {
                               if (!error) self->ReadNext(self->core_->limits().header_timeout);
                             });
  }

  void Drain() override {
    if (idle_) Abort();
  }
  void Abort() override {
    if (stream_.has_value()) socket().close();
  }

 private:
  using Parser = bhttp::request_parser<bhttp::buffer_body>;

  beast::tcp_stream& socket() { return beast::get_lowest_layer(*stream_); }

  // ---- header ----

  void ReadNext(std::chrono::milliseconds timeout) {
    if (core_->draining) return Goodbye();
    ReleaseBody();
    if (buffer_.size() > 0) return ReadHeader();
    idle_ = true;
    buffer_ = beast::flat_buffer(core_->limits().header.bytes() + kBodyStep);
    socket().expires_after(timeout);
    stream_->async_read_some(buffer_.prepare(2048),
                             [self = shared_from_this()](beast::error_code error, size_t count) {
                               self->idle_ = false;
                               if (error) return;
                               self->buffer_.commit(count);
                               self->ReadHeader();
                             });
  }

  void ReadHeader() {
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(core_->limits().header.bytes()));
    parser_->body_limit(std::numeric_limits<uint64_t>::max());
    socket().expires_after(core_->limits().header_timeout);
    bhttp::async_read_header(
        *stream_, buffer_, *parser_,
        [self = shared_from_this()](beast::error_code error, size_t) { self->OnHeader(error); });
  }

  void OnHeader(beast::error_code error) {
    start_ = steady_clock::now();
    request_ = {};
    request_.peer = peer_;
    route_ = nullptr;
    if (error == bhttp::error::header_limit || error == bhttp::error::buffer_overflow) {
      return Refuse(431, Exhausted("the request's header is larger than " +
                                   FormatByteCount(core_->limits().header)));
    }
    const bool malformed =
        error.category() == bhttp::make_error_code(bhttp::error::bad_line_ending).category() &&
        error != bhttp::error::end_of_stream && error != bhttp::error::partial_message;
    if (malformed) {
      return Refuse(400, InvalidInput("not an HTTP request: " + error.message()));
    }
    if (error) return Goodbye();
    int status = 400;
    if (Result<void> read = ReadRequest(&status); !read.has_value()) {
      return Refuse(status, std::move(read).error());
    }
    Dispatch();
  }

  Result<void> ReadRequest(int* status) {
    const auto& message = parser_->get();
    const std::optional<Method> method = MethodOf(message.method());
    if (!method.has_value()) {
      *status = 405;
      return InvalidInput("method " + Printable(View(message.method_string()), 20) +
                          " is not served");
    }
    request_.method = *method;
    for (const auto& field : message) {
      request_.headers.Add(View(field.name_string()), View(field.value()));
    }
    const std::string_view target = View(message.target());
    const size_t question = target.find('?');
    request_.path = std::string(target.substr(0, question));
    if (request_.path.empty() || request_.path.front() != '/') {
      return InvalidInput("the request's target does not begin with '/'");
    }
    if (question != std::string_view::npos) {
      ASSIGN_OR_RETURN(request_.query, ParseQuery(target.substr(question + 1)));
    }
    Result<Router::Match> match = core_->router.Find(*method, request_.path, &allowed_);
    if (!match.has_value()) {
      *status = allowed_.empty() ? StatusOf(match.error().code()) : 405;
      return std::move(match).error();
    }
    route_ = match->route;
    request_.params = std::move(match->params);
    return Ok();
  }

  // ---- body ----

  void Dispatch() {
    if (route_->upload) return StartUpload();
    const uint64_t limit = route_->body_limit.bytes();
    if (const auto length = parser_->content_length(); length.has_value() && *length > limit) {
      return RefuseBody();
    }
    if (parser_->is_done()) return RunHandler();
    socket().expires_after(core_->limits().body_timeout);
    chunk_.resize(std::min<size_t>(kBodyStep, limit + 1));
    Continue([self = shared_from_this()] { self->ReadBody(); });
  }

  void RefuseBody() {
    Refuse(413,
           Exhausted("the request's body is larger than " + FormatByteCount(route_->body_limit)));
  }

  // A client that asked whether to send its body is told so.
  template <typename Then>
  void Continue(Then then) {
    const auto expect = request_.headers.Get("Expect");
    if (!expect.has_value() || ToLower(*expect) != "100-continue") return then();
    static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    asio::async_write(*stream_, asio::buffer(kContinue.data(), kContinue.size()),
                      [then](beast::error_code error, size_t) {
                        if (!error) then();
                      });
  }

  // Fills chunk_ as far as the body goes; then(count).
  template <typename Then>
  void ReadChunk(Then then) {
    auto& body = parser_->get().body();
    body.data = chunk_.data();
    body.size = chunk_.size();
    bhttp::async_read(*stream_, buffer_, *parser_,
                      [self = shared_from_this(), then](beast::error_code error, size_t) {
                        if (error && error != bhttp::error::need_buffer)
                          return self->BodyFailed(error);
                        then(self->chunk_.size() - self->parser_->get().body().size);
                      });
  }

  void BodyFailed(beast::error_code error) {
    if (error == beast::error::timeout || error == asio::error::eof) return;
    Refuse(400, InvalidInput("cannot read the request's body: " + error.message()));
  }

  void ReadBody() {
    ReadChunk([self = shared_from_this()](size_t count) {
      self->body_reserved_ += count;
      self->core_->body_bytes += count;
      if (self->request_.body.size() + count > self->route_->body_limit.bytes()) {
        return self->RefuseBody();
      }
      if (self->core_->body_bytes > self->core_->limits().bodies_total.bytes()) {
        return self->Refuse(
            503, Unavailable("too many large requests at this moment").WithFix("try again"));
      }
      self->request_.body.append(self->chunk_.data(), count);
      if (self->parser_->is_done()) {
        self->chunk_ = {};
        self->RunHandler();
      } else {
        self->ReadBody();
      }
    });
  }

  void ReleaseBody() {
    core_->body_bytes -= std::exchange(body_reserved_, 0);
    request_.body = {};
    chunk_ = {};
  }

  // ---- handler ----

  void RunHandler() {
    RunOnPool([self = shared_from_this()] {
      Response response = Guarded([&] { return self->route_->handler(self->request_); });
      self->Post([self, response = std::move(response)]() mutable {
        self->Respond(std::move(response), Body::kRead);
      });
    });
  }

  // Work that a client waits for: refused when the line is too long.
  void RunOnPool(std::function<void()> task) {
    socket().expires_never();
    if (core_->pool.Submit(std::move(task))) return;
    Response busy = ProblemResponse(Unavailable("the server is busy").WithFix("try again"));
    busy.headers.Set("Retry-After", "1");
    Respond(busy, Body::kUnread);
  }

  template <typename Task>
  void Post(Task task) {
    asio::post(core_->io, std::move(task));
  }

  // ---- upload ----

  void StartUpload() {
    RunOnPool([self = shared_from_this()] {
      std::optional<Response> refusal;
      const Response failure = Guarded([&] {
        auto decision = self->route_->upload(self->request_);
        if (auto* sink = std::get_if<std::unique_ptr<UploadSink>>(&decision)) {
          self->sink_ = std::move(*sink);
        } else {
          refusal = std::get<Response>(std::move(decision));
        }
        return Response();
      });
      if (failure.status >= 400) refusal = failure;
      self->Post([self, refusal] { self->OnUploadDecision(refusal); });
    });
  }

  void OnUploadDecision(std::optional<Response> refusal) {
    if (refusal.has_value()) {
      return Respond(*refusal, parser_->is_done() ? Body::kRead : Body::kUnread);
    }
    if (parser_->is_done()) return FinishUpload();
    chunk_.resize(core_->limits().upload_chunk.bytes());
    socket().expires_after(core_->limits().body_timeout);
    Continue([self = shared_from_this()] { self->ReadUpload(); });
  }

  void ReadUpload() {
    // Per chunk: a whole image may take hours, but nobody may trickle.
    socket().expires_after(core_->limits().body_timeout);
    ReadChunk([self = shared_from_this()](size_t count) { self->WriteToSink(count); });
  }

  void WriteToSink(size_t count) {
    socket().expires_never();
    core_->pool.SubmitNext([self = shared_from_this(), count] {
      const Response problem = Guarded([&] {
        const Result<void> written =
            self->sink_->Write(AsBytes(std::string_view(self->chunk_.data(), count)));
        return written.has_value() ? Response() : ProblemResponse(written.error());
      });
      self->Post([self, problem] {
        if (problem.status >= 400) {
          self->DropSink();
          self->Respond(problem, self->parser_->is_done() ? Body::kRead : Body::kUnread);
        } else if (self->parser_->is_done()) {
          self->FinishUpload();
        } else {
          self->ReadUpload();
        }
      });
    });
  }

  void FinishUpload() {
    core_->pool.SubmitNext([self = shared_from_this()] {
      const Response response = Guarded([&] { return self->sink_->Finish(); });
      self->sink_.reset();
      self->Post([self, response] { self->Respond(response, Body::kRead); });
    });
  }

  void DropSink() {
    core_->pool.SubmitNext([sink = std::shared_ptr<UploadSink>(std::move(sink_))] {});
  }

  // ---- answer ----

  enum class Body { kRead, kUnread };

  void Refuse(int status, const Error& error) {
    Response response = ProblemResponse(status, error);
    if (status == 405 && !allowed_.empty()) response.headers.Set("Allow", allowed_);
    const bool bodiless = parser_->is_header_done() && parser_->is_done();
    Respond(response, bodiless ? Body::kRead : Body::kUnread);
  }

  void Respond(Response response, Body body) {
    if (response.events) return BecomeEvents(response);
    if (response.web_socket) return BecomeWebSocket(response);
    reply_.emplace();
    reply_->version(11);
    reply_->result(static_cast<unsigned>(response.status));
    for (const auto& [name, value] : response.headers.items()) reply_->insert(name, value);
    close_ = body == Body::kUnread || core_->draining || !parser_->is_header_done() ||
             !parser_->keep_alive();
    unread_ = body == Body::kUnread;
    reply_->keep_alive(!close_);
    reply_->body() = std::move(response.body);
    reply_->prepare_payload();
    // HEAD: the length that GET would have, and no body.
    if (request_.method == Method::kHead) reply_->body().clear();
    socket().expires_after(core_->limits().write_timeout);
    serializer_.emplace(*reply_);
    serializer_->split(request_.method == Method::kHead);
    const auto done = [self = shared_from_this(), status = response.status](
                          beast::error_code error, size_t) { self->OnWritten(error, status); };
    if (request_.method == Method::kHead) {
      bhttp::async_write_header(*stream_, *serializer_, done);
    } else {
      bhttp::async_write(*stream_, *serializer_, done);
    }
  }

  void OnWritten(beast::error_code error, int status) {
    Record(status);
    serializer_.reset();
    reply_.reset();
    if (error) return;
    if (!close_) return ReadNext(core_->limits().idle_timeout);
    if (!unread_) return Goodbye();
    drained_ = 0;
    chunk_.resize(kBodyStep);
    socket().expires_after(kDrainTime);
    Discard();
  }

  void Record(int status) {
    if (!core_->options.on_request) return;
    AccessRecord record;
    record.peer = peer_;
    record.method = request_.method;
    record.path = request_.path;
    record.route = route_ != nullptr ? std::string_view(route_->pattern) : std::string_view();
    record.status = status;
    record.duration =
        std::chrono::duration_cast<std::chrono::microseconds>(steady_clock::now() - start_);
    core_->options.on_request(record);
  }

  void Discard() {
    stream_->async_read_some(asio::buffer(chunk_.data(), chunk_.size()),
                             [self = shared_from_this()](beast::error_code error, size_t count) {
                               self->drained_ += count;
                               if (error || self->drained_ > kDrainBytes) return self->Abort();
                               self->Discard();
                             });
  }

  void Goodbye() {
    socket().expires_after(kDrainTime);
    stream_->async_shutdown([self = shared_from_this()](beast::error_code) { self->Abort(); });
  }

  // ---- streams ----

  void BecomeEvents(const Response& response) {
    Record(200);
    std::string head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    head += "Cache-Control: no-store\r\nConnection: close\r\n\r\n";
    Stream stream = std::move(*stream_);
    stream_.reset();
    ServeEvents(core_, std::move(stream), std::move(ticket_), std::move(head), response);
  }

  void BecomeWebSocket(const Response& response) {
    UpgradeRequest upgrade;
    upgrade.method(parser_->get().method());
    upgrade.version(parser_->get().version());
    for (const auto& field : parser_->get()) upgrade.insert(field.name_string(), field.value());
    if (!beast::websocket::is_upgrade(upgrade)) {
      return Refuse(
          400, InvalidInput("this path is a WebSocket").WithFix("connect with a WebSocket client"));
    }
    Record(101);
    Stream stream = std::move(*stream_);
    stream_.reset();
    ServeWebSocket(core_, std::move(stream), std::move(ticket_), std::move(upgrade), response);
  }

  Core* core_;
  std::unique_ptr<Registry::Ticket> ticket_;
  std::shared_ptr<asio::ssl::context> tls_;  // outlives the stream
  const Peer peer_;
  std::optional<Stream> stream_;
  beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  Request request_;
  std::string allowed_;
  const Route* route_ = nullptr;
  std::unique_ptr<UploadSink> sink_;
  std::string chunk_;
  size_t body_reserved_ = 0;
  size_t drained_ = 0;
  std::optional<bhttp::response<bhttp::string_body>> reply_;
  std::optional<bhttp::response_serializer<bhttp::string_body>> serializer_;
  bool idle_ = false;
  bool close_ = false;
  bool unread_ = false;
  steady_clock::time_point start_;
};

}  // namespace

void ServeConnection(Core* core, asio::ip::tcp::socket socket,
                     std::shared_ptr<asio::ssl::context> tls, Peer peer,
                     std::unique_ptr<Registry::Ticket> ticket) {
  std::make_shared<Session>(core, std::move(socket), std::move(tls), std::move(peer),
                            std::move(ticket))
      ->Start();
}

}  // namespace vallum::http

// SPDX-License-Identifier: Apache-2.0
#include "http/server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/secret_bytes.h"
#include "http/testing.h"

namespace vallum::http {
namespace {

using namespace std::chrono_literals;
constexpr auto kLong = 20s;

Router EchoRouter() {
  Router router;
  router.Add(Method::kGet, "/hello/{name}", [](const Request& request) {
    return Response::Text(200, "hello " + *request.Param("name") + request.Query("q").value_or(""));
  });
  router.Add(
      Method::kPost, "/echo",
      [](const Request& request) { return Response::Text(201, request.body); },
      ByteCount::KiB(100));
  router.Add(Method::kGet, "/throw",
             [](const Request&) -> Response { throw std::runtime_error("boom"); });
  router.Add(Method::kGet, "/token", [](const Request& request) {
    return Response::Text(200, request.headers.Get("authorization").value_or("none"));
  });
  return router;
}

ClientRequest Get(std::string target) {
  return {.method = Method::kGet, .target = std::move(target), .headers = {}, .body = {}};
}
ClientRequest Post(std::string target, std::string body) {
  return {
      .method = Method::kPost, .target = std::move(target), .headers = {}, .body = std::move(body)};
}

// A TCP connection that says what it is told and no more.
class RawPeer {
 public:
  explicit RawPeer(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  }
  ~RawPeer() { ::close(fd_); }
  RawPeer(const RawPeer&) = delete;
  RawPeer& operator=(const RawPeer&) = delete;
  // Blocks until the server closed the connection.
  bool WaitClosed() {
    char byte;
    ssize_t count = 0;
    while ((count = ::recv(fd_, &byte, 1, 0)) > 0) {
    }
    return count == 0 || errno == ECONNRESET;
  }

 private:
  int fd_;
};

TEST(Server, AnswersOverOneKeptConnection) {
  TestServer server(EchoRouter());
  const auto client = server.NewClient();
  EXPECT_EQ(client->Send(Get("/hello/bob?q=%21"))->body, "hello bob!");
  const Response echo = *client->Send(Post("/echo", std::string(90'000, 'x')));
  EXPECT_EQ(echo.status, 201);
  EXPECT_EQ(echo.body, std::string(90'000, 'x'));
  EXPECT_EQ(server.server().counters().accepted, 1U);
}

TEST(Server, SendsTheBearerTokenAsAHeaderOnly) {
  TestServer server(EchoRouter());
  const auto client = server.NewClient();
  client->SetBearerToken(SecretBytes(AsBytes("s3cret")));
  EXPECT_EQ(client->Send(Get("/token"))->body, "Bearer s3cret");
}

TEST(Server, HeadHasTheHeaderOfGetAndNoBody) {
  TestServer server(EchoRouter());
  const auto client = server.NewClient();
  ClientRequest head = Get("/hello/bob");
  head.method = Method::kHead;
  const Response response = *client->Send(head);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.Get("content-length"), "9");
  EXPECT_EQ(response.body, "");
  EXPECT_EQ(client->Send(Get("/hello/bob"))->body, "hello bob");
}

TEST(Server, RefusalsAreProblemDocuments) {
  TestServer server(EchoRouter());
  const auto client = server.NewClient();
  const Response missing = *client->Send(Get("/nothing"));
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(missing.headers.Get("Content-Type"), "application/problem+json");
  EXPECT_EQ(ErrorFromProblem(404, missing.body).code(), ErrorCode::kNotFound);
  const Response method = *client->Send(Post("/hello/bob", ""));
  EXPECT_EQ(method.status, 405);
  EXPECT_EQ(method.headers.Get("Allow"), "GET");
  EXPECT_EQ(client->Send(Get("/hello/bob?q=1&q=2"))->status, 400);
  EXPECT_EQ(client->Send(Get("/throw"))->status, 500);
}

TEST(Server, HugeBodyIsRefusedAndOthersAreAnswered) {
  TestServer server(EchoRouter());
  EXPECT_EQ(server.NewClient()->Send(Post("/echo", std::string(5 << 20, 'x')))->status, 413);
  EXPECT_EQ(server.NewClient()->Send(Get("/hello/bob"))->status, 200);
}

TEST(Server, HugeHeaderIsRefusedAndOthersAreAnswered) {
  TestServer server(EchoRouter());
  ClientRequest request = Get("/hello/bob");
  request.headers.Set("X-Long", std::string(40'000, 'x'));
  EXPECT_EQ(server.NewClient()->Send(request)->status, 431);
  EXPECT_EQ(server.NewClient()->Send(Get("/hello/bob"))->status, 200);
}

TEST(Server, ClientsThatSayNothingAreCutOffWhileOthersAreAnswered) {
  ServerOptions options;
  options.limits.handshake_timeout = 300ms;
  TestServer server(EchoRouter(), std::move(options));
  std::vector<std::unique_ptr<RawPeer>> silent;
  for (int i = 0; i < 50; ++i) {
    silent.push_back(std::make_unique<RawPeer>(server.server().port()));
  }
  EXPECT_EQ(server.NewClient()->Send(Get("/hello/bob"))->status, 200);
  for (const auto& peer : silent) EXPECT_TRUE(peer->WaitClosed());
}

TEST(Server, ConnectionsBeyondThePeersShareAreClosedAtOnce) {
  ServerOptions options;
  options.limits.connections_per_peer = 2;
  TestServer server(EchoRouter(), std::move(options));
  const auto first = server.NewClient();
  const auto second = server.NewClient();
  EXPECT_EQ(first->Send(Get("/hello/a"))->status, 200);
  EXPECT_EQ(second->Send(Get("/hello/b"))->status, 200);
  EXPECT_EQ(server.NewClient()->Send(Get("/hello/c")).error().code(), ErrorCode::kUnavailable);
  EXPECT_EQ(first->Send(Get("/hello/a"))->status, 200);
  EXPECT_GE(server.server().counters().refused, 1U);
}

TEST(Server, RequestsBeyondTheLineAreToldToComeBack) {
  ServerOptions options;
  options.threads = 1;
  options.limits.waiting_requests = 0;
  TestServer server(EchoRouter(), std::move(options));
  // A line without a place: nothing is let in, and nothing hangs.
  const Response busy = *server.NewClient()->Send(Get("/hello/bob"));
  EXPECT_EQ(busy.status, 503);
  EXPECT_EQ(busy.headers.Get("Retry-After"), "1");
}

// ---- TLS ----

TEST(Client, RefusesAServerOfAnotherCa) {
  TestServer server(EchoRouter());
  TestServer other(EchoRouter());
  ClientOptions options;
  options.server = server.url();
  options.ca_pem = other.ca_pem();
  const auto client = *Client::Create(std::move(options));
  EXPECT_EQ(client->Send(Get("/hello/bob")).error().code(), ErrorCode::kDenied);
}

TEST(Client, RefusesACertificateForAnotherName) {
  ServerOptions everywhere;
  everywhere.address = "0.0.0.0";
  TestServer open(EchoRouter(), std::move(everywhere));
  ClientOptions options;
  options.server = "https://127.0.0.2:" + std::to_string(open.server().port());
  options.ca_pem = open.ca_pem();
  const auto client = *Client::Create(std::move(options));
  const auto answer = client->Send(Get("/hello/bob"));
  ASSERT_FALSE(answer.has_value());
  EXPECT_EQ(answer.error().code(), ErrorCode::kDenied);
}

TEST(Client, RefusesUrlsThatAreNotHttps) {
  for (const char* url : {"http://a", "https://", "https://a:b", "https://a/b", "a:1"}) {
    ClientOptions options;
    options.server = url;
    EXPECT_EQ(Client::Create(std::move(options)).error().code(), ErrorCode::kInvalidInput) << url;
  }
}

TEST(Server, UsesReplacedCredentialsForNewConnections) {
  TestServer server(EchoRouter());
  TestServer other(EchoRouter());
  const SystemClock clock;
  const auto dir = std::filesystem::temp_directory_path() / ("vallum-http-" + NewUid());
  const auto ca = *tls::CertificateAuthority::Create(dir, clock);
  ASSERT_TRUE(server.server()
                  .ReplaceCredentials(*ca->IssueServer({{"localhost"}, {"127.0.0.1"}}))
                  .has_value());
  ClientOptions options;
  options.server = server.url();
  options.ca_pem = ca->certificate_pem();
  EXPECT_EQ((*Client::Create(std::move(options)))->Send(Get("/hello/bob"))->status, 200);
  std::filesystem::remove_all(dir);
}

// How many sockets of this process listen.
int CountListeners() {
  constexpr int kMaxDescriptor = 1024;
  int count = 0;
  for (int fd = 0; fd < kMaxDescriptor; ++fd) {
    int listens = 0;
    socklen_t size = sizeof listens;
    if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0) count += listens;
  }
  return count;
}

TEST(Server, StoppedServerListensNoMore) {
  // Its I/O thread may be at any point when it is told to stop.
  for (int i = 0; i < 30; ++i) {
    TestServer server(EchoRouter());
    ASSERT_EQ(CountListeners(), 1);
    server.server().Stop(0ms);
    ASSERT_EQ(CountListeners(), 0);
  }
}

TEST(Server, StopLeavesNoConnectionOpen) {
  for (int i = 0; i < 30; ++i) {
    TestServer server(EchoRouter());
    std::vector<std::unique_ptr<RawPeer>> peers;
    for (int each = 0; each < 5; ++each) {
      peers.push_back(std::make_unique<RawPeer>(server.server().port()));
    }
    server.server().Stop(0ms);
    EXPECT_EQ(server.server().counters().connections, 0U);
    for (const auto& peer : peers) EXPECT_TRUE(peer->WaitClosed());
  }
}

// ---- uploads ----

class Collect final : public UploadSink {
 public:
  Collect(std::string* out, std::promise<void>* gone) : out_(out), gone_(gone) {}
  ~Collect() override {
    if (gone_ != nullptr) gone_->set_value();
  }
  Result<void> Write(ByteView chunk) override {
    if (chunk.size() > 256 * 1024) return Internal("chunk too large");
    out_->append(AsText(chunk));
    if (out_->find("poison") != std::string::npos) return InvalidInput("poisoned");
    return Ok();
  }
  Response Finish() override { return Response::Text(200, std::to_string(out_->size())); }

 private:
  std::string* out_;
  std::promise<void>* gone_;
};

class UploadTest : public testing::Test {
 protected:
  void SetUp() override {
    Router router = EchoRouter();
    router.AddUpload(
        Method::kPut, "/blob",
        [this](const Request& request) -> std::variant<Response, std::unique_ptr<UploadSink>> {
          if (request.Query("no").has_value()) {
            return ProblemResponse(Denied("not yours"));
          }
          return std::make_unique<Collect>(&received_, gone_);
        });
    server_ = std::make_unique<TestServer>(std::move(router));
    file_ = std::tmpfile();
  }
  void TearDown() override {
    server_.reset();
    std::fclose(file_);
  }
  Result<Response> Upload(const std::string& content, const std::string& target, uint64_t offset) {
    std::rewind(file_);
    std::fwrite(content.data(), 1, content.size(), file_);
    std::fflush(file_);
    const ClientRequest request{
        .method = Method::kPut, .target = target, .headers = {}, .body = {}};
    const UploadSource source{
        .fd = fileno(file_), .offset = offset, .length = content.size() - offset};
    return client()->Upload(request, source, [this](uint64_t sent) { progress_ = sent; });
  }
  Client* client() {
    if (client_ == nullptr) client_ = server_->NewClient();
    return client_.get();
  }

  std::string received_;
  std::promise<void>* gone_ = nullptr;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<Client> client_;
  uint64_t progress_ = 0;
  std::FILE* file_ = nullptr;
};

TEST_F(UploadTest, ArrivesWholeAndInOrder) {
  std::string content(10'000'000, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>('a' + i * 7 % 26);
  EXPECT_EQ(Upload(content, "/blob", 0)->body, "10000000");
  EXPECT_EQ(progress_, content.size());
  EXPECT_TRUE(received_ == content);
}

TEST_F(UploadTest, GoesOnFromAnOffset) {
  EXPECT_EQ(Upload("0123456789", "/blob", 4)->body, "6");
  EXPECT_EQ(received_, "456789");
}

TEST_F(UploadTest, RefusalComesBeforeTheFirstByte) {
  EXPECT_EQ(Upload(std::string(10'000'000, 'x'), "/blob?no=1", 0)->status, 403);
  EXPECT_EQ(progress_, 0U);
  EXPECT_EQ(client()->Send(Get("/hello/bob"))->status, 200);
}

TEST_F(UploadTest, ErrorOfTheSinkIsTheAnswer) {
  const Response answer = *Upload("poison" + std::string(8'000'000, 'x'), "/blob", 0);
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(ErrorFromProblem(answer.status, answer.body).message(), "poisoned");
}

TEST_F(UploadTest, SinkIsDestroyedWhenTheClientBreaksOff) {
  std::promise<void> gone;
  gone_ = &gone;
  ASSERT_EQ(::ftruncate(fileno(file_), 1000), 0);
  const ClientRequest request{.method = Method::kPut, .target = "/blob", .headers = {}, .body = {}};
  const auto answer =
      client()->Upload(request, {.fd = fileno(file_), .offset = 0, .length = 5'000'000}, nullptr);
  EXPECT_EQ(answer.error().code(), ErrorCode::kInvalidInput);
  EXPECT_EQ(gone.get_future().wait_for(kLong), std::future_status::ready);
}

// ---- event streams ----

class EventTest : public testing::Test {
 protected:
  void Start(ServerOptions options = {}) {
    Router router = EchoRouter();
    router.Add(Method::kGet, "/events", [this](const Request&) {
      return Response::Events(
          [this](std::shared_ptr<EventStream> stream) { opened_.set_value(std::move(stream)); });
    });
    server_ = std::make_unique<TestServer>(std::move(router), std::move(options));
    reader_ = *server_->NewClient()->OpenEvents(Get("/events"));
    stream_ = opened_.get_future().get();
  }
  std::promise<std::shared_ptr<EventStream>> opened_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<EventReader> reader_;
  std::shared_ptr<EventStream> stream_;
};

TEST_F(EventTest, ArriveInOrderWithAllFields) {
  Start();
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(stream_->Send({.id = std::to_string(i), .event = "put", .data = "a\nb"}));
  }
  for (int i = 0; i < 200; ++i) {
    const auto event = *reader_->Next(kLong);
    ASSERT_TRUE(event.has_value());
    EXPECT_EQ(event->id, std::to_string(i));
    EXPECT_EQ(event->event, "put");
    EXPECT_EQ(event->data, "a\nb");
  }
}

TEST_F(EventTest, QuietStreamStaysOpenAcrossHeartbeats) {
  ServerOptions options;
  options.limits.heartbeat = 20ms;
  Start(std::move(options));
  EXPECT_FALSE(reader_->Next(200ms)->has_value());
  stream_->Send({.id = "", .event = "", .data = "x"});
  EXPECT_EQ((*reader_->Next(kLong))->data, "x");
}

TEST_F(EventTest, EndWhenTheHandlerLetsGo) {
  Start();
  stream_->Send({.id = "", .event = "", .data = "last"});
  stream_.reset();
  EXPECT_EQ((*reader_->Next(kLong))->data, "last");
  EXPECT_EQ(reader_->Next(kLong).error().code(), ErrorCode::kUnavailable);
}

TEST_F(EventTest, HandlerHearsThatTheClientIsGone) {
  Start();
  std::promise<void> closed;
  stream_->OnClosed([&] { closed.set_value(); });
  reader_.reset();
  EXPECT_EQ(closed.get_future().wait_for(kLong), std::future_status::ready);
  EXPECT_FALSE(stream_->Send({.id = "", .event = "", .data = "x"}));
}

TEST_F(EventTest, SlowReaderIsDroppedInsteadOfFillingMemory) {
  ServerOptions options;
  options.limits.event_queue = ByteCount::KiB(256);
  Start(std::move(options));
  const std::string data(16 * 1024, 'x');
  int sent = 0;
  // The reader reads nothing: the sockets' buffers fill, then the queue.
  while (sent < 100'000 && stream_->Send({.id = "", .event = "", .data = data})) ++sent;
  EXPECT_LT(sent, 100'000);
  EXPECT_TRUE(stream_->closed());
  EXPECT_EQ(server_->NewClient()->Send(Get("/hello/bob"))->status, 200);
}

TEST_F(EventTest, StopEndsOpenStreams) {
  Start();
  server_->server().Stop(10s);
  EXPECT_TRUE(stream_->closed());
  EXPECT_FALSE(reader_->Next(kLong).has_value());
}

// ---- WebSockets ----

class SocketTest : public testing::Test {
 protected:
  void SetUp() override {
    Router router = EchoRouter();
    router.Add(Method::kGet, "/socket", [this](const Request& request) {
      if (request.Query("no").has_value()) return ProblemResponse(NotFound("no such console"));
      return Response::Upgrade(
          [this](std::shared_ptr<WebSocket> socket) { opened_.set_value(std::move(socket)); });
    });
    server_ = std::make_unique<TestServer>(std::move(router));
  }
  void Open() {
    client_ = *server_->NewClient()->OpenWebSocket(Get("/socket"));
    peer_ = opened_.get_future().get();
  }
  std::promise<std::shared_ptr<WebSocket>> opened_;
  std::unique_ptr<TestServer> server_;
  std::shared_ptr<WebSocket> client_;
  std::shared_ptr<WebSocket> peer_;
};

TEST_F(SocketTest, CarriesBinaryBothWays) {
  Open();
  const Bytes binary = {std::byte{0}, std::byte{0xff}, std::byte{0x80}};
  ASSERT_TRUE(client_->Send(binary, kLong).has_value());
  EXPECT_EQ(**peer_->Receive(kLong), binary);
  ASSERT_TRUE(peer_->Send(AsBytes("login: "), kLong).has_value());
  EXPECT_EQ(AsText(**client_->Receive(kLong)), "login: ");
}

TEST_F(SocketTest, SlowReaderHoldsTheSenderBackAndLosesNothing) {
  Open();
  constexpr int kMessages = 300;
  const Bytes message(64 * 1024, std::byte{7});
  std::thread sender([&] {
    for (int i = 0; i < kMessages; ++i) {
      if (!peer_->Send(message, kLong).has_value()) return;
    }
  });
  size_t received = 0;
  for (int i = 0; i < kMessages; ++i) {
    const auto got = client_->Receive(kLong);
    if (!got.has_value() || !got->has_value()) break;
    received += (*got)->size();
  }
  sender.join();
  EXPECT_EQ(received, kMessages * message.size());
}

TEST_F(SocketTest, FullQueueIsExhausted) {
  Open();
  const Bytes message(512 * 1024, std::byte{7});
  Result<void> sent = Ok();
  for (int i = 0; i < 1000 && sent.has_value(); ++i) sent = peer_->Send(message, 50ms);
  ASSERT_FALSE(sent.has_value());
  EXPECT_EQ(sent.error().code(), ErrorCode::kExhausted);
  EXPECT_FALSE(peer_->closed());
}

TEST_F(SocketTest, CloseReachesTheOtherEndAfterWhatWasSent) {
  Open();
  ASSERT_TRUE(peer_->Send(AsBytes("bye"), kLong).has_value());
  peer_->Close("instance stopped");
  EXPECT_EQ(AsText(**client_->Receive(kLong)), "bye");
  const auto end = client_->Receive(kLong);
  ASSERT_FALSE(end.has_value());
  EXPECT_NE(end.error().message().find("instance stopped"), std::string::npos);
}

TEST_F(SocketTest, HandlerHearsThatTheClientIsGone) {
  Open();
  client_.reset();
  EXPECT_EQ(peer_->Receive(kLong).error().code(), ErrorCode::kUnavailable);
}

TEST_F(SocketTest, RefusalAndPlainRequestsAreAnswered) {
  EXPECT_EQ(server_->NewClient()->OpenWebSocket(Get("/socket?no=1")).error().code(),
            ErrorCode::kNotFound);
  EXPECT_EQ(server_->NewClient()->Send(Get("/socket"))->status, 400);
}

TEST_F(SocketTest, StopClosesThem) {
  Open();
  server_->server().Stop(10s);
  EXPECT_FALSE(client_->Receive(kLong).has_value());
}

}  // namespace
}  // namespace vallum::http

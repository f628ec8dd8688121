// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/secret_bytes.h"
#include "base/units.h"
#include "http/message.h"
#include "http/stream.h"

namespace vallum::http {

struct ClientOptions {
  std::string server;  // "https://host:port"; the port defaults to 443
  std::string ca_pem;  // the only trust anchors
  std::string user_agent = "vallum";
  std::chrono::milliseconds connect_timeout{10'000};
  std::chrono::milliseconds request_timeout{
      60'000};  // of one whole exchange; of one chunk in uploads
  ByteCount response_limit = ByteCount::MiB(256);
};

// What is sent to the server. The target is path and query, already encoded.
struct ClientRequest {
  Method method = Method::kGet;
  std::string target;
  Headers headers;
  std::string body;
};

// Which part of a file an upload sends.
struct UploadSource {
  int fd = -1;  // not owned; read with pread
  uint64_t offset = 0;
  uint64_t length = 0;
};

// Reads server-sent events. One thread at a time.
class EventReader {
 public:
  virtual ~EventReader() = default;
  // Waits for the next event; empty when the timeout passed without one (heartbeats are skipped).
  // Errors: kUnavailable (the server ended the stream or is gone).
  virtual Result<std::optional<ServerEvent>> Next(std::chrono::milliseconds timeout) = 0;
};

// A blocking HTTPS client that keeps one connection open and verifies the server's chain and name
// against the given CA. Not thread-safe: one client per thread.
class Client {
 public:
  // Does not connect yet. Errors: kInvalidInput (URL, CA).
  static Result<std::unique_ptr<Client>> Create(ClientOptions options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Sends "Authorization: Bearer <token>" with every request from now on.
  void SetBearerToken(SecretBytes token);

  // One exchange; an answer of any status is a Response. A connection that went stale between
  // requests is replaced once, for methods other than POST and PATCH.
  // Errors: kUnavailable (cannot connect, broken off, time-out), kDenied (certificate does not
  // verify; the message says why), kExhausted (answer larger than response_limit).
  Result<Response> Send(const ClientRequest& request);

  // Sends part of a file as the body; asks first (100-continue), so that a refusal costs nothing.
  // To go on after a break, ask the server how much it has and call again with that offset.
  //   progress: called with the bytes sent so far.
  Result<Response> Upload(const ClientRequest& request, const UploadSource& source,
                          const std::function<void(uint64_t)>& progress);

  // Opens an event stream on a connection of its own, which outlives the client.
  // Errors: as Send; an answer other than 200 becomes the error that its problem document says.
  Result<std::unique_ptr<EventReader>> OpenEvents(const ClientRequest& request);

  // Opens a WebSocket on a connection (and thread) of its own. Errors: as OpenEvents.
  Result<std::shared_ptr<WebSocket>> OpenWebSocket(const ClientRequest& request);

 private:
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vallum::http

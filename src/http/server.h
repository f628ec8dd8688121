// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/units.h"
#include "http/message.h"
#include "http/router.h"
#include "http/stream.h"
#include "tls/certificate.h"

namespace vallum::http {

// What one client, or all together, may take. Past a limit the client gets a problem document where
// HTTP still allows one, and the connection is closed.
struct Limits {
  size_t connections = 512;
  size_t connections_per_peer = 128;             // per IP address
  ByteCount header = ByteCount::KiB(16);         // 431
  ByteCount bodies_total = ByteCount::MiB(64);   // kept in memory, all requests together; 503
  size_t waiting_requests = 256;                 // for a pool thread; 503
  ByteCount upload_chunk = ByteCount::KiB(256);  // handed to a sink at once
  ByteCount event_queue = ByteCount::MiB(1);     // per EventStream
  ByteCount socket_queue = ByteCount::MiB(1);    // per WebSocket and direction

  std::chrono::milliseconds handshake_timeout{10'000};
  std::chrono::milliseconds header_timeout{10'000};  // first to last byte of a header
  std::chrono::milliseconds body_timeout{30'000};   // a whole body, or each chunk of an upload; 408
  std::chrono::milliseconds idle_timeout{75'000};   // between requests
  std::chrono::milliseconds write_timeout{30'000};  // a whole answer, or one event
  std::chrono::milliseconds heartbeat{15'000};      // comment on a quiet event stream, ping
};

// One finished request, for a log or metrics.
struct AccessRecord {
  Peer peer;
  Method method = Method::kGet;
  std::string_view path;
  std::string_view route;  // pattern; empty when none matched
  int status = 0;
  std::chrono::microseconds duration{};
};

struct ServerOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 0;   // 0: any free one, see Server::port
  size_t threads = 4;  // of the handler pool
  Limits limits;
  // Called on the I/O thread after each request; must not block.
  std::function<void(const AccessRecord&)> on_request;
};

struct ServerCounters {
  size_t connections = 0;  // open now
  uint64_t accepted = 0;
  uint64_t refused = 0;  // closed at once because of a limit
};

// An HTTPS server (TLS 1.2 and 1.3, HTTP/1.1): one thread does all network I/O, a small pool runs
// the handlers, so that no client can hold a thread. Thread-safe.
class Server {
 public:
  // Binds, and starts answering. The router must be complete.
  //   credentials: the server's certificate and key.
  // Errors: kInvalidInput (credentials do not fit, bad address), kUnavailable or kDenied (address
  // in use, port not allowed).
  static Result<std::unique_ptr<Server>> Start(ServerOptions options, Router router,
                                               const tls::Credentials& credentials);
  // Stops.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  uint16_t port() const;
  ServerCounters counters() const;

  // Uses another certificate for new connections; open ones stay. Errors: kInvalidInput.
  Result<void> ReplaceCredentials(const tls::Credentials& credentials);

  // Accepts no more, closes streams and idle connections, lets running requests finish for at most
  // the grace time, then closes the rest. Waits for handlers that still run. Idempotent.
  void Stop(std::chrono::milliseconds grace);

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vallum::http

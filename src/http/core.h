// SPDX-License-Identifier: Apache-2.0
// What the connections of one server share. Internal; includes Beast.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "http/pool.h"
#include "http/server.h"

namespace vallum::http {

namespace asio = boost::asio;
namespace beast = boost::beast;

using Stream = beast::ssl_stream<beast::tcp_stream>;
using UpgradeRequest = beast::http::request<beast::http::empty_body>;

// One open connection, whatever it carries at the moment. I/O thread only.
class Connection {
 public:
  virtual ~Connection() = default;
  // Ends it as soon as what it is doing is done.
  virtual void Drain() = 0;
  // Ends it now.
  virtual void Abort() = 0;
};

// The open connections and how many each peer has. Changed on the I/O thread.
class Registry {
 public:
  // Counts a connection from its acceptance to its end.
  class Ticket {
   public:
    Ticket(Registry* registry, std::string peer);
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    // Says which object carries the connection now.
    void Assign(std::weak_ptr<Connection> connection);

   private:
    Registry* registry_;
    std::string peer_;
    uint64_t id_;
  };

  size_t PeerCount(const std::string& peer) const;
  size_t size() const;
  void DrainAll();
  void AbortAll();
  bool WaitEmpty(std::chrono::milliseconds timeout);

 private:
  std::vector<std::shared_ptr<Connection>> Snapshot() const;

  mutable std::mutex mutex_;
  std::condition_variable empty_;
  uint64_t next_id_ = 0;
  std::map<uint64_t, std::weak_ptr<Connection>> connections_;
  std::map<std::string, size_t> peers_;
};

// Members in the order in which they may be taken down, last first: the I/O context's queue holds
// connections, and these refer to all above it.
struct Core {
  Core(ServerOptions server_options, Router server_router)
      : options(std::move(server_options)),
        router(std::move(server_router)),
        pool(options.threads, options.limits.waiting_requests) {}

  const ServerOptions options;
  const Router router;
  Registry registry;
  std::atomic<size_t> body_bytes = 0;  // in memory, all requests together
  bool draining = false;               // I/O thread only
  Pool pool;
  asio::io_context io{1};

  const Limits& limits() const { return options.limits; }
};

// Serves HTTP on an accepted socket until it ends or becomes a stream.
void ServeConnection(Core* core, asio::ip::tcp::socket socket,
                     std::shared_ptr<asio::ssl::context> tls, Peer peer,
                     std::unique_ptr<Registry::Ticket> ticket);

// Carry a connection on as a stream after the request was answered so. `head` is the response's
// header, ready to send.
void ServeEvents(Core* core, Stream stream, std::unique_ptr<Registry::Ticket> ticket,
                 std::string head, const Response& response);
void ServeWebSocket(Core* core, Stream stream, std::unique_ptr<Registry::Ticket> ticket,
                    UpgradeRequest request, const Response& response);

}  // namespace vallum::http

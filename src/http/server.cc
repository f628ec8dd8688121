// SPDX-License-Identifier: Apache-2.0
#include "http/server.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <future>
#include <thread>
#include <utility>

#include "base/text.h"
#include "http/core.h"

namespace vallum::http {
namespace {

using tcp = asio::ip::tcp;

// After an error of accept, such as too many open files: time for some to be closed.
constexpr std::chrono::milliseconds kAcceptRetry{100};
// Aborted connections end in the next turn of the I/O thread; a bound all the same.
constexpr std::chrono::seconds kAbortTime{5};

int SelectProtocol(SSL* /*ssl*/, const unsigned char** out, unsigned char* out_size,
                   const unsigned char* in, unsigned in_size, void* /*context*/) {
  static constexpr unsigned char kHttp11[] = "\x08http/1.1";
  unsigned char* selected = nullptr;
  if (SSL_select_next_proto(&selected, out_size, kHttp11, sizeof kHttp11 - 1, in, in_size) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = selected;
  return SSL_TLSEXT_ERR_OK;
}

Result<std::shared_ptr<asio::ssl::context>> MakeTlsContext(const tls::Credentials& credentials) {
  auto context = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_server);
  SSL_CTX* ctx = context->native_handle();
  SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
  // Neither resumption nor renegotiation: little gain here, and each has been a way to hurt
  // servers.
  SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(ctx, 0);
  SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20");
  SSL_CTX_set_alpn_select_cb(ctx, SelectProtocol, nullptr);
  beast::error_code error;
  const std::string& chain = credentials.certificate_pem;
  context->use_certificate_chain(asio::buffer(chain.data(), chain.size()), error);
  if (!error) {
    const ByteView key = credentials.private_key_pem.Reveal(SecretAccess("serving TLS"));
    context->use_private_key(asio::buffer(key.data(), key.size()), asio::ssl::context::pem, error);
  }
  if (error) return InvalidInput("cannot use the server's certificate and key: " + error.message());
  if (SSL_CTX_check_private_key(ctx) != 1) {
    ERR_clear_error();
    return InvalidInput("the server's certificate and key do not belong together");
  }
  return context;
}

}  // namespace

Registry::Ticket::Ticket(Registry* registry, std::string peer)
    : registry_(registry), peer_(std::move(peer)) {
  const std::lock_guard lock(registry_->mutex_);
  id_ = registry_->next_id_++;
  registry_->connections_[id_] = {};
  ++registry_->peers_[peer_];
}

Registry::Ticket::~Ticket() {
  const std::lock_guard lock(registry_->mutex_);
  registry_->connections_.erase(id_);
  const auto it = registry_->peers_.find(peer_);
  if (--it->second == 0) registry_->peers_.erase(it);
  if (registry_->connections_.empty()) registry_->empty_.notify_all();
}

void Registry::Ticket::Assign(std::weak_ptr<Connection> connection) {
  const std::lock_guard lock(registry_->mutex_);
  registry_->connections_[id_] = std::move(connection);
}

size_t Registry::PeerCount(const std::string& peer) const {
  const std::lock_guard lock(mutex_);
  const auto it = peers_.find(peer);
  return it == peers_.end() ? 0 : it->second;
}

size_t Registry::size() const {
  const std::lock_guard lock(mutex_);
  return connections_.size();
}

void Registry::DrainAll() {
  for (const auto& connection : Snapshot()) connection->Drain();
}

void Registry::AbortAll() {
  for (const auto& connection : Snapshot()) connection->Abort();
}

std::vector<std::shared_ptr<Connection>> Registry::Snapshot() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Connection>> all;
  for (const auto& [id, weak] : connections_) {
    if (auto connection = weak.lock(); connection != nullptr) all.push_back(std::move(connection));
  }
  return all;
}

bool Registry::WaitEmpty(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return empty_.wait_for(lock, timeout, [this] { return connections_.empty(); });
}

class Server::Impl {
 public:
  Impl(ServerOptions options, Router router)
      : core_(std::move(options), std::move(router)),
        work_(asio::make_work_guard(core_.io)),
        acceptor_(core_.io),
        retry_(core_.io) {}
  ~Impl() { Stop(std::chrono::milliseconds(0)); }

  Result<void> Start(const tls::Credentials& credentials) {
    RETURN_IF_ERROR(ReplaceCredentials(credentials));
    RETURN_IF_ERROR(Bind());
    Accept();
    thread_ = std::thread([this] { core_.io.run(); });
    return Ok();
  }

  Result<void> ReplaceCredentials(const tls::Credentials& credentials) {
    ASSIGN_OR_RETURN(auto context, MakeTlsContext(credentials));
    const std::lock_guard lock(tls_mutex_);
    tls_ = std::move(context);
    return Ok();
  }

  void Stop(std::chrono::milliseconds grace) {
    if (!thread_.joinable()) return;
    // Only then is it known which connections there are: one that was accepted before has its
    // ticket.
    std::promise<void> draining;
    asio::post(core_.io, [this, &draining] {
      core_.draining = true;
      beast::error_code ignored;
      acceptor_.close(ignored);
      retry_.cancel();
      core_.registry.DrainAll();
      draining.set_value();
    });
    draining.get_future().wait();
    core_.registry.WaitEmpty(grace);
    core_.pool.Stop();
    asio::post(core_.io, [this] { core_.registry.AbortAll(); });
    core_.registry.WaitEmpty(kAbortTime);
    work_.reset();
    core_.io.stop();
    thread_.join();
  }

  uint16_t port() const { return port_; }
  ServerCounters counters() const {
    return {.connections = core_.registry.size(), .accepted = accepted_, .refused = refused_};
  }

 private:
  Result<void> Bind() {
    beast::error_code error;
    const auto address = asio::ip::make_address(core_.options.address, error);
    if (error) {
      return InvalidInput("not an IP address: '" + Printable(core_.options.address) + "'")
          .WithFix("give an address such as 127.0.0.1, 0.0.0.0 or ::");
    }
    const tcp::endpoint endpoint(address, core_.options.port);
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
      return ErrnoError(error.value(), "listen on " + core_.options.address + " port " +
                                           std::to_string(core_.options.port));
    }
    port_ = acceptor_.local_endpoint(error).port();
    return Ok();
  }

  void Accept() {
    acceptor_.async_accept([this](beast::error_code error, tcp::socket socket) {
      if (core_.draining || error == asio::error::operation_aborted) return;
      if (error) {
        retry_.expires_after(kAcceptRetry);
        retry_.async_wait([this](beast::error_code stopped) {
          if (!stopped) Accept();
        });
        return;
      }
      Admit(std::move(socket));
      Accept();
    });
  }

  void Admit(tcp::socket socket) {
    beast::error_code error;
    const tcp::endpoint remote = socket.remote_endpoint(error);
    if (error) return;
    Peer peer{.address = remote.address().to_string(error), .port = remote.port()};
    const Limits& limits = core_.limits();
    // Closed without a word: a handshake to say so would cost more than the client's attempt.
    if (core_.registry.size() >= limits.connections ||
        core_.registry.PeerCount(peer.address) >= limits.connections_per_peer) {
      ++refused_;
      return;
    }
    ++accepted_;
    socket.set_option(tcp::no_delay(true), error);
    auto ticket = std::make_unique<Registry::Ticket>(&core_.registry, peer.address);
    std::shared_ptr<asio::ssl::context> tls;
    {
      const std::lock_guard lock(tls_mutex_);
      tls = tls_;
    }
    ServeConnection(&core_, std::move(socket), std::move(tls), std::move(peer), std::move(ticket));
  }

  std::mutex tls_mutex_;
  std::shared_ptr<asio::ssl::context> tls_;
  Core core_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  uint16_t port_ = 0;
  std::atomic<uint64_t> accepted_ = 0;
  std::atomic<uint64_t> refused_ = 0;
  std::thread thread_;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::Start(ServerOptions options, Router router,
                                              const tls::Credentials& credentials) {
  auto impl = std::make_unique<Impl>(std::move(options), std::move(router));
  RETURN_IF_ERROR(impl->Start(credentials));
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

uint16_t Server::port() const { return impl_->port(); }
ServerCounters Server::counters() const { return impl_->counters(); }

Result<void> Server::ReplaceCredentials(const tls::Credentials& credentials) {
  return impl_->ReplaceCredentials(credentials);
}

void Server::Stop(std::chrono::milliseconds grace) { impl_->Stop(grace); }

}  // namespace vallum::http

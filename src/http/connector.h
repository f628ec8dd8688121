// SPDX-License-Identifier: Apache-2.0
// The client's way to a verified TLS connection. Internal; includes Beast.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <string>

#include "http/client.h"
#include "http/core.h"

namespace vallum::http {

// Where a client connects and whom it trusts. A value that connections share.
struct Target {
  std::string host;  // without brackets
  std::string port;
  bool is_address = false;
  std::string authority;  // for the Host field
  std::shared_ptr<asio::ssl::context> tls;
  ClientOptions options;
};

// Errors: kInvalidInput.
Result<std::shared_ptr<const Target>> MakeTarget(ClientOptions options);

// Starts one asynchronous operation and runs the I/O context until it is done: the blocking form
// with the time-out of the stream.
template <typename Start>
beast::error_code Await(asio::io_context* io, const Start& start) {
  beast::error_code result = asio::error::would_block;
  start([&result](beast::error_code error, auto&&...) { result = error; });
  io->restart();
  while (result == asio::error::would_block && io->run_one() > 0) {
  }
  return result;
}

// Connects and shakes hands. Errors: kUnavailable; kDenied (the certificate does not verify).
Result<std::unique_ptr<Stream>> Connect(asio::io_context* io, const Target& target);

// "cannot reach host:port: ..." as kUnavailable.
Error Unreachable(const Target& target, beast::error_code error);

}  // namespace vallum::http

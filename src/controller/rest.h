// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "controller/controller.h"
#include "firmware/key_set.h"
#include "http/server.h"
#include "images/confined_converter.h"
#include "images/confined_inspector.h"
#include "tls/certificate.h"

namespace vallum::controller {

// The REST API of a controller: authentication, routes, metrics. Owns the HTTP server. Destroy it
// before the controller.
class Rest {
 public:
  struct Options {
    std::string listen = "127.0.0.1:7443";  // "[::1]:7443"; port 0: any
    http::Limits limits;
    std::vector<firmware::KeySet> key_sets;  // images are judged under each
  };
  // Errors: kInvalidInput (listen), those of http::Server::Start.
  static Result<std::unique_ptr<Rest>> Start(const Options& options, Controller& controller,
                                             const images::ConfinedInspector& inspector,
                                             const images::ConfinedConverter& converter,
                                             const tls::Credentials& credentials);
  ~Rest();
  Rest(const Rest&) = delete;
  Rest& operator=(const Rest&) = delete;

  uint16_t port() const;
  // New connections get these; see http::Server::ReplaceCredentials.
  Result<void> ReplaceCredentials(const tls::Credentials& credentials);
  // Stops answering; see http::Server::Stop.
  void Stop(std::chrono::milliseconds grace);

 private:
  class Impl;
  explicit Rest(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vallum::controller

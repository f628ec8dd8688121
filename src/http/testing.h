// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/check.h"
#include "base/clock.h"
#include "base/ids.h"
#include "http/client.h"
#include "http/server.h"
#include "tls/authority.h"

namespace vallum::http {

// A real server on a free port of 127.0.0.1 with a CA of its own, for tests.
class TestServer {
 public:
  explicit TestServer(Router router, ServerOptions options = {}) {
    dir_ = std::filesystem::temp_directory_path() / ("vallum-http-" + NewUid());
    auto ca = tls::CertificateAuthority::Create(dir_, clock_);
    CHECK(ca.has_value());
    ca_pem_ = (*ca)->certificate_pem();
    auto server = Server::Start(std::move(options), std::move(router),
                                *(*ca)->IssueServer({{"localhost"}, {"127.0.0.1"}}));
    CHECK(server.has_value());
    server_ = *std::move(server);
  }
  ~TestServer() {
    server_.reset();
    std::filesystem::remove_all(dir_);
  }
  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;

  Server& server() { return *server_; }
  const std::string& ca_pem() const { return ca_pem_; }
  std::string url() const { return "https://127.0.0.1:" + std::to_string(server_->port()); }
  std::unique_ptr<Client> NewClient() const {
    ClientOptions options;
    options.server = url();
    options.ca_pem = ca_pem_;
    auto client = Client::Create(std::move(options));
    CHECK(client.has_value());
    return *std::move(client);
  }

 private:
  SystemClock clock_;
  std::filesystem::path dir_;
  std::string ca_pem_;
  std::unique_ptr<Server> server_;
};

}  // namespace vallum::http

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/secret_bytes.h"
#include "controller/rest.h"
#include "controller/test_rig.h"
#include "http/client.h"
#include "images/confined_converter.h"
#include "images/confined_inspector.h"
#include "store/file.h"
#include "tls/authority.h"

namespace vallum::controller {

// A controller with its REST API on a free port, and clients that speak real TLS to it.
class RestRigTest : public testing::Test {
 protected:
  RestRigTest()
      : authority_(*tls::CertificateAuthority::Create(rig_.dir() / "rest-ca", rig_.clock())) {
    const tls::Credentials credentials = *authority_->IssueServer({{"localhost"}, {"127.0.0.1"}});
    StartRest(credentials, {});
    admin_ = ClientFor(v1::ROLE_ADMIN, "");
  }

  void StartRest(const tls::Credentials& credentials, std::vector<firmware::KeySet> key_sets) {
    rest_.reset();
    auto rest =
        Rest::Start({.listen = "127.0.0.1:0", .limits = {}, .key_sets = std::move(key_sets)},
                    rig_.controller(), inspector_, converter_, credentials);
    EXPECT_TRUE(rest.has_value()) << rest.error().DebugString();
    rest_ = *std::move(rest);
  }

  std::unique_ptr<http::Client> NewClient() {
    auto client =
        http::Client::Create({.server = "https://127.0.0.1:" + std::to_string(rest_->port()),
                              .ca_pem = authority_->certificate_pem()});
    EXPECT_TRUE(client.has_value());
    return *std::move(client);
  }

  std::unique_ptr<http::Client> ClientFor(v1::Role role, const std::string& tenant) {
    v1::TokenSpec spec;
    spec.set_role(role);
    spec.set_tenant(tenant);
    const v1::Token token = *rig_.controller().tokens().Create("", spec);
    std::unique_ptr<http::Client> client = NewClient();
    client->SetBearerToken(SecretBytes(AsBytes(token.status().secret())));
    return client;
  }

  static http::Response Send(http::Client& client, http::Method method, const std::string& target,
                             const std::string& body = "", const std::string& if_match = "") {
    http::ClientRequest request{.method = method, .target = target, .headers = {}, .body = body};
    if (!if_match.empty()) request.headers.Set("If-Match", if_match);
    auto response = client.Send(request);
    EXPECT_TRUE(response.has_value()) << response.error().DebugString();
    return response.has_value() ? *std::move(response) : http::Response{};
  }
  http::Response Admin(http::Method method, const std::string& target, const std::string& body = "",
                       const std::string& if_match = "") {
    return Send(*admin_, method, target, body, if_match);
  }
  static nlohmann::json Body(const http::Response& response) {
    return nlohmann::json::parse(response.body, nullptr, false);
  }

  http::Response Upload(const std::string& target, const Bytes& content) {
    const store::UniqueFd file(memfd_create("upload", MFD_CLOEXEC));
    EXPECT_EQ(write(file.get(), content.data(), content.size()),
              static_cast<ssize_t>(content.size()));
    http::ClientRequest request{
        .method = http::Method::kPut, .target = target, .headers = {}, .body = {}};
    auto response = admin_->Upload(
        request, {.fd = file.get(), .offset = 0, .length = content.size()}, [](uint64_t) {});
    EXPECT_TRUE(response.has_value()) << response.error().DebugString();
    return *std::move(response);
  }

  Rig rig_;
  std::unique_ptr<tls::CertificateAuthority> authority_;
  images::ConfinedInspector inspector_{
      {.program = std::string(VALLUM_BIN_DIR) + "/vallum-inspect"}};
  images::ConfinedConverter converter_{
      {.program = std::string(VALLUM_BIN_DIR) + "/vallum-inspect", .timeout = {}}};
  std::unique_ptr<Rest> rest_;
  std::unique_ptr<http::Client> admin_;
};

}  // namespace vallum::controller

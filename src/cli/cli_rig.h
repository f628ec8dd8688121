// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "cli/tool.h"
#include "http/message.h"
#include "http/router.h"
#include "http/testing.h"
#include "tls/file.h"

namespace vallum::cli {

class FakeClock final : public Clock {
 public:
  WallTime Now() const override { return std::chrono::system_clock::from_time_t(1'800'000'000); }
  MonotonicTime Monotonic() const override { return {}; }
};

// The program against a server of the test's own routes, with files in a directory of its own.
class CliTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / ("vallum-cli-" + NewUid());
    std::filesystem::create_directory(dir_);
  }
  void TearDown() override {
    server_.reset();
    std::filesystem::remove_all(dir_);
  }

  void Serve(http::Router router) {
    server_ = std::make_unique<http::TestServer>(std::move(router));
    Write("ca.pem", server_->ca_pem(), 0644);
    Write("token", "s3cret\n", 0600);
    ASSERT_EQ(Vallum({"context", "add", "test", "--server", server_->url(), "--ca", Path("ca.pem"),
                      "--token-file", Path("token")}),
              0)
        << err_.str();
    out_.str("");
  }
  std::string Path(const std::string& name) const { return dir_ / name; }
  void Write(const std::string& name, const std::string& content, mode_t mode) {
    ASSERT_TRUE(tls::WriteFileAtomically(Path(name), AsBytes(content), mode).has_value());
  }
  int Vallum(const std::vector<std::string>& args) {
    out_.str("");
    err_.str("");
    Environment environment;
    environment.variable = [this](const char* name) -> std::optional<std::string> {
      if (std::string_view(name) == "VALLUM_CONFIG_DIR") return Path("config");
      return std::nullopt;
    };
    environment.out = &out_;
    environment.err = &err_;
    environment.in_fd = in_fd_;
    environment.out_fd = out_fd_;
    environment.clock = &clock_;
    environment.inspector = VALLUM_BIN_DIR "/vallum-inspect";
    return cli::Run(args, std::move(environment));
  }

  // A handler that records the request and gives a canned answer.
  http::Handler Canned(int status, const Json& answer) {
    return [this, status, body = answer.dump()](const http::Request& request) {
      const std::lock_guard lock(mutex_);
      last_ = request;
      return http::Response::Json(status, body);
    };
  }
  Json LastBody() { return Json::parse(last_.body); }

  FakeClock clock_;
  std::filesystem::path dir_;
  std::unique_ptr<http::TestServer> server_;
  std::ostringstream out_;
  std::ostringstream err_;
  int in_fd_ = 0;
  int out_fd_ = 1;
  std::mutex mutex_;
  http::Request last_;
};

}  // namespace vallum::cli

// SPDX-License-Identifier: Apache-2.0
#include "controller/rest_console.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "base/error.h"

namespace vallum::controller {
namespace {

// A client that says nothing and stays.
class QuietSocket final : public http::WebSocket {
 public:
  Result<void> Send(ByteView /*message*/, std::chrono::milliseconds /*timeout*/) override {
    return Ok();
  }
  Result<std::optional<Bytes>> Receive(std::chrono::milliseconds /*timeout*/) override {
    if (closed_) return Unavailable("closed");
    std::this_thread::yield();
    return std::optional<Bytes>();
  }
  void Close(const std::string& reason) override {
    if (!closed_) reason_ = reason;
    closed_ = true;
  }
  bool closed() const override { return closed_; }
  void OnClosed(std::function<void()> /*callback*/) override {}
  const std::string& reason() const { return reason_; }

 private:
  std::atomic<bool> closed_{false};
  std::string reason_;
};

// A guest that says nothing until somebody closes.
class QuietPipe final : public ConsolePipe {
 public:
  Result<void> Write(ByteView /*data*/) override { return Ok(); }
  void WhenWritable(std::function<void()> handler) override { handler(); }
  void Read(ReadHandler handler) override {
    while (!closed_) std::this_thread::yield();
    handler(Unavailable("console closed"));
  }
  void Close() override { closed_ = true; }

 private:
  std::atomic<bool> closed_{false};
};

TEST(ConsoleSessionsTest, SessionThatMayNotContinueEnds) {
  std::atomic<bool> allowed{true};
  const auto socket = std::make_shared<QuietSocket>();
  {
    ConsoleSessions sessions;
    sessions.Run({.socket = socket,
                  .pipe = std::make_shared<QuietPipe>(),
                  .user = "alice",
                  .may_continue = [&] { return allowed.load(); }});
    EXPECT_FALSE(socket->closed());
    allowed = false;
    // The destructor waits for the session's threads.
  }
  EXPECT_TRUE(socket->closed());
}

TEST(ConsoleSessionsTest, OneUserCannotTakeEveryConsole) {
  std::atomic<bool> allowed{true};
  ConsoleSessions sessions;
  const auto open = [&](const std::string& user) {
    const auto socket = std::make_shared<QuietSocket>();
    sessions.Run({.socket = socket,
                  .pipe = std::make_shared<QuietPipe>(),
                  .user = user,
                  .may_continue = [&] { return allowed.load(); }});
    return socket;
  };
  for (size_t i = 0; i < ConsoleSessions::kMaximumEach; ++i) {
    EXPECT_FALSE(open("alice")->closed());
  }
  EXPECT_TRUE(open("alice")->closed());
  EXPECT_FALSE(open("bob")->closed());
  allowed = false;
}

}  // namespace
}  // namespace vallum::controller

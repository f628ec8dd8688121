// SPDX-License-Identifier: Apache-2.0
#include "agent/gateway.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "agent/fake_gateway.h"
#include "agent/identity.h"
#include "agent/join_token.h"
#include "agent/test_support.h"
#include "base/clock.h"
#include "vm/process.h"

namespace vallum::agent {
namespace {

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A line to a port of this machine over which one connection's first bytes take their time.
class SlowLine {
 public:
  explicit SlowLine(uint16_t to) : to_(to), listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(listener_.get(), generic, size), 0);
    EXPECT_EQ(listen(listener_.get(), 1), 0);
    EXPECT_EQ(getsockname(listener_.get(), generic, &size), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Carry(); });
  }
  ~SlowLine() {
    shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  uint16_t port() const { return port_; }

 private:
  void Carry() {
    const vm::UniqueFd near(accept(listener_.get(), nullptr, nullptr));
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    const vm::UniqueFd far(socket(AF_INET, SOCK_STREAM, 0));
    const sockaddr_in address = Loopback(to_);
    if (connect(far.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      return;
    std::array<pollfd, 2> ends = {pollfd{near.get(), POLLIN, 0}, pollfd{far.get(), POLLIN, 0}};
    std::array<char, 16384> data = {};
    while (poll(ends.data(), ends.size(), -1) > 0) {
      for (size_t i = 0; i < ends.size(); ++i) {
        if (ends.at(i).revents == 0) continue;
        const ssize_t got = read(ends.at(i).fd, data.data(), data.size());
        if (got <= 0) return;
        if (send(ends.at(1 - i).fd, data.data(), static_cast<size_t>(got), MSG_NOSIGNAL) != got)
          return;
      }
    }
  }

  uint16_t to_;
  uint16_t port_ = 0;
  vm::UniqueFd listener_;
  std::thread thread_;
};

TEST(GatewayTest, HandshakeOverASlowLineIsWaitedFor) {
  const TempDir dir;
  FakeGateway gateway(dir.path() / "ca");
  auto token = ParseJoinToken(gateway.JoinToken());
  ASSERT_TRUE(token) << token.error().Describe();
  const auto colon = token->endpoint.rfind(':');
  const SlowLine line(static_cast<uint16_t>(std::stoul(token->endpoint.substr(colon + 1))));
  token->endpoint = "127.0.0.1:" + std::to_string(line.port());
  std::filesystem::create_directories(dir.path() / "state");
  const auto identity = Enrol(dir.path() / "state", "node1", *token, SystemClock());
  EXPECT_TRUE(identity) << identity.error().Describe();
}

}  // namespace
}  // namespace vallum::agent

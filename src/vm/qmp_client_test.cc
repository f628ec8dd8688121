// SPDX-License-Identifier: Apache-2.0
#include "vm/qmp_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "vm/process.h"
#include "vm/test_guest.h"

namespace vallum::vm {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr milliseconds kLong{20000};

TEST(LineSplitterTest, LinesComeWholeHoweverTheyArrive) {
  LineSplitter splitter;
  for (const char c : std::string("one\r\n\ntwo\nrest")) {
    ASSERT_TRUE(splitter.Feed(std::string_view(&c, 1)).has_value());
  }
  EXPECT_EQ(splitter.Next(), "one");
  EXPECT_EQ(splitter.Next(), "");
  EXPECT_EQ(splitter.Next(), "two");
  EXPECT_EQ(splitter.Next(), std::nullopt);
}

TEST(LineSplitterTest, EndlessLineIsRefused) {
  LineSplitter splitter;
  const std::string part(LineSplitter::kMaxLine, 'x');
  ASSERT_TRUE(splitter.Feed(part).has_value());
  EXPECT_EQ(splitter.Feed("x").error().code(), ErrorCode::kExhausted);
}

TEST(QmpMessageTest, ErrorReplyKeepsClassAndWords) {
  const auto message = ParseQmpMessage(
      R"({"id":7,"error":{"class":"CommandNotFound","desc":"The command x\u001b has"}})");
  ASSERT_TRUE(message.has_value());
  const auto& reply = std::get<QmpReply>(*message);
  EXPECT_EQ(reply.id, 7U);
  EXPECT_EQ(reply.error_class, "CommandNotFound");
  EXPECT_EQ(reply.error_description, "The command x\\x1b has");
}

TEST(QmpMessageTest, WhatIsNoQmpIsRefused) {
  for (const std::string& line :
       {std::string("{"), std::string("[]"), std::string("3"), std::string("{}"), std::string(),
        "{\"return\":" + std::string(100000, '[') + std::string(100000, ']') + "}"}) {
    const auto message = ParseQmpMessage(line);
    ASSERT_FALSE(message.has_value()) << line.substr(0, 20);
    EXPECT_EQ(message.error().code(), ErrorCode::kInvalidInput);
  }
}

// A monitor that says what it is told, once a client has connected.
class FakeQmp {
 public:
  explicit FakeQmp(std::string script) {
    auto listener = ListenUnix(path(), std::nullopt);
    EXPECT_TRUE(listener.has_value());
    thread_ = std::thread([fd = std::move(*listener), text = std::move(script)] {
      const UniqueFd peer(accept4(fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
      EXPECT_EQ(send(peer.get(), text.data(), text.size(), MSG_NOSIGNAL),
                static_cast<ssize_t>(text.size()));
      std::array<char, 4096> ignored{};
      while (read(peer.get(), ignored.data(), ignored.size()) > 0) {
      }
    });
  }
  ~FakeQmp() { thread_.join(); }
  std::string path() const { return dir_.path() + "/qmp"; }

 private:
  TestDir dir_;
  std::thread thread_;
};

constexpr std::string_view kGreeting =
    R"({"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7}}}})"
    "\n"
    R"({"return":{},"id":1})"
    "\n";

TEST(QmpClientTest, EventsBeforeAReplyAreKept) {
  FakeQmp fake(std::string(kGreeting) + R"({"event":"STOP"})" + "\n" +
               R"({"return":{"a":1},"id":2})" + "\n" + R"({"event":"RESUME"})" + "\n");
  auto client = QmpClient::Dial(fake.path());
  ASSERT_TRUE(client.has_value());
  ASSERT_TRUE((*client)->Handshake(kLong).has_value());
  EXPECT_EQ((*client)->version(), "7.2.22");
  const auto reply = (*client)->Execute("stop", Json::object(), kLong);
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ((*reply)["a"], 1);
  std::vector<std::string> names;
  while (names.size() < 2) {
    ASSERT_TRUE((*client)->Pump().has_value());
    for (const QmpEvent& event : (*client)->TakeEvents()) {
      names.push_back(event.name);
    }
  }
  EXPECT_THAT(names, testing::ElementsAre("STOP", "RESUME"));
  client->reset();
}

TEST(QmpClientTest, AnEventBeforeTheGreetingIsKept) {
  FakeQmp fake(R"({"event":"RESUME"})"
               "\n" +
               std::string(kGreeting));
  auto client = QmpClient::Dial(fake.path());
  ASSERT_TRUE(client.has_value());
  ASSERT_TRUE((*client)->Handshake(kLong).has_value());
  EXPECT_EQ((*client)->version(), "7.2.22");
  const std::vector<QmpEvent> events = (*client)->TakeEvents();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].name, "RESUME");
  client->reset();
}

TEST(QmpClientTest, AReplyInPlaceOfTheGreetingIsNoQemu) {
  FakeQmp fake(R"({"return":{},"id":1})"
               "\n");
  auto client = QmpClient::Dial(fake.path());
  ASSERT_TRUE(client.has_value());
  const auto greeted = (*client)->Handshake(kLong);
  ASSERT_FALSE(greeted.has_value());
  EXPECT_THAT(greeted.error().Describe(), HasSubstr("did not greet"));
  client->reset();
}

TEST(QmpClientTest, LateAnswerToAnEarlierCommandIsSkipped) {
  FakeQmp fake(std::string(kGreeting) + R"({"return":{},"id":1})" + "\n" +
               R"({"return":"right","id":2})" + "\n");
  auto client = QmpClient::Dial(fake.path());
  ASSERT_TRUE((*client)->Handshake(kLong).has_value());
  EXPECT_EQ(*(*client)->Execute("x", Json::object(), kLong), "right");
  client->reset();
}

TEST(QmpClientTest, SilenceIsUnavailableAndNamesTheCommand) {
  FakeQmp fake{std::string(kGreeting)};
  auto client = QmpClient::Dial(fake.path());
  ASSERT_TRUE((*client)->Handshake(kLong).has_value());
  const auto reply = (*client)->Execute("query-status", Json::object(), milliseconds(1));
  ASSERT_FALSE(reply.has_value());
  EXPECT_EQ(reply.error().code(), ErrorCode::kUnavailable);
  EXPECT_THAT(reply.error().Describe(), HasSubstr("query-status"));
  client->reset();
}

TEST(QmpClientTest, RefusalIsAnErrorInQemusWords) {
  FakeQmp fake(std::string(kGreeting) +
               R"({"id":2,"error":{"class":"GenericError","desc":"Device is busy"}})" + "\n");
  auto client = QmpClient::Dial(fake.path());
  ASSERT_TRUE((*client)->Handshake(kLong).has_value());
  const auto reply = (*client)->Execute("cont", Json::object(), kLong);
  ASSERT_FALSE(reply.has_value());
  EXPECT_THAT(reply.error().Describe(), HasSubstr("QEMU refused: Device is busy"));
  client->reset();
}

}  // namespace
}  // namespace vallum::vm

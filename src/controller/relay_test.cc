// SPDX-License-Identifier: Apache-2.0
// What goes between clients and agents through the controller: contents of images, consoles.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/bytes.h"
#include "controller/test_rig.h"

namespace vallum::controller {
namespace {

using ::testing::HasSubstr;

class RelayTest : public testing::Test {
 protected:
  Rig rig_;
};

TEST_F(RelayTest, BlobIsSentFromAnOffset) {
  const auto agent = rig_.ConnectedAgent("node1");
  const std::string content(3 * 1024 * 1024 + 17, 'x');
  auto upload = rig_.blobs().BeginUpload("image1");
  ASSERT_TRUE((*upload)->Append(ByteCount::Bytes(0), AsBytes(content)).has_value());
  const auto blob = (*upload)->Commit();
  std::string early;
  EXPECT_EQ(agent->FetchBlob(blob->digest, 0, early).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  // From now on an instance of the host starts from that content.
  rig_.MakeReadyImage("debian12");
  ASSERT_TRUE(rig_.controller()
                  .resources()
                  .Modify<v1::Image>("debian12",
                                     [&](v1::Image& image) -> Result<ResourceStore::Change> {
                                       image.mutable_status()->set_sha256(blob->digest);
                                       return ResourceStore::Change::kWrite;
                                     })
                  .has_value());
  rig_.Create("web1");
  ASSERT_TRUE(rig_.Await([&](const View& view) {
    const auto instance = view.Get<v1::Instance>("web1");
    const auto image = view.Get<v1::Image>("debian12");
    return instance->status().host() == "node1" && image->status().sha256() == blob->digest;
  }));
  std::string whole;
  EXPECT_TRUE(agent->FetchBlob(blob->digest, 0, whole).ok());
  EXPECT_EQ(whole, content);
  std::string rest;
  EXPECT_TRUE(agent->FetchBlob(blob->digest, 1024 * 1024 + 5, rest).ok());
  EXPECT_EQ(rest.size(), content.size() - 1024 * 1024 - 5);
  std::string none;
  EXPECT_EQ(agent->FetchBlob(blob->digest, -1, none).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(agent->FetchBlob(std::string(64, '0'), 0, none).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(agent->FetchBlob("../../etc/passwd", 0, none).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(rig_.NewAgent("thief")->FetchBlob(blob->digest, 0, none).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

// Reads the pipe until it has `count` bytes or ends; waits on the handler.
std::string ReadPipe(ConsolePipe& pipe, size_t count, std::string* why = nullptr) {
  std::string out;
  while (out.size() < count) {
    std::mutex mutex;
    std::condition_variable ready;
    std::optional<Result<Bytes>> got;
    pipe.Read([&](Result<Bytes> result) {
      const std::lock_guard lock(mutex);
      got = std::move(result);
      ready.notify_one();
    });
    std::unique_lock lock(mutex);
    ready.wait(lock, [&] { return got.has_value(); });
    if (!got->has_value()) {
      if (why != nullptr) {
        *why = got->error().message();
      }
      break;
    }
    out += AsText(**got);
  }
  return out;
}

class ConsoleTest : public RelayTest {
 protected:
  void SetUp() override {
    rig_.MakeReadyImage("debian12");
    agent_ = rig_.ConnectedAgent("node1");
    rig_.RunningInstance(*agent_, "web1");
    auto pipe = rig_.controller().gateway().OpenConsole("web1");
    ASSERT_TRUE(pipe.has_value());
    pipe_ = *std::move(pipe);
    std::optional<v1::ControllerMessage> message = agent_->Next();
    while (message && !message->has_open_console()) {
      message = agent_->Next();
    }
    ASSERT_TRUE(message.has_value());
    session_ = message->open_console().session_id();
  }
  void TearDown() override {
    if (call_ != nullptr) {
      call_->context.TryCancel();
      static_cast<void>(call_->stream->Finish());
    }
  }
  void Say(const std::string& data, const std::string& error = "") {
    v1::ConsoleFrame frame;
    frame.set_data(data);
    frame.set_error(error);
    call_->stream->Write(frame);
  }
  std::unique_ptr<FakeAgent> agent_;
  std::shared_ptr<ConsolePipe> pipe_;
  std::string session_;
  std::unique_ptr<FakeAgent::ConsoleCall> call_;
};

TEST_F(ConsoleTest, BytesGoBothWays) {
  ASSERT_TRUE(pipe_->Write(AsBytes("root\n")).has_value());  // before the agent has come
  call_ = agent_->OpenConsole(session_);
  v1::ConsoleFrame frame;
  ASSERT_TRUE(call_->stream->Read(&frame));
  EXPECT_EQ(frame.data(), "root\n");
  Say("Password: ");
  EXPECT_EQ(ReadPipe(*pipe_, 10), "Password: ");
}

TEST_F(ConsoleTest, MuchMoreThanTheBufferArrivesWhole) {
  call_ = agent_->OpenConsole(session_);
  constexpr size_t kSize = 3 * kConsoleBufferLimit;
  std::thread guest([&] {
    for (size_t sent = 0; sent < kSize; sent += 4096) {
      Say(std::string(4096, static_cast<char>('a' + (sent / 4096) % 26)));
    }
  });
  const std::string got = ReadPipe(*pipe_, kSize);
  guest.join();
  ASSERT_EQ(got.size(), kSize);
  for (size_t at = 0; at < kSize; at += 4096) {
    ASSERT_EQ(got[at], static_cast<char>('a' + (at / 4096) % 26));
  }
}

TEST_F(ConsoleTest, WriterIsToldWhenTheGuestDoesNotRead) {
  const std::string piece(64 * 1024, 'x');
  Result<void> written;
  for (int i = 0; i < 100 && written.has_value(); ++i) {
    written = pipe_->Write(AsBytes(piece));
  }
  ASSERT_FALSE(written.has_value());
  EXPECT_EQ(written.error().code(), ErrorCode::kExhausted);
}

TEST_F(ConsoleTest, EitherEndMayEndIt) {
  call_ = agent_->OpenConsole(session_);
  Say("bye", "the guest has stopped");
  EXPECT_EQ(ReadPipe(*pipe_, 3), "bye");
  std::string why;
  ReadPipe(*pipe_, 1, &why);
  EXPECT_THAT(why, HasSubstr("the guest has stopped"));
  v1::ConsoleFrame frame;
  EXPECT_FALSE(call_->stream->Read(&frame));
  EXPECT_FALSE(pipe_->Write(AsBytes("x")).has_value());
}

TEST_F(ConsoleTest, ClosingThePipeEndsTheAgentsStream) {
  call_ = agent_->OpenConsole(session_);
  Say("x");
  EXPECT_EQ(ReadPipe(*pipe_, 1), "x");
  pipe_->Close();
  v1::ConsoleFrame frame;
  EXPECT_FALSE(call_->stream->Read(&frame));
}

TEST_F(ConsoleTest, ConsoleThatTheAgentDoesNotOpenEnds) {
  std::string why;
  ReadPipe(*pipe_, 1, &why);
  EXPECT_THAT(why, HasSubstr("did not open it in time"));
}

TEST_F(ConsoleTest, AnotherHostCannotTakeTheConsole) {
  const auto other = rig_.ConnectedAgent("node2");
  const auto stolen = other->OpenConsole(session_);
  v1::ConsoleFrame frame;
  EXPECT_FALSE(stolen->stream->Read(&frame));
  EXPECT_EQ(stolen->stream->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
  call_ = agent_->OpenConsole(session_);
  Say("mine");
  EXPECT_EQ(ReadPipe(*pipe_, 4), "mine");
}

TEST_F(RelayTest, ConsoleNeedsAnInstanceAndItsAgent) {
  EXPECT_EQ(rig_.controller().gateway().OpenConsole("nobody").error().code(), ErrorCode::kNotFound);
  rig_.MakeReadyImage("debian12");
  rig_.Create("web1");
  EXPECT_EQ(rig_.controller().gateway().OpenConsole("web1").error().code(), ErrorCode::kConflict);
}

}  // namespace
}  // namespace vallum::controller

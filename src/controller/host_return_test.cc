// SPDX-License-Identifier: Apache-2.0
// How long a controller that has started waits for the hosts that it knows.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "controller/fake_agent.h"
#include "controller/reconciler.h"
#include "controller/test_rig.h"

namespace vallum::controller {
namespace {

class HostReturnTest : public testing::Test {
 protected:
  HostReturnTest() {
    for (const char* name : {"node0", "node1", "node2"}) {
      agents_.push_back(rig_.ConnectedAgent(name));
      EXPECT_TRUE(AwaitState(name, v1::HOST_UP));
    }
    for (const auto& agent : agents_) agent->Disconnect();
    rig_.Stop();
    rig_.Start();
  }
  ~HostReturnTest() override {
    for (const auto& agent : agents_) agent->Disconnect();
  }
  void ComeBack(size_t number) {
    auto back = rig_.NewAgent("node" + std::to_string(number));
    back->TakeIdentityOf(*agents_[number]);
    EXPECT_TRUE(back->Connect(FakeAgent::MakeHello()).has_value());
    agents_[number] = std::move(back);
  }
  bool AwaitState(const std::string& name, v1::HostState state) {
    return rig_.Await([&](const View& view) {
      const auto host = view.Get<v1::Host>(name);
      return host != nullptr && host->status().state() == state;
    });
  }
  v1::HostState State(const std::string& name) {
    return rig_.controller().view().Get<v1::Host>(name)->status().state();
  }
  void Advance(std::chrono::seconds by) {
    rig_.clock().Advance(by);
    rig_.controller().reconciler().Tick();
  }

  Rig rig_;
  std::vector<std::unique_ptr<FakeAgent>> agents_;
};

TEST_F(HostReturnTest, HostIsWaitedForWhileOthersComeBack) {
  rig_.clock().Advance(std::chrono::seconds(25));
  ComeBack(1);
  rig_.clock().Advance(std::chrono::seconds(25));
  ComeBack(2);
  agents_[1]->Disconnect();
  Advance(std::chrono::seconds(25));
  // Away for 50 s: that it is down says that node0, whose turn is before, was looked at, too.
  ASSERT_TRUE(AwaitState("node1", v1::HOST_DOWN));
  EXPECT_EQ(State("node0"), v1::HOST_UP);
}

TEST_F(HostReturnTest, SilentHostWhoseSessionIsOpenIsUpWhileOthersComeBack) {
  ComeBack(0);
  ComeBack(1);
  rig_.clock().Advance(std::chrono::seconds(25));
  ComeBack(2);
  agents_[1]->Disconnect();
  Advance(std::chrono::seconds(10));
  ASSERT_TRUE(AwaitState("node1", v1::HOST_DOWN));
  EXPECT_EQ(State("node0"), v1::HOST_UP);
}

TEST_F(HostReturnTest, SilentHostIsDownOnceNobodyHasComeBackForTheGraceTime) {
  ComeBack(0);
  Advance(std::chrono::seconds(31));
  EXPECT_TRUE(AwaitState("node0", v1::HOST_DOWN));
}

TEST_F(HostReturnTest, HostIsDownOnceNobodyHasComeBackForTheGraceTime) {
  rig_.clock().Advance(std::chrono::seconds(25));
  ComeBack(1);
  Advance(std::chrono::seconds(31));
  EXPECT_TRUE(AwaitState("node0", v1::HOST_DOWN));
}

TEST_F(HostReturnTest, HostThatComesTwicePutsNothingOff) {
  ComeBack(1);
  rig_.clock().Advance(std::chrono::seconds(25));
  ComeBack(1);
  Advance(std::chrono::seconds(10));
  EXPECT_TRUE(AwaitState("node0", v1::HOST_DOWN));
}

TEST_F(HostReturnTest, HostIsWaitedForNoLongerThanTheLimit) {
  rig_.clock().Advance(Reconciler::Options().return_limit + std::chrono::seconds(31));
  ComeBack(1);
  rig_.controller().reconciler().Tick();
  EXPECT_TRUE(AwaitState("node0", v1::HOST_DOWN));
}

}  // namespace
}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
// What the gateway takes of a host that means ill.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>

#include "controller/test_rig.h"

namespace vallum::controller {
namespace {

using ::testing::HasSubstr;

class GatewayLimitsTest : public testing::Test {
 protected:
  int64_t Events(const std::string& kind) {
    const auto events = rig_.controller().events().Read(0, 1000);
    EXPECT_TRUE(events.has_value());
    return std::ranges::count_if(*events, [&](const v1::Event& one) { return one.kind() == kind; });
  }
  std::string Refusal(FakeAgent& agent, const v1::Hello& hello) {
    const auto connected = agent.Connect(hello);
    EXPECT_FALSE(connected.has_value());
    return connected.has_value() ? "" : connected.error().message();
  }
  // Whether the host's record can be written, which its trust depends on.
  bool Writable(const std::string& host) {
    return rig_.controller()
        .resources()
        .Modify<v1::Host>(host,
                          [](v1::Host& current) -> Result<ResourceStore::Change> {
                            current.mutable_status()->mutable_trust()->set_detail("written");
                            return ResourceStore::Change::kWrite;
                          })
        .has_value();
  }
  Rig rig_;
};

TEST_F(GatewayLimitsTest, HelloWithMoreThanIsKeptOfAHostEndsTheSessionInWords) {
  const auto agent = rig_.NewAgent("node1");
  ASSERT_TRUE(agent->Enroll(rig_.JoinSecret("join")).ok());
  v1::Hello hello = FakeAgent::MakeHello();
  hello.set_boot_id(std::string(65, 'x'));
  EXPECT_THAT(Refusal(*agent, hello), HasSubstr("boot_id has 65 bytes, more than the 64"));
  hello = FakeAgent::MakeHello();
  hello.set_agent_version(std::string(2'000'000, 'x'));
  EXPECT_THAT(Refusal(*agent, hello), HasSubstr("agent_version has 2000000 bytes"));
  hello = FakeAgent::MakeHello();
  hello.add_instances()->set_uid(std::string(65, 'x'));
  EXPECT_THAT(Refusal(*agent, hello), HasSubstr("an instance's uid has 65 bytes"));
  hello = FakeAgent::MakeHello();
  hello.mutable_capabilities()->set_kernel_version(std::string(2'000'000, 'x'));
  EXPECT_THAT(Refusal(*agent, hello), HasSubstr("capabilities have 2000"));
  EXPECT_TRUE(Writable("node1"));
  // Told, but not each time; a minute may end in between.
  EXPECT_GE(Events("host.message-refused"), 1);
  EXPECT_LE(Events("host.message-refused"), 2);
  hello = FakeAgent::MakeHello();
  hello.set_boot_id(std::string(64, 'x'));
  EXPECT_TRUE(agent->Connect(hello).has_value());
}

TEST_F(GatewayLimitsTest, CapabilitiesThatAreMoreThanIsKeptOfAHostEndTheSession) {
  const auto agent = rig_.ConnectedAgent("node1");
  v1::HostCapabilities capabilities = FakeAgent::MakeHello().capabilities();
  for (int i = 0; i < 10'000; ++i) capabilities.add_bridges("br" + std::to_string(10'000 + i));
  agent->SendCapabilities(capabilities);
  const grpc::Status ended = agent->AwaitEnd();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(ended.error_message(), HasSubstr("more than the 65536 that are taken"));
  EXPECT_TRUE(Writable("node1"));
  const auto host = rig_.controller().resources().Get<v1::Host>("node1");
  EXPECT_EQ(host->status().capabilities().bridges_size(), 0);
}

TEST_F(GatewayLimitsTest, HostThatAsksForVtpmCertificatesWithoutEndDoesNotFillTheLog) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  rig_.Create("web1");
  const auto desired = agent->NextInstance();
  ASSERT_TRUE(desired.has_value());
  const std::string key = FakeAgent::MakeEndorsementKey();
  std::string pem;
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(agent->IssueVtpm(desired->uid(), key, pem).ok());
    EXPECT_NE(pem, "");
  }
  EXPECT_EQ(Events("instance.vtpm-certified"), 1);
  int certified = 0;
  grpc::Status last;
  for (int i = 0; i < 5; ++i) {
    last = agent->IssueVtpm(desired->uid(), FakeAgent::MakeEndorsementKey(), pem);
    certified += last.ok() ? 1 : 0;
  }
  EXPECT_EQ(last.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(last.error_message(), HasSubstr("another endorsement key of instance web1"));
  // One a minute; a minute may end in between.
  EXPECT_GE(certified, 1);
  EXPECT_LE(certified, 2);
  EXPECT_EQ(Events("instance.vtpm-certified"), 1 + certified);
  rig_.clock().Advance(std::chrono::minutes(1));
  EXPECT_TRUE(agent->IssueVtpm(desired->uid(), FakeAgent::MakeEndorsementKey(), pem).ok());
}

TEST_F(GatewayLimitsTest, FirstKeysOfManyInstancesAreCertifiedAtOnce) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  std::string pem;
  for (int i = 0; i < 5; ++i) {
    rig_.Create("web" + std::to_string(i));
    const auto desired = agent->NextInstance();
    ASSERT_TRUE(desired.has_value());
    const auto issued = agent->IssueVtpm(desired->uid(), FakeAgent::MakeEndorsementKey(), pem);
    EXPECT_TRUE(issued.ok()) << issued.error_message();
  }
  EXPECT_EQ(Events("instance.vtpm-certified"), 5);
}

}  // namespace
}  // namespace vallum::controller

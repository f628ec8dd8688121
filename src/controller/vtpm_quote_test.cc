// SPDX-License-Identifier: Apache-2.0
// Certificates for vTPMs, and quotes by them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/ids.h"
#include "controller/test_rig.h"
#include "tls/certificate.h"

namespace vallum::controller {
namespace {

using ::testing::HasSubstr;

class VtpmTest : public testing::Test {
 protected:
  Rig rig_;
};

TEST_F(VtpmTest, VtpmIsCertifiedForTheHostThatRunsItAndNoOther) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  const v1::DesiredInstance desired = rig_.RunningInstance(*agent, "web1");
  const auto other = rig_.ConnectedAgent("node2");
  const std::string key = FakeAgent::MakeEndorsementKey();
  std::string pem;
  EXPECT_EQ(other->IssueVtpm(desired.uid(), key, pem).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(agent->IssueVtpm(NewUid(), key, pem).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(agent->IssueVtpm(desired.uid(), "no key", pem).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(rig_.NewAgent("thief")->IssueVtpm(desired.uid(), key, pem).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  const grpc::Status issued = agent->IssueVtpm(desired.uid(), key, pem);
  ASSERT_TRUE(issued.ok()) << issued.error_message();
  EXPECT_EQ(tls::InspectPem(pem)->common_name, "web1");
  EXPECT_TRUE(rig_.Await([](const View& view) {
    return std::ranges::any_of(view.All<v1::Event>(), [](const auto& event) {
      return event->kind() == "instance.vtpm-certified" && event->object() == "instances/web1";
    });
  }));
}

class QuoteTest : public VtpmTest {
 protected:
  void SetUp() override {
    rig_.MakeReadyImage("debian12");
    agent_ = rig_.ConnectedAgent("node1");
    desired_ = rig_.RunningInstance(*agent_, "web1");
  }
  // Asks in a thread of its own; the agent's side is the test's.
  std::future<Result<v1::InstanceQuote>> Ask(const std::string& name = "web1") {
    return std::async(std::launch::async, [this, name] {
      return rig_.controller().gateway().Quote(name, AsBytes("nonce"), "sha256:0,7");
    });
  }
  std::unique_ptr<FakeAgent> agent_;
  v1::DesiredInstance desired_;
};

TEST_F(QuoteTest, OneOfAnInstanceAndTwoInAllAreMadeAtOnce) {
  rig_.RunningInstance(*agent_, "web2");
  rig_.RunningInstance(*agent_, "web3");
  auto first = Ask("web1");
  ASSERT_TRUE(agent_->NextQuote().has_value());
  const auto again = Ask("web1").get();
  EXPECT_EQ(again.error().code(), ErrorCode::kExhausted);
  EXPECT_THAT(again.error().message(), HasSubstr("web1"));
  auto second = Ask("web2");
  ASSERT_TRUE(agent_->NextQuote().has_value());
  EXPECT_EQ(Ask("web3").get().error().code(), ErrorCode::kExhausted);
  agent_->Disconnect();
  EXPECT_EQ(first.get().error().code(), ErrorCode::kUnavailable);
  EXPECT_EQ(second.get().error().code(), ErrorCode::kUnavailable);
}

TEST_F(QuoteTest, GoesToTheAgentAndItsAnswerBack) {
  auto asked = Ask();
  const auto wanted = agent_->NextQuote();
  ASSERT_TRUE(wanted.has_value());
  EXPECT_EQ(wanted->instance_uid(), desired_.uid());
  EXPECT_EQ(wanted->nonce(), "nonce");
  EXPECT_EQ(wanted->pcrs(), "sha256:0,7");
  v1::QuoteAnswer answer;
  answer.set_request_id(wanted->request_id());
  answer.mutable_quote()->set_quoted("signed");
  answer.mutable_quote()->set_instance("what the agent says");
  EXPECT_TRUE(agent_->AnswerQuote(answer).ok());
  const auto quote = asked.get();
  ASSERT_TRUE(quote.has_value()) << quote.error().Describe();
  EXPECT_EQ(quote->quoted(), "signed");
  EXPECT_EQ(quote->instance(), "web1");
  EXPECT_EQ(quote->nonce(), "6e6f6e6365");
  EXPECT_EQ(agent_->AnswerQuote(answer).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(QuoteTest, RefusalOfTheAgentComesBackInItsWords) {
  auto asked = Ask();
  const auto wanted = agent_->NextQuote();
  ASSERT_TRUE(wanted.has_value());
  v1::QuoteAnswer answer;
  answer.set_request_id(wanted->request_id());
  answer.mutable_problem()->set_code("denied");
  answer.mutable_problem()->set_detail("the guest has set a password");
  answer.mutable_problem()->set_fix("clear it");
  EXPECT_TRUE(agent_->AnswerQuote(answer).ok());
  const auto quote = asked.get();
  ASSERT_FALSE(quote.has_value());
  EXPECT_EQ(quote.error().code(), ErrorCode::kDenied);
  EXPECT_EQ(quote.error().message(), "the guest has set a password");
  EXPECT_EQ(quote.error().fix(), "clear it");
}

TEST_F(QuoteTest, AnotherHostCannotAnswer) {
  const auto other = rig_.ConnectedAgent("node2");
  auto asked = Ask();
  const auto wanted = agent_->NextQuote();
  ASSERT_TRUE(wanted.has_value());
  v1::QuoteAnswer answer;
  answer.set_request_id(wanted->request_id());
  answer.mutable_quote()->set_quoted("forged");
  EXPECT_EQ(other->AnswerQuote(answer).error_code(), grpc::StatusCode::NOT_FOUND);
  answer.mutable_quote()->set_quoted("true");
  EXPECT_TRUE(agent_->AnswerQuote(answer).ok());
  EXPECT_EQ(asked.get()->quoted(), "true");
}

TEST_F(QuoteTest, AgentThatGoesAwayEndsTheWait) {
  auto asked = Ask();
  ASSERT_TRUE(agent_->NextQuote().has_value());
  agent_->Disconnect();
  const auto quote = asked.get();
  ASSERT_FALSE(quote.has_value());
  EXPECT_EQ(quote.error().code(), ErrorCode::kUnavailable);
}

TEST_F(VtpmTest, QuoteNeedsAnInstanceOnAConnectedHost) {
  Gateway& gateway = rig_.controller().gateway();
  EXPECT_EQ(gateway.Quote("nobody", {}, "sha256:0").error().code(), ErrorCode::kNotFound);
  rig_.MakeReadyImage("debian12");
  rig_.Create("web1");
  EXPECT_EQ(gateway.Quote("web1", {}, "sha256:0").error().code(), ErrorCode::kConflict);
}

}  // namespace
}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
// Test support: a whole controller with a trusted pool, and hosts whose quotes are made in
// software.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "controller/attestor.h"
#include "controller/software_host.h"
#include "controller/test_rig.h"

namespace vallum::controller {

class AttestorTest : public testing::Test {
 protected:
  using Write = ResourceStore::Change;

  AttestorTest() {
    v1::Pool pool;
    pool.mutable_metadata()->set_name("gold");
    pool.mutable_spec()->set_trusted_service(true);
    pool.mutable_spec()->set_attestation_policy("gold");
    Stored(rig_.controller().resources().Create(std::move(pool)));
  }
  template <typename T>
  void Stored(const Result<T>& stored) {
    ASSERT_TRUE(stored.has_value()) << stored.error().Describe();
    ASSERT_TRUE(rig_.controller().view().WaitFor(stored->metadata().revision()).has_value());
  }
  void ActivatePolicy(const std::string& document) {
    v1::AttestationPolicy policy;
    policy.mutable_metadata()->set_name("gold");
    policy.mutable_spec()->set_document(document);
    AttestationPolicies& policies = rig_.controller().policies();
    const bool known = rig_.controller().view().Get<v1::AttestationPolicy>("gold") != nullptr;
    const Result<void> written =
        known ? policies.Update(policy, 0, "tester") : policies.Create(policy, "tester");
    ASSERT_TRUE(written.has_value()) << written.error().Describe();
    const auto active = policies.Activate("gold", 0);
    ASSERT_TRUE(active.has_value()) << active.error().Describe();
  }
  // Joined into the pool, with the software host's key as its TPM's.
  std::unique_ptr<FakeAgent> Join(const std::string& name, const SoftwareHost& host) {
    auto agent = rig_.NewAgent(name);
    const grpc::Status enrolled = agent->Enroll(rig_.JoinSecret("join-" + name));
    EXPECT_TRUE(enrolled.ok()) << enrolled.error_message();
    Stored(rig_.controller().resources().Modify<v1::Host>(
        name, [&](v1::Host& current) -> Result<Write> {
          current.mutable_spec()->set_pool("gold");
          *current.mutable_status()->mutable_identity() = host.Identity();
          return Write::kWrite;
        }));
    EXPECT_TRUE(Connect(*agent, host));
    return agent;
  }
  bool Connect(FakeAgent& agent, const SoftwareHost& host) {
    v1::Hello hello = FakeAgent::MakeHello();
    hello.set_boot_id(host.boot_id());
    return agent.Connect(hello).has_value();
  }
  v1::RequestEvidence NextRequest(FakeAgent& agent) {
    const auto message = agent.NextOf(v1::ControllerMessage::kRequestEvidence);
    EXPECT_TRUE(message.has_value());
    return message.has_value() ? message->request_evidence() : v1::RequestEvidence();
  }
  void Answer(FakeAgent& agent, SoftwareHost& host) {
    const grpc::Status sent = agent.SubmitEvidence(host.Answer(NextRequest(agent)));
    EXPECT_TRUE(sent.ok()) << sent.error_message();
  }
  // Joined, judged and UP.
  std::unique_ptr<FakeAgent> JoinTrusted(const std::string& name, SoftwareHost& host) {
    auto agent = Join(name, host);
    Answer(*agent, host);
    EXPECT_TRUE(AwaitHost(name, v1::TRUST_TRUSTED, v1::HOST_UP));
    return agent;
  }
  // "node0", "node1" and so on, in this order.
  std::vector<std::unique_ptr<FakeAgent>> JoinAll(const std::vector<SoftwareHost>& hosts) {
    std::vector<std::unique_ptr<FakeAgent>> agents;
    for (const SoftwareHost& host : hosts) {
      agents.push_back(Join("node" + std::to_string(agents.size()), host));
    }
    return agents;
  }
  std::vector<std::unique_ptr<FakeAgent>> JoinAllTrusted(std::vector<SoftwareHost>& hosts) {
    std::vector<std::unique_ptr<FakeAgent>> agents;
    for (SoftwareHost& host : hosts) {
      agents.push_back(JoinTrusted("node" + std::to_string(agents.size()), host));
    }
    return agents;
  }
  bool AwaitLevel(const std::string& name, v1::TrustLevel level) {
    return rig_.Await([&](const View& view) {
      return view.Get<v1::Host>(name)->status().trust().level() == level;
    });
  }
  uint64_t Requests() { return rig_.controller().metrics().evidence_requests_total.load(); }
  // Whoever is due now is asked within this.
  void LetPlannerRun() { std::this_thread::sleep_for(4 * rig_.attestor().tick); }
  bool AwaitRequests(uint64_t count) {
    return rig_.Await([&](const View& /*view*/) { return Requests() >= count; });
  }
  bool AwaitMissing(uint64_t count) {
    return rig_.Await([&](const View& /*view*/) {
      return rig_.controller().metrics().evidence_missing_total.load() >= count;
    });
  }
  bool AwaitHost(const std::string& name, v1::TrustLevel level, v1::HostState state) {
    return rig_.Await([&](const View& view) {
      const auto host = view.Get<v1::Host>(name);
      return host != nullptr && host->status().trust().level() == level &&
             host->status().state() == state;
    });
  }
  // Makes an instance and has the agent say that it runs.
  v1::DesiredInstance RunInstance(FakeAgent& agent, const std::string& name) {
    rig_.MakeReadyImage("debian12");
    v1::Instance instance;
    instance.mutable_metadata()->set_name(name);
    instance.mutable_spec()->set_image("debian12");
    instance.mutable_spec()->set_flavor("small");
    instance.mutable_spec()->set_pool("gold");
    EXPECT_TRUE(rig_.controller().instances().Create(instance, kTester, kStartsAll).has_value());
    const auto wanted = agent.NextInstance();
    EXPECT_TRUE(wanted.has_value());
    if (!wanted.has_value()) return {};
    agent.Report(FakeAgent::MakeReport(*wanted, v1::INSTANCE_RUNNING));
    EXPECT_TRUE(rig_.AwaitPhase(name, v1::INSTANCE_RUNNING));
    return *wanted;
  }
  v1::HostTrust Trust(const std::string& name) {
    return rig_.controller().view().Get<v1::Host>(name)->status().trust();
  }
  std::string Reason(const std::string& name) {
    const v1::HostTrust trust = Trust(name);
    return trust.reasons().empty() ? "" : trust.reasons(0).id();
  }

  Rig rig_;
  SoftwareHost host_;
};

}  // namespace vallum::controller

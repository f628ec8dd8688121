// SPDX-License-Identifier: Apache-2.0
// Roll-outs of key sets: the decision by itself, then a whole controller with an agent.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "controller/key_set_content.h"
#include "controller/key_set_service.h"
#include "controller/rollouts.h"
#include "controller/test_rig.h"
#include "firmware/guid.h"
#include "firmware/signature_list.h"

namespace vallum::controller {
namespace {

using ::testing::HasSubstr;

// ---- the decision ----

// Three instances that run with version 1 of "prod", the first one a canary, on their way to
// version 2.
class Advance : public testing::Test {
 protected:
  Advance() {
    rollout_.mutable_spec()->set_key_set("prod");
    rollout_.mutable_spec()->set_version(2);
    rollout_.mutable_status()->set_state(v1::ROLLOUT_CANARY);
    for (const std::string name : {"a", "b", "c"}) {
      v1::RolloutInstance& one = *rollout_.mutable_status()->add_instances();
      one.set_instance(name);
      one.set_from_key_set("prod");
      one.set_from_version(1);
      one.set_canary(name == "a");
      one.set_state("waiting");
      v1::Instance instance;
      instance.mutable_metadata()->set_name(name);
      instance.mutable_spec()->set_tpm_model("tpm-crb");
      instance.mutable_status()->set_phase(v1::INSTANCE_RUNNING);
      instances_[name] = instance;
      SetKeys(name, 1);
      Boot(name, v1::BOOT_VERIFIED);
    }
  }
  void SetKeys(const std::string& name, int32_t version) {
    instances_[name].mutable_spec()->set_key_set("prod");
    instances_[name].mutable_spec()->set_key_set_version(version);
  }
  // Starts with the keys that it has.
  void Boot(const std::string& name, v1::BootVerdict verdict) {
    v1::BootStatus& boot = *instances_[name].mutable_status()->mutable_boot();
    boot.mutable_effective()->set_key_set(instances_[name].spec().key_set());
    boot.mutable_effective()->set_key_set_version(instances_[name].spec().key_set_version());
    boot.mutable_measured()->set_verdict(verdict);
  }
  void Difference(const std::string& name, int pcr) {
    v1::BootStatus& boot = *instances_[name].mutable_status()->mutable_boot();
    boot.mutable_measured()->mutable_first_difference()->set_pcr(pcr);
  }
  // To where all have the new version and the canary was verified.
  void Roll() {
    Step();
    Boot("a", v1::BOOT_VERIFIED);
    EXPECT_EQ(Step(), "bc");
    ASSERT_EQ(state(), v1::ROLLOUT_ROLLING);
  }
  // Steps, and makes the changes, as the reconciler does. Returns the names that were changed.
  std::string Step() {
    const RolloutStep step = AdvanceRollout(rollout_, [this](const std::string& name) {
      const auto found = instances_.find(name);
      return found == instances_.end() ? nullptr
                                       : std::make_shared<const v1::Instance>(found->second);
    });
    std::string changed;
    for (const KeySetChange& change : step.changes) {
      EXPECT_EQ(instances_[change.instance].spec().key_set_version(), change.from_version);
      SetKeys(change.instance, change.version);
      changed += change.instance;
    }
    *rollout_.mutable_status() = step.status;
    return changed;
  }
  v1::RolloutState state() const { return rollout_.status().state(); }
  std::string StateOf(int index) const { return rollout_.status().instances(index).state(); }

  v1::Rollout rollout_;
  std::map<std::string, v1::Instance> instances_;
};

TEST_F(Advance, CanaryGoesFirstAndTheOthersWaitForItsVerifiedBoot) {
  EXPECT_EQ(Step(), "a");
  EXPECT_EQ(Step(), "");  // its boot is still the former one
  Boot("a", v1::BOOT_PENDING);
  EXPECT_EQ(Step(), "");
  EXPECT_EQ(state(), v1::ROLLOUT_CANARY);
  Boot("a", v1::BOOT_VERIFIED);
  EXPECT_EQ(Step(), "bc");
  EXPECT_EQ(state(), v1::ROLLOUT_ROLLING);
}

TEST_F(Advance, ItEndsWhenEveryBootIsVerified) {
  Step();
  Boot("a", v1::BOOT_VERIFIED);
  Step();
  Boot("b", v1::BOOT_VERIFIED);
  Step();
  EXPECT_EQ(state(), v1::ROLLOUT_ROLLING);
  Boot("c", v1::BOOT_VERIFIED);
  Step();
  EXPECT_EQ(state(), v1::ROLLOUT_DONE);
  EXPECT_EQ(Step(), "");
}

TEST_F(Advance, WithoutCanariesAllAreSetAtOnce) {
  rollout_.mutable_status()->set_state(v1::ROLLOUT_ROLLING);
  EXPECT_EQ(Step(), "abc");
}

TEST_F(Advance, VersionOfAnUnchangedVerdictDoesNotCount) {
  Step();
  // Verified, but under version 1: that says nothing of version 2.
  EXPECT_EQ(StateOf(0), "set");
  Step();
  EXPECT_EQ(StateOf(0), "set");
}

class BadBoot : public Advance, public testing::WithParamInterface<v1::BootVerdict> {};
TEST_P(BadBoot, OneOfACanaryTakesItBack) {
  Step();
  Boot("a", GetParam());
  instances_["a"].mutable_status()->mutable_boot()->mutable_measured()->add_reasons("PCR 7");
  EXPECT_EQ(Step(), "");
  EXPECT_EQ(state(), v1::ROLLOUT_RETURNING);
  EXPECT_EQ(Step(), "a");
  EXPECT_EQ(Step(), "");
  EXPECT_EQ(state(), v1::ROLLOUT_RETURNED);
  EXPECT_EQ(StateOf(0), "bad");
  EXPECT_EQ(StateOf(1), "waiting");
  EXPECT_THAT(rollout_.status().reason(), HasSubstr("instance a"));
  EXPECT_THAT(rollout_.status().reason(), HasSubstr("PCR 7"));
  EXPECT_EQ(instances_["a"].spec().key_set_version(), 1);
  EXPECT_EQ(Step(), "");
}
INSTANTIATE_TEST_SUITE_P(Verdicts, BadBoot, testing::Values(v1::BOOT_DIVERGED, v1::BOOT_REFUSED));

TEST_F(Advance, AfterTheCanariesABootThatTheKeysDoNotExplainIsMarkedAlone) {
  Roll();
  Boot("b", v1::BOOT_DIVERGED);
  Difference("b", 9);
  Boot("c", v1::BOOT_REFUSED);
  EXPECT_EQ(Step(), "");
  EXPECT_EQ(StateOf(1), "bad");
  EXPECT_EQ(StateOf(2), "bad");
  EXPECT_EQ(state(), v1::ROLLOUT_DONE);
  EXPECT_THAT(rollout_.status().reason(), HasSubstr("2 instances are bad"));
}

TEST_F(Advance, AfterTheCanariesOneInstanceIsNotEnough) {
  Roll();
  Boot("b", v1::BOOT_DIVERGED);
  Difference("b", 7);
  EXPECT_EQ(Step(), "");
  EXPECT_EQ(state(), v1::ROLLOUT_ROLLING);
  EXPECT_EQ(StateOf(1), "bad");
  Boot("c", v1::BOOT_VERIFIED);
  Step();
  EXPECT_EQ(state(), v1::ROLLOUT_DONE);
}

TEST_F(Advance, EnoughBootsThatTheKeysExplainTakeItBack) {
  Roll();
  Boot("b", v1::BOOT_DIVERGED);
  Difference("b", 7);
  rollout_.mutable_status()->mutable_instances(2)->set_unbootable("shim is revoked");
  Boot("c", v1::BOOT_REFUSED);
  Step();
  EXPECT_EQ(state(), v1::ROLLOUT_RETURNING);
  EXPECT_EQ(Step(), "abc");
  Step();
  EXPECT_EQ(StateOf(0), "returned");
}

TEST_F(Advance, OneTenantAloneTakesNothingOfOthersBack) {
  for (const std::string name : {"b", "c"}) {
    instances_[name].mutable_metadata()->set_tenant("acme");
  }
  Roll();
  for (const std::string name : {"b", "c"}) {
    Boot(name, v1::BOOT_DIVERGED);
    Difference(name, 7);
  }
  Step();
  EXPECT_EQ(state(), v1::ROLLOUT_DONE);
  EXPECT_EQ(StateOf(0), "verified");
}

TEST_F(Advance, WhatWasVerifiedIsNotBadLater) {
  Roll();
  Boot("a", v1::BOOT_DIVERGED);
  Difference("a", 7);
  Step();
  EXPECT_EQ(StateOf(0), "verified");
}

TEST_F(Advance, BadVerdictUnderTheFormerVersionTakesNothingBack) {
  Step();
  Boot("c", v1::BOOT_DIVERGED);
  Step();
  EXPECT_EQ(state(), v1::ROLLOUT_CANARY);
}

TEST_F(Advance, CrashOfACanaryBeforeTheVerdictTakesItBackAndOneAfterItDoesNot) {
  Step();
  Boot("a", v1::BOOT_PENDING);
  instances_["a"].mutable_status()->set_phase(v1::INSTANCE_CRASHED);
  const v1::Rollout before = rollout_;
  Step();
  EXPECT_EQ(state(), v1::ROLLOUT_RETURNING);
  rollout_ = before;
  Boot("a", v1::BOOT_VERIFIED);
  Step();
  EXPECT_EQ(state(), v1::ROLLOUT_ROLLING);
}

TEST_F(Advance, InstanceThatCannotStartWithItTakesItBack) {
  Step();
  instances_["a"].mutable_status()->set_phase(v1::INSTANCE_FAILED);
  Step();
  EXPECT_EQ(Step(), "a");
  Step();
  EXPECT_EQ(state(), v1::ROLLOUT_RETURNED);
  // These never had it.
  EXPECT_EQ(StateOf(1), "waiting");
}

TEST_F(Advance, WhatSomebodyChangedOrDeletedMeanwhileIsLeftAlone) {
  Step();
  Boot("a", v1::BOOT_VERIFIED);
  SetKeys("b", 7);
  instances_.erase("c");
  EXPECT_EQ(Step(), "");
  EXPECT_EQ(StateOf(1), "skipped");
  EXPECT_EQ(StateOf(2), "skipped");
  EXPECT_EQ(instances_["b"].spec().key_set_version(), 7);
  EXPECT_EQ(state(), v1::ROLLOUT_DONE);
}

TEST_F(Advance, WithoutACanaryThatIsLeftItStops) {
  Step();
  instances_.erase("a");
  EXPECT_EQ(Step(), "");
  EXPECT_EQ(state(), v1::ROLLOUT_STOPPED);
}

TEST_F(Advance, StepThatWasMadeButNotNotedIsMadeAgainWithoutHarm) {
  const v1::Rollout before = rollout_;
  Step();
  rollout_ = before;  // the controller ended here
  EXPECT_EQ(Step(), "");
  EXPECT_EQ(StateOf(0), "set");
}

TEST_F(Advance, ReturnThatWasInterruptedGoesOnAndNothingIsSetAgain) {
  Roll();
  for (const std::string name : {"b", "c"}) {
    Boot(name, v1::BOOT_DIVERGED);
    Difference(name, 7);
  }
  Step();
  ASSERT_EQ(state(), v1::ROLLOUT_RETURNING);
  // The controller ended after the first ones were taken back; they booted well with what they had.
  for (const std::string name : {"a", "b"}) {
    SetKeys(name, 1);
    Boot(name, v1::BOOT_VERIFIED);
  }
  EXPECT_EQ(Step(), "c");
  EXPECT_EQ(Step(), "");
  EXPECT_EQ(state(), v1::ROLLOUT_RETURNED);
  EXPECT_EQ(StateOf(1), "bad");
}

TEST_F(Advance, ReturnTakesBackWhatWasSetButNotNoted) {
  Step();
  Boot("a", v1::BOOT_DIVERGED);
  Step();
  SetKeys("b", 2);
  EXPECT_EQ(StateOf(1), "waiting");
  EXPECT_EQ(Step(), "ab");
}

// ---- the whole ----

class RolloutTest : public testing::Test {
 protected:
  RolloutTest() {
    rig_.MakeReadyImage("debian12", "required");
    Write(1);
    agent_ = rig_.ConnectedAgent("node1");
  }
  // The key set "prod" with this number in its dbx.
  void Write(uint8_t number) {
    firmware::KeySet keys = rig_.key_sets().front();
    keys.dbx = {firmware::MakeSignature(firmware::SignatureType::kSha256,
                                        firmware::kGlobalVariableGuid,
                                        Bytes(32, std::byte{number}))};
    v1::KeySet key_set;
    key_set.mutable_metadata()->set_name("prod");
    *key_set.mutable_spec()->mutable_content() = EncodeContent(keys);
    KeySetService& service = rig_.controller().key_sets();
    const auto done =
        number == 1 ? service.Create(key_set, "tester") : service.Update(key_set, 0, "tester");
    ASSERT_TRUE(done.has_value()) << done.error().Describe();
  }
  // Runs with version 1.
  void Run(const std::string& name) {
    v1::Instance instance;
    instance.mutable_metadata()->set_name(name);
    instance.mutable_spec()->set_image("debian12");
    instance.mutable_spec()->set_flavor("small");
    instance.mutable_spec()->set_key_set("prod");
    const auto accepted = rig_.controller().instances().Create(instance, kTester, kStartsAll);
    ASSERT_TRUE(accepted.has_value()) << accepted.error().Describe();
    Reboot(name, 1, v1::BOOT_VERIFIED);
  }
  // The agent's next word on the instance, once it was told of these keys.
  void Reboot(const std::string& name, int32_t version, v1::BootVerdict verdict) {
    while (true) {
      const auto desired = agent_->NextInstance();
      ASSERT_TRUE(desired.has_value());
      if (desired->name() != name || desired->key_set_version() != version) continue;
      v1::InstanceReport report = FakeAgent::MakeReport(*desired, v1::INSTANCE_RUNNING);
      v1::BootStatus& boot = *report.mutable_status()->mutable_boot();
      boot.mutable_effective()->set_key_set(desired->key_set_name());
      boot.mutable_effective()->set_key_set_version(desired->key_set_version());
      boot.mutable_measured()->set_verdict(verdict);
      v1::BootEvidenceReport evidence;
      evidence.set_uid(desired->uid());
      *evidence.mutable_evidence() = FakeAgent::MakeEvidence(0);
      agent_->SendEvidence(evidence);
      agent_->Report(report);
      break;
    }
    ASSERT_TRUE(rig_.Await([&](const View& view) {
      const auto instance = view.Get<v1::Instance>(name);
      return instance->status().boot().effective().key_set_version() == version;
    }));
  }
  Result<v1::Rollout> Plan(int canaries, const Preflight& preflight = kStartsAll) {
    v1::Rollout rollout;
    rollout.mutable_metadata()->set_name("up");
    rollout.mutable_spec()->set_key_set("prod");
    rollout.mutable_spec()->set_canaries(canaries);
    RETURN_IF_ERROR(PlanRollout(view(), preflight, rollout));
    return rollout;
  }
  void Start(int canaries) {
    Result<v1::Rollout> rollout = Plan(canaries);
    ASSERT_TRUE(rollout.has_value()) << rollout.error().Describe();
    ASSERT_TRUE(CreateRollout(rig_.controller().resources(), view(), *rollout).has_value());
  }
  bool AwaitState(v1::RolloutState state) {
    return rig_.Await(
        [&](const View& view) { return view.Get<v1::Rollout>("up")->status().state() == state; });
  }
  bool AwaitVersion(const std::string& name, int32_t version) {
    return rig_.Await([&](const View& view) {
      return view.Get<v1::Instance>(name)->spec().key_set_version() == version;
    });
  }
  const View& view() { return rig_.controller().view(); }

  Rig rig_;
  std::unique_ptr<FakeAgent> agent_;
};

TEST_F(RolloutTest, InstancesFollowTheirVerifiedCanary) {
  Run("web1");
  Run("web2");
  Write(2);
  Start(1);
  EXPECT_TRUE(AwaitVersion("web1", 2));
  EXPECT_EQ(view().Get<v1::Instance>("web2")->spec().key_set_version(), 1);
  Reboot("web1", 2, v1::BOOT_VERIFIED);
  EXPECT_TRUE(AwaitVersion("web2", 2));
  Reboot("web2", 2, v1::BOOT_VERIFIED);
  EXPECT_TRUE(AwaitState(v1::ROLLOUT_DONE));
}

TEST_F(RolloutTest, BadBootsTakeItBackAlsoAfterARestart) {
  Run("web1");
  Run("web2");
  Write(2);
  Start(0);
  EXPECT_TRUE(AwaitVersion("web1", 2));
  EXPECT_TRUE(AwaitVersion("web2", 2));
  agent_->Disconnect();
  rig_.Stop();
  rig_.Start();
  auto agent = rig_.NewAgent("node1");
  agent->TakeIdentityOf(*agent_);
  v1::Hello hello = FakeAgent::MakeHello();
  for (const std::string name : {"web1", "web2"}) {
    const auto instance = view().Get<v1::Instance>(name);
    v1::InstanceReport& report = *hello.add_instances();
    report.set_uid(instance->metadata().uid());
    *report.mutable_status() = instance->status();
    v1::BootStatus& boot = *report.mutable_status()->mutable_boot();
    boot.mutable_effective()->set_key_set_version(2);
    boot.mutable_measured()->set_verdict(v1::BOOT_DIVERGED);
    boot.mutable_measured()->mutable_first_difference()->set_pcr(7);
  }
  ASSERT_TRUE(agent->Connect(hello).has_value());
  EXPECT_TRUE(AwaitState(v1::ROLLOUT_RETURNED));
  EXPECT_TRUE(AwaitVersion("web1", 1));
  EXPECT_TRUE(AwaitVersion("web2", 1));
  EXPECT_TRUE(rig_.Await([](const View& view) {
    const auto events = view.All<v1::Event>();
    return std::ranges::any_of(
        events, [](const auto& event) { return event->kind() == "rollout.returned"; });
  }));
}

TEST_F(RolloutTest, ImageThatWouldStopBootingIsSkippedUnlessAskedFor) {
  Run("web1");
  Write(2);
  int asked = 0;
  const Preflight refuses = [&](const v1::Image& /*image*/, const firmware::KeySet& keys) {
    ++asked;
    EXPECT_EQ(keys.dbx.front().data, Bytes(32, std::byte{2}));
    return Result<PreflightVerdict>(PreflightVerdict{.starts = false, .reason = "shim is revoked"});
  };
  Result<v1::Rollout> plan = Plan(0, refuses);
  ASSERT_TRUE(plan.has_value()) << plan.error().Describe();
  EXPECT_EQ(plan->status().instances(0).state(), "skipped");
  EXPECT_THAT(plan->status().instances(0).detail(), HasSubstr("shim is revoked"));
  EXPECT_EQ(plan->status().state(), v1::ROLLOUT_DONE);
  EXPECT_EQ(asked, 1);
  plan->mutable_spec()->set_include_unbootable(true);
  ASSERT_TRUE(PlanRollout(view(), refuses, *plan).has_value());
  EXPECT_EQ(plan->status().instances(0).state(), "waiting");
}

TEST_F(RolloutTest, InstanceThatCannotHaveTheVersionIsSkippedByNameAndKeepsNobodyBack) {
  Run("web1");
  Run("web2");
  Write(2);
  // As one that was stored before such a version was refused.
  const auto stored = rig_.controller().resources().Modify<v1::Instance>(
      "web1", [](v1::Instance& instance) -> Result<ResourceStore::Change> {
        (*instance.mutable_spec()->mutable_properties())["os_secure_boot_signature"] = "prod@999";
        return ResourceStore::Change::kWrite;
      });
  ASSERT_TRUE(view().WaitFor(stored->metadata().revision()).has_value());
  Result<v1::Rollout> plan = Plan(1);
  ASSERT_TRUE(plan.has_value()) << plan.error().Describe();
  for (const v1::RolloutInstance& one : plan->status().instances()) {
    EXPECT_EQ(one.state(), one.instance() == "web1" ? "skipped" : "waiting") << one.instance();
    EXPECT_EQ(one.canary(), one.instance() == "web2");
  }
  // Asked for by name, it is an error.
  plan->mutable_spec()->add_instances("web1");
  EXPECT_EQ(PlanRollout(view(), kStartsAll, *plan).error().code(), ErrorCode::kNotFound);
}

TEST_F(RolloutTest, EachImageIsJudgedOnce) {
  Run("web1");
  Run("web2");
  Write(2);
  int asked = 0;
  const Preflight counts = [&](const v1::Image& /*image*/, const firmware::KeySet& /*keys*/) {
    ++asked;
    return Result<PreflightVerdict>(PreflightVerdict{});
  };
  ASSERT_TRUE(Plan(0, counts).has_value());
  EXPECT_EQ(asked, 1);
}

TEST_F(RolloutTest, InstanceIsInOneRolloutAtATime) {
  Run("web1");
  Write(2);
  Start(1);
  Write(3);
  const auto second = Plan(1);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code(), ErrorCode::kConflict);
  EXPECT_THAT(second.error().message(), HasSubstr("roll-out up"));
  ASSERT_TRUE(StopRollout(rig_.controller().resources(), view(), "up", "tester").has_value());
  EXPECT_TRUE(Plan(1).has_value());
}

}  // namespace
}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
// What is done to an instance whose boot diverged, as its pool wants it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "controller/boot_verdicts_rig.h"

namespace vallum::controller {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST_F(BootVerdictsTest, DivergedInstanceIsIsolatedUntilABootIsVerified) {
  Create();
  Learn();
  SetPool(v1::ON_DIVERGED_ISOLATE);
  Boot(Evidence("kernel", "another cfg", 2));
  std::optional<v1::DesiredInstance> desired = agent_->NextInstance();
  ASSERT_TRUE(desired.has_value());
  EXPECT_TRUE(desired->isolate());
  EXPECT_TRUE(Show()->status().isolated());
  // A boot without a verdict yet changes nothing.
  Report(v1::BOOT_PENDING, 3);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  EXPECT_TRUE(Show()->status().isolated());
  Send(Evidence("kernel", "cfg", 3));
  Report(v1::BOOT_VERIFIED, 3);
  desired = agent_->NextInstance();
  ASSERT_TRUE(desired.has_value());
  EXPECT_FALSE(desired->isolate());
  EXPECT_TRUE(AwaitEvent("instance.isolated"));
  EXPECT_TRUE(AwaitEvent("instance.connected"));
}

TEST_F(BootVerdictsTest, PolicyThatChangesActsOnWhatHasDivergedAlready) {
  Create();
  Learn();
  Boot(Evidence("kernel", "another cfg", 2));
  ASSERT_TRUE(Await(v1::BOOT_DIVERGED));
  EXPECT_FALSE(Show()->status().isolated());
  SetPool(v1::ON_DIVERGED_ISOLATE);
  EXPECT_TRUE(agent_->NextInstance()->isolate());
  SetPool(v1::ON_DIVERGED_REPORT);
  EXPECT_FALSE(agent_->NextInstance()->isolate());
}

TEST_F(BootVerdictsTest, DivergedInstanceIsStoppedByForceAndSaysWhy) {
  Create();
  Learn();
  SetPool(v1::ON_DIVERGED_STOP);
  Boot(Evidence("kernel", "another cfg", 2));
  std::optional<v1::DesiredInstance> desired = agent_->NextInstance();
  ASSERT_TRUE(desired.has_value());
  EXPECT_EQ(desired->spec().power(), v1::POWER_STOPPED);
  EXPECT_TRUE(desired->spec().force_stop());
  v1::InstanceReport stopped = Word(v1::BOOT_VERIFIED, 2);
  stopped.mutable_status()->set_phase(v1::INSTANCE_STOPPED);
  stopped.mutable_status()->set_observed_generation(desired->generation());
  agent_->Report(stopped);
  ASSERT_TRUE(rig_.AwaitPhase("web1", v1::INSTANCE_STOPPED));
  EXPECT_THAT(Show()->status().reason(),
              AllOf(HasSubstr("stopped, because its boot DIVERGED"), HasSubstr("PCR 9, extend 1")));
  EXPECT_THAT(Show()->status().fix(), HasSubstr("vallum instance baseline accept web1"));
  EXPECT_TRUE(AwaitEvent("instance.stopped-diverged"));
  // Accepted while it is stopped: the reason goes, and it may be started.
  ASSERT_TRUE(Accept().has_value());
  ASSERT_TRUE(Await(v1::BOOT_VERIFIED));
  EXPECT_EQ(Show()->status().reason(), "");
  ASSERT_TRUE(rig_.controller().instances().Start("web1", kTester).has_value());
  EXPECT_EQ(agent_->NextInstance()->spec().power(), v1::POWER_RUNNING);
}

TEST_F(BootVerdictsTest, StartAfterAStopByPolicyIsJudgedByItsOwnBoot) {
  Create();
  Learn();
  SetPool(v1::ON_DIVERGED_STOP);
  Boot(Evidence("kernel", "another cfg", 2));
  v1::DesiredInstance stop = *agent_->NextInstance();
  v1::InstanceReport stopped = Word(v1::BOOT_VERIFIED, 2);
  stopped.mutable_status()->set_phase(v1::INSTANCE_STOPPED);
  stopped.mutable_status()->set_observed_generation(stop.generation());
  agent_->Report(stopped);
  ASSERT_TRUE(rig_.AwaitPhase("web1", v1::INSTANCE_STOPPED));
  ASSERT_TRUE(rig_.controller().instances().Start("web1", kTester).has_value());
  desired_ = *agent_->NextInstance();
  EXPECT_EQ(desired_.spec().power(), v1::POWER_RUNNING);
  Boot(Evidence("kernel", "cfg", 1));
  EXPECT_TRUE(Await(v1::BOOT_VERIFIED));
  EXPECT_EQ(Show()->spec().power(), v1::POWER_RUNNING);
}

TEST_F(BootVerdictsTest, RefusedAndPendingAreNeverActedOn) {
  Create();
  for (const v1::OnDiverged action : {v1::ON_DIVERGED_ISOLATE, v1::ON_DIVERGED_STOP}) {
    SetPool(action);
    for (const v1::BootVerdict verdict : {v1::BOOT_PENDING, v1::BOOT_REFUSED}) {
      Report(verdict);
      ASSERT_TRUE(Await(verdict));
      EXPECT_FALSE(Show()->status().isolated());
      EXPECT_EQ(Show()->spec().power(), v1::POWER_RUNNING);
    }
  }
}

}  // namespace
}  // namespace vallum::controller

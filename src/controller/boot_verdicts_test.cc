// SPDX-License-Identifier: Apache-2.0
// A whole controller whose agents report boots and their evidence.
#include "controller/boot_verdicts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <string>

#include "controller/boot_judgement.h"
#include "controller/boot_verdicts_rig.h"

namespace vallum::controller {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

TEST_F(BootVerdictsTest, FirstVerifiedBootIsLearnedAndTheSameBootIsVerified) {
  Create();
  Learn();
  EXPECT_EQ(verdicts().Baseline(*Show())->spec().events_size(), 6);
  Boot(Evidence("kernel", "cfg", 2));
  EXPECT_TRUE(Await(v1::BOOT_VERIFIED));
  EXPECT_THAT(Measured().accepted_changes(), IsEmpty());
}

TEST_F(BootVerdictsTest, BootThatIsNotVerifiedIsNotLearned) {
  Create();
  Send(Evidence());
  Report(v1::BOOT_DIVERGED);
  EXPECT_TRUE(Await(v1::BOOT_DIVERGED));
  EXPECT_EQ(verdicts().Baseline(*Show()).error().code(), ErrorCode::kNotFound);
}

TEST_F(BootVerdictsTest, RecordWithAGapIsNotLearnedAndItsBootNotVerified) {
  Create();
  v1::BootEvidence evidence = Evidence();
  evidence.add_gaps("records were dropped");
  Boot(evidence);
  EXPECT_TRUE(AwaitReason("cannot be learned"));
  EXPECT_EQ(Measured().verdict(), v1::BOOT_PENDING);
  EXPECT_THAT(Measured().reasons(0), HasSubstr("boot the instance again"));
  EXPECT_EQ(verdicts().Baseline(*Show()).error().code(), ErrorCode::kNotFound);
}

TEST_F(BootVerdictsTest, FirstBootWithoutARecordIsNotVerified) {
  Create();
  Report(v1::BOOT_VERIFIED);
  EXPECT_TRUE(AwaitReason("has not sent the record"));
  EXPECT_EQ(Measured().verdict(), v1::BOOT_PENDING);
  Send(Evidence());
  EXPECT_TRUE(AwaitEvent("instance.baseline-learned"));
  EXPECT_TRUE(Await(v1::BOOT_VERIFIED));
}

TEST_F(BootVerdictsTest, BootWithMoreExtendsThanABaselineHoldsDiverges) {
  Create();
  v1::BootEvidence evidence = Evidence();
  const v1::MeasuredEvent last = *evidence.events().rbegin();
  evidence.mutable_events()->RemoveLast();
  for (int i = 0; i < kMaxBaselineEvents; ++i) Add(evidence, 9, DigestOf("file"));
  *evidence.add_events() = last;
  Boot(evidence);
  EXPECT_TRUE(AwaitReason("cannot be learned"));
  EXPECT_EQ(Measured().verdict(), v1::BOOT_DIVERGED);
}

TEST_F(BootVerdictsTest, BootWhoseRecordIsMoreThanIsKeptDiverges) {
  Create();
  v1::BootEvidence evidence = Evidence();
  for (int i = 0; i <= kMaxBootEvents; ++i) Add(evidence, 9, DigestOf("file"));
  Boot(evidence);
  EXPECT_TRUE(AwaitReason("more than is kept"));
  EXPECT_EQ(Measured().verdict(), v1::BOOT_DIVERGED);
}

TEST_F(BootVerdictsTest, ChangedConfigurationDivergesAlthoughTheAgentAgrees) {
  Create();
  Learn();
  Boot(Evidence("kernel", "another cfg", 2));
  ASSERT_TRUE(Await(v1::BOOT_DIVERGED));
  const v1::BootMeasured measured = Measured();
  EXPECT_EQ(measured.early(), v1::BOOT_VERIFIED);
  EXPECT_EQ(measured.late(), v1::BOOT_DIVERGED);
  const v1::BootDifference& difference = measured.first_difference();
  EXPECT_EQ(difference.pcr(), 9);
  EXPECT_EQ(difference.event(), 1);
  EXPECT_EQ(difference.expected_from(), "baseline");
  EXPECT_EQ(difference.expected_what(), "file /EFI/debian/grub.cfg");
  EXPECT_THAT(measured.reasons(), Contains(HasSubstr("vallum instance baseline accept web1")));
  ASSERT_TRUE(AwaitEvent("instance.boot-diverged"));
  EXPECT_THAT(LastMessage("instance.boot-diverged"),
              AllOf(HasSubstr("PCR 9, extend 1: expected file /EFI/debian/grub.cfg"),
                    HasSubstr("by baseline")));
}

TEST_F(BootVerdictsTest, WithABaselineVerifiedWaitsForTheEvidence) {
  Create();
  Learn();
  Report(v1::BOOT_PENDING, 2);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  Report(v1::BOOT_VERIFIED, 2);
  EXPECT_TRUE(rig_.Await([&](const View&) {
    return !Measured().reasons().empty() &&
           Measured().reasons(0).find("has not sent the record") != std::string::npos;
  }));
  EXPECT_EQ(Measured().verdict(), v1::BOOT_PENDING);
  Send(Evidence("kernel", "cfg", 2));
  EXPECT_TRUE(Await(v1::BOOT_VERIFIED));
}

TEST_F(BootVerdictsTest, EvidenceThatDoesNotReachTheOperatingSystemIsNeitherLearnedNorCompared) {
  Create();
  v1::BootEvidence half = Evidence();
  half.mutable_events()->RemoveLast();
  Boot(half);
  // Verified only once it was learned: ended before that, the next boot would be the first.
  EXPECT_TRUE(rig_.Await([&](const View&) { return !Measured().reasons().empty(); }));
  EXPECT_EQ(Measured().verdict(), v1::BOOT_PENDING);
  EXPECT_EQ(verdicts().Baseline(*Show()).error().code(), ErrorCode::kNotFound);
  Send(Evidence());
  EXPECT_TRUE(AwaitEvent("instance.baseline-learned"));
  EXPECT_TRUE(Await(v1::BOOT_VERIFIED));
  Report(v1::BOOT_PENDING, 2);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  half.set_tpm_resets(2);
  Send(half);
  Report(v1::BOOT_VERIFIED, 2);
  EXPECT_TRUE(rig_.Await([&](const View&) { return !Measured().reasons().empty(); }));
  EXPECT_EQ(Measured().verdict(), v1::BOOT_PENDING);
}

TEST_F(BootVerdictsTest, RecordWithAGapIsADivergenceFromABaseline) {
  Create();
  Learn();
  v1::BootEvidence evidence = Evidence("kernel", "cfg", 2);
  evidence.add_gaps("records were dropped");
  Boot(evidence);
  EXPECT_TRUE(Await(v1::BOOT_DIVERGED));
}

TEST_F(BootVerdictsTest, EvidenceOfTheBootBeforeDoesNotCount) {
  Create();
  Learn();
  // A new run counts its boots anew.
  Report(v1::BOOT_PENDING, 1);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  Report(v1::BOOT_VERIFIED, 1);
  EXPECT_TRUE(rig_.Await([&](const View&) { return !Measured().reasons().empty(); }));
  EXPECT_EQ(Measured().verdict(), v1::BOOT_PENDING);
}

// A run of the guest that began at this second, as its host says in word and evidence.
google::protobuf::Timestamp RunAt(int seconds) {
  return ToTimestamp(WallTime(std::chrono::seconds(seconds)));
}

TEST_F(BootVerdictsTest, EvidenceOfAnotherRunOrBootDoesNotCountWhateverItsNumberOfResets) {
  Create();
  Learn();
  const auto word_of = [&](int run, int sequence) {
    v1::InstanceReport report = Word(v1::BOOT_VERIFIED, 1);
    v1::BootMeasured& measured = *report.mutable_status()->mutable_boot()->mutable_measured();
    *measured.mutable_run_started_at() = RunAt(run);
    measured.set_boot_sequence(sequence);
    return report;
  };
  const auto evidence_of = [&](int run, int sequence) {
    v1::BootEvidence evidence = Evidence();
    *evidence.mutable_run_started_at() = RunAt(run);
    evidence.set_boot_sequence(sequence);
    return evidence;
  };
  Send(evidence_of(100, 7));
  agent_->Report(word_of(100, 7));
  EXPECT_TRUE(rig_.Await([&](const View&) {
    return Measured().boot_sequence() == 7 && Measured().verdict() == v1::BOOT_VERIFIED;
  }));
  // VERIFIED at once, such as in a Hello: that of the run before says nothing of it.
  agent_->Report(word_of(200, 7));
  EXPECT_TRUE(AwaitReason("has not sent the record"));
  Send(evidence_of(200, 7));
  EXPECT_TRUE(Await(v1::BOOT_VERIFIED));
  agent_->Report(word_of(200, 8));
  EXPECT_TRUE(AwaitReason("has not sent the record"));
  EXPECT_EQ(Measured().verdict(), v1::BOOT_PENDING);
}

TEST_F(BootVerdictsTest, UnfinishedBootOfAnEarlierRunIsNotHeldAgainstALaterOne) {
  Create();
  Learn();
  Report(v1::BOOT_PENDING, 1);
  v1::BootEvidence evidence = BootTo("evil", 1);
  *evidence.mutable_run_started_at() = RunAt(100);
  v1::InstanceReport report = Word(v1::BOOT_PENDING, 1);
  v1::BootMeasured& measured = *report.mutable_status()->mutable_boot()->mutable_measured();
  *measured.mutable_run_started_at() = RunAt(100);
  agent_->Report(report);
  Send(evidence);
  EXPECT_TRUE(Await(v1::BOOT_DIVERGED));
  *measured.mutable_run_started_at() = RunAt(200);
  agent_->Report(report);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
}

TEST_F(BootVerdictsTest, EvidenceOfAnotherHostIsNotTaken) {
  Create();
  Learn();
  const auto thief = rig_.ConnectedAgent("node2");
  Report(v1::BOOT_PENDING, 2);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  v1::BootEvidenceReport report;
  report.set_uid(desired_.uid());
  *report.mutable_evidence() = Evidence("kernel", "cfg", 2);
  thief->SendEvidence(report);
  thief->Report(FakeAgent::MakeReport(desired_, v1::INSTANCE_STOPPED));  // taken no more than that
  Report(v1::BOOT_VERIFIED, 2);
  EXPECT_TRUE(rig_.Await([&](const View&) { return !Measured().reasons().empty(); }));
  EXPECT_EQ(Measured().verdict(), v1::BOOT_PENDING);
}

TEST_F(BootVerdictsTest, AcceptMakesTheLastBootTheBaseline) {
  Create();
  Learn();
  Boot(Evidence("kernel", "another cfg", 2));
  ASSERT_TRUE(Await(v1::BOOT_DIVERGED));
  const auto diff = verdicts().Diff(*Show());
  ASSERT_EQ(diff->changes_size(), 1);
  EXPECT_FALSE(diff->changes(0).accepted());
  const auto accepted = Accept(diff->events_sha256());
  ASSERT_TRUE(accepted.has_value()) << accepted.error().Describe();
  EXPECT_EQ(accepted->spec().origin(), "accepted by alice");
  EXPECT_TRUE(Await(v1::BOOT_VERIFIED));
  EXPECT_THAT(verdicts().Diff(*Show())->changes(), IsEmpty());
}

TEST_F(BootVerdictsTest, AcceptOfAnotherBootThanTheOneLookedAtIsRefused) {
  Create();
  Learn();
  Boot(Evidence("kernel", "another cfg", 2));
  ASSERT_TRUE(Await(v1::BOOT_DIVERGED));
  const std::string seen = verdicts().Diff(*Show())->events_sha256();
  Boot(Evidence("evil", "another cfg", 3));
  ASSERT_TRUE(Await(v1::BOOT_DIVERGED));
  EXPECT_EQ(Accept(seen).error().code(), ErrorCode::kConflict);
}

TEST_F(BootVerdictsTest, AcceptNeedsABootThatTheAgentCallsVerified) {
  Create();
  Learn();
  Report(v1::BOOT_PENDING, 2);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  EXPECT_EQ(Accept().error().code(), ErrorCode::kConflict);
  Send(Evidence("kernel", "another cfg", 2));
  Report(v1::BOOT_DIVERGED, 2);
  ASSERT_TRUE(Await(v1::BOOT_DIVERGED));
  // The evidence is taken after the word.
  ASSERT_TRUE(rig_.Await([&](const View&) { return verdicts().Diff(*Show()).has_value(); }));
  const auto refused = Accept();
  EXPECT_EQ(refused.error().code(), ErrorCode::kConflict);
  EXPECT_THAT(refused.error().message(), HasSubstr("the host's own judgement"));
}

TEST_F(BootVerdictsTest, PinKeepsTheEventsAndUnpinTakesItBack) {
  Create();
  Learn();
  EXPECT_TRUE(verdicts().Pin(*Show())->spec().pinned());
  EXPECT_TRUE(Accept()->spec().pinned());
  EXPECT_FALSE(verdicts().Unpin(*Show())->spec().pinned());
  EXPECT_EQ(verdicts().Baseline(*Show())->spec().events_size(), 6);
}

TEST_F(BootVerdictsTest, BaselineCanBeSetByHand) {
  Create();
  Learn();
  v1::BaselineSpec wanted = verdicts().Baseline(*Show())->spec();
  wanted.mutable_events(3)->set_digest(DigestOf("golden cfg"));
  ASSERT_TRUE(verdicts().Replace(*Show(), wanted, "alice").has_value());
  rig_.controller().reconciler().Rejudge("web1");
  EXPECT_EQ(Measured().verdict(), v1::BOOT_DIVERGED);  // already
  wanted.mutable_events(0)->set_digest("short");
  EXPECT_EQ(verdicts().Replace(*Show(), wanted, "alice").error().code(), ErrorCode::kInvalidInput);
  wanted.clear_events();
  EXPECT_EQ(verdicts().Replace(*Show(), wanted, "alice").error().code(), ErrorCode::kInvalidInput);
}

TEST_F(BootVerdictsTest, VerdictAndBaselineSurviveARestartOfTheController) {
  Create();
  Learn();
  Boot(Evidence("kernel", "another cfg", 2));
  ASSERT_TRUE(Await(v1::BOOT_DIVERGED));
  agent_->Disconnect();
  auto again = std::move(agent_);
  rig_.Stop();
  rig_.Start();
  EXPECT_EQ(Measured().verdict(), v1::BOOT_DIVERGED);
  agent_ = rig_.NewAgent("node1");
  agent_->TakeIdentityOf(*again);
  v1::Hello hello = FakeAgent::MakeHello();
  *hello.add_instances() = Word(v1::BOOT_VERIFIED, 2);
  ASSERT_TRUE(agent_->Connect(hello).has_value());
  Send(Evidence("kernel", "another cfg", 2));
  ASSERT_TRUE(Accept().has_value());
  EXPECT_TRUE(Await(v1::BOOT_VERIFIED));
}

TEST_F(BootVerdictsTest, DamagedBaselineIsNotTakenForNone) {
  Create();
  Learn();
  agent_->Disconnect();
  auto again = std::move(agent_);
  rig_.Stop();
  std::filesystem::resize_file(rig_.dir() / "boots" / (desired_.uid() + ".baseline"), 0);
  rig_.Start();
  agent_ = rig_.NewAgent("node1");
  agent_->TakeIdentityOf(*again);
  v1::Hello hello = FakeAgent::MakeHello();
  *hello.add_instances() = Word(v1::BOOT_VERIFIED, 1);
  ASSERT_TRUE(agent_->Connect(hello).has_value());
  EXPECT_TRUE(Await(v1::BOOT_DIVERGED));
  EXPECT_THAT(Measured().reasons(), Contains(HasSubstr("is no baseline of its instance")));
}

TEST_F(BootVerdictsTest, DeletionLeavesNothing) {
  Create();
  Learn();
  EXPECT_EQ(Files(), 2U);
  ASSERT_TRUE(rig_.controller().instances().Delete("web1", kTester).has_value());
  v1::InstanceReport gone;
  gone.set_uid(desired_.uid());
  gone.set_gone(true);
  agent_->Report(gone);
  EXPECT_TRUE(rig_.Await(
      [&](const View& view) { return view.Get<v1::Instance>("web1") == nullptr && Files() == 0; }));
}

TEST_F(BootVerdictsTest, WhatADeletionLeftBehindIsSweptAtTheNextStart) {
  Create();
  Learn();
  agent_->Disconnect();
  rig_.controller().reconciler().Stop();
  ASSERT_TRUE(rig_.controller().resources().Delete(Kind::kInstance, "web1", 0).has_value());
  EXPECT_EQ(Files(), 2U);
  rig_.Stop();
  rig_.Start();
  EXPECT_EQ(Files(), 0U);
}

TEST_F(BootVerdictsTest, WholeBootIsAHandfulOfCommits) {
  Create();
  Learn();
  const store::Revision before = rig_.controller().view().revision();
  Report(v1::BOOT_PENDING, 2);
  const v1::BootEvidence whole = Evidence("kernel", "cfg", 2);
  for (int count = 1; count < whole.events_size(); ++count) {
    v1::BootEvidence part = whole;
    part.mutable_events()->DeleteSubrange(count, whole.events_size() - count);
    part.set_left_firmware(false);
    Send(part);
  }
  Send(whole);
  Report(v1::BOOT_VERIFIED, 2);
  ASSERT_TRUE(AwaitEvent("instance.boot-verified", 2));
  // Far from one for each extend; how reports and evidence meet decides on one or two.
  EXPECT_LE(rig_.controller().view().revision() - before, 8);
}

// ---- boots that do not reach an operating system ----

TEST_F(BootVerdictsTest, ForeignLoaderThatNeverLeavesTheFirmwareDivergesAndThePolicyActs) {
  Create();
  Learn();
  SetPool(v1::ON_DIVERGED_STOP);
  Report(v1::BOOT_PENDING, 2);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  Send(BootTo("evil", 2));
  const std::optional<v1::DesiredInstance> desired = agent_->NextInstance();
  ASSERT_TRUE(desired.has_value());
  EXPECT_EQ(desired->spec().power(), v1::POWER_STOPPED);
  EXPECT_EQ(Measured().verdict(), v1::BOOT_DIVERGED);
  EXPECT_EQ(Measured().first_difference().pcr(), 4);
}

TEST_F(BootVerdictsTest, BootUnderWayIsNotComparedBeforeItsDiskWasLookedAt) {
  Create();
  Learn();
  Report(v1::BOOT_PENDING, 2);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  v1::BootEvidence evidence = BootTo("evil", 2);
  evidence.clear_prediction_problem();
  Send(evidence);
  EXPECT_TRUE(rig_.Await([&](const View&) {
    return verdicts().Record(*Show())->spec().evidence().events_size() == 2;
  }));
  EXPECT_EQ(verdicts().Judge(*Show()).measured.verdict(), v1::BOOT_PENDING);
}

TEST_F(BootVerdictsTest, RefusalHidesNoDivergence) {
  Create();
  Learn();
  Report(v1::BOOT_PENDING, 2);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  Send(BootTo("evil", 2));
  v1::InstanceReport refused = Word(v1::BOOT_REFUSED, 2);
  refused.mutable_status()->mutable_boot()->mutable_measured()->add_reasons("Access Denied");
  agent_->Report(refused);
  EXPECT_TRUE(rig_.Await([&](const View&) {
    const v1::BootMeasured measured = Measured();
    return measured.verdict() == v1::BOOT_DIVERGED && !measured.reasons().empty() &&
           *measured.reasons().rbegin() == "the firmware also refused: Access Denied";
  }));
}

TEST_F(BootVerdictsTest, RefusedOrUnfinishedBootOfItsOwnLoaderIsNoDivergence) {
  Create();
  Learn();
  Report(v1::BOOT_PENDING, 2);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  Send(BootTo("grub", 2));
  Report(v1::BOOT_REFUSED, 2);
  EXPECT_TRUE(Await(v1::BOOT_REFUSED));
  EXPECT_TRUE(rig_.Await([&](const View&) {
    return verdicts().Record(*Show())->spec().evidence().events_size() == 2;
  }));
  EXPECT_FALSE(Measured().has_first_difference());
}

// What a firmware that refused the disk's loader goes on with.
v1::BootEvidence FallBackTo(const std::string& program, int tpm_resets) {
  v1::BootEvidence evidence = BootTo(program, tpm_resets);
  v1::BootBinary& shell = *evidence.add_boot_binaries();
  shell.set_path("Shell");
  shell.set_authenticode_sha256(ToHex(AsBytes(DigestOf("shell"))));
  shell.set_of_firmware(true);
  return evidence;
}

TEST_F(BootVerdictsTest, RefusedBootStaysRefusedWhenTheFirmwareFallsBackToItsOwnShell) {
  Create();
  Learn();
  SetPool(v1::ON_DIVERGED_STOP);
  Report(v1::BOOT_PENDING, 2);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  Send(FallBackTo("shell", 2));
  Report(v1::BOOT_REFUSED, 2);
  EXPECT_TRUE(Await(v1::BOOT_REFUSED));
  EXPECT_TRUE(rig_.Await([&](const View&) {
    return verdicts().Record(*Show())->spec().evidence().events_size() == 2;
  }));
  EXPECT_EQ(verdicts().Judge(*Show()).measured.verdict(), v1::BOOT_REFUSED);
  EXPECT_EQ(Show()->spec().power(), v1::POWER_RUNNING);
}

TEST_F(BootVerdictsTest, FallBackToAProgramThatIsNotTheFirmwaresDiverges) {
  Create();
  Learn();
  Report(v1::BOOT_PENDING, 2);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  Send(FallBackTo("evil", 2));
  Report(v1::BOOT_REFUSED, 2);
  EXPECT_TRUE(Await(v1::BOOT_DIVERGED));
}

TEST_F(BootVerdictsTest, ShellOfTheFirmwareDivergesWithoutSecureBoot) {
  Create();
  Learn();
  v1::InstanceReport report = Word(v1::BOOT_PENDING, 2);
  report.mutable_status()->mutable_boot()->mutable_measured()->set_secure_boot(v1::SECURE_BOOT_OFF);
  agent_->Report(report);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  Send(FallBackTo("shell", 2));
  EXPECT_TRUE(Await(v1::BOOT_DIVERGED));
  EXPECT_EQ(Measured().first_difference().measured_what(), "Shell of the instance's firmware");
}

TEST_F(BootVerdictsTest, RecordIsComparedAgainOnlyWhenSomethingThatDecidesHasChanged) {
  Create();
  Learn();
  Boot(Evidence("kernel", "another cfg", 2));
  ASSERT_TRUE(Await(v1::BOOT_DIVERGED));
  const v1::Instance instance = *Show();
  const v1::BootMeasured measured = verdicts().Judge(instance).measured;
  const uint64_t before = verdicts().comparisons();
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(verdicts().Judge(instance).measured.SerializeAsString(),
              measured.SerializeAsString());
  }
  EXPECT_EQ(verdicts().comparisons(), before);
  ASSERT_TRUE(Accept().has_value());
  EXPECT_EQ(verdicts().Judge(instance).measured.verdict(), v1::BOOT_VERIFIED);
  EXPECT_GT(verdicts().comparisons(), before);
}

TEST_F(BootVerdictsTest, PlatformOfAVerifiedBootIsLearnedAnewWithAnEventAndComparedFromThenOn) {
  Create();
  Learn();
  const auto boot_on = [&](const std::string& firmware, const std::string& measured, int resets) {
    Report(v1::BOOT_PENDING, resets);
    EXPECT_TRUE(Await(v1::BOOT_PENDING));
    v1::BootEvidence evidence = Evidence("kernel", "cfg", resets);
    evidence.mutable_events(0)->set_digest(DigestOf(measured));
    Send(evidence);
    v1::InstanceReport report = Word(v1::BOOT_VERIFIED, resets);
    report.mutable_status()->mutable_boot()->mutable_effective()->set_firmware_sha256(firmware);
    agent_->Report(report);
  };
  boot_on("f2", "another firmware", 2);
  EXPECT_TRUE(AwaitEvent("instance.baseline-platform-learned"));
  EXPECT_TRUE(Await(v1::BOOT_VERIFIED));
  EXPECT_THAT(LastMessage("instance.baseline-platform-learned"), HasSubstr("firmware sha256 f2"));
  EXPECT_EQ(verdicts().Baseline(*Show())->spec().events_size(), 6);
  boot_on("f2", "a changed firmware", 3);
  EXPECT_TRUE(Await(v1::BOOT_DIVERGED));
  EXPECT_EQ(Measured().first_difference().pcr(), 0);
}

TEST_F(BootVerdictsTest, PinnedBaselineLearnsNoPlatformAndThatIsSaidPerPcr) {
  Create();
  Learn();
  ASSERT_TRUE(verdicts().Pin(*Show()).has_value());
  Report(v1::BOOT_PENDING, 2);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  Send(Evidence("kernel", "cfg", 2));
  v1::InstanceReport report = Word(v1::BOOT_VERIFIED, 2);
  report.mutable_status()->mutable_boot()->mutable_effective()->set_firmware_sha256("f2");
  agent_->Report(report);
  EXPECT_TRUE(AwaitReason("PCR 0 was compared with nothing"));
  EXPECT_EQ(Measured().verdict(), v1::BOOT_VERIFIED);
  EXPECT_THAT(verdicts().Baseline(*Show())->spec().platform(), HasSubstr("firmware sha256 f1"));
}

// ---- limits ----

TEST(BoundedEvidence, KeepsOnlyWhatIsCompared) {
  v1::BootEvidence evidence;
  Add(evidence, 4, DigestOf("a"), "a\x1b[2J");
  Add(evidence, 10, DigestOf("ima"));
  Add(evidence, 23, DigestOf("app"));
  Add(evidence, -1, DigestOf("x"));
  Add(evidence, 4, "short");
  const v1::BootEvidence bounded = Bounded(evidence);
  ASSERT_EQ(bounded.events_size(), 1);
  EXPECT_THAT(bounded.events(0).what(), Not(HasSubstr("\x1b")));
}

TEST(BoundedEvidence, TooMuchLosesItsContentAndSaysSo) {
  v1::BootEvidence evidence = Evidence();
  for (int i = 0; i <= kMaxBootEvents; ++i) Add(evidence, 8, DigestOf("x"));
  const v1::BootEvidence bounded = Bounded(evidence);
  EXPECT_THAT(bounded.events(), IsEmpty());
  EXPECT_THAT(bounded.gaps(), Contains(HasSubstr("more than is kept")));
}

}  // namespace
}  // namespace vallum::controller

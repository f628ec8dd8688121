// SPDX-License-Identifier: Apache-2.0
// A whole controller with agents that speak the real protocol.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "controller/test_rig.h"

namespace vallum::controller {
namespace {

using ::testing::HasSubstr;

class ControllerTest : public testing::Test {
 protected:
  std::shared_ptr<const v1::Instance> Show(const std::string& name) {
    return rig_.controller().view().Get<v1::Instance>(name);
  }
  InstanceService& instances() { return rig_.controller().instances(); }
  Rig rig_;
};

TEST_F(ControllerTest, FirstStartMakesDefaultsAndAnAdminTokenOnlyForItsOwner) {
  const View& view = rig_.controller().view();
  EXPECT_NE(view.Get<v1::Pool>("default"), nullptr);
  for (const char* name : {"tiny", "small", "medium"}) {
    EXPECT_NE(view.Get<v1::Flavor>(name), nullptr) << name;
  }
  const auto path = rig_.dir() / "admin.token";
  struct stat info{};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  std::string secret;
  std::ifstream(path) >> secret;
  EXPECT_EQ(rig_.controller().tokens().Authenticate(secret)->role, v1::ROLE_ADMIN);
}

TEST_F(ControllerTest, RestartKeepsTokensAndDoesNotBringBackWhatWasDeleted) {
  std::string secret;
  std::ifstream(rig_.dir() / "admin.token") >> secret;
  ASSERT_TRUE(rig_.controller().resources().Delete(Kind::kFlavor, "tiny", 0).has_value());
  rig_.Stop();
  rig_.Start();
  EXPECT_TRUE(rig_.controller().tokens().Authenticate(secret).has_value());
  EXPECT_EQ(rig_.controller().view().Get<v1::Flavor>("tiny"), nullptr);
}

// ---- joining ----

TEST_F(ControllerTest, HostIsUpAfterJoinAndHello) {
  const auto agent = rig_.ConnectedAgent("node1");
  EXPECT_TRUE(rig_.Await([](const View& view) {
    const auto host = view.Get<v1::Host>("node1");
    return host != nullptr && host->status().state() == v1::HOST_UP &&
           host->status().capabilities().accelerator() == "tcg";
  }));
}

TEST_F(ControllerTest, JoinTokenWorksOnce) {
  const std::string secret = rig_.JoinSecret("join");
  EXPECT_TRUE(rig_.NewAgent("node1")->Enroll(secret).ok());
  const grpc::Status second = rig_.NewAgent("node2")->Enroll(secret);
  EXPECT_EQ(second.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(rig_.controller().view().Get<v1::Host>("node2"), nullptr);
}

TEST_F(ControllerTest, OfTwoRacingJoinsWithOneTokenOneWins) {
  for (int round = 0; round < 5; ++round) {
    const std::string secret = rig_.JoinSecret("join" + std::to_string(round));
    const auto one = rig_.NewAgent("one" + std::to_string(round));
    const auto two = rig_.NewAgent("two" + std::to_string(round));
    grpc::Status first;
    std::thread other([&] { first = one->Enroll(secret); });
    const grpc::Status second = two->Enroll(secret);
    other.join();
    EXPECT_NE(first.ok(), second.ok());
  }
}

TEST_F(ControllerTest, LostReplyToAJoinMayBeAskedForAgainWithTheSameKey) {
  const std::string secret = rig_.JoinSecret("join");
  const auto agent = rig_.NewAgent("node1");
  EXPECT_TRUE(agent->Enroll(secret).ok());
  EXPECT_TRUE(agent->Enroll(secret).ok());
  EXPECT_FALSE(rig_.NewAgent("node1")->Enroll(secret).ok());
}

TEST_F(ControllerTest, UnknownExpiredAndForeignTokensDoNotJoin) {
  EXPECT_EQ(rig_.NewAgent("node1")->Enroll("nonsense").error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(rig_.NewAgent("node1")->Enroll("").error_code(), grpc::StatusCode::UNAUTHENTICATED);
  std::string admin;
  std::ifstream(rig_.dir() / "admin.token") >> admin;
  EXPECT_EQ(rig_.NewAgent("node1")->Enroll(admin).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  v1::TokenSpec spec;
  spec.set_role(v1::ROLE_JOIN);
  *spec.mutable_expire_time() = ToTimestamp(rig_.clock().Now() + std::chrono::seconds(5));
  const auto token = rig_.controller().tokens().Create("brief", spec);
  rig_.clock().Advance(std::chrono::seconds(6));
  EXPECT_EQ(rig_.NewAgent("node1")->Enroll(token->status().secret()).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(ControllerTest, NameThatIsTakenByAnotherKeyIsRefusedAndKeepsTheToken) {
  const auto first = rig_.ConnectedAgent("node1");
  const std::string secret = rig_.JoinSecret("again");
  const grpc::Status refused = rig_.NewAgent("node1")->Enroll(secret);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_THAT(refused.error_message(), HasSubstr("exists already, with another key"));
  EXPECT_TRUE(rig_.NewAgent("node2")->Enroll(secret).ok());
}

TEST_F(ControllerTest, SessionWithoutCertificateIsRefused) {
  const auto agent = rig_.NewAgent("node1");
  const auto connected = agent->Connect(FakeAgent::MakeHello());
  ASSERT_FALSE(connected.has_value());
  EXPECT_THAT(connected.error().message(), HasSubstr("client certificate"));
}

TEST_F(ControllerTest, CertificateOfADeletedHostOpensNothing) {
  const auto agent = rig_.ConnectedAgent("node1");
  ASSERT_TRUE(rig_.controller().resources().Delete(Kind::kHost, "node1", 0).has_value());
  EXPECT_EQ(agent->NextInstance(), std::nullopt);  // the session ends
  EXPECT_FALSE(agent->Connect(FakeAgent::MakeHello()).has_value());
  // Nor does it once another machine has taken the name.
  EXPECT_TRUE(rig_.NewAgent("node1")->Enroll(rig_.JoinSecret("new")).ok());
  EXPECT_FALSE(agent->Connect(FakeAgent::MakeHello()).has_value());
}

TEST_F(ControllerTest, CertificateIsRenewedForTheSameHostAndKeyOnly) {
  const auto agent = rig_.ConnectedAgent("node1");
  EXPECT_TRUE(agent->Enroll("").ok());
  EXPECT_EQ(agent->EnrollAs("node2", "").error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

// ---- instances ----

TEST_F(ControllerTest, InstanceGoesFromRequestToRunning) {
  rig_.MakeReadyImage("debian12", "required");
  const auto agent = rig_.ConnectedAgent("node1");
  const v1::DesiredInstance desired = rig_.RunningInstance(*agent, "web1");
  EXPECT_EQ(desired.boot().mode(), v1::BOOT_MODE_SECURE);
  EXPECT_EQ(desired.image_sha256(), "abcd");
  EXPECT_EQ(desired.image_format(), "gpt");
  EXPECT_EQ(desired.spec().memory_bytes(), int64_t{1} << 30);
  EXPECT_EQ(desired.spec().tpm_model(), "tpm-crb");
  EXPECT_EQ(Show("web1")->status().host(), "node1");
  EXPECT_EQ(Show("web1")->status().boot().requested().origin(),
            "image debian12: os_secure_boot=required");
  EXPECT_EQ(rig_.controller().view().Get<v1::Host>("node1")->status().instances(), 1);
  EXPECT_GT(rig_.controller().events().Verify().value(), 0);
}

TEST_F(ControllerTest, EachRequestBringsAnOperationThatEndsWithTheAgentsReport) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  rig_.RunningInstance(*agent, "web1");
  struct Step {
    Result<InstanceService::Accepted> (*ask)(InstanceService&);
    v1::InstancePhase phase;
  };
  const Step steps[] = {
      {[](InstanceService& s) { return s.Pause("web1", kTester); }, v1::INSTANCE_PAUSED},
      {[](InstanceService& s) { return s.Resume("web1", kTester); }, v1::INSTANCE_RUNNING},
      {[](InstanceService& s) { return s.Reboot("web1", kTester); }, v1::INSTANCE_RUNNING},
      {[](InstanceService& s) { return s.Stop("web1", StopKind::kForce, kTester); },
       v1::INSTANCE_STOPPED},
      {[](InstanceService& s) { return s.Start("web1", kTester); }, v1::INSTANCE_RUNNING},
  };
  for (const Step& step : steps) {
    const auto accepted = step.ask(instances());
    ASSERT_TRUE(accepted.has_value()) << accepted.error().Describe();
    SCOPED_TRACE(accepted->operation.kind());
    const auto desired = agent->NextInstance();
    ASSERT_TRUE(desired.has_value());
    EXPECT_EQ(desired->generation(), accepted->operation.target_generation());
    EXPECT_EQ(rig_.Operation(accepted->operation.metadata().name()).state(), v1::OPERATION_RUNNING);
    agent->Report(FakeAgent::MakeReport(*desired, step.phase));
    EXPECT_TRUE(rig_.AwaitOperation(accepted->operation.metadata().name(), v1::OPERATION_DONE));
  }
}

TEST_F(ControllerTest, FailureToStartFailsTheOperationWithTheReason) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  const auto accepted = rig_.Create("web1");
  v1::InstanceReport report = FakeAgent::MakeReport(*agent->NextInstance(), v1::INSTANCE_FAILED);
  report.mutable_status()->set_reason("QEMU is not installed");
  report.mutable_status()->set_fix("install qemu-system-x86");
  agent->Report(report);
  const std::string& name = accepted.operation.metadata().name();
  ASSERT_TRUE(rig_.AwaitOperation(name, v1::OPERATION_FAILED));
  EXPECT_THAT(rig_.Operation(name).error().detail(), HasSubstr("QEMU is not installed"));
  EXPECT_EQ(rig_.Operation(name).error().fix(), "install qemu-system-x86");
}

TEST_F(ControllerTest, StartOfACrashedInstanceIsANewRequest) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  v1::DesiredInstance desired = rig_.RunningInstance(*agent, "web1");
  agent->Report(FakeAgent::MakeReport(desired, v1::INSTANCE_CRASHED));
  ASSERT_TRUE(rig_.AwaitPhase("web1", v1::INSTANCE_CRASHED));
  const auto accepted = instances().Start("web1", kTester);
  ASSERT_TRUE(accepted.has_value());
  const auto again = agent->NextInstance();
  EXPECT_GT(again->generation(), desired.generation());
  agent->Report(FakeAgent::MakeReport(*again, v1::INSTANCE_RUNNING));
  EXPECT_TRUE(rig_.AwaitOperation(accepted->operation.metadata().name(), v1::OPERATION_DONE));
}

TEST_F(ControllerTest, LaterRequestEndsTheEarlierOne) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  rig_.RunningInstance(*agent, "web1");
  const auto paused = instances().Pause("web1", kTester);
  const auto resumed = instances().Resume("web1", kTester);
  std::optional<v1::DesiredInstance> desired = agent->NextInstance();
  while (desired && desired->generation() < resumed->operation.target_generation()) {
    desired = agent->NextInstance();
  }
  agent->Report(FakeAgent::MakeReport(*desired, v1::INSTANCE_RUNNING));
  EXPECT_TRUE(rig_.AwaitOperation(resumed->operation.metadata().name(), v1::OPERATION_DONE));
  EXPECT_TRUE(rig_.AwaitOperation(paused->operation.metadata().name(), v1::OPERATION_FAILED));
}

TEST_F(ControllerTest, InstanceWaitsForAHostAndIsPlacedWhenOneComes) {
  rig_.MakeReadyImage("debian12");
  rig_.Create("web1");
  EXPECT_TRUE(rig_.Await([](const View& view) {
    return view.Get<v1::Instance>("web1")->status().reason() == "no host fits: no host has joined";
  }));
  const auto agent = rig_.NewAgent("node1");
  ASSERT_TRUE(agent->Enroll(rig_.JoinSecret("join")).ok());
  ASSERT_TRUE(agent->Connect(FakeAgent::MakeHello()).has_value());
  EXPECT_TRUE(rig_.AwaitPhase("web1", v1::INSTANCE_STARTING));
}

TEST_F(ControllerTest, OperationFailsWhenNoHostFitsInTime) {
  rig_.MakeReadyImage("debian12", "required");
  const auto agent = rig_.NewAgent("node1");
  ASSERT_TRUE(agent->Enroll(rig_.JoinSecret("join")).ok());
  v1::Hello hello = FakeAgent::MakeHello();
  hello.mutable_capabilities()->clear_traits();
  hello.mutable_capabilities()->add_traits("VALLUM_FIRMWARE_UEFI");
  v1::Probe& probe = *hello.mutable_capabilities()->add_probes();
  probe.set_name("smm:tcg");
  probe.set_detail("the guest hung");
  ASSERT_TRUE(agent->Connect(hello).has_value());
  const auto accepted = rig_.Create("web1");
  rig_.clock().Advance(std::chrono::seconds(11));
  rig_.controller().reconciler().Tick();
  const std::string& name = accepted.operation.metadata().name();
  ASSERT_TRUE(rig_.AwaitOperation(name, v1::OPERATION_FAILED));
  EXPECT_THAT(rig_.Operation(name).error().detail(),
              HasSubstr("node1: trait VALLUM_SMM: smm:tcg: the guest hung"));
  const auto explained = instances().Explain(Show("web1")->spec(), kTester);
  ASSERT_TRUE(explained.has_value());
  EXPECT_EQ(explained->chosen(), "");
  EXPECT_EQ(explained->hosts(0).requirement(), "trait VALLUM_SMM");
}

TEST_F(ControllerTest, RefusedRequestsNameWhatIsWrong) {
  rig_.MakeReadyImage("debian12", "required");
  v1::Instance instance;
  instance.mutable_metadata()->set_name("web1");
  EXPECT_EQ(instances().Create(instance, kTester, kStartsAll).error().code(),
            ErrorCode::kInvalidInput);
  instance.mutable_spec()->set_image("debian12");
  instance.mutable_spec()->set_flavor("huge");
  EXPECT_EQ(instances().Create(instance, kTester, kStartsAll).error().code(), ErrorCode::kNotFound);
  instance.mutable_spec()->set_flavor("small");
  (*instance.mutable_spec()->mutable_properties())["boottype"] = "BIOS";
  const auto refused = instances().Create(instance, kTester, kStartsAll);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(),
              HasSubstr("os_secure_boot=required (image debian12) conflicts with boottype=BIOS"));
  EXPECT_EQ(Show("web1"), nullptr);
  instance.mutable_spec()->clear_properties();
  EXPECT_TRUE(instances().Create(instance, kTester, kStartsAll).has_value());
  EXPECT_EQ(instances().Create(instance, kTester, kStartsAll).error().code(), ErrorCode::kConflict);
}

TEST_F(ControllerTest, ImageThatIsNotReadyStartsNothing) {
  v1::Image image;
  image.mutable_metadata()->set_name("debian12");
  const auto stored = rig_.controller().resources().Create(image);
  ASSERT_TRUE(rig_.controller().view().WaitFor(stored->metadata().revision()).has_value());
  v1::Instance instance;
  instance.mutable_metadata()->set_name("web1");
  instance.mutable_spec()->set_image("debian12");
  instance.mutable_spec()->set_flavor("small");
  EXPECT_EQ(instances().Create(instance, kTester, kStartsAll).error().code(), ErrorCode::kConflict);
}

TEST_F(ControllerTest, OnlyPowerMayBeUpdated) {
  rig_.MakeReadyImage("debian12");
  v1::Instance instance = rig_.Create("web1").instance;
  instance.mutable_spec()->set_power(v1::POWER_STOPPED);
  const auto stored = instances().Update(instance, 0, kStartsAll, Unbootable::kRefuse);
  ASSERT_TRUE(stored.has_value()) << stored.error().Describe();
  EXPECT_EQ(stored->metadata().generation(), 2);
  instance.mutable_spec()->set_memory_bytes(1);
  const auto refused = instances().Update(instance, 0, kStartsAll, Unbootable::kRefuse);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(), HasSubstr("memory_bytes"));
  EXPECT_EQ(instances().Update(*stored, 1, kStartsAll, Unbootable::kRefuse).error().code(),
            ErrorCode::kConflict);
}

TEST_F(ControllerTest, DeletionIsOverOnlyWhenTheAgentSaysSo) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  const v1::DesiredInstance desired = rig_.RunningInstance(*agent, "web1");
  const auto accepted = instances().Delete("web1", kTester);
  ASSERT_TRUE(accepted.has_value());
  const auto remove = agent->NextInstance();
  ASSERT_TRUE(remove.has_value());
  EXPECT_TRUE(remove->remove());
  agent->Report(FakeAgent::MakeReport(*remove, v1::INSTANCE_STOPPED));
  EXPECT_EQ(instances().Start("web1", kTester).error().code(), ErrorCode::kConflict);
  EXPECT_EQ(Show("web1")->status().phase(), v1::INSTANCE_DELETING);
  v1::InstanceReport gone;
  gone.set_uid(desired.uid());
  gone.set_gone(true);
  agent->Report(gone);
  ASSERT_TRUE(rig_.AwaitOperation(accepted->operation.metadata().name(), v1::OPERATION_DONE));
  EXPECT_EQ(Show("web1"), nullptr);
  EXPECT_EQ(rig_.controller().view().Get<v1::Host>("node1")->status().instances(), 0);
}

TEST_F(ControllerTest, InstanceThatIsOnNoHostIsDeletedAtOnce) {
  rig_.MakeReadyImage("debian12");
  const auto created = rig_.Create("web1");
  const auto accepted = instances().Delete("web1", kTester);
  ASSERT_TRUE(rig_.AwaitOperation(accepted->operation.metadata().name(), v1::OPERATION_DONE));
  EXPECT_TRUE(rig_.AwaitOperation(created.operation.metadata().name(), v1::OPERATION_FAILED));
  EXPECT_EQ(Show("web1"), nullptr);
}

// ---- hosts that go away, controllers that restart ----

TEST_F(ControllerTest, SilentHostIsDownAndItsInstancesUnknownUntilItComesBack) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  const v1::DesiredInstance desired = rig_.RunningInstance(*agent, "web1");
  rig_.clock().Advance(std::chrono::seconds(31));
  rig_.controller().reconciler().Tick();
  ASSERT_TRUE(rig_.AwaitPhase("web1", v1::INSTANCE_UNKNOWN));
  EXPECT_EQ(rig_.controller().view().Get<v1::Host>("node1")->status().state(), v1::HOST_DOWN);
  v1::Hello hello = FakeAgent::MakeHello();
  *hello.add_instances() = FakeAgent::MakeReport(desired, v1::INSTANCE_RUNNING);
  ASSERT_TRUE(agent->Connect(hello).has_value());
  EXPECT_TRUE(rig_.AwaitPhase("web1", v1::INSTANCE_RUNNING));
  EXPECT_EQ(rig_.controller().view().Get<v1::Host>("node1")->status().state(), v1::HOST_UP);
}

TEST_F(ControllerTest, HeartbeatKeepsAHostUp) {
  const auto agent = rig_.ConnectedAgent("node1");
  for (int i = 0; i < 3; ++i) {
    rig_.clock().Advance(std::chrono::seconds(61));
    agent->Beat();
    const WallTime now = rig_.clock().Now() - std::chrono::seconds(5);
    ASSERT_TRUE(rig_.Await([&](const View& view) {
      return FromTimestamp(view.Get<v1::Host>("node1")->status().last_seen()) >= now;
    }));
  }
  EXPECT_TRUE(rig_.Await([](const View& view) {
    return view.Get<v1::Host>("node1")->status().state() == v1::HOST_UP;
  }));
}

TEST_F(ControllerTest, InstanceThatItsHostHasLostIsNotMadeAnewSilently) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  rig_.RunningInstance(*agent, "web1");
  const auto desired = agent->Connect(FakeAgent::MakeHello());  // speaks of no instance
  ASSERT_TRUE(desired.has_value());
  EXPECT_EQ(desired->instances_size(), 0);
  EXPECT_TRUE(rig_.AwaitPhase("web1", v1::INSTANCE_FAILED));
  EXPECT_THAT(Show("web1")->status().reason(), HasSubstr("no longer has this instance"));
  // Asked for again, it is made again.
  ASSERT_TRUE(instances().Start("web1", kTester).has_value());
  EXPECT_EQ(agent->NextInstance()->name(), "web1");
}

TEST_F(ControllerTest, ReportThatIsLongerThanTheStoreTakesIsKeptCutAndSaid) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  const v1::DesiredInstance web1 = rig_.RunningInstance(*agent, "web1");
  v1::InstanceReport report = FakeAgent::MakeReport(web1, v1::INSTANCE_CRASHED);
  v1::BootMeasured& measured = *report.mutable_status()->mutable_boot()->mutable_measured();
  measured.set_verdict(v1::BOOT_DIVERGED);
  for (int i = 0; i < 10'000; ++i) measured.add_reasons(std::string(160, 'x'));
  agent->Report(report);
  EXPECT_TRUE(rig_.AwaitPhase("web1", v1::INSTANCE_CRASHED));
  const v1::BootMeasured kept = Show("web1")->status().boot().measured();
  EXPECT_EQ(kept.verdict(), v1::BOOT_DIVERGED);
  ASSERT_EQ(kept.reasons_size(), 9);
  EXPECT_EQ(kept.reasons(8), "and 9992 more");
  report.mutable_status()->set_phase(v1::INSTANCE_FAILED);
  report.mutable_status()->set_last_exit(std::string(2'000'000, 'x'));
  agent->Report(report);
  EXPECT_TRUE(rig_.AwaitPhase("web1", v1::INSTANCE_FAILED));
  EXPECT_THAT(Show("web1")->status().reason(), HasSubstr("texts are left out"));
  EXPECT_EQ(Show("web1")->status().boot().measured().verdict(), v1::BOOT_DIVERGED);
}

TEST_F(ControllerTest, ReportThatCannotBeAppliedKeepsItsHostFromNothingElse) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  const v1::DesiredInstance web1 = rig_.RunningInstance(*agent, "web1");
  const v1::DesiredInstance web2 = rig_.RunningInstance(*agent, "web2");
  // Nothing can be kept of the boots of web1.
  const auto record = rig_.dir() / "boots" / (web1.uid() + ".boot");
  std::filesystem::remove(record);
  std::filesystem::create_directories(record);
  v1::Hello hello = FakeAgent::MakeHello();
  *hello.add_instances() = FakeAgent::MakeReport(web1, v1::INSTANCE_RUNNING);
  hello.mutable_instances(0)->mutable_status()->mutable_boot()->mutable_measured()->set_verdict(
      v1::BOOT_DIVERGED);
  *hello.add_instances() = FakeAgent::MakeReport(web2, v1::INSTANCE_CRASHED);
  const auto desired = agent->Connect(hello);
  ASSERT_TRUE(desired.has_value());
  EXPECT_EQ(desired->instances_size(), 2);
  EXPECT_TRUE(rig_.AwaitPhase("web2", v1::INSTANCE_CRASHED));
  // It is tried again until it can.
  std::filesystem::remove(record);
  EXPECT_TRUE(rig_.Await([](const View& view) {
    return view.Get<v1::Instance>("web1")->status().boot().measured().verdict() ==
           v1::BOOT_DIVERGED;
  }));
}

TEST_F(ControllerTest, RestartLosesNothingAndGoesOnWhereItWas) {
  rig_.MakeReadyImage("debian12");
  auto agent = rig_.ConnectedAgent("node1");
  const v1::DesiredInstance web1 = rig_.RunningInstance(*agent, "web1");
  const auto web2 = rig_.Create("web2");
  ASSERT_TRUE(agent->NextInstance().has_value());
  const auto deleted = instances().Delete("web1", kTester);
  agent->Disconnect();
  rig_.Stop();
  rig_.Start();
  auto back = rig_.NewAgent("node1");
  back->TakeIdentityOf(*agent);
  v1::Hello hello = FakeAgent::MakeHello();
  *hello.add_instances() = FakeAgent::MakeReport(web1, v1::INSTANCE_RUNNING);
  const auto desired = back->Connect(hello);
  ASSERT_TRUE(desired.has_value());
  ASSERT_EQ(desired->instances_size(), 2);
  EXPECT_TRUE(desired->instances(0).remove());
  back->Report(FakeAgent::MakeReport(desired->instances(1), v1::INSTANCE_RUNNING));
  v1::InstanceReport gone;
  gone.set_uid(web1.uid());
  gone.set_gone(true);
  back->Report(gone);
  EXPECT_TRUE(rig_.AwaitOperation(web2.operation.metadata().name(), v1::OPERATION_DONE));
  EXPECT_TRUE(rig_.AwaitOperation(deleted->operation.metadata().name(), v1::OPERATION_DONE));
}

TEST_F(ControllerTest, MaintenanceKeepsNewInstancesAway) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  const auto host = rig_.controller().resources().Modify<v1::Host>(
      "node1", [](v1::Host& h) -> Result<ResourceStore::Change> {
        h.mutable_spec()->set_maintenance(true);
        return ResourceStore::Change::kWrite;
      });
  ASSERT_TRUE(rig_.Await([](const View& view) {
    return view.Get<v1::Host>("node1")->status().state() == v1::HOST_MAINTENANCE;
  }));
  rig_.Create("web1");
  EXPECT_TRUE(rig_.Await([](const View& view) {
    return view.Get<v1::Instance>("web1")->status().reason().find("maintenance") !=
           std::string::npos;
  }));
}

TEST_F(ControllerTest, ReportAboutAnotherHostsInstanceIsIgnored) {
  rig_.MakeReadyImage("debian12");
  const auto one = rig_.ConnectedAgent("node1");
  const v1::DesiredInstance desired = rig_.RunningInstance(*one, "web1");
  const auto two = rig_.ConnectedAgent("node2", 1);
  const bool on_one = Show("web1")->status().host() == "node1";
  ASSERT_TRUE(on_one);
  v1::InstanceReport gone;
  gone.set_uid(desired.uid());
  gone.set_gone(true);
  two->Report(gone);
  // A later report of the right host shows that the wrong one has been looked at and dropped.
  two->Report(FakeAgent::MakeReport(desired, v1::INSTANCE_CRASHED));
  one->Report(FakeAgent::MakeReport(desired, v1::INSTANCE_PAUSED));
  EXPECT_TRUE(rig_.AwaitPhase("web1", v1::INSTANCE_PAUSED));
}

}  // namespace
}  // namespace vallum::controller

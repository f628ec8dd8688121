// SPDX-License-Identifier: Apache-2.0
// A whole controller with agents that speak the real protocol.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/ids.h"
#include "controller/test_rig.h"
#include "store/memory_store.h"
#include "tls/certificate.h"

namespace vallum::controller {
namespace {

using ::testing::HasSubstr;

class ControllerTest : public testing::Test {
 protected:
  // Placed, sent to the agent, and reported as running.
  v1::DesiredInstance RunningInstance(FakeAgent& agent, const std::string& name) {
    const InstanceService::Accepted accepted = rig_.Create(name);
    const std::optional<v1::DesiredInstance> desired = agent.NextInstance();
    CHECK(desired.has_value());
    EXPECT_EQ(desired->name(), name);
    agent.Report(FakeAgent::MakeReport(*desired, v1::INSTANCE_RUNNING));
    EXPECT_TRUE(rig_.AwaitOperation(accepted.operation.metadata().name(), v1::OPERATION_DONE));
    return *desired;
  }
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
  const v1::DesiredInstance desired = RunningInstance(*agent, "web1");
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
  RunningInstance(*agent, "web1");
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
  v1::DesiredInstance desired = RunningInstance(*agent, "web1");
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
  RunningInstance(*agent, "web1");
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
  const auto explained = instances().Explain(Show("web1")->spec(), "");
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
  const v1::DesiredInstance desired = RunningInstance(*agent, "web1");
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
  const v1::DesiredInstance desired = RunningInstance(*agent, "web1");
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
  RunningInstance(*agent, "web1");
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
  const v1::DesiredInstance web1 = RunningInstance(*agent, "web1");
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
  const v1::DesiredInstance web1 = RunningInstance(*agent, "web1");
  const v1::DesiredInstance web2 = RunningInstance(*agent, "web2");
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
  const v1::DesiredInstance web1 = RunningInstance(*agent, "web1");
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
  const v1::DesiredInstance desired = RunningInstance(*one, "web1");
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

// ---- content and consoles ----

TEST_F(ControllerTest, BlobIsSentFromAnOffset) {
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

class ConsoleTest : public ControllerTest {
 protected:
  void SetUp() override {
    rig_.MakeReadyImage("debian12");
    agent_ = rig_.ConnectedAgent("node1");
    RunningInstance(*agent_, "web1");
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

TEST_F(ControllerTest, ConsoleNeedsAnInstanceAndItsAgent) {
  EXPECT_EQ(rig_.controller().gateway().OpenConsole("nobody").error().code(), ErrorCode::kNotFound);
  rig_.MakeReadyImage("debian12");
  rig_.Create("web1");
  EXPECT_EQ(rig_.controller().gateway().OpenConsole("web1").error().code(), ErrorCode::kConflict);
}

// ---- vTPMs ----

TEST_F(ControllerTest, VtpmIsCertifiedForTheHostThatRunsItAndNoOther) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  const v1::DesiredInstance desired = RunningInstance(*agent, "web1");
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

class QuoteTest : public ControllerTest {
 protected:
  void SetUp() override {
    rig_.MakeReadyImage("debian12");
    agent_ = rig_.ConnectedAgent("node1");
    desired_ = RunningInstance(*agent_, "web1");
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
  RunningInstance(*agent_, "web2");
  RunningInstance(*agent_, "web3");
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

TEST_F(ControllerTest, QuoteNeedsAnInstanceOnAConnectedHost) {
  Gateway& gateway = rig_.controller().gateway();
  EXPECT_EQ(gateway.Quote("nobody", {}, "sha256:0").error().code(), ErrorCode::kNotFound);
  rig_.MakeReadyImage("debian12");
  rig_.Create("web1");
  EXPECT_EQ(gateway.Quote("web1", {}, "sha256:0").error().code(), ErrorCode::kConflict);
}

// ---- two controllers on one store ----

TEST(SchedulerTest, TwoSchedulersThatRaceDoNotOvercommit) {
  const SystemClock clock;
  store::MemoryStore store(clock);
  ResourceStore resources(store, clock);
  v1::Pool pool;
  pool.mutable_metadata()->set_name("default");
  ASSERT_TRUE(resources.Create(pool).has_value());
  constexpr int64_t kFits = 8;
  v1::Host host;
  host.mutable_metadata()->set_name("node1");
  host.mutable_spec()->set_pool("default");
  host.mutable_status()->set_state(v1::HOST_UP);
  *host.mutable_status()->mutable_capabilities() = FakeAgent::MakeHello(kFits).capabilities();
  ASSERT_TRUE(resources.Create(host).has_value());
  constexpr int kAsked = 24;
  for (int i = 0; i < kAsked; ++i) {
    v1::Instance instance;
    instance.mutable_metadata()->set_name("web" + std::to_string(i));
    instance.mutable_spec()->set_pool("default");
    instance.mutable_spec()->set_vcpus(1);
    instance.mutable_spec()->set_memory_bytes(int64_t{1} << 30);
    instance.mutable_status()->mutable_boot()->mutable_requested()->set_type(v1::BOOT_TYPE_UEFI);
    instance.mutable_status()->mutable_boot()->mutable_requested()->set_mode(v1::BOOT_MODE_SECURE);
    ASSERT_TRUE(resources.Create(instance).has_value());
  }
  const auto one = View::Create(store);
  const auto two = View::Create(store);
  Metrics metrics;
  Scheduler first(resources, **one, metrics);
  Scheduler second(resources, **two, metrics);
  std::atomic<int> placed{0};
  const auto work = [&](Scheduler& scheduler, int from) {
    for (int i = from; i < kAsked; i += 2) {
      if (scheduler.Place("web" + std::to_string(i)).has_value()) {
        ++placed;
      }
    }
  };
  std::thread other([&] { work(second, 1); });
  work(first, 0);
  other.join();
  int64_t memory = 0;
  int on_host = 0;
  for (const auto& instance : (*one)->All<v1::Instance>()) {
    const auto stored = resources.Get<v1::Instance>(instance->metadata().name());
    if (!stored->status().host().empty()) {
      memory += stored->spec().memory_bytes();
      ++on_host;
    }
  }
  const auto stored = resources.Get<v1::Host>("node1");
  EXPECT_EQ(on_host, placed.load());
  EXPECT_EQ(stored->status().instances(), on_host);
  EXPECT_EQ(stored->status().allocated_memory_bytes(), memory);
  EXPECT_LE(memory, stored->status().capabilities().memory_bytes());
  const auto reserve = placement::HostMemoryReserve(
      ByteCount::Bytes(static_cast<uint64_t>(stored->status().capabilities().memory_bytes())));
  EXPECT_EQ(on_host, (stored->status().capabilities().memory_bytes() -
                      static_cast<int64_t>(reserve.bytes())) >>
                         30);
}

}  // namespace
}  // namespace vallum::controller

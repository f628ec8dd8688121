// SPDX-License-Identifier: Apache-2.0
// What a pool that asks for trust means for what is made in it and for where that goes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "controller/software_host.h"
#include "controller/test_rig.h"

namespace vallum::controller {
namespace {

using ::testing::HasSubstr;

const std::string kDisk = "a disk";
const std::string kVariables = "boot entries and keys";

// Pool "gold" with host "node1", which it trusts, and a snapshot to make instances of.
class TrustedPoolTest : public testing::Test {
 protected:
  using Write = ResourceStore::Change;

  TrustedPoolTest() {
    v1::Pool pool;
    pool.mutable_metadata()->set_name("gold");
    pool.mutable_spec()->set_trusted_service(true);
    pool.mutable_spec()->set_attestation_policy("gold");
    Add(std::move(pool));
    v1::AttestationPolicy policy;
    policy.mutable_metadata()->set_name("gold");
    policy.mutable_spec()->set_document(host_.PolicyDocument());
    EXPECT_TRUE(controller().policies().Create(policy, "tester").has_value());
    EXPECT_TRUE(controller().policies().Activate("gold", 0).has_value());
    Join();
    MakeSnapshot();
  }
  Controller& controller() { return rig_.controller(); }
  const View& view() { return rig_.controller().view(); }
  v1::InstanceSpec SpecOf(const std::string& instance) {
    return view().Get<v1::Instance>(instance)->spec();
  }
  template <typename T>
  T Add(T resource) {
    const auto stored = controller().resources().Create(std::move(resource));
    EXPECT_TRUE(stored.has_value()) << stored.error().Describe();
    EXPECT_TRUE(view().WaitFor(stored->metadata().revision()).has_value());
    return *stored;
  }
  template <typename T, typename F>
  void Change(const std::string& name, F change) {
    const auto stored = controller().resources().Modify<T>(name, [&](T& current) -> Result<Write> {
      change(current);
      return Write::kWrite;
    });
    ASSERT_TRUE(stored.has_value()) << stored.error().Describe();
    ASSERT_TRUE(view().WaitFor(stored->metadata().revision()).has_value());
  }
  template <typename F>
  void ChangeTrust(F change) {
    Change<v1::Host>("node1",
                     [&](v1::Host& host) { change(*host.mutable_status()->mutable_trust()); });
  }
  void LeaveUnanswered() {
    ChangeTrust([](v1::HostTrust& trust) {
      trust.set_level(v1::TRUST_STALE);
      trust.set_detail("it did not answer");
    });
  }
  void Attest() {
    const auto asked = agent_->NextOf(v1::ControllerMessage::kRequestEvidence);
    ASSERT_TRUE(asked.has_value());
    ASSERT_TRUE(agent_->SubmitEvidence(host_.Answer(asked->request_evidence())).ok());
    EXPECT_TRUE(rig_.Await([](const View& view) {
      const v1::HostStatus& status = view.Get<v1::Host>("node1")->status();
      return status.trust().level() == v1::TRUST_TRUSTED && status.state() == v1::HOST_UP;
    }));
  }

  v1::Instance OfSnapshot(const std::string& name, const std::string& pool) {
    v1::Instance instance;
    instance.mutable_metadata()->set_name(name);
    instance.mutable_spec()->set_snapshot("snap");
    instance.mutable_spec()->set_pool(pool);
    return instance;
  }
  Result<InstanceService::Accepted> Create(const v1::Instance& instance) {
    return controller().instances().Create(instance, kTester, kStartsAll);
  }
  v1::DesiredInstance Place(const std::string& name) {
    const auto created = Create(OfSnapshot(name, "gold"));
    EXPECT_TRUE(created.has_value()) << created.error().Describe();
    const auto desired = agent_->NextInstance();
    EXPECT_TRUE(desired.has_value());
    return desired.value_or(v1::DesiredInstance());
  }
  // As one that ran and was stopped.
  void End(const std::string& name) {
    Change<v1::Instance>(name, [](v1::Instance& instance) {
      instance.mutable_spec()->set_power(v1::POWER_STOPPED);
      instance.mutable_status()->set_phase(v1::INSTANCE_STOPPED);
      instance.mutable_status()->mutable_boot()->mutable_effective()->set_type(v1::BOOT_TYPE_UEFI);
      instance.mutable_status()->set_observed_generation(1000);
    });
  }

  Rig rig_;
  SoftwareHost host_;
  std::unique_ptr<FakeAgent> agent_;
  std::string disk_sha256_;

 private:
  void Join() {
    agent_ = rig_.NewAgent("node1");
    ASSERT_TRUE(agent_->Enroll(rig_.JoinSecret("join")).ok());
    Change<v1::Host>("node1", [&](v1::Host& host) {
      host.mutable_spec()->set_pool("gold");
      *host.mutable_status()->mutable_identity() = host_.Identity();
    });
    v1::Hello hello = FakeAgent::MakeHello();
    hello.set_boot_id(host_.boot_id());
    ASSERT_TRUE(agent_->Connect(hello).has_value());
    Attest();
  }
  void MakeSnapshot() {
    const auto upload = *rig_.blobs().BeginUpload("disk");
    ASSERT_TRUE(upload->Append(ByteCount(), AsBytes(kDisk)).has_value());
    disk_sha256_ = upload->Commit()->digest;
    v1::Snapshot snapshot;
    snapshot.mutable_metadata()->set_name("snap");
    snapshot.mutable_status()->set_state(v1::SNAPSHOT_READY);
    snapshot.mutable_status()->set_instance_uid("that was");
    snapshot.mutable_status()->mutable_instance_spec()->set_flavor("small");
    snapshot.mutable_status()->mutable_disk()->set_sha256(disk_sha256_);
    snapshot.mutable_status()->set_disk_virtual_size_bytes(int64_t{1} << 30);
    const std::string uid = Add(std::move(snapshot)).metadata().uid();
    const auto part = controller().snapshots().StoreSealed(uid, "variables", AsBytes(kVariables));
    ASSERT_TRUE(part.has_value()) << part.error().Describe();
    Change<v1::Snapshot>("snap", [&](v1::Snapshot& stored) {
      *stored.mutable_status()->mutable_variables() = part->part;
    });
  }
};

// ---- where it goes ----

class SecretsTest : public TrustedPoolTest {
 protected:
  SecretsTest() : web1_(Place("web1")) {}
  // All three must answer alike.
  void ExpectAll(grpc::StatusCode code, const std::string& words) {
    std::string got;
    for (const grpc::Status& status :
         {agent_->FetchBlob(disk_sha256_, 0, got), agent_->FetchPart(web1_.uid(), "variables", got),
          agent_->IssueVtpm(web1_.uid(), key_, got)}) {
      EXPECT_EQ(status.error_code(), code) << status.error_message();
      EXPECT_THAT(status.error_message(), HasSubstr(words));
    }
  }
  v1::DesiredInstance web1_;
  const std::string key_ = FakeAgent::MakeEndorsementKey();
};

TEST_F(SecretsTest, GoToAHostThatItsPoolTrusts) {
  std::string got;
  EXPECT_TRUE(agent_->FetchBlob(disk_sha256_, 0, got).ok());
  EXPECT_EQ(got, kDisk);
  EXPECT_TRUE(agent_->FetchPart(web1_.uid(), "variables", got).ok());
  EXPECT_EQ(got, kVariables);
  EXPECT_TRUE(agent_->IssueVtpm(web1_.uid(), key_, got).ok());
}

TEST_F(SecretsTest, DoNotGoToAnUntrustedHost) {
  ChangeTrust([](v1::HostTrust& trust) {
    trust.set_level(v1::TRUST_UNTRUSTED);
    trust.set_detail("PCR 7 has another value");
  });
  ExpectAll(grpc::StatusCode::PERMISSION_DENIED,
            "instance web1 is of trusted pool gold, and host node1 is UNTRUSTED: PCR 7 has another "
            "value (`vallum host show node1");
}

TEST_F(SecretsTest, WaitForAHostThatIsStale) {
  ChangeTrust([](v1::HostTrust& trust) { trust.set_level(v1::TRUST_STALE); });
  ExpectAll(grpc::StatusCode::UNAVAILABLE, "host node1 is STALE");
}

TEST_F(SecretsTest, WaitForALease) {
  ChangeTrust([](v1::HostTrust& trust) { trust.clear_lease_expire_time(); });
  // The level may have followed already.
  ExpectAll(grpc::StatusCode::UNAVAILABLE, "and host node1 is ");
}

TEST_F(SecretsTest, WaitForAVerdictByThePoolsPolicy) {
  ChangeTrust([](v1::HostTrust& trust) { trust.set_policy("weaker"); });
  ExpectAll(grpc::StatusCode::UNAVAILABLE,
            "not trusted now: its verdict is by policy \"weaker\", and that of its pool is");
}

TEST_F(SecretsTest, WaitForASessionOfTheBootThatWasJudged) {
  v1::Hello hello = FakeAgent::MakeHello();
  hello.set_boot_id("another boot");
  ASSERT_TRUE(agent_->Connect(hello).has_value());
  ExpectAll(grpc::StatusCode::UNAVAILABLE, "no session of the boot that its verdict is of");
}

TEST_F(SecretsTest, DoNotGoToAHostOfAnotherPool) {
  Change<v1::Host>("node1", [](v1::Host& host) { host.mutable_spec()->set_pool("default"); });
  ExpectAll(grpc::StatusCode::PERMISSION_DENIED, "and host node1 is in pool default");
}

TEST_F(SecretsTest, OfPoolsWithoutTrustGoToAnyHostThatHasTheInstance) {
  Change<v1::Pool>("gold", [](v1::Pool& pool) { pool.mutable_spec()->set_trusted_service(false); });
  ChangeTrust([](v1::HostTrust& trust) { trust.set_level(v1::TRUST_UNTRUSTED); });
  std::string got;
  EXPECT_TRUE(agent_->FetchBlob(disk_sha256_, 0, got).ok());
  EXPECT_TRUE(agent_->FetchPart(web1_.uid(), "variables", got).ok());
}

// ---- what is made of it ----

TEST_F(TrustedPoolTest, InstanceOfATrustedPoolIsTrustedWhetherOrNotAnybodySaidSo) {
  Place("web1");
  EXPECT_TRUE(SpecOf("web1").trusted_service());
  ASSERT_TRUE(Create(OfSnapshot("web2", "default")).has_value());
  EXPECT_FALSE(SpecOf("web2").trusted_service());
}

TEST_F(TrustedPoolTest, CloneIntoAPoolThatIsNotTrustedIsRefusedUnlessSomebodyAnswersForIt) {
  Place("web1");
  End("web1");
  v1::Snapshot wanted;
  wanted.mutable_metadata()->set_name("clone");
  wanted.mutable_spec()->set_instance("web1");
  const auto taken = controller().snapshots().Create(std::move(wanted), kTester);
  ASSERT_TRUE(taken.has_value()) << taken.error().Describe();
  // What `vallum instance export` writes into the OVA.
  EXPECT_TRUE(taken->snapshot.status().instance_spec().trusted_service());
  Change<v1::Snapshot>("snap", [&](v1::Snapshot& snapshot) {
    *snapshot.mutable_status()->mutable_instance_spec() = taken->snapshot.status().instance_spec();
  });
  v1::Instance clone = OfSnapshot("web2", "default");
  const auto refused = Create(clone);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), ErrorCode::kConflict);
  EXPECT_THAT(refused.error().message(), HasSubstr("conflicts with pool \"default\""));
  clone.mutable_spec()->set_allow_untrusted(true);
  const auto allowed = Create(clone);
  ASSERT_TRUE(allowed.has_value()) << allowed.error().Describe();
  EXPECT_TRUE(rig_.Await([](const View& view) {
    return std::ranges::any_of(view.All<v1::Event>(), [](const auto& event) {
      return event->kind() == "instance.trust-overridden" && event->object() == "instances/web2" &&
             event->user() == "tester";
    });
  }));
}

// ---- when it starts ----

TEST_F(TrustedPoolTest, StartOnAHostWhoseVerdictIsOldAsksItForEvidence) {
  Place("web1");
  End("web1");
  LeaveUnanswered();
  const auto refused = controller().instances().Start("web1", kTester);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), ErrorCode::kConflict);
  EXPECT_THAT(
      refused.error().message(),
      HasSubstr("is not trusted: it did not answer; it has been asked for new evidence within"));
  EXPECT_THAT(refused.error().fix(), HasSubstr("try again in a moment"));
  Attest();
  const auto started = controller().instances().Start("web1", kTester);
  EXPECT_TRUE(started.has_value()) << started.error().Describe();
}

TEST_F(TrustedPoolTest, NoWayToBeginAGuestGoesPastTheTrustOfItsHost) {
  Place("web1");
  End("web1");
  const v1::Instance stopped = *controller().resources().Get<v1::Instance>("web1");
  ChangeTrust([](v1::HostTrust& trust) {
    trust.set_level(v1::TRUST_UNTRUSTED);
    trust.set_detail("PCR 7 has another value");
  });
  const auto update = [&](v1::PowerState power, int64_t reboots) {
    v1::Instance wanted = stopped;
    wanted.mutable_spec()->set_power(power);
    wanted.mutable_spec()->set_reboot_count(stopped.spec().reboot_count() + reboots);
    return controller().instances().Update(wanted, 0, kStartsAll, Unbootable::kRefuse);
  };
  for (const auto& refused :
       {update(v1::POWER_RUNNING, 0), update(v1::POWER_RUNNING, 1), update(v1::POWER_PAUSED, 0)}) {
    ASSERT_FALSE(refused.has_value());
    EXPECT_THAT(refused.error().message(), HasSubstr("is not trusted: PCR 7 has another value"));
  }
  EXPECT_TRUE(update(v1::POWER_STOPPED, 0).has_value());
}

TEST_F(TrustedPoolTest, GuestIsNotEndedForARebootThatItsHostMayNotDo) {
  Place("web1");
  LeaveUnanswered();
  const auto refused = controller().instances().Reboot("web1", kTester);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(), HasSubstr("is not trusted: it did not answer"));
}

TEST_F(TrustedPoolTest, PausedGuestIsNotResumedOnAHostThatIsNotTrusted) {
  Place("web1");
  ASSERT_TRUE(controller().instances().Pause("web1", kTester).has_value());
  LeaveUnanswered();
  const auto refused = controller().instances().Resume("web1", kTester);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(), HasSubstr("is not trusted: it did not answer"));
}

}  // namespace
}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
// A whole controller, and hosts whose quotes are made in software.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "controller/attestor_rig.h"
#include "controller/evidence_book.h"
#include "tls/certificate.h"

namespace vallum::controller {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

TEST_F(AttestorTest, HostWhoseEvidenceIsAcceptedIsUpAndHasALease) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = JoinTrusted("node1", host_);
  const auto notice = agent->NextOf(v1::ControllerMessage::kTrust);
  ASSERT_TRUE(notice.has_value());
  v1::LeaseClaims claims;
  ASSERT_TRUE(claims.ParseFromString(notice->trust().lease().claims()));
  EXPECT_EQ(claims.host(), "node1");
  EXPECT_EQ(claims.boot_id(), "boot-1");
  EXPECT_EQ(claims.policy_version(), 1);
  EXPECT_EQ(ToHex(AsBytes(claims.ak_name())), host_.Identity().ak_name());
  const auto signer = tls::InspectDer(AsBytes(notice->trust().lease().signer_certificate()));
  ASSERT_TRUE(signer.has_value());
  EXPECT_EQ(signer->organizational_unit, "lease signer");
}

TEST_F(AttestorTest, HostThatMeasuredSomethingElseIsNonOperationalWithTheReason) {
  ActivatePolicy(host_.PolicyDocument());
  host_.SetPcr(7, 'x');
  const auto agent = Join("node1", host_);
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNTRUSTED, v1::HOST_NON_OPERATIONAL));
  EXPECT_EQ(Reason("node1"), "pcr-value");
  EXPECT_EQ(Trust("node1").reasons(0).pcr(), 7);
  EXPECT_FALSE(Trust("node1").has_lease_expire_time());
}

TEST_F(AttestorTest, UntrustedHostReturnsByItselfOnceItsEvidenceIsAccepted) {
  ActivatePolicy(host_.PolicyDocument());
  host_.SetPcr(7, 'x');
  const auto agent = Join("node1", host_);
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNTRUSTED, v1::HOST_NON_OPERATIONAL));
  agent->Disconnect();
  host_.SetPcr(7, '\0');
  host_.Reboot("boot-2");
  ASSERT_TRUE(Connect(*agent, host_));
  Answer(*agent, host_);
  EXPECT_TRUE(AwaitHost("node1", v1::TRUST_TRUSTED, v1::HOST_UP));
}

TEST_F(AttestorTest, RebootedHostIsNotUpBeforeItIsAttestedAgain) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = JoinTrusted("node1", host_);
  agent->Disconnect();
  host_.Reboot("boot-2");
  ASSERT_TRUE(Connect(*agent, host_));
  EXPECT_TRUE(AwaitHost("node1", v1::TRUST_TRUSTED, v1::HOST_JOINING));
  Answer(*agent, host_);
  EXPECT_TRUE(AwaitHost("node1", v1::TRUST_TRUSTED, v1::HOST_UP));
}

TEST_F(AttestorTest, ReplayedQuoteIsRefused) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = Join("node1", host_);
  v1::RequestEvidence old = NextRequest(*agent);
  const std::string id = old.request_id();
  old.set_nonce(std::string(32, 'o'));
  ASSERT_TRUE(agent->SubmitEvidence(host_.Answer(old)).ok());
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNTRUSTED, v1::HOST_NON_OPERATIONAL));
  EXPECT_EQ(Reason("node1"), "quote-nonce");
}

TEST_F(AttestorTest, QuoteByAnotherKeyIsRefused) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = Join("node1", host_);
  host_.ReplaceKey();
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNTRUSTED, v1::HOST_NON_OPERATIONAL));
  EXPECT_EQ(Reason("node1"), "quote-signature");
}

TEST_F(AttestorTest, ResetCountMayNotGoBackEvenOverARestartOfTheController) {
  ActivatePolicy(host_.PolicyDocument());
  host_.clock().reset_count = 5;
  auto agent = JoinTrusted("node1", host_);
  const auto identity = std::move(agent);
  rig_.Stop();
  rig_.Start();
  auto again = rig_.NewAgent("node1");
  again->TakeIdentityOf(*identity);
  host_.clock().reset_count = 4;
  ASSERT_TRUE(Connect(*again, host_));
  Answer(*again, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNTRUSTED, v1::HOST_NON_OPERATIONAL));
  EXPECT_EQ(Reason("node1"), "tpm-clock");
}

TEST_F(AttestorTest, RestartedControllerKeepsTrustedHostsUp) {
  ActivatePolicy(host_.PolicyDocument());
  auto agent = JoinTrusted("node1", host_);
  rig_.Stop();
  rig_.Start();
  EXPECT_TRUE(AwaitHost("node1", v1::TRUST_TRUSTED, v1::HOST_UP));
  auto again = rig_.NewAgent("node1");
  again->TakeIdentityOf(*agent);
  ASSERT_TRUE(Connect(*again, host_));
  // Asked anew, and up meanwhile.
  const v1::RequestEvidence request = NextRequest(*again);
  EXPECT_TRUE(AwaitHost("node1", v1::TRUST_TRUSTED, v1::HOST_UP));
  ASSERT_TRUE(again->SubmitEvidence(host_.Answer(request)).ok());
}

TEST_F(AttestorTest, HostThatStopsAnsweringBecomesStaleAndIsNeverCalledUntrusted) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = JoinTrusted("node1", host_);
  rig_.clock().Advance(std::chrono::seconds(601));
  ASSERT_TRUE(rig_.Await([&](const View& view) {
    return view.Get<v1::Host>("node1")->status().trust().level() == v1::TRUST_STALE;
  }));
  EXPECT_THAT(Trust("node1").detail(), HasSubstr("its lease ended at"));
}

TEST_F(AttestorTest, ActivatedPolicyJudgesHostsAnew) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = JoinTrusted("node1", host_);
  SoftwareHost other;
  other.SetPcr(0, 'n');
  ActivatePolicy(other.PolicyDocument());
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNTRUSTED, v1::HOST_NON_OPERATIONAL));
  EXPECT_EQ(Trust("node1").policy_version(), 2);
}

TEST_F(AttestorTest, WithoutAPolicyEvidenceIsKeptAndNobodyIsTrusted) {
  const auto agent = Join("node1", host_);
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNKNOWN, v1::HOST_NON_OPERATIONAL));
  EXPECT_THAT(Trust("node1").detail(), HasSubstr("attestation policy gold"));
  EXPECT_FALSE(Trust("node1").evidence_sha256().empty());
}

TEST_F(AttestorTest, EvidenceOfAHostWithoutAnEventLogIsKeptAsItsWhole) {
  const auto agent = Join("node1", host_);
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNKNOWN, v1::HOST_NON_OPERATIONAL));
  const auto host = rig_.controller().view().Get<v1::Host>("node1");
  EXPECT_TRUE(
      rig_.controller().evidence().Get(host->metadata().uid(), EvidenceKind::kWhole).has_value());
}

TEST_F(AttestorTest, EvidenceOfAHostWithoutAnEventLogIsKeptOnceForABootUnlessAllIsAskedFor) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = JoinTrusted("node1", host_);
  const std::string kept = Trust("node1").evidence_sha256();
  ASSERT_FALSE(kept.empty());
  const auto answer_anew = [&] {
    const auto before = FromTimestamp(Trust("node1").verify_time());
    Answer(*agent, host_);
    EXPECT_TRUE(rig_.Await([&](const View& view) {
      return FromTimestamp(view.Get<v1::Host>("node1")->status().trust().verify_time()) > before;
    }));
  };
  rig_.clock().Advance(seconds(6));
  rig_.controller().attestor().OnLeaseWanted("node1");
  answer_anew();
  EXPECT_EQ(Trust("node1").evidence_sha256(), kept);
  rig_.clock().Advance(seconds(6));
  rig_.controller().attestor().AttestNow("node1");
  answer_anew();
  EXPECT_NE(Trust("node1").evidence_sha256(), kept);
}

TEST_F(AttestorTest, WithoutAPolicyATpmThatKeepsOnlySha384IsAskedForThat) {
  SoftwareHost host(HashAlgorithm::kSha384);
  const auto agent = Join("node1", host);
  const v1::RequestEvidence first = NextRequest(*agent);
  EXPECT_THAT(first.pcrs(), HasSubstr("sha256:"));
  ASSERT_TRUE(agent->SubmitEvidence(host.Answer(first)).ok());
  const v1::RequestEvidence second = NextRequest(*agent);
  EXPECT_THAT(second.pcrs(), HasSubstr("sha384:"));
  ASSERT_TRUE(agent->SubmitEvidence(host.Answer(second)).ok());
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNKNOWN, v1::HOST_NON_OPERATIONAL));
  EXPECT_THAT(Trust("node1").detail(), HasSubstr("attestation policy gold"));
  EXPECT_FALSE(Trust("node1").evidence_sha256().empty());
}

TEST_F(AttestorTest, WithoutAPolicyATpmOfNeitherBankIsSilentAndSaysWhy) {
  SoftwareHost host(HashAlgorithm::kSha512);
  const auto agent = Join("node1", host);
  Answer(*agent, host);
  Answer(*agent, host);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNKNOWN, v1::HOST_NON_OPERATIONAL));
  EXPECT_THAT(Trust("node1").detail(), HasSubstr("no bank sha256; no bank sha384"));
  EXPECT_TRUE(Trust("node1").evidence_sha256().empty());
}

TEST_F(AttestorTest, HostWithoutABoundTpmIsUnknown) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = Join("node1", host_);
  Stored(rig_.controller().resources().Modify<v1::Host>(
      "node1", [&](v1::Host& current) -> Result<Write> {
        current.mutable_status()->clear_identity();
        return Write::kWrite;
      }));
  agent->Disconnect();
  ASSERT_TRUE(Connect(*agent, host_));
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNKNOWN, v1::HOST_NON_OPERATIONAL));
  EXPECT_THAT(Trust("node1").detail(), HasSubstr("has not proven to have a TPM"));
}

TEST_F(AttestorTest, InstancesOfAnUntrustedHostAreStoppedAndStartNoMore) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = JoinTrusted("node1", host_);
  const v1::DesiredInstance wanted = RunInstance(*agent, "web1");
  EXPECT_TRUE(wanted.needs_lease());
  host_.SetPcr(7, 'x');
  rig_.controller().attestor().AttestNow("node1");
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNTRUSTED, v1::HOST_NON_OPERATIONAL));
  ASSERT_TRUE(rig_.Await([](const View& view) {
    return view.Get<v1::Instance>("web1")->spec().power() == v1::POWER_STOPPED;
  }));
  // What its agent said before it heard of it.
  v1::InstanceReport late = FakeAgent::MakeReport(wanted, v1::INSTANCE_RUNNING);
  late.mutable_status()->add_notes("late");
  agent->Report(late);
  ASSERT_TRUE(rig_.Await(
      [](const View& view) { return view.Get<v1::Instance>("web1")->status().notes_size() == 1; }));
  agent->Report(FakeAgent::MakeReport(wanted, v1::INSTANCE_STOPPED));
  ASSERT_TRUE(rig_.AwaitPhase("web1", v1::INSTANCE_STOPPED));
  EXPECT_THAT(rig_.controller().view().Get<v1::Instance>("web1")->status().reason(),
              HasSubstr("stopped, because host node1 is UNTRUSTED"));
  const auto started = rig_.controller().instances().Start("web1", kTester, 0);
  ASSERT_FALSE(started.has_value());
  EXPECT_THAT(started.error().message(), HasSubstr("is not trusted"));
}

class MovingPoolTest : public AttestorTest {
 protected:
  MovingPoolTest() {
    Stored(
        rig_.controller().resources().Modify<v1::Pool>("gold", [](v1::Pool& pool) -> Result<Write> {
          pool.mutable_spec()->set_on_untrusted(v1::ON_UNTRUSTED_MOVE);
          return Write::kWrite;
        }));
    ActivatePolicy(host_.PolicyDocument());
  }
  // An instance that its host was told to end, and that has ended.
  v1::DesiredInstance EndOn(FakeAgent& agent, const v1::DesiredInstance& running) {
    host_.SetPcr(7, 'x');
    rig_.controller().attestor().AttestNow("node1");
    Answer(agent, host_);
    const auto stop = agent.NextInstance();
    EXPECT_TRUE(stop.has_value());
    v1::InstanceReport ended = FakeAgent::MakeReport(running, v1::INSTANCE_STOPPED);
    ended.mutable_status()->mutable_boot()->mutable_effective()->set_machine("q35");
    agent.Report(ended);
    return stop.value_or(v1::DesiredInstance());
  }
  SoftwareHost other_;
};

TEST_F(MovingPoolTest, InstanceIsEndedAndAskedForWhatItTakesAlong) {
  const auto agent = JoinTrusted("node1", host_);
  const v1::DesiredInstance running = RunInstance(*agent, "web1");
  const auto elsewhere = Join("node2", other_);
  Answer(*elsewhere, other_);
  ASSERT_TRUE(AwaitHost("node2", v1::TRUST_TRUSTED, v1::HOST_UP));
  EXPECT_EQ(EndOn(*agent, running).spec().power(), v1::POWER_STOPPED);
  const auto taken = agent->NextOf(v1::ControllerMessage::kTakeSnapshot);
  ASSERT_TRUE(taken.has_value());
  EXPECT_EQ(taken->take_snapshot().instance_uid(), running.uid());
  // What it is wanted to do is not what its host must do.
  EXPECT_EQ(rig_.controller().view().Get<v1::Instance>("web1")->spec().power(), v1::POWER_RUNNING);
}

TEST_F(MovingPoolTest, WithoutAnotherTrustedHostItWaitsAndStartsWhereItIsOnceThatIsTrusted) {
  const auto agent = JoinTrusted("node1", host_);
  const v1::DesiredInstance running = RunInstance(*agent, "web1");
  EndOn(*agent, running);
  ASSERT_TRUE(rig_.Await([](const View& view) {
    return view.Get<v1::Instance>("web1")->status().reason().find("no other host of pool gold") !=
           std::string::npos;
  }));
  host_.SetPcr(7, '\0');
  rig_.controller().attestor().AttestNow("node1");
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_TRUSTED, v1::HOST_UP));
  std::optional<v1::DesiredInstance> again = agent->NextInstance();
  while (again.has_value() && again->generation() <= running.generation()) {
    again = agent->NextInstance();
  }
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->spec().power(), v1::POWER_RUNNING);
}

TEST_F(MovingPoolTest, DeletedInstanceIsThereUntilTheHostThatItLeftHasNoCopy) {
  const auto agent = JoinTrusted("node1", host_);
  const v1::DesiredInstance running = RunInstance(*agent, "web1");
  // As a move leaves it while no other host has room.
  Stored(rig_.controller().resources().Modify<v1::Instance>(
      "web1", [](v1::Instance& instance) -> Result<Write> {
        instance.mutable_metadata()->mutable_delete_time()->set_seconds(1);
        instance.mutable_status()->clear_host();
        instance.mutable_status()->add_left_on("node1");
        return Write::kWrite;
      }));
  std::optional<v1::DesiredInstance> removed = agent->NextInstance();
  while (removed.has_value() && !removed->remove()) removed = agent->NextInstance();
  ASSERT_TRUE(removed.has_value());
  EXPECT_NE(rig_.controller().view().Get<v1::Instance>("web1"), nullptr);
  v1::InstanceReport gone;
  gone.set_uid(running.uid());
  gone.set_gone(true);
  agent->Report(gone);
  EXPECT_TRUE(
      rig_.Await([](const View& view) { return view.Get<v1::Instance>("web1") == nullptr; }));
}

TEST_F(AttestorTest, FirstStageAsksNoMoreHostsThanItsSize) {
  ActivatePolicy(host_.PolicyDocument());
  constexpr size_t kHosts = 12;
  std::vector<SoftwareHost> hosts(kHosts);
  const auto agents = JoinAll(hosts);
  ASSERT_TRUE(rig_.Await([&](const View& /*view*/) {
    return rig_.controller().metrics().evidence_requests_total.load() >= 10;
  }));
  EXPECT_EQ(rig_.controller().metrics().evidence_requests_total.load(), 10U);
  Answer(*agents[0], hosts[0]);
  EXPECT_TRUE(rig_.Await([&](const View& /*view*/) {
    return rig_.controller().metrics().evidence_requests_total.load() == 11;
  }));
}

TEST_F(AttestorTest, EvidenceThatNobodyAskedForIsNotRead) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = Join("node1", host_);
  v1::RequestEvidence request = NextRequest(*agent);
  request.set_request_id("another");
  EXPECT_EQ(agent->SubmitEvidence(host_.Answer(request)).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(AttestorTest, EvidenceThatBreaksOffIsNotJudged) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = Join("node1", host_);
  const v1::RequestEvidence request = NextRequest(*agent);
  agent->BreakOffEvidence(host_.Answer(request));
  // The same request waits on, and is answered whole.
  ASSERT_TRUE(agent->SubmitEvidence(host_.Answer(request)).ok());
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_TRUSTED, v1::HOST_UP));
  EXPECT_EQ(rig_.controller().metrics().attestations_total.load(), 1U);
}

TEST_F(AttestorTest, EvidenceWithLessLogThanAnnouncedIsNotJudged) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = Join("node1", host_);
  std::vector<v1::EvidenceChunk> evidence = host_.Answer(NextRequest(*agent));
  evidence.front().mutable_header()->set_event_log_size(1000);
  EXPECT_EQ(agent->SubmitEvidence(evidence).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(AttestorTest, EvidenceOfAnotherBootThanTheAgentsIsNotJudged) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = Join("node1", host_);
  const v1::RequestEvidence request = NextRequest(*agent);
  host_.Reboot("boot-2");
  ASSERT_TRUE(agent->SubmitEvidence(host_.Answer(request)).ok());
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNKNOWN, v1::HOST_NON_OPERATIONAL));
  EXPECT_THAT(Trust("node1").detail(), HasSubstr("of another boot"));
}

TEST_F(AttestorTest, EvidenceThatWasAskedForInAnotherPoolIsNotJudged) {
  ActivatePolicy(host_.PolicyDocument());
  v1::Pool silver;
  silver.mutable_metadata()->set_name("silver");
  silver.mutable_spec()->set_trusted_service(true);
  Stored(rig_.controller().resources().Create(std::move(silver)));
  const auto agent = Join("node1", host_);
  const v1::RequestEvidence request = NextRequest(*agent);
  Stored(
      rig_.controller().resources().Modify<v1::Host>("node1", [](v1::Host& host) -> Result<Write> {
        host.mutable_spec()->set_pool("silver");
        return Write::kWrite;
      }));
  ASSERT_TRUE(agent->SubmitEvidence(host_.Answer(request)).ok());
  // It is asked anew, for a pool without a policy.
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNKNOWN, v1::HOST_NON_OPERATIONAL));
  EXPECT_EQ(rig_.controller().metrics().attestations_total.load(), 1U);
}

TEST_F(AttestorTest, LeaseEndsNoLaterThanItsPolicyLetsEvidenceBeWorth) {
  ActivatePolicy("max-age-seconds = 60\n" + host_.PolicyDocument());
  const auto agent = JoinTrusted("node1", host_);
  EXPECT_EQ(Trust("node1").lease_expire_time().seconds() - Trust("node1").verify_time().seconds(),
            60);
}

TEST_F(AttestorTest, HostThatGaveNoEvidenceIsNotAskedBeforeItsTurnForALeaseThatItWants) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = Join("node1", host_);
  static_cast<void>(NextRequest(*agent));
  rig_.clock().Advance(std::chrono::seconds(61));
  ASSERT_TRUE(rig_.Await([&](const View& /*view*/) {
    return rig_.controller().metrics().evidence_missing_total.load() == 1;
  }));
  rig_.controller().attestor().OnLeaseWanted("node1");
  rig_.clock().Advance(std::chrono::seconds(10));
  EXPECT_EQ(rig_.controller().metrics().evidence_requests_total.load(), 1U);
  rig_.clock().Advance(std::chrono::seconds(10));
  EXPECT_TRUE(rig_.Await([&](const View& /*view*/) {
    return rig_.controller().metrics().evidence_requests_total.load() == 2;
  }));
}

TEST_F(AttestorTest, UntrustedHostThatGoesSilentStaysUntrusted) {
  ActivatePolicy(host_.PolicyDocument());
  host_.SetPcr(7, 'x');
  const auto agent = Join("node1", host_);
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNTRUSTED, v1::HOST_NON_OPERATIONAL));
  rig_.controller().attestor().AttestNow("node1");
  static_cast<void>(NextRequest(*agent));
  rig_.clock().Advance(std::chrono::seconds(61));
  ASSERT_TRUE(rig_.Await([&](const View& /*view*/) {
    return rig_.controller().metrics().evidence_missing_total.load() == 1;
  }));
  EXPECT_EQ(Trust("node1").level(), v1::TRUST_UNTRUSTED);
}

TEST_F(AttestorTest, AgentThatConnectsHearsThatItsHostIsUntrusted) {
  ActivatePolicy(host_.PolicyDocument());
  host_.SetPcr(7, 'x');
  const auto agent = Join("node1", host_);
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNTRUSTED, v1::HOST_NON_OPERATIONAL));
  agent->Disconnect();
  ASSERT_TRUE(Connect(*agent, host_));
  const auto notice = agent->NextOf(v1::ControllerMessage::kTrust);
  ASSERT_TRUE(notice.has_value());
  EXPECT_EQ(notice->trust().level(), v1::TRUST_UNTRUSTED);
  EXPECT_FALSE(notice->trust().has_lease());
}

// ---- who a host is ----

TEST_F(AttestorTest, AnotherTpmUnderTheSameNameTakesAnApprovalThatNamesIt) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = Join("node1", host_);
  SoftwareHost other;
  Stored(rig_.controller().resources().Modify<v1::Host>(
      "node1", [&](v1::Host& current) -> Result<Write> {
        *current.mutable_status()->mutable_pending_identity() = other.Identity();
        return Write::kWrite;
      }));
  TpmBindings& bindings = rig_.controller().tpm_bindings();
  const auto wrong = bindings.Approve("node1", host_.Identity().ek_sha256(), "alice");
  ASSERT_FALSE(wrong.has_value());
  EXPECT_EQ(wrong.error().code(), ErrorCode::kConflict);
  const auto approved = bindings.Approve("node1", other.Identity().ek_sha256(), "alice");
  ASSERT_TRUE(approved.has_value()) << approved.error().Describe();
  EXPECT_EQ(approved->status().identity().accepted_by(), "approved by alice");
  EXPECT_FALSE(approved->status().has_pending_identity());
}

TEST_F(AttestorTest, KeyThatIsNoEndorsementKeyIsNotBound) {
  const auto agent = Join("node1", host_);
  v1::TpmIdentity identity;
  identity.set_ek_public(std::string(AsText(host_.key().Public())));
  identity.set_ak_public(std::string(AsText(host_.key().Public())));
  v1::TpmChallenge challenge;
  const grpc::Status begun = agent->BeginBinding(identity, challenge);
  EXPECT_EQ(begun.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(begun.error_message(), HasSubstr("not made by TCG's template"));
}

TEST_F(AttestorTest, ProofForNoChallengeIsDenied) {
  const auto agent = Join("node1", host_);
  v1::TpmProof proof;
  proof.set_challenge_id("none");
  v1::TpmBinding binding;
  EXPECT_EQ(agent->FinishBinding(proof, binding).error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

}  // namespace
}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
// When hosts are asked for evidence, and what follows when they do not answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controller/attestor_rig.h"
#include "controller/reconciler_impl.h"

namespace vallum::controller {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

// ---- when ----

TEST_F(AttestorTest, HostsAreAskedAgainAroundTheirIntervalAndNotAllAtOnce) {
  ActivatePolicy(host_.PolicyDocument());
  constexpr size_t kHosts = 8;
  std::vector<SoftwareHost> hosts(kHosts);
  const auto agents = JoinAllTrusted(hosts);
  ASSERT_EQ(Requests(), kHosts);
  // Of 240 s a tenth either way, but for what joining took.
  std::vector<uint64_t> asked;
  for (const int step : {200, 28, 12, 12, 16}) {
    rig_.clock().Advance(seconds(step));
    LetPlannerRun();
    asked.push_back(Requests() - kHosts);
  }
  EXPECT_EQ(asked.front(), 0U);
  EXPECT_EQ(asked.back(), kHosts);
  uint64_t most = 0;
  for (size_t i = 1; i < asked.size(); ++i) most = std::max(most, asked[i] - asked[i - 1]);
  EXPECT_LT(most, kHosts);
}

TEST_F(AttestorTest, HostWhoseLeaseIsShorterThanTheIntervalIsAskedInTime) {
  ActivatePolicy("max-age-seconds = 60\n" + host_.PolicyDocument());
  const auto agent = JoinTrusted("node1", host_);
  rig_.clock().Advance(seconds(34));
  Answer(*agent, host_);
  EXPECT_EQ(Trust("node1").level(), v1::TRUST_TRUSTED);
}

TEST_F(AttestorTest, AgentsWishesTakeNoMoreThanHalfOfThePlaces) {
  ActivatePolicy(host_.PolicyDocument());
  constexpr size_t kHosts = 14;
  std::vector<SoftwareHost> hosts(kHosts);
  const auto agents = JoinAllTrusted(hosts);
  rig_.clock().Advance(seconds(10));
  for (size_t i = 0; i < kHosts; ++i) {
    rig_.controller().attestor().OnLeaseWanted("node" + std::to_string(i));
  }
  ASSERT_TRUE(AwaitRequests(kHosts + 10));
  LetPlannerRun();
  EXPECT_EQ(Requests(), kHosts + 10);
  // An operator has a place all the same.
  rig_.controller().attestor().AttestNow("node13");
  EXPECT_TRUE(AwaitRequests(kHosts + 11));
}

TEST_F(AttestorTest, HostThatIsTrustedAndWantsALeaseIsAskedAtOnce) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = JoinTrusted("node1", host_);
  rig_.clock().Advance(seconds(6));
  rig_.controller().attestor().OnLeaseWanted("node1");
  Answer(*agent, host_);
  EXPECT_TRUE(AwaitRequests(2));
}

TEST_F(AttestorTest, ConnectingAnewIsNoAnswer) {
  ActivatePolicy(host_.PolicyDocument());
  constexpr size_t kHosts = 4;
  std::vector<SoftwareHost> hosts(kHosts);
  std::vector<std::unique_ptr<FakeAgent>> agents;
  for (size_t i = 0; i < kHosts; ++i) {
    agents.push_back(Join("node" + std::to_string(i), hosts[i]));
    static_cast<void>(NextRequest(*agents.back()));
  }
  for (size_t i = 0; i < kHosts; ++i) {
    agents[i]->Disconnect();
    ASSERT_TRUE(Connect(*agents[i], hosts[i]));
  }
  // Of the ten places of the first stage silent hosts have two.
  ASSERT_TRUE(AwaitRequests(kHosts + 2));
  LetPlannerRun();
  EXPECT_EQ(Requests(), kHosts + 2);
}

// The end of a session is not always heard of before the next one begins.
TEST_F(AttestorTest, ConnectingAnewUnheardIsNoAnswer) {
  ActivatePolicy(host_.PolicyDocument());
  constexpr size_t kHosts = 4;
  const std::vector<SoftwareHost> hosts(kHosts);
  const auto agents = JoinAll(hosts);
  for (const auto& agent : agents) static_cast<void>(NextRequest(*agent));
  for (size_t i = 0; i < kHosts; ++i) {
    rig_.controller().attestor().OnConnected("node" + std::to_string(i), hosts[i].boot_id());
  }
  // Of the ten places of the first stage silent hosts have two.
  ASSERT_TRUE(AwaitRequests(kHosts + 2));
  LetPlannerRun();
  EXPECT_EQ(Requests(), kHosts + 2);
}

class RateTest : public AttestorTest {
 protected:
  explicit RateTest(double requests_per_second = 0.01) {
    rig_.Stop();
    rig_.attestor().requests_per_second = requests_per_second;
    rig_.Start();
  }
};

TEST_F(RateTest, NoMoreHostsAreAskedThanTheRateAdmits) {
  ActivatePolicy(host_.PolicyDocument());
  SoftwareHost other;
  const auto agent = Join("node1", host_);
  const auto second = Join("node2", other);
  ASSERT_TRUE(AwaitRequests(1));
  LetPlannerRun();
  EXPECT_EQ(Requests(), 1U);
  rig_.clock().Advance(seconds(40));
  LetPlannerRun();
  EXPECT_EQ(Requests(), 1U);
  rig_.clock().Advance(seconds(61));
  EXPECT_TRUE(AwaitRequests(2));
}

class QuickRateTest : public RateTest {
 protected:
  QuickRateTest() : RateTest(0.05) {}
};

TEST_F(QuickRateTest, WishPutsNothingOffThatIsDueBefore) {
  ActivatePolicy(host_.PolicyDocument());
  SoftwareHost other;
  other.SetPcr(7, 'x');
  const auto agent = Join("node1", other);
  Answer(*agent, other);
  ASSERT_TRUE(AwaitLevel("node1", v1::TRUST_UNTRUSTED));
  // Due at once, and asked when the rate admits it.
  ActivatePolicy(other.PolicyDocument());
  LetPlannerRun();
  // A wish of a host that is not trusted has to wait for a minute.
  rig_.controller().attestor().OnLeaseWanted("node1");
  rig_.clock().Advance(seconds(21));
  EXPECT_TRUE(AwaitRequests(2));
}

TEST_F(AttestorTest, WishIsGrantedBeforeWhatIsOnlyNew) {
  ActivatePolicy(host_.PolicyDocument());
  constexpr size_t kHosts = 12;
  std::vector<SoftwareHost> hosts(kHosts);
  const auto agents = JoinAll(hosts);
  // Ten places are taken, and the eleventh host is before the twelfth, which wants a lease.
  ASSERT_TRUE(AwaitRequests(10));
  LetPlannerRun();
  rig_.controller().attestor().OnLeaseWanted("node11");
  Answer(*agents[0], hosts[0]);
  EXPECT_FALSE(NextRequest(*agents[11]).request_id().empty());
}

// ---- what silence means ----

TEST_F(AttestorTest, StaleHostSaysWhyAsAReason) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = JoinTrusted("node1", host_);
  agent->Disconnect();
  rig_.clock().Advance(seconds(601));
  ASSERT_TRUE(AwaitLevel("node1", v1::TRUST_STALE));
  EXPECT_EQ(Reason("node1"), "too-old");
  EXPECT_THAT(Trust("node1").reasons(0).actual(), HasSubstr("its lease ended at"));
}

TEST_F(AttestorTest, LeaseEndsThoughTheClockOnTheWallIsSetBack) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = JoinTrusted("node1", host_);
  rig_.clock().SetWall(-std::chrono::hours(24));
  rig_.clock().Advance(seconds(601));
  EXPECT_TRUE(AwaitLevel("node1", v1::TRUST_STALE));
}

TEST_F(AttestorTest, HostThatDoesNotAnswerForAnActivatedPolicyIsStale) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = JoinTrusted("node1", host_);
  ActivatePolicy("description = \"the next\"\n" + host_.PolicyDocument());
  static_cast<void>(NextRequest(*agent));
  rig_.clock().Advance(seconds(61));
  ASSERT_TRUE(AwaitLevel("node1", v1::TRUST_STALE));
  EXPECT_THAT(Trust("node1").detail(), HasSubstr("did not answer"));
}

TEST_F(AttestorTest, HostThatDoesNotAnswerOnceKeepsWhatItsLeaseSays) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = JoinTrusted("node1", host_);
  rig_.controller().attestor().AttestNow("node1");
  static_cast<void>(NextRequest(*agent));
  rig_.clock().Advance(seconds(61));
  ASSERT_TRUE(AwaitMissing(1));
  EXPECT_EQ(Trust("node1").level(), v1::TRUST_TRUSTED);
  EXPECT_TRUE(rig_.controller().attestor().SilentSince("node1").has_value());
}

TEST_F(AttestorTest, NothingIsSaidOfAHostWhosePoolAsksForNoTrustAnyMore) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = Join("node1", host_);
  static_cast<void>(NextRequest(*agent));
  Stored(
      rig_.controller().resources().Modify<v1::Pool>("gold", [](v1::Pool& pool) -> Result<Write> {
        pool.mutable_spec()->set_trusted_service(false);
        return Write::kWrite;
      }));
  rig_.clock().Advance(seconds(61));
  ASSERT_TRUE(AwaitMissing(1));
  LetPlannerRun();
  EXPECT_EQ(Trust("node1").level(), v1::TRUST_LEVEL_UNSPECIFIED);
}

TEST_F(AttestorTest, AnswerEndsTheSilence) {
  ActivatePolicy(host_.PolicyDocument());
  const auto agent = Join("node1", host_);
  EXPECT_FALSE(rig_.controller().attestor().SilentSince("node1").has_value());
  static_cast<void>(NextRequest(*agent));
  rig_.clock().Advance(seconds(61));
  ASSERT_TRUE(AwaitMissing(1));
  EXPECT_TRUE(rig_.controller().attestor().SilentSince("node1").has_value());
  rig_.controller().attestor().AttestNow("node1");
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitLevel("node1", v1::TRUST_TRUSTED));
  EXPECT_FALSE(rig_.controller().attestor().SilentSince("node1").has_value());
}

TEST_F(AttestorTest, PolicyThatCannotBeReadIsNoSilenceOfItsHosts) {
  ActivatePolicy(host_.PolicyDocument());
  const auto break_policy = [](v1::AttestationPolicy& policy) -> Result<Write> {
    for (auto& version : *policy.mutable_status()->mutable_versions()) {
      version.set_document("broken");
    }
    return Write::kWrite;
  };
  Stored(rig_.controller().resources().Modify<v1::AttestationPolicy>("gold", break_policy));
  const auto agent = Join("node1", host_);
  LetPlannerRun();
  EXPECT_EQ(Requests(), 0U);
  EXPECT_EQ(rig_.controller().metrics().evidence_missing_total.load(), 0U);
  EXPECT_FALSE(rig_.controller().attestor().SilentSince("node1").has_value());
}

struct Grace {
  v1::TrustLevel level;
  v1::OnUntrusted action;
  int for_seconds;     // how long the level is what it is
  int silent_seconds;  // less than 0: not silent
  bool leaves;
};

TEST(MustLeave, FollowsLevelGraceAndWhatThePoolWants) {
  v1::PoolSpec pool;
  pool.set_stale_grace_seconds(300);
  pool.set_unknown_grace_seconds(100);
  const WallTime now = SystemClock().Now();
  const Grace rows[] = {
      {v1::TRUST_TRUSTED, v1::ON_UNTRUSTED_STOP, 9999, 9999, false},
      {v1::TRUST_UNTRUSTED, v1::ON_UNTRUSTED_STOP, 0, -1, true},
      {v1::TRUST_UNTRUSTED, v1::ON_UNTRUSTED_MOVE, 0, -1, true},
      {v1::TRUST_UNTRUSTED, v1::ON_UNTRUSTED_REPORT, 9999, 9999, false},
      // Nobody asked it: it is not to blame.
      {v1::TRUST_STALE, v1::ON_UNTRUSTED_STOP, 9999, -1, false},
      {v1::TRUST_STALE, v1::ON_UNTRUSTED_STOP, 9999, 299, false},
      {v1::TRUST_STALE, v1::ON_UNTRUSTED_STOP, 0, 300, true},
      {v1::TRUST_STALE, v1::ON_UNTRUSTED_REPORT, 9999, 9999, false},
      {v1::TRUST_UNKNOWN, v1::ON_UNTRUSTED_STOP, 99, -1, false},
      {v1::TRUST_UNKNOWN, v1::ON_UNTRUSTED_STOP, 100, -1, true},
  };
  for (const Grace& row : rows) {
    pool.set_on_untrusted(row.action);
    v1::HostTrust trust;
    trust.set_level(row.level);
    *trust.mutable_change_time() = ToTimestamp(now - seconds(row.for_seconds));
    const auto silent = row.silent_seconds < 0
                            ? std::nullopt
                            : std::optional<std::chrono::nanoseconds>(seconds(row.silent_seconds));
    EXPECT_EQ(MustLeave(pool, trust, now, silent), row.leaves)
        << v1::TrustLevel_Name(row.level) << " for " << row.for_seconds << " s, silent for "
        << row.silent_seconds << " s";
  }
  pool.set_stale_grace_seconds(0);
  v1::HostTrust stale;
  stale.set_level(v1::TRUST_STALE);
  EXPECT_FALSE(MustLeave(pool, stale, now, std::chrono::hours(99)));
}

// ---- hosts with an event log ----

class LoggedHostTest : public AttestorTest {
 protected:
  LoggedHostTest() {
    host_.StartLoader("grub");
    ActivatePolicy(host_.PolicyDocument("grub"));
  }
};

TEST_F(LoggedHostTest, LogThatExplainsThePcrsIsAccepted) {
  const auto agent = JoinTrusted("node1", host_);
  rig_.clock().Advance(seconds(6));
  rig_.controller().attestor().OnLeaseWanted("node1");
  EXPECT_FALSE(NextRequest(*agent).event_log());
}

TEST_F(LoggedHostTest, LogThatWasCutAtAnEventIsRefused) {
  host_.CutLog();
  const auto agent = Join("node1", host_);
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNTRUSTED, v1::HOST_NON_OPERATIONAL));
  EXPECT_EQ(Reason("node1"), "event-log-replay");
  EXPECT_EQ(Trust("node1").reasons(0).pcr(), 4);
}

TEST_F(LoggedHostTest, PcrThatTheLogDoesNotExplainIsRefused) {
  host_.ExtendSecretly(4, "rootkit");
  const auto agent = Join("node1", host_);
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_UNTRUSTED, v1::HOST_NON_OPERATIONAL));
  EXPECT_EQ(Reason("node1"), "event-log-replay");
}

TEST_F(LoggedHostTest, HostWhosePcrsChangedAndThatKeepsItsLogBackIsStale) {
  const auto agent = JoinTrusted("node1", host_);
  host_.ExtendSecretly(4, "rootkit");
  rig_.clock().Advance(seconds(6));
  rig_.controller().attestor().OnLeaseWanted("node1");
  Answer(*agent, host_);
  EXPECT_TRUE(NextRequest(*agent).event_log());
  rig_.clock().Advance(seconds(61));
  EXPECT_TRUE(AwaitLevel("node1", v1::TRUST_STALE));
}

TEST_F(LoggedHostTest, OperatorGetsAllOfTheEvidenceAnew) {
  const auto agent = JoinTrusted("node1", host_);
  rig_.controller().attestor().AttestNow("node1");
  EXPECT_TRUE(NextRequest(*agent).event_log());
}

TEST_F(LoggedHostTest, EvidenceThatCouldNotBeKeptIsAskedForAgain) {
  const auto agent = Join("node1", host_);
  const std::string uid = rig_.controller().view().Get<v1::Host>("node1")->metadata().uid();
  std::filesystem::path directory;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(rig_.dir())) {
    if (entry.path().filename() == "evidence") directory = entry.path();
  }
  ASSERT_FALSE(directory.empty());
  std::ofstream(directory / uid) << "in the way";
  Answer(*agent, host_);
  ASSERT_TRUE(AwaitHost("node1", v1::TRUST_TRUSTED, v1::HOST_UP));
  std::filesystem::remove(directory / uid);
  rig_.clock().Advance(seconds(6));
  rig_.controller().attestor().OnLeaseWanted("node1");
  const v1::RequestEvidence request = NextRequest(*agent);
  EXPECT_TRUE(request.event_log());
  ASSERT_TRUE(agent->SubmitEvidence(host_.Answer(request)).ok());
  EXPECT_TRUE(rig_.Await([&](const View& /*view*/) {
    return rig_.controller().evidence().Get(uid, EvidenceKind::kWhole).has_value();
  }));
}

}  // namespace
}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#include "agent/lease_keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/lease_maker.h"
#include "agent/messages.h"
#include "agent/test_support.h"
#include "base/text.h"
#include "tls/certificate.h"

namespace vallum::agent {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr const char* kBoot = "9d8a3f8e-0000-4000-8000-000000000001";
constexpr const char* kKey = "name of the key";

class SetClock final : public Clock {
 public:
  WallTime Now() const override { return now; }
  MonotonicTime Monotonic() const override { return {}; }
  WallTime now = SystemClock().Now();
};

class LeaseKeeperTest : public testing::Test {
 protected:
  LeaseKeeperTest()
      : authority_(tls::CertificateAuthority::Create(dir_.path() / "ca", clock_).value()),
        signer_(authority_->IssueSigner(tls::kLeaseSignerUnit).value()) {}

  LeaseOptions Options() {
    return {.path = dir_.path() / "lease.pb",
            .host = "node1",
            .boot_id = kBoot,
            .ca_pem = authority_->certificate_pem(),
            .since_boot = [this] { return since_boot_; }};
  }
  std::unique_ptr<LeaseKeeper> Keeper() {
    auto keeper = std::make_unique<LeaseKeeper>(Options(), clock_);
    keeper->SetKey(ToBytes(AsBytes(kKey)));
    return keeper;
  }
  v1::LeaseClaims ValidClaims() const {
    return MakeClaims("node1", kBoot, kKey, clock_.now, minutes(10));
  }
  v1::TrustNotice Notice(const v1::TrustLease& lease) const {
    v1::TrustNotice notice;
    notice.set_level(v1::TRUST_TRUSTED);
    *notice.mutable_lease() = lease;
    return notice;
  }
  v1::TrustNotice Notice(const v1::LeaseClaims& claims) const {
    return Notice(SignLease(signer_, claims));
  }
  // The claims are refused, and nothing is live afterwards.
  void ExpectRefused(const v1::TrustLease& lease, const std::string& words) {
    const auto keeper = Keeper();
    const auto taken = keeper->Take(Notice(lease));
    ASSERT_FALSE(taken);
    EXPECT_NE(taken.error().Describe().find(words), std::string::npos) << taken.error().Describe();
    EXPECT_FALSE(keeper->Check("trusted"));
  }
  void ExpectRefused(const v1::LeaseClaims& claims, const std::string& words) {
    ExpectRefused(SignLease(signer_, claims), words);
  }
  void Pass(seconds time) {
    clock_.now += time;
    since_boot_ += time;
  }

  const TempDir dir_;
  SetClock clock_;
  std::chrono::nanoseconds since_boot_ = hours(1);
  std::unique_ptr<tls::CertificateAuthority> authority_;
  tls::Credentials signer_;
};

TEST_F(LeaseKeeperTest, ValidLeaseIsLiveUntilItsEnd) {
  const auto keeper = Keeper();
  EXPECT_FALSE(keeper->Check("trusted"));
  ASSERT_TRUE(keeper->Take(Notice(ValidClaims())));
  EXPECT_TRUE(keeper->Check("trusted"));
  Pass(minutes(10) - seconds(1));
  EXPECT_TRUE(keeper->Check("trusted"));
  Pass(seconds(1));
  EXPECT_FALSE(keeper->Check("trusted"));
}

TEST_F(LeaseKeeperTest, LeaseForOnePoolStartsNothingOfAnother) {
  const auto keeper = Keeper();
  ASSERT_TRUE(keeper->Take(Notice(ValidClaims())));
  const auto refused = keeper->Check("gold");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), testing::HasSubstr("one for pool trusted"));
}

TEST_F(LeaseKeeperTest, RefusalSaysWhenItEndedAndThatTheControllerIsAway) {
  const auto keeper = Keeper();
  keeper->SetReached(true);
  ASSERT_TRUE(keeper->Take(Notice(ValidClaims())));
  keeper->SetReached(false);
  Pass(minutes(11));
  const auto refused = keeper->Check("trusted");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kDenied);
  const std::string words = refused.error().Describe();
  EXPECT_NE(words.find("the lease ended at"), std::string::npos) << words;
  EXPECT_NE(words.find("has not been reached since"), std::string::npos) << words;
  EXPECT_EQ(ToLower(words).find("untrusted"), std::string::npos) << words;
  EXPECT_NE(refused.error().fix().find("TRUSTED"), std::string::npos);
}

TEST_F(LeaseKeeperTest, ClockSetBackProlongsNothing) {
  const auto keeper = Keeper();
  ASSERT_TRUE(keeper->Take(Notice(ValidClaims())));
  since_boot_ += minutes(10);
  clock_.now -= hours(1);
  EXPECT_FALSE(keeper->Check("trusted"));
}

TEST_F(LeaseKeeperTest, SameLeaseToldAgainAfterAClockSetBackProlongsNothing) {
  const auto keeper = Keeper();
  const auto notice = Notice(ValidClaims());
  ASSERT_TRUE(keeper->Take(notice));
  since_boot_ += minutes(9);
  ASSERT_TRUE(keeper->Take(notice));
  EXPECT_TRUE(keeper->Check("trusted"));
  since_boot_ += minutes(1);
  EXPECT_FALSE(keeper->Check("trusted"));
}

TEST_F(LeaseKeeperTest, ClockSetForwardEndsIt) {
  const auto keeper = Keeper();
  ASSERT_TRUE(keeper->Take(Notice(ValidClaims())));
  clock_.now += minutes(10);
  EXPECT_FALSE(keeper->Check("trusted"));
}

TEST_F(LeaseKeeperTest, NoticeWithoutLeaseEndsIt) {
  const auto keeper = Keeper();
  ASSERT_TRUE(keeper->Take(Notice(ValidClaims())));
  v1::TrustNotice notice;
  notice.set_level(v1::TRUST_UNTRUSTED);
  notice.set_detail("PCR 4 has no rule");
  ASSERT_TRUE(keeper->Take(notice));
  const auto refused = keeper->Check("trusted");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().Describe().find("PCR 4 has no rule"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(dir_.path() / "lease.pb"));
}

TEST_F(LeaseKeeperTest, NextAgentOfTheSameBootGoesOn) {
  ASSERT_TRUE(Keeper()->Take(Notice(ValidClaims())));
  Pass(minutes(9));
  const auto next = Keeper();
  EXPECT_EQ(next->Load(), "");
  EXPECT_TRUE(next->Check("trusted"));
  Pass(minutes(1));
  EXPECT_FALSE(next->Check("trusted"));
}

TEST_F(LeaseKeeperTest, NextAgentKeepsTheEndByTheClockSinceBoot) {
  ASSERT_TRUE(Keeper()->Take(Notice(ValidClaims())));
  since_boot_ += minutes(10);
  clock_.now -= minutes(1);
  const auto next = Keeper();
  EXPECT_EQ(next->Load(), "");
  EXPECT_FALSE(next->Check("trusted"));
}

TEST_F(LeaseKeeperTest, FileIsTheAgentsAlone) {
  ASSERT_TRUE(Keeper()->Take(Notice(ValidClaims())));
  EXPECT_EQ(std::filesystem::status(dir_.path() / "lease.pb").permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(LeaseKeeperTest, LeaseOfAnotherBootIsNotTakenUp) {
  ASSERT_TRUE(Keeper()->Take(Notice(ValidClaims())));
  LeaseOptions options = Options();
  options.boot_id = "another";
  LeaseKeeper next(std::move(options), clock_);
  next.SetKey(ToBytes(AsBytes(kKey)));
  EXPECT_NE(next.Load().find("another boot"), std::string::npos);
  EXPECT_FALSE(next.Check("trusted"));
}

TEST_F(LeaseKeeperTest, OtherAttestationKeyEndsIt) {
  const auto keeper = Keeper();
  ASSERT_TRUE(keeper->Take(Notice(ValidClaims())));
  keeper->SetKey(ToBytes(AsBytes("another key")));
  EXPECT_FALSE(keeper->Check("trusted"));
}

TEST_F(LeaseKeeperTest, LeaseForAnotherHostIsRefused) {
  auto claims = ValidClaims();
  claims.set_host("node2");
  ExpectRefused(claims, "node2");
}

TEST_F(LeaseKeeperTest, LeaseForAnotherBootIsRefused) {
  auto claims = ValidClaims();
  claims.set_boot_id("other");
  ExpectRefused(claims, "another boot");
}

TEST_F(LeaseKeeperTest, LeaseForAnotherKeyIsRefused) {
  auto claims = ValidClaims();
  claims.set_ak_name("other");
  ExpectRefused(claims, "another attestation key");
}

TEST_F(LeaseKeeperTest, LeaseThatIsOverIsRefused) {
  auto claims = ValidClaims();
  *claims.mutable_issue_time() = ToTimestamp(clock_.now - hours(2));
  *claims.mutable_expire_time() = ToTimestamp(clock_.now);
  ExpectRefused(claims, "it ended at");
}

TEST_F(LeaseKeeperTest, LeaseFromTheFutureIsRefused) {
  auto claims = ValidClaims();
  *claims.mutable_issue_time() = ToTimestamp(clock_.now + minutes(6));
  ExpectRefused(claims, "in the future");
}

TEST_F(LeaseKeeperTest, LeaseOfAClockALittleAheadIsTaken) {
  auto claims = ValidClaims();
  *claims.mutable_issue_time() = ToTimestamp(clock_.now + minutes(4));
  EXPECT_TRUE(Keeper()->Take(Notice(claims)));
}

TEST_F(LeaseKeeperTest, LeaseWithoutTimesIsRefused) {
  auto claims = ValidClaims();
  claims.clear_issue_time();
  ExpectRefused(claims, "no time");
}

TEST_F(LeaseKeeperTest, ChangedClaimsAreRefused) {
  auto lease = SignLease(signer_, ValidClaims());
  auto claims = ValidClaims();
  *claims.mutable_expire_time() = ToTimestamp(clock_.now + hours(9));
  lease.set_claims(claims.SerializeAsString());
  ExpectRefused(lease, "signature");
}

TEST_F(LeaseKeeperTest, LeaseSignedByAnotherDeploymentsCaIsRefused) {
  const auto other = tls::CertificateAuthority::Create(dir_.path() / "other", clock_).value();
  const auto signer = other->IssueSigner(tls::kLeaseSignerUnit).value();
  ExpectRefused(SignLease(signer, ValidClaims()), "does not verify");
}

TEST_F(LeaseKeeperTest, LeaseSignedByAnAgentIsRefused) {
  auto key = tls::MakeKeyAndCsr("node1").value();
  tls::Credentials agent{.certificate_pem = authority_->IssueAgent(key.csr_der, "node1").value(),
                         .private_key_pem = std::move(key.private_key_pem)};
  ExpectRefused(SignLease(agent, ValidClaims()), "OU 'agent'");
}

TEST_F(LeaseKeeperTest, LeaseBySignerWhoseCertificateIsOverIsRefused) {
  clock_.now += hours(24 * 366);
  ExpectRefused(ValidClaims(), "does not verify");
}

TEST_F(LeaseKeeperTest, SignerIsNoAgentForTls) {
  EXPECT_FALSE(tls::VerifyChain(signer_.certificate_pem, authority_->certificate_pem(),
                                tls::Purpose::kClient, clock_.now));
}

}  // namespace
}  // namespace vallum::agent

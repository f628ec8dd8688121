// SPDX-License-Identifier: Apache-2.0
#include "controller/peer_identity.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/clock.h"
#include "controller/test_rig.h"
#include "tls/authority.h"
#include "tls/certificate.h"

namespace vallum::controller {
namespace {

class PeerIdentitiesTest : public testing::Test {
 protected:
  std::string Certificate(const std::string& host) {
    const tls::KeyAndCsr made = tls::MakeKeyAndCsr(host).value();
    return authority_->IssueAgent(made.csr_der, host).value();
  }

  SystemClock clock_;
  TempDir dir_;
  std::unique_ptr<tls::CertificateAuthority> authority_ =
      tls::CertificateAuthority::Create(dir_.path() / "ca", clock_).value();
};

TEST_F(PeerIdentitiesTest, CertificateSaysTheSameEachTime) {
  const std::string pem = Certificate("node1");
  PeerIdentities identities;
  const PeerIdentity first = identities.Read(pem).value();
  const PeerIdentity again = identities.Read(pem).value();
  EXPECT_EQ(first.common_name, "node1");
  EXPECT_EQ(first.organizational_unit, tls::kAgentUnit);
  EXPECT_EQ(first.key_sha256, ReadIdentity(pem)->key_sha256);
  EXPECT_EQ(again.common_name, first.common_name);
  EXPECT_EQ(again.organizational_unit, first.organizational_unit);
  EXPECT_EQ(again.key_sha256, first.key_sha256);
  EXPECT_EQ(identities.size(), 1U);
}

TEST_F(PeerIdentitiesTest, AnotherCertificateOfTheSameNameIsAnotherIdentity) {
  PeerIdentities identities;
  const PeerIdentity one = identities.Read(Certificate("node1")).value();
  const PeerIdentity other = identities.Read(Certificate("node1")).value();
  EXPECT_NE(one.key_sha256, other.key_sha256);
}

TEST_F(PeerIdentitiesTest, WhatIsNoCertificateIsRefusedAndNotRemembered) {
  PeerIdentities identities;
  EXPECT_EQ(identities.Read("no certificate").error().code(), ErrorCode::kInvalidInput);
  EXPECT_EQ(identities.size(), 0U);
}

TEST_F(PeerIdentitiesTest, NeverHoldsMoreThanItsLimit) {
  PeerIdentities identities(2);
  for (const char* host : {"node1", "node2", "node3"}) {
    EXPECT_EQ(identities.Read(Certificate(host))->common_name, host);
    EXPECT_LE(identities.size(), 2U);
  }
}

}  // namespace
}  // namespace vallum::controller

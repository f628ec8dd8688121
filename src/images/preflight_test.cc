// SPDX-License-Identifier: Apache-2.0
#include "images/preflight.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/bytes.h"
#include "firmware/guid.h"

namespace vallum::images {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

firmware::KeySet MakeCompleteKeySet() {
  const firmware::Signature entry = firmware::MakeSignature(
      firmware::SignatureType::kSha256, firmware::kGlobalVariableGuid, Bytes(32));
  firmware::KeySet keys;
  keys.name = "mine";
  keys.pk = keys.kek = keys.db = keys.dbx = {entry};
  return keys;
}

TEST(Readiness, CompleteKeySetIsReady) {
  EXPECT_EQ(ReadinessOf(MakeCompleteKeySet()), SecureBootReadiness::kReady);
}

TEST(Readiness, WithoutPlatformKeyItIsSetupModeWhateverElseIsThere) {
  firmware::KeySet keys = MakeCompleteKeySet();
  keys.pk.clear();
  EXPECT_EQ(ReadinessOf(keys), SecureBootReadiness::kSetupMode);
  keys.secure_boot = false;
  EXPECT_EQ(ReadinessOf(keys), SecureBootReadiness::kSetupMode);
}

TEST(Readiness, WithSecureBootOffItIsDisabled) {
  firmware::KeySet keys = MakeCompleteKeySet();
  keys.secure_boot = false;
  EXPECT_EQ(ReadinessOf(keys), SecureBootReadiness::kDisabled);
}

TEST(Readiness, WithoutKekOrDbItIsIncomplete) {
  for (auto list : {&firmware::KeySet::kek, &firmware::KeySet::db}) {
    firmware::KeySet keys = MakeCompleteKeySet();
    (keys.*list).clear();
    EXPECT_EQ(ReadinessOf(keys), SecureBootReadiness::kCertsIncomplete);
  }
}

TEST(Readiness, WithoutDbxItIsReadyWithoutDbx) {
  firmware::KeySet keys = MakeCompleteKeySet();
  keys.dbx.clear();
  EXPECT_EQ(ReadinessOf(keys), SecureBootReadiness::kReadyNoDbx);
}

TEST(Readiness, EachStateHasItsName) {
  using enum SecureBootReadiness;
  std::vector<std::string> names;
  for (const auto state :
       {kNotSupported, kDisabled, kFirstBoot, kReady, kReadyNoDbx, kSetupMode, kCertsIncomplete}) {
    names.emplace_back(ReadinessName(state));
  }
  EXPECT_THAT(names, ElementsAre("not_supported", "disabled", "first_boot", "ready", "ready_no_dbx",
                                 "setup_mode", "certs_incomplete"));
}

TEST(Summary, SaysYesAloneAndReasonsWithNoAndAsFarAsKnown) {
  KeySetReport report;
  report.key_set = "mine";
  report.bootable = Bootable::kYes;
  EXPECT_EQ(Summarize(report), "bootable under key set mine: yes");
  report.reasons = {"one", "two"};
  report.bootable = Bootable::kNo;
  EXPECT_EQ(Summarize(report), "bootable under key set mine: no, because one; two");
  report.bootable = Bootable::kAsFarAsKnown;
  EXPECT_EQ(Summarize(report), "bootable under key set mine: as far as known, because one; two");
}

TEST(Summary, NameOfAKeySetDoesNotReachTheTerminalRaw) {
  KeySetReport report;
  report.key_set = "\x1b[2J";
  EXPECT_THAT(Summarize(report), Not(HasSubstr("\x1b")));
}

TEST(Report, WithoutChainIsNoWithTheReasonAndAFix) {
  const KeySetReport report = ReportWithoutChain(MakeCompleteKeySet(), "no partition");
  EXPECT_EQ(report.bootable, Bootable::kNo);
  EXPECT_EQ(report.readiness, SecureBootReadiness::kNotSupported);
  EXPECT_THAT(report.reasons, ElementsAre("no partition"));
  EXPECT_THAT(report.fixes, Not(IsEmpty()));
}

}  // namespace
}  // namespace vallum::images

// SPDX-License-Identifier: Apache-2.0
#include "measure/event_log_secure_boot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "measure/event_digest.h"
#include "measure/event_log_builder.h"

namespace vallum::measure {
namespace {

using firmware::kGlobalVariableGuid;
using firmware::kSecurityDatabaseGuid;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;

LoggedSecureBootPolicy Read(const EventLogBuilder& made, EventLogKind kind = EventLogKind::kTpm) {
  const auto log = EventLog::Parse(made.bytes(), kind);
  EXPECT_TRUE(log.has_value());
  return ReadSecureBootPolicy(*log, kBank);
}

EventLogBuilder MakeLog() {
  EventLogBuilder log({kBank});
  AddSecureBootPolicy(log);
  return log;
}

Bytes Value(uint8_t value) { return Bytes(1, std::byte{value}); }

TEST(LoggedSecureBoot, WholePolicyIsReadWithoutProblems) {
  const LoggedSecureBootPolicy policy = Read(MakeLog());
  EXPECT_THAT(policy.problems, IsEmpty());
  EXPECT_EQ(policy.state, LoggedSecureBoot::kOn);
  EXPECT_EQ(policy.pk.size(), 1U);
  EXPECT_EQ(policy.kek.size(), 1U);
  EXPECT_EQ(policy.db.size(), 1U);
  EXPECT_TRUE(policy.dbx.empty());
  ASSERT_EQ(policy.authorities.size(), 1U);
  EXPECT_EQ(policy.authorities[0].variable, "db");
  EXPECT_FALSE(policy.authorities[0].before_separator);
  EXPECT_TRUE(policy.authorities[0].covered);
}

TEST(LoggedSecureBoot, RtmrZeroHoldsThePolicyOfAConfidentialLog) {
  EventLogBuilder log({kBank});
  AddSecureBootPolicy(log, 1);
  const auto policy = Read(log, EventLogKind::kConfidential);
  EXPECT_EQ(policy.state, LoggedSecureBoot::kOn);
  EXPECT_THAT(policy.problems, IsEmpty());
}

TEST(LoggedSecureBoot, LogWithoutTheVariableSaysNothing) {
  EventLogBuilder log({kBank});
  EXPECT_EQ(Read(log.AddSeparator(7)).state, LoggedSecureBoot::kNotMeasured);
}

TEST(LoggedSecureBoot, VariableInAnotherPcrSaysNothing) {
  EventLogBuilder log({kBank});
  log.AddVariable(1, "SecureBoot", kGlobalVariableGuid, Value(1));
  EXPECT_EQ(Read(log).state, LoggedSecureBoot::kNotMeasured);
}

TEST(LoggedSecureBoot, VariableOfAnotherVendorOrNameSaysNothing) {
  EventLogBuilder log({kBank});
  log.AddVariable(7, "SecureBoot", kSecurityDatabaseGuid, Value(1));
  log.AddVariable(7, std::string_view("SecureBoot\0", 11), kGlobalVariableGuid, Value(1));
  EXPECT_EQ(Read(log).state, LoggedSecureBoot::kNotMeasured);
}

TEST(LoggedSecureBoot, OnlyOneAndZeroAreValues) {
  struct Case {
    Bytes value;
    LoggedSecureBoot state;
  };
  for (const Case& each :
       {Case{Value(0), LoggedSecureBoot::kOff}, Case{Value(1), LoggedSecureBoot::kOn},
        Case{Value(2), LoggedSecureBoot::kUnreadable}, Case{{}, LoggedSecureBoot::kEmptyVariable},
        Case{Bytes(2, std::byte{1}), LoggedSecureBoot::kUnreadable}}) {
    EventLogBuilder log({kBank});
    log.AddVariable(7, "SecureBoot", kGlobalVariableGuid, each.value);
    EXPECT_EQ(Read(log).state, each.state) << each.value.size();
  }
}

TEST(LoggedSecureBoot, DataThatWasNotHashedIsNotBelieved) {
  EventLogBuilder log({kBank});
  log.Add(7, EventType::kVariableDriverConfig,
          EncodeVariableData("SecureBoot", kGlobalVariableGuid, Value(1)),
          EncodeVariableData("SecureBoot", kGlobalVariableGuid, Value(0)));
  const auto policy = Read(log);
  EXPECT_EQ(policy.state, LoggedSecureBoot::kUnreadable);
  EXPECT_THAT(policy.problems, Contains(HasSubstr("not that of the logged SecureBoot")));
}

TEST(LoggedSecureBoot, EventWithoutADigestInTheBankIsNotBelieved) {
  EventLogBuilder log({HashAlgorithm::kSha1, kBank});
  const Bytes data = EncodeVariableData("SecureBoot", kGlobalVariableGuid, Value(1));
  log.AddIn({HashAlgorithm::kSha1}, 7, EventType::kVariableDriverConfig, data, data);
  const auto policy = Read(log);
  EXPECT_EQ(policy.state, LoggedSecureBoot::kNotMeasured);
  EXPECT_THAT(policy.problems, Contains(HasSubstr("no digest in the bank sha256")));
}

TEST(LoggedSecureBoot, EventThatExtendsNothingIsNotBelieved) {
  EventLogBuilder log({kBank});
  log.Add(7, EventType::kNoAction, EncodeVariableData("SecureBoot", kGlobalVariableGuid, Value(1)));
  EXPECT_EQ(Read(log).state, LoggedSecureBoot::kNotMeasured);
}

TEST(LoggedSecureBoot, SecondVariableMakesItUnreadable) {
  EventLogBuilder log({kBank});
  log.AddVariable(7, "SecureBoot", kGlobalVariableGuid, Value(0));
  log.AddVariable(7, "SecureBoot", kGlobalVariableGuid, Value(1));
  const auto policy = Read(log);
  EXPECT_EQ(policy.state, LoggedSecureBoot::kUnreadable);
  EXPECT_THAT(policy.problems, Contains(HasSubstr("SecureBoot was measured twice")));
}

TEST(LoggedSecureBoot, VariableAfterTheSeparatorIsNotTheFirmwares) {
  EventLogBuilder log({kBank});
  log.AddSeparator(7).AddVariable(7, "SecureBoot", kGlobalVariableGuid, Value(1));
  const auto policy = Read(log);
  EXPECT_EQ(policy.state, LoggedSecureBoot::kUnreadable);
  EXPECT_THAT(policy.problems, Contains(HasSubstr("after the separator")));
}

TEST(LoggedSecureBoot, KeysAfterTheSeparatorAreNotKept) {
  EventLogBuilder log = MakeLog();
  log.AddVariable(7, "db", kSecurityDatabaseGuid, {});
  const auto policy = Read(log);
  EXPECT_EQ(policy.db.size(), 1U);
  EXPECT_THAT(policy.problems, Contains(HasSubstr("db was measured twice")));
}

TEST(LoggedSecureBoot, VariablesOutOfOrderAreNoticed) {
  EventLogBuilder log({kBank});
  log.AddVariable(7, "PK", kGlobalVariableGuid, OneKey());
  log.AddVariable(7, "SecureBoot", kGlobalVariableGuid, Value(1));
  EXPECT_THAT(Read(log).problems, Contains(HasSubstr("SecureBoot was measured out of order")));
}

TEST(LoggedSecureBoot, MissingVariableAndSeparatorAreNoticed) {
  EventLogBuilder log({kBank});
  log.AddVariable(7, "SecureBoot", kGlobalVariableGuid, Value(0));
  const auto policy = Read(log);
  EXPECT_THAT(policy.problems, Contains(HasSubstr("dbx was not measured")));
  EXPECT_THAT(policy.problems, Contains(HasSubstr("no separator")));
}

TEST(LoggedSecureBoot, SecondSeparatorIsNoticed) {
  EventLogBuilder log = MakeLog();
  EXPECT_THAT(Read(log.AddSeparator(7)).problems, Contains(HasSubstr("second separator in PCR 7")));
}

TEST(LoggedSecureBoot, ErrorSeparatorIsNoticed) {
  EventLogBuilder log({kBank});
  const Bytes one = {std::byte{1}, std::byte{0}, std::byte{0}, std::byte{0}};
  log.Add(7, EventType::kSeparator, one);
  EXPECT_THAT(Read(log).problems, Contains(HasSubstr("measuring failed")));
}

TEST(LoggedSecureBoot, UnreadableKeysAreNoticed) {
  EventLogBuilder log({kBank});
  log.AddVariable(7, "PK", kGlobalVariableGuid, Bytes(5));
  EXPECT_THAT(Read(log).problems, Contains(HasSubstr("PK is no signature list")));
}

TEST(LoggedSecureBoot, DebuggerIsNoticed) {
  EventLogBuilder log = MakeLog();
  log.AddText(7, EventType::kEfiAction, "UEFI Debug Mode");
  EXPECT_THAT(Read(log).problems, Contains(HasSubstr("debugger")));
}

TEST(LoggedSecureBoot, EventThatDoesNotBelongThereIsNoticed) {
  EventLogBuilder log = MakeLog();
  log.AddText(7, EventType::kIpl, "x");
  EXPECT_THAT(Read(log).problems, Contains(HasSubstr("does not belong into PCR 7")));
}

TEST(LoggedSecureBoot, AuthorityBeforeTheSeparatorIsMarked) {
  EventLogBuilder log({kBank});
  log.Add(7, EventType::kVariableAuthority,
          EncodeVariableData("db", kSecurityDatabaseGuid, Bytes(56)));
  const auto policy = Read(log);
  ASSERT_EQ(policy.authorities.size(), 1U);
  EXPECT_TRUE(policy.authorities[0].before_separator);
}

TEST(LoggedSecureBoot, AuthorityThatWasNotHashedIsMarked) {
  EventLogBuilder log = MakeLog();
  Bytes data = EncodeVariableData("Shim", firmware::kShimLockGuid, Bytes(20));
  const Bytes hashed = data;
  data.push_back(std::byte{0});
  log.Add(7, EventType::kVariableAuthority, data, hashed);
  const auto policy = Read(log);
  EXPECT_FALSE(policy.authorities.back().covered);
  EXPECT_THAT(policy.problems, Contains(HasSubstr("one byte too many")));
}

TEST(LoggedSecureBoot, AuthorityThatIsLabelledAsConfigurationIsOneAllTheSame) {
  EventLogBuilder log = MakeLog();
  log.AddVariable(7, "MokListRT", firmware::kShimLockGuid, Bytes(56));
  const auto policy = Read(log);
  ASSERT_EQ(policy.authorities.size(), 2U);
  EXPECT_EQ(policy.authorities[1].variable, "MokListRT");
  EXPECT_TRUE(policy.authorities[1].covered);
}

TEST(LoggedSecureBoot, UnknownVariableBeforeTheSeparatorIsAnAuthority) {
  EventLogBuilder log({kBank});
  log.AddVariable(7, "dbt", firmware::kShimLockGuid, Bytes(56));
  EXPECT_EQ(Read(log).authorities.size(), 1U);
}

TEST(LoggedSecureBoot, OtherVariableOfTheFirmwareIsNone) {
  EventLogBuilder log({kBank});
  log.AddVariable(7, "dbt", kSecurityDatabaseGuid, {});
  log.AddVariable(7, "AuditMode", kGlobalVariableGuid, Value(0));
  EXPECT_THAT(Read(log).authorities, IsEmpty());
}

TEST(LoggedSecureBoot, OtherVariableAfterTheSeparatorIsAnAuthority) {
  EventLogBuilder log = MakeLog();
  log.AddVariable(7, "AuditMode", kGlobalVariableGuid, Value(0));
  EXPECT_EQ(Read(log).authorities.size(), 2U);
}

TEST(LoggedSecureBoot, OtherVariableThatWasNotHashedIsNoticed) {
  EventLogBuilder log({kBank});
  log.Add(7, EventType::kVariableDriverConfig, EncodeVariableData("dbt", kSecurityDatabaseGuid, {}),
          AsBytes("UEFI Debug Mode"));
  EXPECT_THAT(Read(log).problems, Contains(HasSubstr("not that of what it says")));
}

TEST(LoggedSecureBoot, OnWithoutUseOfAKeyIsNoticed) {
  EventLogBuilder log({kBank});
  log.AddVariable(7, "SecureBoot", kGlobalVariableGuid, Value(1));
  const auto policy = Read(log);
  EXPECT_THAT(policy.problems, Contains(HasSubstr("no key was used")));
  EXPECT_THAT(policy.problems, Contains(HasSubstr("PK, KEK or db is empty")));
}

TEST(LoggedSecureBoot, ProblemsAreBounded) {
  EventLogBuilder log({kBank});
  for (int i = 0; i < 200; ++i) log.AddSeparator(7);
  EXPECT_EQ(Read(log).problems.size(), kMaxPolicyProblems);
}

}  // namespace
}  // namespace vallum::measure

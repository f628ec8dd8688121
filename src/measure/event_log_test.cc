// SPDX-License-Identifier: Apache-2.0
#include "measure/event_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "measure/event_log_builder.h"
#include "measure/event_log_replay.h"
#include "measure/pcr.h"

namespace vallum::measure {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr HashAlgorithm kSha1 = HashAlgorithm::kSha1;
constexpr HashAlgorithm kSha256 = HashAlgorithm::kSha256;
constexpr HashAlgorithm kSha384 = HashAlgorithm::kSha384;
constexpr EventType kAction = EventType::kEfiAction;

Result<EventLog> Parse(ByteView bytes, EventLogKind kind = EventLogKind::kTpm) {
  return EventLog::Parse(bytes, kind);
}

std::string WhyNot(ByteView bytes, EventLogKind kind = EventLogKind::kTpm) {
  const auto log = Parse(bytes, kind);
  return log.has_value() ? "accepted" : log.error().Describe();
}

Bytes Zeros(size_t size, uint8_t last) {
  Bytes value(size);
  value.back() = std::byte{last};
  return value;
}

Bytes Extended(Bytes value, ByteView data) {
  const Bytes digest = Digest(kSha256, data);
  value.insert(value.end(), digest.begin(), digest.end());
  return Digest(kSha256, value);
}

Bytes ReplayOf(ByteView bytes, uint32_t index, EventLogKind kind = EventLogKind::kTpm) {
  const auto log = Parse(bytes, kind);
  const auto replay = ReplayEventLog(*log, kSha256);
  return replay->values[index];
}

EventLogBuilder MakeLog() {
  EventLogBuilder log({kSha1, kSha256});
  log.AddText(4, kAction, "a").AddText(4, kAction, "b").AddSeparator(7);
  return log;
}

TEST(EventLog, CryptoAgileLogReplaysInEachBank) {
  const EventLogBuilder made = MakeLog();
  const auto log = Parse(made.bytes());
  ASSERT_TRUE(log.has_value()) << log.error().Describe();
  EXPECT_EQ(log->format(), EventLogFormat::kCryptoAgile);
  EXPECT_EQ(log->events().size(), 4U);
  EXPECT_EQ(log->size(), made.bytes().size());
  for (const HashAlgorithm bank : {kSha1, kSha256}) {
    const auto replay = ReplayEventLog(*log, bank);
    ASSERT_TRUE(replay.has_value());
    const Bytes digests[] = {Digest(bank, AsBytes("a")), Digest(bank, AsBytes("b"))};
    EXPECT_EQ(replay->values[4], *ReplayPcr(bank, digests));
    EXPECT_EQ(replay->extends[4], 2U);
    EXPECT_EQ(replay->extends[5], 0U);
  }
}

TEST(EventLog, LogWithoutSpecIdIsReadAsSha1) {
  EventLogBuilder made;
  made.AddText(4, kAction, "a");
  const auto log = Parse(made.bytes());
  ASSERT_TRUE(log.has_value()) << log.error().Describe();
  EXPECT_EQ(log->format(), EventLogFormat::kSha1);
  EXPECT_TRUE(log->HasBank(kSha1));
  EXPECT_FALSE(log->HasBank(kSha256));
  EXPECT_THAT(ReplayEventLog(*log, kSha256).error().fix(), HasSubstr("sha1"));
  const Bytes digests[] = {Digest(kSha1, AsBytes("a"))};
  EXPECT_EQ(ReplayEventLog(*log, kSha1)->values[4], *ReplayPcr(kSha1, digests));
}

TEST(EventLog, EmptyLogIsNoLog) { EXPECT_THAT(WhyNot({}), HasSubstr("empty")); }

TEST(EventLog, PaddingAloneIsNoLogOfMeasurements) {
  EXPECT_THAT(WhyNot(Bytes(64, std::byte{0xff})), HasSubstr("first event"));
  EXPECT_THAT(WhyNot(Bytes(64), EventLogKind::kConfidential), HasSubstr("Spec ID Event03"));
}

TEST(EventLog, PaddingAtTheEndIsNoEvent) {
  for (const std::byte fill : {std::byte{0}, std::byte{0xff}}) {
    EventLogBuilder made = MakeLog();
    const size_t size = made.bytes().size();
    made.AddRaw(Bytes(1000, fill));
    const auto log = Parse(made.bytes());
    ASSERT_TRUE(log.has_value()) << log.error().Describe();
    EXPECT_EQ(log->events().size(), 4U);
    EXPECT_EQ(log->size(), size);
    EXPECT_EQ(log->tail_size(), 1000U);
    EXPECT_EQ(log->tail(), fill == std::byte{0} ? LogTail::kZeros : LogTail::kOnes);
  }
}

TEST(EventLog, PaddingOfTwoKindsIsRefused) {
  EventLogBuilder made = MakeLog();
  made.AddRaw(Bytes(40, std::byte{0xff})).AddRaw(Bytes(40));
  EXPECT_THAT(WhyNot(made.bytes()), HasSubstr("event 4"));
}

TEST(EventLog, EveryCutInsideAnEventIsRefused) {
  const Bytes bytes = MakeLog().bytes();
  std::vector<size_t> ends;
  const auto whole = Parse(bytes);
  for (const LoggedEvent& event : whole->events()) ends.push_back(event.offset);
  for (size_t size = 1; size < bytes.size(); ++size) {
    const ByteView cut = ByteView(bytes).first(size);
    const auto log = Parse(cut);
    const bool at_event = std::ranges::find(ends, size) != ends.end();
    // The separator of PCR 7 ends in zeros, and so may a cut: then only padding is left over.
    const bool zeros = log.has_value() && log->tail() == LogTail::kZeros;
    EXPECT_EQ(log.has_value() && !zeros, at_event) << size;
  }
}

TEST(EventLog, IncompleteSpecIdEventIsRefused) {
  const Bytes good = EventLogBuilder({kSha256}).bytes();
  for (size_t missing = 1; missing < 20; ++missing) {
    Bytes bytes(good.begin(), good.end() - static_cast<std::ptrdiff_t>(missing));
    bytes[28] = static_cast<std::byte>(bytes.size() - 32);
    EXPECT_NE(WhyNot(bytes), "accepted") << missing;
  }
}

TEST(EventLog, SpecIdEventWithLeftOverBytesIsRefused) {
  Bytes bytes = EventLogBuilder({kSha256}).bytes();
  bytes.push_back(std::byte{7});
  bytes[28] = static_cast<std::byte>(bytes.size() - 32);
  EXPECT_THAT(WhyNot(bytes), HasSubstr("after the vendor information"));
}

TEST(EventLog, VendorInformationIsKept) {
  EventLogBuilder made({kSha256}, Bytes(3, std::byte{5}));
  made.AddSeparator(0);
  const auto log = Parse(made.bytes());
  ASSERT_TRUE(log.has_value());
  EXPECT_EQ(log->spec_id()->vendor_info.size(), 3U);
  EXPECT_EQ(log->events().size(), 2U);
}

TEST(EventLog, VendorInformationBesideTheEventIsATail) {
  Bytes bytes = EventLogBuilder({kSha256}, Bytes(3, std::byte{5})).bytes();
  bytes[28] = static_cast<std::byte>(std::to_integer<int>(bytes[28]) - 3);
  const auto log = Parse(bytes);
  ASSERT_TRUE(log.has_value()) << log.error().Describe();
  EXPECT_EQ(log->tail(), LogTail::kVendorInfo);
  bytes.push_back(std::byte{5});
  EXPECT_THAT(WhyNot(bytes), HasSubstr("event 1"));
}

TEST(EventLog, VendorInformationBesideTheEventIsPassedOverBeforeEvents) {
  EventLogBuilder plain({kSha256});
  const auto spec_size = static_cast<std::ptrdiff_t>(plain.bytes().size());
  plain.AddSeparator(0).AddSeparator(4);
  for (const Bytes& vendor_info : {Bytes(3, std::byte{5}), Bytes(16), Bytes(20)}) {
    Bytes bytes = EventLogBuilder({kSha256}, vendor_info).bytes();
    bytes[28] = static_cast<std::byte>(std::to_integer<size_t>(bytes[28]) - vendor_info.size());
    bytes.insert(bytes.end(), plain.bytes().begin() + spec_size, plain.bytes().end());
    const auto log = Parse(bytes);
    ASSERT_TRUE(log.has_value()) << log.error().Describe();
    EXPECT_EQ(log->events().size(), 3U);
    EXPECT_EQ(log->tail(), LogTail::kNothing);
  }
}

TEST(EventLog, VendorInformationThatIsCutOffIsRefused) {
  const Bytes whole = EventLogBuilder({kSha256}, Bytes(3, std::byte{5})).bytes();
  for (int missing = 1; missing <= 3; ++missing) {
    Bytes bytes(whole.begin(), whole.end() - missing);
    bytes[28] = static_cast<std::byte>(std::to_integer<int>(bytes[28]) - 3);
    EXPECT_THAT(WhyNot(bytes), HasSubstr("of 3 bytes of vendor information")) << missing;
  }
}

TEST(EventLog, OtherVersionIsRefused) {
  Bytes bytes = EventLogBuilder({kSha256}).AddSeparator(0).bytes();
  bytes[32 + 21] = std::byte{1};
  EXPECT_THAT(WhyNot(bytes), HasSubstr("version 1.0; 2.0 is known"));
}

TEST(EventLog, UnknownSpecIdIsRefused) {
  Bytes bytes = EventLogBuilder({kSha256}).bytes();
  bytes[32 + 14] = std::byte{'9'};
  EXPECT_THAT(WhyNot(bytes), HasSubstr("Spec ID Event09"));
}

TEST(EventLog, BankOfAnotherSizeIsRefused) {
  Bytes bytes = EventLogBuilder({kSha256}).bytes();
  bytes[32 + 30] = std::byte{20};
  EXPECT_THAT(WhyNot(bytes), HasSubstr("sha256 with digests of 20 bytes"));
}

TEST(EventLog, BankNamedTwiceIsRefused) {
  EXPECT_THAT(WhyNot(EventLogBuilder({kSha256, kSha256}).bytes()), HasSubstr("twice"));
}

TEST(EventLog, UnknownBankIsReadOverAndNotComputed) {
  Bytes bytes = MakeLog().bytes();
  // SHA-1 becomes algorithm 0x27, in the Spec ID event and in each event.
  bytes[32 + 28] = std::byte{0x27};
  const auto events = *Parse(MakeLog().bytes());
  for (size_t i = 1; i < events.events().size(); ++i) {
    bytes[events.events()[i].offset + 12] = std::byte{0x27};
  }
  const auto log = Parse(bytes);
  ASSERT_TRUE(log.has_value()) << log.error().Describe();
  EXPECT_EQ(log->banks()[0].Name(), "algorithm 0x0027");
  EXPECT_FALSE(log->HasBank(kSha1));
  EXPECT_EQ(ReplayOf(bytes, 4), ReplayOf(MakeLog().bytes(), 4));
}

TEST(EventLog, DigestOfABankThatIsNotAnnouncedIsRefused) {
  EventLogBuilder made({kSha256});
  made.AddIn({kSha384}, 4, kAction, AsBytes("a"), AsBytes("a"));
  EXPECT_THAT(WhyNot(made.bytes()), HasSubstr("0x000c"));
}

TEST(EventLog, TwoDigestsOfOneBankAreRefused) {
  EventLogBuilder made({kSha1, kSha256});
  made.AddIn({kSha256, kSha256}, 4, kAction, AsBytes("a"), AsBytes("a"));
  EXPECT_THAT(WhyNot(made.bytes()), HasSubstr("two digests of bank sha256"));
}

TEST(EventLog, MoreDigestsThanBanksAreRefused) {
  EventLogBuilder made({kSha256});
  made.AddIn({kSha256, kSha256}, 4, kAction, AsBytes("a"), AsBytes("a"));
  EXPECT_THAT(WhyNot(made.bytes()), HasSubstr("2 digests"));
}

TEST(EventLog, EventWithoutABanksDigestDoesNotExtendIt) {
  EventLogBuilder made({kSha1, kSha256});
  made.AddText(11, kAction, "a").AddIn({kSha1}, 11, kAction, AsBytes("b"), AsBytes("b"));
  const auto log = Parse(made.bytes());
  const auto replay = ReplayEventLog(*log, kSha256);
  ASSERT_TRUE(replay.has_value());
  EXPECT_EQ(replay->values[11], Extended(Zeros(32, 0), AsBytes("a")));
  EXPECT_THAT(replay->skipped, ElementsAre(2));
  EXPECT_TRUE(ReplayEventLog(*log, kSha1)->skipped.empty());
}

TEST(EventLog, NoActionExtendsNothingAnywhere) {
  EventLogBuilder made = MakeLog();
  made.AddText(4, EventType::kNoAction, "x").AddText(0xffffffff, EventType::kNoAction, "y");
  const auto log = Parse(made.bytes());
  ASSERT_TRUE(log.has_value()) << log.error().Describe();
  EXPECT_EQ(ReplayOf(made.bytes(), 4), ReplayOf(MakeLog().bytes(), 4));
}

TEST(EventLog, RegisterThatDoesNotExistIsNoEvidence) {
  EventLogBuilder made = MakeLog();
  made.AddText(24, kAction, "x").AddText(0xffffffff, kAction, "y");
  const auto log = Parse(made.bytes());
  ASSERT_TRUE(log.has_value());
  EXPECT_FALSE(log->Extends(log->events()[4]));
  EXPECT_FALSE(log->Extends(log->events()[5]));
  EXPECT_TRUE(log->Extends(log->events()[3]));
  EXPECT_EQ(log->RegisterName(24), "no PCR (0x00000018)");
}

TEST(EventLog, StartupLocalityIsWherePcr0Starts) {
  EventLogBuilder made({kSha256});
  made.AddLocality(3).AddText(0, kAction, "a");
  EXPECT_EQ(ReplayOf(made.bytes(), 0), Extended(Zeros(32, 3), AsBytes("a")));
  EXPECT_EQ(Parse(made.bytes())->startup_locality(), 3);
}

TEST(EventLog, UnknownStartupLocalityIsRefused) {
  EXPECT_THAT(WhyNot(EventLogBuilder({kSha256}).AddLocality(2).bytes()), HasSubstr("locality"));
}

TEST(EventLog, StartupLocalityOfAnotherSizeIsRefused) {
  EventLogBuilder made({kSha256});
  made.Add(0, EventType::kNoAction, AsBytes(std::string_view("StartupLocality\0\0\3", 18)));
  EXPECT_THAT(WhyNot(made.bytes()), HasSubstr("StartupLocality with 18 bytes"));
}

TEST(EventLog, TwoStartupLocalitiesAreRefused) {
  EventLogBuilder made({kSha256});
  made.AddLocality(3).AddLocality(0);
  EXPECT_THAT(WhyNot(made.bytes()), HasSubstr("an earlier one 3"));
}

TEST(EventLog, HcrtmEventMakesPcr0StartFromFour) {
  EventLogBuilder made({kSha256});
  made.AddText(0, EventType::kHcrtmEvent, "HCRTM");
  EXPECT_EQ(ReplayOf(made.bytes(), 0), Extended(Zeros(32, 4), AsBytes("HCRTM")));
}

TEST(EventLog, DynamicPcrsHoldOnesUnlessALaunchResetThem) {
  EventLogBuilder made({kSha256});
  made.AddText(17, kAction, "a");
  EXPECT_EQ(ReplayOf(made.bytes(), 17), Extended(Zeros(32, 0), AsBytes("a")));
  EXPECT_EQ(ReplayOf(made.bytes(), 18), Bytes(32, std::byte{0xff}));
  EXPECT_EQ(ReplayOf(made.bytes(), 23), Bytes(32));
}

TEST(EventLog, ConfidentialLogCountsMeasurementRegisters) {
  EventLogBuilder made({kSha256});
  made.AddText(1, kAction, "a").AddText(5, kAction, "b").AddText(0, kAction, "c");
  const auto log = Parse(made.bytes(), EventLogKind::kConfidential);
  ASSERT_TRUE(log.has_value());
  EXPECT_EQ(log->RegisterName(1), "RTMR0");
  EXPECT_EQ(log->RegisterName(0), "MRTD");
  EXPECT_FALSE(log->Extends(log->events()[2]));  // there is no register 5
  EXPECT_FALSE(log->Extends(log->events()[3]));  // nobody extends MRTD
  EXPECT_EQ(ReplayOf(made.bytes(), 1, EventLogKind::kConfidential),
            Extended(Zeros(32, 0), AsBytes("a")));
}

TEST(EventLog, StartupLocalityMeansNothingInAConfidentialLog) {
  EventLogBuilder made({kSha256});
  made.AddLocality(3);
  EXPECT_FALSE(Parse(made.bytes(), EventLogKind::kConfidential)->startup_locality().has_value());
}

TEST(EventLog, TooManyEventsAreRefused) {
  EventLogBuilder made({kSha256});
  const Bytes tiny = {std::byte{1}};
  for (size_t i = 0; i < kMaxLoggedEvents; ++i) {
    made.AddIn({}, 1, EventType::kNoAction, tiny, {});
  }
  EXPECT_EQ(Parse(made.bytes()).error().code(), ErrorCode::kExhausted);
}

std::vector<KnownRegister> Known(uint32_t index, Bytes value) {
  return {KnownRegister{.index = index, .value = std::move(value)}};
}

ReplayComparison Compare(ByteView bytes, const std::vector<KnownRegister>& known) {
  const auto log = Parse(bytes);
  return *CompareEventLog(*log, kSha256, known);
}

TEST(EventLogComparison, LogThatReplaysAgreesAndLeavesTheOthersUnproven) {
  const EventLogBuilder made = MakeLog();
  const auto compared = Compare(made.bytes(), Known(4, ReplayOf(made.bytes(), 4)));
  EXPECT_TRUE(compared.Agrees());
  EXPECT_THAT(compared.unproven, ElementsAre(7U));
}

TEST(EventLogComparison, FirstRegisterThatDiffersIsNamedWithBothValues) {
  const EventLogBuilder made = MakeLog();
  std::vector<KnownRegister> known = Known(4, ReplayOf(made.bytes(), 4));
  known.push_back({.index = 7, .value = Bytes(32, std::byte{1})});
  known.push_back({.index = 8, .value = Bytes(32, std::byte{1})});
  const auto compared = Compare(made.bytes(), known);
  ASSERT_FALSE(compared.Agrees());
  EXPECT_EQ(compared.first_difference->index, 7U);
  EXPECT_THAT(compared.first_difference->reason, HasSubstr("PCR 7 holds 0101"));
  EXPECT_THAT(compared.first_difference->reason, HasSubstr(ToHex(ReplayOf(made.bytes(), 7))));
}

TEST(EventLogComparison, KnownRegisterWithoutEventsMustHoldItsStart) {
  EXPECT_TRUE(Compare(MakeLog().bytes(), Known(8, Bytes(32))).Agrees());
  EXPECT_FALSE(Compare(MakeLog().bytes(), Known(8, Bytes(32, std::byte{1}))).Agrees());
}

TEST(EventLogComparison, EventsAddedAtTheEndAreNoticed) {
  EventLogBuilder made = MakeLog();
  const Bytes before = ReplayOf(made.bytes(), 4);
  made.AddText(4, kAction, "later");
  EXPECT_THAT(Compare(made.bytes(), Known(4, before)).first_difference->reason,
              HasSubstr("its first 2 events"));
}

TEST(EventLogComparison, AnotherStartupLocalityIsNamed) {
  EventLogBuilder made({kSha256});
  made.AddText(0, kAction, "a");
  const Bytes value = Extended(Zeros(32, 3), AsBytes("a"));
  EXPECT_THAT(Compare(made.bytes(), Known(0, value)).first_difference->reason,
              HasSubstr("locality 3"));
}

TEST(EventLogComparison, MissingExitBootServicesIsNamed) {
  EventLogBuilder made({kSha256});
  made.AddSeparator(5);
  Bytes value = ReplayOf(made.bytes(), 5);
  value = Extended(value, AsBytes("Exit Boot Services Invocation"));
  value = Extended(value, AsBytes("Exit Boot Services Returned with Success"));
  EXPECT_THAT(Compare(made.bytes(), Known(5, value)).first_difference->reason,
              HasSubstr("ExitBootServices"));
}

TEST(EventLogComparison, WithoutAKnownValueNothingIsProven) {
  const Bytes bytes = MakeLog().bytes();
  const auto log = Parse(bytes);
  EXPECT_EQ(CompareEventLog(*log, kSha256, {}).error().code(), ErrorCode::kInvalidInput);
}

TEST(EventLogComparison, ValuesOfAnotherSizeRegisterOrTwiceAreRefused) {
  const Bytes bytes = MakeLog().bytes();
  const auto log = Parse(bytes);
  EXPECT_FALSE(CompareEventLog(*log, kSha256, Known(4, Bytes(20))).has_value());
  EXPECT_FALSE(CompareEventLog(*log, kSha256, Known(24, Bytes(32))).has_value());
  auto twice = Known(4, Bytes(32));
  twice.push_back(twice.front());
  EXPECT_FALSE(CompareEventLog(*log, kSha256, twice).has_value());
}

}  // namespace
}  // namespace vallum::measure

// SPDX-License-Identifier: Apache-2.0
#include "measure/extend_log.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace vallum::measure {
namespace {

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;

WallTime TimeOf(int64_t micros) { return WallTime(std::chrono::microseconds(micros)); }

Bytes DigestOf(std::string_view text) { return Digest(kBank, AsBytes(text)); }

Bytes Zeros(size_t count, uint8_t last) {
  Bytes value(count);
  value.back() = std::byte{last};
  return value;
}

Bytes Extended(Bytes value, const Bytes& digest) {
  value.insert(value.end(), digest.begin(), digest.end());
  return Digest(kBank, value);
}

// A boot with one extend of PCR 7.
ExtendLog MakeValidLog() {
  ExtendLog log;
  log.Append(TimeOf(1), TpmReset{});
  log.Append(TimeOf(2), TpmStartup{StartupType::kClear, 0});
  log.Append(TimeOf(3), PcrExtend{PcrIndex::Of<7>(), kBank, DigestOf("a")});
  return log;
}

std::string FormatLog(const ExtendLog& log) {
  std::string text;
  for (const ExtendRecord& record : log.records()) {
    text += FormatRecord(record);
  }
  return text;
}

TEST(ExtendLog, ReplayExtendsFromZeros) {
  const PcrReplay replay = MakeValidLog().Replay(kBank);
  EXPECT_TRUE(replay.started);
  EXPECT_TRUE(replay.gaps.empty());
  EXPECT_EQ(replay.values[7], Extended(Zeros(32, 0), DigestOf("a")));
  EXPECT_EQ(replay.values[0], Zeros(32, 0));
  EXPECT_EQ(replay.values[17], Bytes(32, std::byte{0xff}));
}

TEST(ExtendLog, OtherBanksDoNotTouchABank) {
  ExtendLog log = MakeValidLog();
  log.Append(TimeOf(4), PcrExtend{PcrIndex::Of<7>(), HashAlgorithm::kSha1, Bytes(20)});
  EXPECT_EQ(log.Replay(kBank).values[7], Extended(Zeros(32, 0), DigestOf("a")));
  EXPECT_NE(log.Replay(HashAlgorithm::kSha1).values[7], Bytes(20));
}

TEST(ExtendLog, StartupAtLocalityThreeShowsInPcrZero) {
  ExtendLog log;
  log.Append(TimeOf(1), TpmReset{});
  log.Append(TimeOf(2), TpmStartup{StartupType::kClear, 3});
  EXPECT_EQ(log.Replay(kBank).values[0], Zeros(32, 3));
}

TEST(ExtendLog, MeasurementBeforeStartupBeginsFromFourAndSurvivesIt) {
  ExtendLog log;
  log.Append(TimeOf(1), TpmReset{});
  log.Append(TimeOf(2), PcrExtend{PcrIndex::Of<0>(), kBank, DigestOf("crtm")});
  log.Append(TimeOf(3), TpmStartup{StartupType::kClear, 0});
  EXPECT_EQ(log.Replay(kBank).values[0], Extended(Zeros(32, 4), DigestOf("crtm")));
}

TEST(ExtendLog, ResetForgetsWhatTheBootBeforeMeasured) {
  ExtendLog log = MakeValidLog();
  log.Append(TimeOf(4), TpmReset{});
  EXPECT_FALSE(log.Replay(kBank).started);
  log.Append(TimeOf(5), TpmStartup{StartupType::kClear, 0});
  EXPECT_EQ(log.Replay(kBank).values[7], Zeros(32, 0));
  EXPECT_TRUE(ExtendsOfLastBoot(log, kBank).empty());
}

TEST(ExtendLog, StateStartupRestoresPcrsUpToFifteen) {
  ExtendLog log = MakeValidLog();
  log.Append(TimeOf(4), PcrExtend{PcrIndex::Of<16>(), kBank, DigestOf("debug")});
  log.Append(TimeOf(5), TpmReset{});
  log.Append(TimeOf(5), TpmReset{});  // firmware may be reset again before it starts the TPM
  log.Append(TimeOf(6), TpmStartup{StartupType::kState, 0});
  const PcrReplay replay = log.Replay(kBank);
  EXPECT_EQ(replay.values[7], Extended(Zeros(32, 0), DigestOf("a")));
  EXPECT_EQ(replay.values[16], Zeros(32, 0));
  EXPECT_TRUE(replay.gaps.empty());
}

TEST(ExtendLog, StateStartupFromBeforeTheFirstRecordIsAGap) {
  ExtendLog log;
  log.Append(TimeOf(1), TpmReset{});
  log.Append(TimeOf(2), TpmStartup{StartupType::kState, 0});
  EXPECT_EQ(log.Replay(kBank).gaps.size(), 1U);
}

TEST(ExtendLog, PcrResetCommandGoesBackToZeros) {
  ExtendLog log = MakeValidLog();
  log.Append(TimeOf(4), PcrExtend{PcrIndex::Of<23>(), kBank, DigestOf("app")});
  log.Append(TimeOf(5), PcrReset{PcrIndex::Of<23>()});
  EXPECT_EQ(log.Replay(kBank).values[23], Zeros(32, 0));
}

TEST(ExtendLog, OpaqueChangeIsAGapUntilTheNextBoot) {
  ExtendLog log = MakeValidLog();
  log.Append(TimeOf(4), OpaqueChange{"could not read it"});
  EXPECT_EQ(log.Replay(kBank).gaps, std::vector<std::string>{"could not read it"});
  log.Append(TimeOf(5), TpmReset{});
  log.Append(TimeOf(6), TpmStartup{StartupType::kClear, 0});
  EXPECT_TRUE(log.Replay(kBank).gaps.empty());
}

TEST(ExtendLog, GapsOfOneBootAreBounded) {
  PcrReplayer replayer(kBank);
  for (size_t i = 0; i < 2 * PcrReplayer::kMaxGaps; ++i) {
    replayer.Take(OpaqueChange{"could not read it"});
  }
  EXPECT_EQ(replayer.Get().gaps.size(), PcrReplayer::kMaxGaps);
}

TEST(ExtendLog, SinceGivesOnlyNewerRecords) {
  const ExtendLog log = MakeValidLog();
  EXPECT_EQ(log.Since(0).size(), 3U);
  ASSERT_EQ(log.Since(2).size(), 1U);
  EXPECT_EQ(log.Since(2)[0].sequence, 3U);
  EXPECT_TRUE(log.Since(3).empty());
  EXPECT_TRUE(log.Since(99).empty());
}

TEST(ExtendLog, DroppingOldBootsKeepsReplayAndNumbers) {
  ExtendLog log = MakeValidLog();
  log.Append(TimeOf(4), TpmReset{});
  log.Append(TimeOf(5), TpmStartup{StartupType::kClear, 0});
  log.Append(TimeOf(6), PcrExtend{PcrIndex::Of<4>(), kBank, DigestOf("b")});
  const PcrReplay before = log.Replay(kBank);
  EXPECT_EQ(log.DropOldBoots(), 3U);
  EXPECT_EQ(log.first_sequence(), 4U);
  EXPECT_EQ(log.last_sequence(), 6U);
  EXPECT_EQ(log.Since(1).size(), 3U);
  EXPECT_EQ(log.Replay(kBank).values, before.values);
}

TEST(ExtendLog, ABootThatRestoredStateKeepsTheOneBefore) {
  ExtendLog log = MakeValidLog();
  log.Append(TimeOf(4), TpmReset{});
  log.Append(TimeOf(5), TpmStartup{StartupType::kState, 0});
  EXPECT_EQ(log.DropOldBoots(), 0U);
}

TEST(ExtendLogFile, EveryKindOfRecordSurvivesTheFile) {
  ExtendLog log = MakeValidLog();
  log.Append(TimeOf(4), TpmStartup{StartupType::kState, 3});
  log.Append(TimeOf(5), PcrReset{PcrIndex::Of<16>()});
  log.Append(TimeOf(6), OpaqueChange{"a b\nc"});
  log.Append(TimeOf(7), LogNote{""});
  log.Append(TimeOf(8), PcrExtend{PcrIndex::Of<1>(), HashAlgorithm::kSha512, Bytes(64)});
  const std::string text = FormatLog(log);
  const auto parsed = ParseExtendLog(AsBytes(text));
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_TRUE(std::ranges::equal(parsed->records(), log.records()));
  EXPECT_EQ(parsed->last_sequence(), log.last_sequence());
}

TEST(ExtendLogFile, LinesStayBelowTheirLimit) {
  ExtendLog log;
  const auto& note = log.Append(TimeOf(INT64_MAX / 1000), LogNote{std::string(5000, '\x01')});
  EXPECT_LE(FormatRecord(note).size(), kMaxRecordLine);
}

TEST(ExtendLogFile, HalfARecordAtTheEndIsDropped) {
  const std::string text = FormatLog(MakeValidLog());
  const std::string last = FormatRecord(MakeValidLog().records().back());
  for (size_t cut = 1; cut < last.size(); ++cut) {
    const auto parsed = ParseExtendLog(AsBytes(text).first(text.size() - cut));
    ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
    EXPECT_EQ(parsed->last_sequence(), 2U) << cut;
    EXPECT_EQ(CompleteSize(AsBytes(text).first(text.size() - cut)), text.size() - last.size());
  }
}

TEST(ExtendLogFile, EveryFlippedBitIsFound) {
  const std::string text = FormatLog(MakeValidLog());
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    const auto parsed = ParseExtendLog(AsBytes(damaged));
    ASSERT_FALSE(parsed.has_value()) << i;
    EXPECT_EQ(parsed.error().code(), ErrorCode::kCorrupt);
  }
}

TEST(ExtendLogFile, AMissingLineInTheMiddleIsFound) {
  const ExtendLog log = MakeValidLog();
  const std::string text = FormatRecord(log.records()[0]) + FormatRecord(log.records()[2]);
  EXPECT_FALSE(ParseExtendLog(AsBytes(text)).has_value());
}

TEST(ExtendLogFile, EmptyFileIsAnEmptyLog) {
  const auto parsed = ParseExtendLog({});
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->last_sequence(), 0U);
}

TEST(TpmAlgorithm, IdsAndNamesGoBothWays) {
  for (const HashAlgorithm bank : {HashAlgorithm::kSha1, HashAlgorithm::kSha256,
                                   HashAlgorithm::kSha384, HashAlgorithm::kSha512}) {
    EXPECT_EQ(BankOfTpmAlgorithm(TpmAlgorithmId(bank)).value(), bank);
    EXPECT_EQ(ParseBankName(HashAlgorithmName(bank)).value(), bank);
  }
  EXPECT_FALSE(BankOfTpmAlgorithm(0x12).has_value());
  EXPECT_FALSE(ParseBankName("md5").has_value());
}

}  // namespace
}  // namespace vallum::measure

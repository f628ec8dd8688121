// SPDX-License-Identifier: Apache-2.0
#include "vtpm/tpm_command.h"

#include <gtest/gtest.h>

#include "vtpm/pcr_reader.h"
#include "vtpm/tpm_tracker.h"

namespace vallum::vtpm {
namespace {

using measure::OpaqueChange;
using measure::PcrExtend;
using measure::RecordBody;
using measure::StartupType;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
const std::string kDigest = "1111111111111111111111111111111111111111111111111111111111111111";

Bytes Hex(const std::string& hex) { return FromHex(hex).value(); }

// As a Linux guest sent it: PCR_Extend of PCR 10, empty password session, one SHA-256 digest.
std::string CapturedExtend() {
  return "8002000000410000018200000"
         "00a00000009400000090000000000"
         "00000001000b" +
         kDigest;
}
// As libtpms answered it.
const std::string kCapturedExtendDone = "80020000001300000000000000000000010000";
// libtpms's answer to PCR_Event with SHA-256 as the only bank.
std::string CapturedEventDone() {
  return "8002000000390000000000000026"
         "00000001000b" +
         kDigest + "0000010000";
}
const std::string kEvent =
    "80020000001f0000013c0000000900000009400000090000000000000261"
    "62";
const std::string kSuccess = "80010000000a00000000";
const std::string kRefused = "80010000000a00000101";

std::vector<RecordBody> Effects(const std::string& command, const std::string& response) {
  return EffectsOf(ParseGuestCommand(Hex(command)), Hex(response), 0);
}

std::string WithByte(std::string hex, size_t index, const std::string& byte) {
  return hex.replace(index * 2, 2, byte);
}

TEST(TpmMessage, SizeIsKnownOnceTheHeaderIsThere) {
  const Bytes command = Hex(CapturedExtend());
  for (size_t i = 0; i < kTpmHeaderSize; ++i) {
    EXPECT_FALSE(TpmMessageSize(ByteView(command).first(i))->has_value()) << i;
  }
  EXPECT_EQ(TpmMessageSize(command).value(), command.size());
}

TEST(TpmMessage, ImpossibleSizesAreRefused) {
  EXPECT_FALSE(TpmMessageSize(Hex("80010000000900000144")).has_value());
  EXPECT_FALSE(TpmMessageSize(Hex("8001000040010000"
                                  "0144"))
                   .has_value());
  EXPECT_FALSE(TpmMessageSize(Hex("8001ffffffff00000144")).has_value());
}

TEST(TpmCommand, ExtendIsRecordedWhenTheTpmAccepts) {
  const auto effects = Effects(CapturedExtend(), kCapturedExtendDone);
  ASSERT_EQ(effects.size(), 1U);
  EXPECT_EQ(std::get<PcrExtend>(effects[0]), (PcrExtend{PcrIndex::Of<10>(), kBank, Hex(kDigest)}));
  EXPECT_TRUE(Effects(CapturedExtend(), kRefused).empty());
}

TEST(TpmCommand, EventIsRecordedFromTheResponse) {
  const auto effects = Effects(kEvent, CapturedEventDone());
  ASSERT_EQ(effects.size(), 1U);
  EXPECT_EQ(std::get<PcrExtend>(effects[0]), (PcrExtend{PcrIndex::Of<9>(), kBank, Hex(kDigest)}));
}

TEST(TpmCommand, CompletedEventSequenceIsRecordedFromTheResponse) {
  // Two handles: the PCR and the sequence object.
  const std::string complete =
      "80020000002a00000185"
      "00000009"
      "80000000"
      "00000012"
      "400000090000000000"
      "400000090000000000";
  ASSERT_EQ(Hex(complete).size(), 40U);
  const auto effects = Effects(WithByte(complete, 5, "28"), CapturedEventDone());
  ASSERT_EQ(effects.size(), 1U);
  EXPECT_EQ(std::get<PcrExtend>(effects[0]).pcr, PcrIndex::Of<9>());
}

TEST(TpmCommand, NullHandleExtendsNothing) {
  std::string command = CapturedExtend();
  command.replace(20, 8, "40000007");
  EXPECT_TRUE(Effects(command, kCapturedExtendDone).empty());
}

TEST(TpmCommand, EveryUnreadableExtendThatSucceedsIsOpaque) {
  const std::string extend = CapturedExtend();
  const struct {
    const char* what;
    std::string command;
  } cases[] = {
      {"no such PCR", WithByte(extend, 13, "18")},
      {"authorization past the end", WithByte(extend, 17, "ff")},
      {"authorization of 4 GiB", WithByte(extend, 14, "ff")},
      {"too many digests", WithByte(extend, 30, "02")},
      {"fewer digests", WithByte(extend, 30, "00")},
      {"unknown algorithm", WithByte(extend, 32, "12")},
      {"no sessions", WithByte(extend, 1, "01")},
      {"wrong size", WithByte(extend, 5, "40")},
  };
  for (const auto& test : cases) {
    const auto effects = Effects(test.command, kCapturedExtendDone);
    ASSERT_EQ(effects.size(), 1U) << test.what;
    EXPECT_TRUE(std::holds_alternative<OpaqueChange>(effects[0])) << test.what;
  }
}

TEST(TpmCommand, UnreadableEventResponseIsOpaque) {
  for (size_t cut = 1; cut < 40; ++cut) {
    Bytes response = Hex(CapturedEventDone());
    response.resize(response.size() - cut);
    response[5] = static_cast<std::byte>(response.size());
    const auto effects = EffectsOf(ParseGuestCommand(Hex(kEvent)), response, 0);
    // Only the authorization behind the digests may be missing: it is not looked at.
    const bool opaque = effects.size() == 1 && std::holds_alternative<OpaqueChange>(effects[0]);
    EXPECT_EQ(opaque, cut > 5) << cut;
  }
}

TEST(TpmCommand, OtherCommandsLeaveNoRecord) {
  EXPECT_TRUE(Effects("80010000000c000001430001", kSuccess).empty());  // SelfTest
  EXPECT_TRUE(Effects(ToHex(MakePcrRead(kBank, {PcrIndex::Of<0>()})), kSuccess).empty());
}

TEST(TpmCommand, StartupCarriesTypeAndLocality) {
  for (const StartupType type : {StartupType::kClear, StartupType::kState}) {
    const auto effects = EffectsOf(ParseGuestCommand(MakeStartup(type)), Hex(kSuccess), 3);
    ASSERT_EQ(effects.size(), 1U);
    EXPECT_EQ(std::get<measure::TpmStartup>(effects[0]), (measure::TpmStartup{type, 3}));
  }
  EXPECT_TRUE(
      EffectsOf(ParseGuestCommand(MakeStartup(StartupType::kClear)), Hex(kRefused), 0).empty());
}

TEST(TpmCommand, PcrResetIsRecorded) {
  const auto effects =
      Effects("80020000001b0000013d0000001000000009400000090000000000", kCapturedExtendDone);
  ASSERT_EQ(effects.size(), 1U);
  EXPECT_EQ(std::get<measure::PcrReset>(effects[0]).pcr, PcrIndex::Of<16>());
}

TEST(TpmCommand, EveryPrefixOfACommandIsHandled) {
  const Bytes command = Hex(CapturedExtend());
  for (size_t i = 0; i < command.size(); ++i) {
    EXPECT_TRUE(
        std::holds_alternative<UnreadableCommand>(ParseGuestCommand(ByteView(command).first(i))));
  }
}

TEST(PcrRead, CommandSelectsPcrsByBit) {
  EXPECT_EQ(ToHex(MakePcrRead(kBank, {PcrIndex::Of<0>(), PcrIndex::Of<7>(), PcrIndex::Of<17>()})),
            "8001000000140000017e00000001000b03810002");
}

std::string PcrReadReplyHex() {
  return "80010000003e00000000"
         "0000002a"
         "00000001000b03800000"
         "00000001"
         "0020" +
         kDigest;
}

TEST(PcrRead, ReplyGivesValues) {
  const auto reply = ParsePcrReadReply(kBank, Hex(PcrReadReplyHex()));
  ASSERT_TRUE(reply.has_value()) << reply.error().Describe();
  EXPECT_EQ(reply->update_counter, 42U);
  EXPECT_EQ(reply->values.at(PcrIndex::Of<7>()), Hex(kDigest));
}

TEST(PcrRead, DamagedRepliesAreRefused) {
  const Bytes good = Hex(PcrReadReplyHex());
  for (size_t size = 0; size < good.size(); ++size) {
    Bytes cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_FALSE(ParsePcrReadReply(kBank, cut).has_value()) << size;
    if (size >= kTpmHeaderSize) {
      cut[5] = static_cast<std::byte>(size);
      EXPECT_FALSE(ParsePcrReadReply(kBank, cut).has_value()) << size;
    }
  }
  EXPECT_EQ(ParsePcrReadReply(kBank, Hex(kRefused)).error().code(), ErrorCode::kUnavailable);
}

TEST(PcrReader, ValueThatWasNotAskedForIsRefused) {
  PcrReader reader({kBank, {PcrIndex::Of<1>()}});
  EXPECT_EQ(reader.OnResponse(Hex(PcrReadReplyHex())).error().code(), ErrorCode::kCorrupt);
}

TEST(PcrReader, CancelledReadIsTriedOnceMore) {
  PcrReader reader({kBank, {PcrIndex::Of<7>()}});
  const Bytes canceled = Hex("80010000000a00000909");
  EXPECT_FALSE(reader.OnResponse(canceled)->has_value());
  EXPECT_FALSE(reader.OnResponse(canceled).has_value());
}

TEST(PcrReader, GoesOnUntilAllAreRead) {
  PcrReader reader({kBank, {PcrIndex::Of<7>(), PcrIndex::Of<8>()}});
  EXPECT_FALSE(reader.OnResponse(Hex(PcrReadReplyHex()))->has_value());
  EXPECT_EQ(reader.Next(), MakePcrRead(kBank, {PcrIndex::Of<8>()}));
}

TEST(PcrBanks, ListHoldsActiveBanksOnly) {
  const auto banks =
      ParsePcrBanksReply(Hex("80010000002b00000000"
                             "00"
                             "00000005"
                             "00000004"
                             "000403000000"
                             "000b03ffffff"
                             "000c03000000"
                             "000d03ffffff"));
  ASSERT_TRUE(banks.has_value()) << banks.error().Describe();
  EXPECT_EQ(*banks, (std::vector{HashAlgorithm::kSha256, HashAlgorithm::kSha512}));
  EXPECT_FALSE(ParsePcrBanksReply(Hex(kRefused)).has_value());
  EXPECT_FALSE(ParsePcrBanksReply(Hex("80010000000f00000000"
                                      "0000000005"))
                   .has_value());
}

TEST(TpmTracker, LoadedStateIsAGap) {
  TpmTracker tracker;
  const Bytes blob =
      Hex("0000000d"
          "00000000"
          "00000002"
          "00000000");
  tracker.OnControl(blob, MakeControlResult(0));
  const auto records = tracker.OnControl(MakeControlInit(), MakeControlResult(0));
  ASSERT_EQ(records.size(), 2U);
  EXPECT_TRUE(std::holds_alternative<measure::TpmReset>(records[0]));
  EXPECT_TRUE(std::holds_alternative<OpaqueChange>(records[1]));
  EXPECT_EQ(tracker.state(), TpmState::kStarted);
}

TEST(TpmTracker, FailedInitLeavesTheTpmOff) {
  TpmTracker tracker;
  const auto records = tracker.OnControl(MakeControlInit(), MakeControlResult(9));
  ASSERT_EQ(records.size(), 1U);
  EXPECT_TRUE(std::holds_alternative<measure::LogNote>(records[0]));
  EXPECT_EQ(tracker.state(), TpmState::kOff);
}

TEST(TpmTracker, ShutdownIsNeededOnlyAfterUse) {
  TpmTracker tracker;
  tracker.OnControl(MakeControlInit(), MakeControlResult(0));
  EXPECT_FALSE(tracker.needs_shutdown());
  tracker.OnCommand(MakeStartup(StartupType::kClear), Hex(kSuccess));
  EXPECT_TRUE(tracker.needs_shutdown());
  tracker.OnCommand(MakeShutdown(StartupType::kClear), Hex(kSuccess));
  EXPECT_FALSE(tracker.needs_shutdown());
  tracker.OnCommand(Hex(CapturedExtend()), Hex(kCapturedExtendDone));
  EXPECT_TRUE(tracker.needs_shutdown());
}

}  // namespace
}  // namespace vallum::vtpm

// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_replay.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "measure/ima_log_builder.h"

namespace vallum::measure {
namespace {

constexpr auto kSha1 = HashAlgorithm::kSha1;
constexpr auto kSha256 = HashAlgorithm::kSha256;

ImaLogBuilder MakeLog(size_t files) {
  ImaLogBuilder out;
  for (size_t i = 0; i < files; ++i) {
    out.AddFile("/bin/" + std::to_string(i), std::to_string(i));
  }
  return out;
}

ImaReplay Replay(const Bytes& bytes, const ImaReplayState& from,
                 const std::vector<ImaPcrValue>& quoted) {
  const auto log = ImaLog::Parse(bytes, ImaTemplateHash::kDetect);
  EXPECT_TRUE(log.has_value());
  auto out = ReplayImaLog(*log, from, quoted);
  EXPECT_TRUE(out.has_value());
  return *std::move(out);
}

ImaReplayState Start() { return StartOfImaReplay(std::array{kSha256}); }

TEST(ImaReplay, WholeLogIsProvenByThePcrAfterIt) {
  const auto log = MakeLog(3);
  const auto replay = Replay(log.bytes(), Start(), {log.Pcr(kSha256)});
  EXPECT_TRUE(replay.Reached());
  EXPECT_EQ(replay.proven, 3U);
  EXPECT_EQ(replay.unproven, 0U);
  EXPECT_EQ(replay.state.entries, 3U);
  EXPECT_EQ(replay.state.pcrs, std::vector{log.Pcr(kSha256)});
}

TEST(ImaReplay, EntriesAfterTheQuoteAreNotProven) {
  const auto replay = Replay(MakeLog(5).bytes(), Start(), {MakeLog(3).Pcr(kSha256)});
  EXPECT_TRUE(replay.Reached());
  EXPECT_EQ(replay.proven, 3U);
  EXPECT_EQ(replay.unproven, 2U);
}

TEST(ImaReplay, GoesOnFromTheLastProvenEntry) {
  const auto before = Replay(MakeLog(3).bytes(), Start(), {MakeLog(3).Pcr(kSha256)});
  ImaLogBuilder added;
  added.AddFile("/bin/3", "3").AddFile("/bin/4", "4");
  const auto after = Replay(added.bytes(), before.state, {MakeLog(5).Pcr(kSha256)});
  EXPECT_TRUE(after.Reached());
  EXPECT_EQ(after.proven, 2U);
  EXPECT_EQ(after.state.entries, 5U);
}

TEST(ImaReplay, NothingNewIsProvenByTheSameValue) {
  const auto before = Replay(MakeLog(3).bytes(), Start(), {MakeLog(3).Pcr(kSha256)});
  const auto after = Replay({}, before.state, {MakeLog(3).Pcr(kSha256)});
  EXPECT_TRUE(after.Reached());
  EXPECT_EQ(after.state, before.state);
}

TEST(ImaReplay, EmptyLogNeedsAnUntouchedPcr) {
  EXPECT_TRUE(Replay({}, Start(), {{kSha256, Bytes(32)}}).Reached());
  EXPECT_FALSE(Replay({}, Start(), {MakeLog(1).Pcr(kSha256)}).Reached());
}

TEST(ImaReplay, EachBankIsOfItsOwnHash) {
  const auto log = MakeLog(3);
  const auto replay = Replay(log.bytes(), StartOfImaReplay(std::array{kSha256, kSha1}),
                             {log.Pcr(kSha1), log.Pcr(kSha256)});
  EXPECT_TRUE(replay.Reached()) << replay.refusal;
  EXPECT_EQ(replay.proven, 3U);
}

TEST(ImaReplay, BanksMustBeReachedAtTheSameEntry) {
  const auto replay = Replay(MakeLog(3).bytes(), StartOfImaReplay(std::array{kSha256, kSha1}),
                             {MakeLog(3).Pcr(kSha1), MakeLog(2).Pcr(kSha256)});
  EXPECT_FALSE(replay.Reached());
}

TEST(ImaReplay, ViolationExtendsOnes) {
  ImaLogBuilder log;
  log.AddFile("/a", "a").AddViolation("/b").AddFile("/c", "c");
  EXPECT_TRUE(Replay(log.bytes(), Start(), {log.Pcr(kSha256)}).Reached());
}

TEST(ImaReplay, LegacyTemplateIsHashedPadded) {
  ImaLogBuilder log;
  log.AddLegacy("/a", Bytes(20, std::byte{3}));
  EXPECT_TRUE(Replay(log.bytes(), Start(), {log.Pcr(kSha256)}).Reached());
}

TEST(ImaReplay, LoggedTemplateHashIsNotBelieved) {
  const auto log = MakeLog(3);
  Bytes bytes = log.bytes();
  bytes[4] ^= std::byte{1};
  EXPECT_TRUE(Replay(bytes, Start(), {log.Pcr(kSha256)}).Reached());
}

TEST(ImaReplay, EntryOfAnotherPcrExtendsNothing) {
  auto log = MakeLog(2);
  log.Add("ima-ng",
          Concatenate({ImaDigestField("sha256", Bytes(32, std::byte{1})), ImaNameField("/x")}), 11);
  log.AddFile("/y", "y");
  const auto replay = Replay(log.bytes(), Start(), {log.Pcr(kSha256)});
  EXPECT_TRUE(replay.Reached());
  EXPECT_EQ(replay.proven, 4U);
}

TEST(ImaReplay, LogThatNeverReachesTheValueIsRefusedInWords) {
  Bytes bytes = MakeLog(3).bytes();
  bytes[bytes.size() - 2] ^= std::byte{1};
  const auto replay = Replay(bytes, Start(), {MakeLog(3).Pcr(kSha256)});
  EXPECT_FALSE(replay.Reached());
  EXPECT_EQ(replay.proven, 0U);
  EXPECT_EQ(replay.unproven, 3U);
  EXPECT_EQ(replay.state, Start());
  EXPECT_NE(replay.refusal.find("PCR 10 of sha256 holds " + ToHex(MakeLog(3).Pcr(kSha256).value)),
            std::string::npos)
      << replay.refusal;
  EXPECT_NE(replay.refusal.find("the log's 3 entries never reach"), std::string::npos);
}

TEST(ImaReplay, MissingEntriesAreRefused) {
  const auto replay = Replay(MakeLog(3).bytes(), Start(), {MakeLog(4).Pcr(kSha256)});
  EXPECT_FALSE(replay.Reached());
}

TEST(ImaReplay, RestartOfTheHostIsNamed) {
  const auto before = Replay(MakeLog(3).bytes(), Start(), {MakeLog(3).Pcr(kSha256)});
  const auto after = Replay(MakeLog(2).bytes(), before.state, {MakeLog(2).Pcr(kSha256)});
  EXPECT_FALSE(after.Reached());
  EXPECT_NE(after.refusal.find("the host started anew since entry 3"), std::string::npos)
      << after.refusal;
}

TEST(ImaReplay, UntouchedPcrOfALogWithEntriesIsNamed) {
  const auto before = Replay(MakeLog(3).bytes(), Start(), {MakeLog(3).Pcr(kSha256)});
  const auto after = Replay({}, before.state, {{kSha256, Bytes(32)}});
  EXPECT_NE(after.refusal.find("extended nothing since it started"), std::string::npos);
}

TEST(ImaReplay, BanksThatDifferFromTheStatesAreAnError) {
  const Bytes bytes = MakeLog(1).bytes();
  const auto log = ImaLog::Parse(bytes, ImaTemplateHash::kDetect);
  const auto sha1 = MakeLog(1).Pcr(kSha1);
  const auto sha256 = MakeLog(1).Pcr(kSha256);
  EXPECT_FALSE(ReplayImaLog(*log, Start(), {}).has_value());
  EXPECT_FALSE(ReplayImaLog(*log, Start(), std::array{sha1}).has_value());
  EXPECT_FALSE(ReplayImaLog(*log, Start(), std::array{sha256, sha1}).has_value());
  EXPECT_FALSE(ReplayImaLog(*log, Start(), std::array{sha256, sha256}).has_value());
  EXPECT_FALSE(ReplayImaLog(*log, StartOfImaReplay({}), {}).has_value());
}

TEST(ImaReplay, ValueOfAnotherSizeIsAnError) {
  const Bytes bytes = MakeLog(1).bytes();
  const auto log = ImaLog::Parse(bytes, ImaTemplateHash::kDetect);
  const std::array quoted = {ImaPcrValue{kSha256, Bytes(20)}};
  EXPECT_FALSE(ReplayImaLog(*log, Start(), quoted).has_value());
}

}  // namespace
}  // namespace vallum::measure

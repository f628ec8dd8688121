// SPDX-License-Identifier: Apache-2.0
#include "measure/prediction.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "measure/event_digest.h"
#include "measure/pcr.h"

namespace vallum::measure {
namespace {

using ::testing::HasSubstr;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr PcrIndex kFour = PcrIndex::Of<4>();
constexpr PcrIndex kNine = PcrIndex::Of<9>();

Bytes DigestOf(std::string_view text) { return Digest(kBank, AsBytes(text)); }

PredictionBuilder MakeBuilder() {
  constexpr PcrIndex kBoth[] = {kFour, kNine};
  return {kBank, kBoth};
}

Prediction MakeValidPrediction() {
  PredictionBuilder builder = MakeBuilder();
  builder.Extend(kFour, DigestOf("one"), "one");
  builder.Extend(kFour, DigestOf("two"), "two");
  return std::move(builder).Finish();
}

std::vector<PcrExtend> Measured(const std::vector<std::string>& texts) {
  std::vector<PcrExtend> extends;
  for (const std::string& text : texts) {
    extends.push_back({kFour, kBank, DigestOf(text)});
    extends.push_back({kFour, HashAlgorithm::kSha1, Bytes(20)});  // another bank
    extends.push_back({PcrIndex::Of<10>(), kBank, DigestOf("ima")});
  }
  return extends;
}

PcrComparison CompareFour(const Prediction& prediction, const std::vector<std::string>& texts) {
  return ComparePrediction(prediction, Measured(texts)).front();
}

TEST(Prediction, FirmwarePartGoesUpToTheSeparator) {
  constexpr HashAlgorithm kSha256 = HashAlgorithm::kSha256;
  constexpr PcrIndex kCode = PcrIndex::Of<0>();
  constexpr PcrIndex kOptions = PcrIndex::Of<1>();
  constexpr PcrIndex kPrograms = PcrIndex::Of<4>();
  constexpr PcrIndex kFiles = PcrIndex::Of<9>();
  PredictionBuilder builder(kSha256, std::vector{kCode, kOptions, kPrograms, kFiles});
  for (const PcrIndex pcr : {kCode, kOptions, kPrograms}) {
    builder.Extend(pcr, Bytes(32, std::byte{1}), "first");
    builder.Extend(pcr, SeparatorDigest(kSha256), "separator");
  }
  builder.Extend(kPrograms, Bytes(32, std::byte{2}), "shim");
  builder.Extend(kFiles, Bytes(32, std::byte{3}), "initrd");
  const Prediction kept = KeepFirmwarePart(std::move(builder).Finish(), "another option");
  EXPECT_EQ(kept.Find(kCode)->state, PcrKnowledge::kExact);
  EXPECT_EQ(kept.Find(kOptions)->state, PcrKnowledge::kUnknown);
  EXPECT_EQ(kept.Find(kPrograms)->state, PcrKnowledge::kPartial);
  EXPECT_EQ(kept.Find(kPrograms)->events.size(), 2U);
  EXPECT_EQ(kept.Find(kPrograms)->reason, "another option");
  EXPECT_TRUE(kept.Find(kPrograms)->value.empty());
  EXPECT_EQ(kept.Find(kFiles)->state, PcrKnowledge::kUnknown);
}

TEST(Prediction, ExactPcrHasTheValueThatItsEventsReplayTo) {
  const Prediction prediction = MakeValidPrediction();
  const std::vector<Bytes> digests = {DigestOf("one"), DigestOf("two")};
  EXPECT_EQ(prediction.Find(kFour)->value, *ReplayPcr(kBank, digests));
  EXPECT_EQ(prediction.Find(kNine)->value, Bytes(32));
  EXPECT_EQ(prediction.Find(PcrIndex::Of<0>()), nullptr);
}

TEST(Prediction, StoppedPcrKeepsItsCertainBeginningAndTheFirstReason) {
  PredictionBuilder builder = MakeBuilder();
  builder.Extend(kFour, DigestOf("one"), "one");
  builder.Stop(kFour, "why");
  builder.Stop(kFour, "later");
  builder.Extend(kFour, DigestOf("two"), "two");
  builder.Stop(kNine, "never");
  const Prediction prediction = std::move(builder).Finish();
  EXPECT_EQ(prediction.Find(kFour)->state, PcrKnowledge::kPartial);
  EXPECT_EQ(prediction.Find(kFour)->events.size(), 1U);
  EXPECT_EQ(prediction.Find(kFour)->reason, "why");
  EXPECT_TRUE(prediction.Find(kFour)->value.empty());
  EXPECT_EQ(prediction.Find(kNine)->state, PcrKnowledge::kUnknown);
  EXPECT_EQ(CompareFour(prediction, {"one", "anything"}).agreement, PcrAgreement::kAgrees);
  EXPECT_EQ(CompareFour(prediction, {"two"}).agreement, PcrAgreement::kDiffers);
  EXPECT_EQ(ComparePrediction(prediction, {})[1].agreement, PcrAgreement::kNotJudged);
}

TEST(Prediction, SameEventsInTheSameOrderAreEqual) {
  EXPECT_EQ(CompareFour(MakeValidPrediction(), {"one", "two"}).agreement, PcrAgreement::kEqual);
}

TEST(Prediction, OtherMissingAndFurtherEventsDifferAndAreNamed) {
  const Prediction prediction = MakeValidPrediction();
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"one", "three"}, "extend 2: expected two"},
      {{"two", "one"}, "extend 1: expected one"},
      {{"one"}, "extend 2 is missing: two"},
      {{"one", "two", "three"}, "extend 3 was not expected"},
  };
  for (const auto& [texts, words] : cases) {
    const PcrComparison comparison = CompareFour(prediction, texts);
    EXPECT_EQ(comparison.agreement, PcrAgreement::kDiffers);
    EXPECT_THAT(comparison.reason, HasSubstr(words));
  }
}

}  // namespace
}  // namespace vallum::measure

// SPDX-License-Identifier: Apache-2.0
#include "measure/prediction_follower.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string_view>

namespace vallum::measure {
namespace {

using testing::HasSubstr;

constexpr PcrIndex kImages = PcrIndex::Of<4>();
constexpr PcrIndex kCommands = PcrIndex::Of<8>();
constexpr PcrIndex kOther = PcrIndex::Of<10>();

Bytes DigestOf(std::string_view text) { return Digest(HashAlgorithm::kSha256, AsBytes(text)); }

// PCR 4 exactly shim and GRUB, PCR 8 begins with one command.
Prediction ShimAndGrub() {
  PredictionBuilder builder(HashAlgorithm::kSha256, std::vector{kImages, kCommands});
  builder.Extend(kImages, DigestOf("shim"), "the shim");
  builder.Extend(kImages, DigestOf("grub"), "the GRUB");
  builder.Extend(kCommands, DigestOf("set"), "the command");
  builder.Stop(kCommands, "a function");
  return std::move(builder).Finish();
}

TEST(PredictionFollower, BootAsPredictedHasNoDifference) {
  const Prediction prediction = ShimAndGrub();
  PredictionFollower follower(prediction);
  EXPECT_EQ(follower.Take(kImages, DigestOf("shim")), PredictionStep::kAsPredicted);
  EXPECT_EQ(follower.Take(kCommands, DigestOf("set")), PredictionStep::kAsPredicted);
  EXPECT_EQ(follower.Take(kImages, DigestOf("grub")), PredictionStep::kAsPredicted);
  EXPECT_EQ(follower.Take(kCommands, DigestOf("anything")), PredictionStep::kNotPredicted);
  EXPECT_EQ(follower.Take(kOther, DigestOf("file")), PredictionStep::kNotPredicted);
  follower.End();
  EXPECT_TRUE(follower.differences().empty());
}

TEST(PredictionFollower, UnfinishedBootLacksNothingYet) {
  const Prediction prediction = ShimAndGrub();
  PredictionFollower follower(prediction);
  follower.Take(kImages, DigestOf("shim"));
  EXPECT_TRUE(follower.differences().empty());
  ASSERT_NE(follower.Next(kImages), nullptr);
  EXPECT_EQ(follower.Next(kImages)->description, "the GRUB");
}

TEST(PredictionFollower, OtherDigestIsNamedWithPlaceAndBothDigests) {
  const Prediction prediction = ShimAndGrub();
  PredictionFollower follower(prediction);
  follower.Take(kImages, DigestOf("shim"));
  EXPECT_EQ(follower.Take(kImages, DigestOf("evil")), PredictionStep::kDiffers);
  ASSERT_EQ(follower.differences().size(), 1U);
  const PredictionDifference& first = follower.differences().front();
  EXPECT_EQ(first.pcr, kImages);
  EXPECT_EQ(first.event, 2U);
  EXPECT_EQ(first.measured, DigestOf("evil"));
  EXPECT_EQ(first.expected, DigestOf("grub"));
  EXPECT_THAT(first.Describe(), HasSubstr("extend 2 of PCR 4"));
  EXPECT_THAT(first.Describe(), HasSubstr("the GRUB"));
}

TEST(PredictionFollower, TheFirstInTimeComesFirstAndOnePerPcr) {
  const Prediction prediction = ShimAndGrub();
  PredictionFollower follower(prediction);
  follower.Take(kCommands, DigestOf("unset"));
  follower.Take(kImages, DigestOf("evil"));
  follower.Take(kImages, DigestOf("evil"));
  follower.End();
  ASSERT_EQ(follower.differences().size(), 2U);
  EXPECT_EQ(follower.differences()[0].pcr, kCommands);
  EXPECT_EQ(follower.differences()[1].pcr, kImages);
}

TEST(PredictionFollower, ExtendTooManyIsADifferenceOfAnExactPcrOnly) {
  const Prediction prediction = ShimAndGrub();
  PredictionFollower follower(prediction);
  follower.Take(kImages, DigestOf("shim"));
  follower.Take(kImages, DigestOf("grub"));
  follower.Take(kImages, DigestOf("more"));
  ASSERT_EQ(follower.differences().size(), 1U);
  EXPECT_TRUE(follower.differences()[0].expected.empty());
  EXPECT_THAT(follower.differences()[0].Describe(), HasSubstr("was not expected"));
}

TEST(PredictionFollower, MissingExtendIsADifferenceAtTheEnd) {
  const Prediction prediction = ShimAndGrub();
  PredictionFollower follower(prediction);
  follower.Take(kImages, DigestOf("shim"));
  follower.Take(kCommands, DigestOf("set"));
  follower.End();
  ASSERT_EQ(follower.differences().size(), 1U);
  EXPECT_TRUE(follower.differences()[0].measured.empty());
  EXPECT_EQ(follower.differences()[0].event, 2U);
  EXPECT_THAT(follower.differences()[0].Describe(), HasSubstr("is missing"));
}

TEST(PredictionFollower, WhatTheOperatingSystemExtendsIsItsOwn) {
  const Prediction prediction = ShimAndGrub();
  PredictionFollower follower(prediction);
  follower.Take(kImages, DigestOf("shim"));
  follower.Take(kImages, DigestOf("grub"));
  follower.Take(kCommands, DigestOf("set"));
  follower.End();
  EXPECT_EQ(follower.Take(kImages, DigestOf("later")), PredictionStep::kNotPredicted);
  EXPECT_TRUE(follower.differences().empty());
}

TEST(PredictionFollower, UnknownPcrIsNotJudged) {
  PredictionBuilder builder(HashAlgorithm::kSha256, std::vector{kCommands});
  builder.Stop(kCommands, "not known");
  const Prediction prediction = std::move(builder).Finish();
  PredictionFollower follower(prediction);
  EXPECT_EQ(follower.Take(kCommands, DigestOf("x")), PredictionStep::kNotPredicted);
  follower.End();
  EXPECT_TRUE(follower.differences().empty());
}

}  // namespace
}  // namespace vallum::measure

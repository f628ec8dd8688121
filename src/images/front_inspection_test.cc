// SPDX-License-Identifier: Apache-2.0
#include "images/front_inspection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/bytes.h"
#include "formats/qcow2.h"
#include "formats/test_support.h"

namespace vallum::images {
namespace {

using formats::testing::MakeGptDisk;
using formats::testing::PutBe32;
using formats::testing::PutBe64;
using formats::testing::PutText;
using ::testing::HasSubstr;

constexpr uint64_t kWhole = uint64_t{1} << 30U;

Result<void> Front(Bytes image, DeclaredFormat declared, uint64_t size = kWhole) {
  image.resize(kFrontBytes);
  return InspectFront(formats::MemoryReader(image), size, declared);
}

Bytes Qcow2() { return formats::MakeQcow2Overlay(ByteCount::GiB(1)).value(); }

TEST(InspectFront, ValidBeginningsPass) {
  EXPECT_TRUE(Front(Qcow2(), DeclaredFormat::kQcow2).has_value());
  EXPECT_TRUE(Front(MakeGptDisk(512, 400, {{40, 300}}), DeclaredFormat::kGpt).has_value());
  EXPECT_TRUE(Front(Bytes(kFrontBytes, std::byte{7}), DeclaredFormat::kRaw).has_value());
}

TEST(InspectFront, SizeNeedNotBeKnown) {
  EXPECT_TRUE(Front(Qcow2(), DeclaredFormat::kQcow2, 0).has_value());
}

TEST(InspectFront, OtherFormatThanDeclaredIsRefused) {
  const auto refused = Front(Qcow2(), DeclaredFormat::kRaw);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(), HasSubstr("declared raw, but detected qcow2"));
}

TEST(InspectFront, BackingFileIsRefusedBeforeTheRestIsSent) {
  Bytes image = Qcow2();
  PutBe64(image, 8, 512);
  PutBe32(image, 16, 11);
  PutText(image, 512, "/etc/passwd");
  const auto refused = Front(image, DeclaredFormat::kQcow2);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(), HasSubstr("backing file"));
}

TEST(InspectFront, TwoFormatsInFrontAreAmbiguous) {
  Bytes image = Qcow2();
  image.resize(kFrontBytes);
  PutText(image, 32769, "CD001");
  const auto refused = Front(image, DeclaredFormat::kQcow2);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(), HasSubstr("ambiguous"));
}

TEST(InspectFront, FixedVhdIsLeftToItsEnd) {
  EXPECT_TRUE(Front(MakeGptDisk(512, 400, {{40, 300}}), DeclaredFormat::kVhd).has_value());
}

TEST(InspectFront, WhatOnlyTheEndCanTellIsNotJudged) {
  EXPECT_TRUE(Front(Bytes(kFrontBytes, std::byte{7}), DeclaredFormat::kVhd).has_value());
  EXPECT_TRUE(Front(Bytes(kFrontBytes, std::byte{7}), DeclaredFormat::kQcow2).has_value());
}

}  // namespace
}  // namespace vallum::images

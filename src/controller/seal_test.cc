// SPDX-License-Identifier: Apache-2.0
#include "controller/seal.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "controller/test_rig.h"

namespace vallum::controller {
namespace {

constexpr std::string_view kSecret = "the endorsement seed";

class SealTest : public testing::Test {
 protected:
  Sealer Load() {
    Result<Sealer> sealer = Sealer::LoadOrCreate(dir_.path() / "seal.key");
    EXPECT_TRUE(sealer.has_value());
    return *std::move(sealer);
  }
  static std::string Text(const SecretBytes& secret) {
    return std::string(AsText(secret.Reveal(SecretAccess("test"))));
  }
  TempDir dir_;
};

TEST_F(SealTest, WhatWasSealedIsOpenedByALaterRunAndHoldsNoClearText) {
  const Bytes sealed = *Load().Seal(AsBytes(kSecret), "snapshot 1 tpm");
  EXPECT_EQ(AsText(sealed).find(kSecret), std::string_view::npos);
  EXPECT_EQ(sealed.size(), kSecret.size() + kSealOverhead);
  const auto opened = Load().Open(sealed, "snapshot 1 tpm");
  ASSERT_TRUE(opened.has_value()) << opened.error().Describe();
  EXPECT_EQ(Text(*opened), kSecret);
  struct stat info{};
  ASSERT_EQ(stat((dir_.path() / "seal.key").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
}

TEST_F(SealTest, TwoSealsOfTheSameDiffer) {
  const Sealer sealer = Load();
  EXPECT_NE(*sealer.Seal(AsBytes(kSecret), "a"), *sealer.Seal(AsBytes(kSecret), "a"));
}

TEST_F(SealTest, SealOfAnotherSnapshotIsNotOpened) {
  const Sealer sealer = Load();
  const Bytes sealed = *sealer.Seal(AsBytes(kSecret), "snapshot 1 tpm");
  const auto opened = sealer.Open(sealed, "snapshot 2 tpm");
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code(), ErrorCode::kCorrupt);
}

TEST_F(SealTest, EveryChangedByteIsFound) {
  const Sealer sealer = Load();
  const Bytes sealed = *sealer.Seal(AsBytes(kSecret), "a");
  for (size_t i = 0; i < sealed.size(); ++i) {
    Bytes changed = sealed;
    changed[i] ^= std::byte{1};
    EXPECT_FALSE(sealer.Open(changed, "a").has_value()) << i;
  }
  EXPECT_FALSE(sealer.Open(ByteView(sealed).first(sealed.size() - 1), "a").has_value());
  EXPECT_FALSE(sealer.Open({}, "a").has_value());
}

TEST_F(SealTest, AnotherDeploymentDoesNotOpenIt) {
  const Bytes sealed = *Load().Seal(AsBytes(kSecret), "a");
  const Sealer other = *Sealer::LoadOrCreate(dir_.path() / "other.key");
  EXPECT_FALSE(other.Open(sealed, "a").has_value());
}

TEST_F(SealTest, KeyThatOthersMayReadIsRefused) {
  static_cast<void>(Load());
  ASSERT_EQ(chmod((dir_.path() / "seal.key").c_str(), 0644), 0);
  const auto sealer = Sealer::LoadOrCreate(dir_.path() / "seal.key");
  ASSERT_FALSE(sealer.has_value());
  EXPECT_EQ(sealer.error().code(), ErrorCode::kDenied);
}

TEST_F(SealTest, PassphraseOpensItsOwnExportOnly) {
  const SecretBytes right(AsBytes("correct horse battery"));
  const SecretBytes wrong(AsBytes("correct horse staple"));
  const Bytes sealed = *SealWithPassphrase(AsBytes(kSecret), right);
  EXPECT_EQ(Text(*OpenWithPassphrase(sealed, right)), kSecret);
  EXPECT_EQ(OpenWithPassphrase(sealed, wrong).error().code(), ErrorCode::kDenied);
  EXPECT_EQ(OpenWithPassphrase(AsBytes("no such file"), right).error().code(),
            ErrorCode::kInvalidInput);
}

TEST_F(SealTest, ShortPassphraseIsRefused) {
  const auto sealed = SealWithPassphrase(AsBytes(kSecret), SecretBytes(AsBytes("short")));
  ASSERT_FALSE(sealed.has_value());
  EXPECT_EQ(sealed.error().code(), ErrorCode::kInvalidInput);
}

}  // namespace
}  // namespace vallum::controller

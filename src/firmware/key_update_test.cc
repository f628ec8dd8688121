// SPDX-License-Identifier: Apache-2.0
#include "firmware/key_update.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "base/bytes.h"
#include "firmware/guid.h"
#include "formats/test_support.h"

namespace vallum::firmware {
namespace {

using formats::testing::ReadFile;
using formats::testing::VectorsDir;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr const char* kOldLevel = "sbat,1,2022052400\ngrub,2\n";
constexpr const char* kNewLevel = "sbat,1,2024010900\nshim,4\ngrub,3\n";

Signature MakeEntry(uint8_t value, const Guid& owner = kGlobalVariableGuid) {
  return MakeSignature(SignatureType::kSha256, owner, Bytes(32, std::byte{value}));
}

KeyUpdate MustParse(ByteView file) {
  auto update = ParseKeyUpdate(file);
  EXPECT_TRUE(update.has_value()) << update.error().Describe();
  return *std::move(update);
}

TEST(KeyUpdate, PublishedUpdateHasItsEntriesAndItsTime) {
  const std::string vectors = VectorsDir();
  if (vectors.empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
  for (const auto& [name, entries] :
       {std::pair{"dbxupdate-2014-08-11.auth", 13U}, {"dbxupdate-x64-2020-10-12.auth", 186U}}) {
    const KeyUpdate update = MustParse(ReadFile(vectors + "/uefi/" + name));
    EXPECT_THAT(update.dbx, SizeIs(entries)) << name;
    EXPECT_THAT(update.description, HasSubstr("2010-03-06T19:17:21Z"));
    EXPECT_THAT(update.description, HasSubstr(std::to_string(update.dbx.size()) + " entries"));
    EXPECT_TRUE(update.auth.has_value());
    EXPECT_THAT(update.sbat_level, IsEmpty());
    const KeySet once = ApplyKeyUpdate({}, update);
    EXPECT_EQ(ApplyKeyUpdate(once, update), once);
  }
}

TEST(KeyUpdate, SignerThatTheKeysDoNotKnowIsSaid) {
  const std::string vectors = VectorsDir();
  if (vectors.empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
  const KeyUpdate update = MustParse(ReadFile(vectors + "/uefi/dbxupdate-x64-2020-10-12.auth"));
  KeySet keys;
  keys.name = "mine";
  EXPECT_THAT(DescribeUpdateSigner(keys, update), HasSubstr("key set mine would refuse it"));
  // As efivarfs shows it: attributes, then the lists.
  const Bytes variable = ReadFile(vectors + "/uefi/firmware-kek");
  const auto kek = ParseSignatureLists(ByteView(variable).subspan(4));
  ASSERT_TRUE(kek.has_value());
  keys.kek = *kek;
  EXPECT_THAT(DescribeUpdateSigner(keys, update), HasSubstr("signed by"));
}

TEST(KeyUpdate, BareSignatureListsAreOneToo) {
  const std::vector<Signature> entries = {MakeEntry(1), MakeEntry(2)};
  const KeyUpdate update = MustParse(EncodeSignatureLists(entries));
  EXPECT_EQ(update.dbx, entries);
  EXPECT_THAT(update.description, HasSubstr("2 entries for dbx, not signed"));
  EXPECT_FALSE(update.auth.has_value());
  EXPECT_THAT(DescribeUpdateSigner({}, update), IsEmpty());
}

TEST(KeyUpdate, NoEntryIsThereTwiceWhoeverOwnsIt) {
  KeySet keys;
  keys.dbx = {MakeEntry(1)};
  const KeyUpdate update{.description = {},
                         .dbx = {MakeEntry(1, kShimLockGuid), MakeEntry(2), MakeEntry(2)},
                         .sbat_level = {},
                         .auth = {}};
  const KeySet updated = ApplyKeyUpdate(keys, update);
  EXPECT_EQ(updated.dbx, (std::vector{MakeEntry(1), MakeEntry(2)}));
  keys.dbx = updated.dbx;
  EXPECT_EQ(updated, keys) << "something else changed";
}

TEST(KeyUpdate, DigestOfAnotherKindIsAnotherEntry) {
  KeySet keys;
  keys.dbx = {MakeSignature(SignatureType::kX509Sha256, kGlobalVariableGuid, Bytes(48))};
  const Signature same_size = MakeSignature(SignatureType::kSha384, kGlobalVariableGuid, Bytes(48));
  const KeyUpdate update{.description = {}, .dbx = {same_size}, .sbat_level = {}, .auth = {}};
  EXPECT_THAT(ApplyKeyUpdate(keys, update).dbx, SizeIs(2));
}

TEST(KeyUpdate, NewerSbatLevelReplacesAndOlderDoesNot) {
  const KeyUpdate newer = MustParse(AsBytes(kNewLevel));
  const KeyUpdate older = MustParse(AsBytes(kOldLevel));
  EXPECT_THAT(newer.description, HasSubstr("SBAT level 2024010900"));
  EXPECT_THAT(newer.dbx, IsEmpty());
  KeySet keys;
  EXPECT_EQ(ApplyKeyUpdate(keys, older).sbat_level, kOldLevel);
  keys.sbat_level = kOldLevel;
  EXPECT_EQ(ApplyKeyUpdate(keys, newer).sbat_level, kNewLevel);
  keys.sbat_level = kNewLevel;
  EXPECT_EQ(ApplyKeyUpdate(keys, older).sbat_level, kNewLevel);
}

TEST(KeyUpdate, NonsenseIsRefusedWithWhatIsAccepted) {
  for (const std::string text : {"", "nonsense", "sbat", "\xff\xff\xff\xff"}) {
    const auto update = ParseKeyUpdate(AsBytes(text));
    ASSERT_FALSE(update.has_value()) << text;
    EXPECT_EQ(update.error().code(), ErrorCode::kInvalidInput) << update.error().Describe();
  }
  EXPECT_THAT(ParseKeyUpdate(AsBytes("nonsense")).error().fix(), HasSubstr(".auth"));
  for (const std::string text : {"sbat,", "sbat,1,x\n", "sbat,1,2024010900\ngrub\n"}) {
    EXPECT_FALSE(ParseKeyUpdate(AsBytes(text)).has_value()) << text;
  }
}

TEST(KeyUpdate, CutShortItIsRefused) {
  const Bytes file = EncodeSignatureLists({MakeEntry(1)});
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(ParseKeyUpdate(ByteView(file).first(size)).has_value()) << size;
  }
}

TEST(KeyUpdate, DamagedOneNeverCrashes) {
  const std::string vectors = VectorsDir();
  if (vectors.empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
  const Bytes valid = ReadFile(vectors + "/uefi/dbxupdate-2014-08-11.auth");
  std::mt19937 random(1);
  for (int round = 0; round < 500; ++round) {
    Bytes damaged = valid;
    damaged[random() % damaged.size()] ^= static_cast<std::byte>(1U << random() % 8);
    if (round % 2 == 0) damaged.resize(random() % damaged.size());
    const auto update = ParseKeyUpdate(damaged);
    if (!update.has_value()) continue;
    EXPECT_FALSE(ApplyKeyUpdate({}, *update).dbx.empty());
  }
}

}  // namespace
}  // namespace vallum::firmware

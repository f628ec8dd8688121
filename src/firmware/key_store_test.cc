// SPDX-License-Identifier: Apache-2.0
#include "firmware/key_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "firmware/auth_file.h"
#include "firmware/test_keys.h"
#include "firmware/variable_store_editor.h"
#include "formats/test_support.h"

namespace vallum::firmware {
namespace {

using formats::testing::ReadFile;
using formats::testing::VectorsDir;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr VariableTime kTime = {
    .year = 2026, .month = 1, .day = 2, .hour = 3, .minute = 4, .second = 5};
constexpr OvmfBuild kBuilds[] = {OvmfBuild::k2M, OvmfBuild::k4M};

Signature Hash(uint8_t value) {
  return MakeSignature(SignatureType::kSha256, kShimLockGuid, Bytes(32, std::byte{value}));
}

KeySet MakeKeySet() {
  KeySet keys;
  keys.name = "mine";
  keys.pk = {MakeSignature(SignatureType::kX509, kShimLockGuid, Bytes(300, std::byte{1}))};
  keys.kek = {MakeSignature(SignatureType::kX509, kShimLockGuid, Bytes(310, std::byte{2}))};
  keys.db = {MakeSignature(SignatureType::kX509, kShimLockGuid, Bytes(320, std::byte{3})), Hash(1),
             Hash(2)};
  keys.dbx = {Hash(3)};
  keys.dbt = {MakeSignature(SignatureType::kX509, kShimLockGuid, Bytes(330, std::byte{4}))};
  keys.mok = {Hash(4)};
  keys.mokx = {Hash(5)};
  keys.sbat_level = "sbat,1,2024010900\nshim,4\n";
  return keys;
}

std::map<std::u16string, Variable> ByName(const Bytes& image) {
  std::map<std::u16string, Variable> variables;
  const auto store = VariableStore::Parse(image);
  EXPECT_TRUE(store.has_value());
  for (const Variable* variable : store->Variables()) variables[variable->name] = *variable;
  return variables;
}

TEST(KeyStore, SetComesBackFromItsStore) {
  for (const OvmfBuild build : kBuilds) {
    KeySet keys = MakeKeySet();
    for (const bool secure_boot : {true, false}) {
      keys.secure_boot = secure_boot;
      const auto image = MakeKeyStore(keys, build, kTime);
      ASSERT_TRUE(image.has_value()) << image.error().Describe();
      auto back = KeySetFromStore(*VariableStore::Parse(*image));
      ASSERT_TRUE(back.has_value());
      back->name = keys.name;
      EXPECT_EQ(*back, keys);
    }
  }
}

// Whatever has a key in its name is as in the templates that Debian enrolled by OVMF itself.
TEST(KeyStore, EnrolledTemplatesAreMadeVariableByVariable) {
  size_t seen = 0;
  for (const char* name : {"OVMF_VARS.ms.fd", "OVMF_VARS_4M.ms.fd", "OVMF_VARS_4M.snakeoil.fd"}) {
    const Bytes image = ReadFile(std::string("/usr/share/OVMF/") + name);
    if (image.empty()) continue;
    const auto store = VariableStore::Parse(image);
    const auto keys = KeySetFromStore(*store);
    ASSERT_TRUE(keys.has_value());
    const VariableTime time = store->Find("PK", kGlobalVariableGuid)->time;
    const auto theirs = ByName(image);
    const auto made = MakeKeyStore(*keys, store->layout().build, time);
    ASSERT_TRUE(made.has_value());
    for (const auto& [own, variable] : ByName(*made)) {
      ASSERT_TRUE(theirs.contains(own)) << name << variable.NameText();
      EXPECT_EQ(variable, theirs.at(own)) << name << variable.NameText();
    }
    EXPECT_EQ(ByName(*made).size(), 7U);
    ++seen;
  }
  if (seen == 0) GTEST_SKIP() << "package ovmf is not installed";
}

TEST(KeyStore, PublishedListsKeepTheirBytes) {
  if (VectorsDir().empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
  for (const char* name : {"PK.esl", "KEK.esl", "db.esl", "sha256.esl"}) {
    const Bytes lists = ReadFile(VectorsDir() + "/uefi/" + name);
    EXPECT_EQ(EncodeSignatureLists(*ParseSignatureLists(lists)), lists) << name;
  }
  for (const char* name : {"firmware-db", "firmware-kek", "firmware-pk"}) {
    const Bytes file = ReadFile(VectorsDir() + "/uefi/" + name);
    const Bytes lists = ToBytes(ByteView(file).subspan(4));
    EXPECT_EQ(EncodeSignatureLists(*ParseSignatureLists(lists)), lists) << name;
  }
  for (const char* name :
       {"PK.auth", "KEK.auth", "dbxupdate-2014-08-11.auth", "dbxupdate-x64-2020-10-12.auth",
        "dbxupdate-arm64.auth", "kekupdate-dell-pk1.auth"}) {
    const auto file = ParseAuthFile(ReadFile(VectorsDir() + "/uefi/" + name));
    ASSERT_TRUE(file.has_value()) << name;
    EXPECT_EQ(EncodeSignatureLists(file->signatures), file->payload) << name;
  }
}

TEST(KeyStore, BootEntriesOfOthersAreStoredAsTheyAre) {
  if (VectorsDir().empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
  VariableStoreEditor editor =
      *VariableStoreEditor::Open(*MakeKeyStore(MakeKeySet(), OvmfBuild::k4M, kTime));
  for (const char* name : {"Boot0000", "Boot0001", "Boot0010"}) {
    const Bytes file = ReadFile(VectorsDir() + "/uefi/" + name);
    Variable entry;
    entry.name = std::u16string(name, name + 8);
    entry.vendor = kGlobalVariableGuid;
    entry.attributes = std::to_integer<uint32_t>(file.front());
    entry.data = ToBytes(ByteView(file).subspan(4));
    ASSERT_TRUE(editor.Set(entry).has_value());
    EXPECT_EQ(ByName(editor.image()).at(entry.name), entry);
  }
  const auto replaced = ReplaceKeys(editor.image(), {}, kTime);
  ASSERT_TRUE(replaced.has_value());
  EXPECT_THAT(replaced->kept, ::testing::IsSupersetOf({"Boot0000", "Boot0001", "Boot0010"}));
}

TEST(KeyStore, SetWithoutPlatformKeyLeavesTheFirmwareInSetupMode) {
  KeySet keys = MakeKeySet();
  keys.pk.clear();
  const auto store = VariableStore::Parse(*MakeKeyStore(keys, OvmfBuild::k4M, kTime));
  EXPECT_EQ(DeriveSecureBoot(*store), SecureBootSetting::kSetupMode);
  EXPECT_EQ(store->Find("SecureBootEnable", kSecureBootEnableGuid), nullptr);
  EXPECT_TRUE(*MakeKeyStore({}, OvmfBuild::k2M, kTime) ==
              VariableStoreEditor::Create(OvmfBuild::k2M).image());
}

TEST(KeyStore, SetThatDoesNotFitIsSaid) {
  KeySet keys = MakeKeySet();
  keys.dbx.assign(300, Hash(9));
  const auto small = MakeKeyStore(keys, OvmfBuild::k2M, kTime);
  ASSERT_FALSE(small.has_value());
  EXPECT_THAT(small.error().Describe(), HasSubstr("storing key set mine: variable dbx takes"));
  EXPECT_THAT(small.error().fix(), HasSubstr("4M"));
  EXPECT_TRUE(MakeKeyStore(keys, OvmfBuild::k4M, kTime).has_value());
}

TEST(ReplaceKeys, EverythingElseOfAUsedStoreStays) {
  const std::string path = VectorsDir() + "/uefi/OVMF_VARS.fd";
  if (VectorsDir().empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
  const Bytes image = ReadFile(path);
  const KeySet keys = MakeKeySet();
  const auto replaced = ReplaceKeys(image, keys, kTime);
  ASSERT_TRUE(replaced.has_value()) << replaced.error().Describe();
  auto after = ByName(replaced->image);
  const auto own = ByName(*MakeKeyStore(keys, OvmfBuild::k2M, kTime));
  for (const auto& [name, variable] : ByName(image)) {
    EXPECT_EQ(after[name], own.contains(name) ? own.at(name) : variable) << variable.NameText();
  }
  EXPECT_THAT(replaced->kept, Contains("BootOrder"));
  EXPECT_THAT(replaced->kept, Contains("SecureBootEnable: the set's already"));
  EXPECT_THAT(replaced->rebuilt, Contains("db: 1 entry replaced by 3 entries"));
  EXPECT_THAT(replaced->rebuilt, Contains("MokList: added, 1 entry"));
}

TEST(ReplaceKeys, SameSetChangesNothing) {
  const Bytes image = *MakeKeyStore(MakeKeySet(), OvmfBuild::k4M, kTime);
  const auto replaced = ReplaceKeys(image, MakeKeySet(), {.year = 2027});
  EXPECT_THAT(replaced->rebuilt, IsEmpty());
  EXPECT_TRUE(replaced->image == image);
}

TEST(ReplaceKeys, ListThatTheSetLacksGoes) {
  KeySet keys = MakeKeySet();
  keys.dbt.clear();
  const auto replaced =
      ReplaceKeys(*MakeKeyStore(MakeKeySet(), OvmfBuild::k4M, kTime), keys, kTime);
  EXPECT_THAT(replaced->rebuilt, ElementsAre("dbt: removed"));
  EXPECT_FALSE(ByName(replaced->image).contains(u"dbt"));
}

TEST(ReplaceKeys, WhatTheGuestEnrolledStaysWhenTheSetSaysNothingOfIt) {
  KeySet keys = MakeKeySet();
  keys.mok.clear();
  keys.mokx.clear();
  keys.sbat_level.clear();
  const auto replaced =
      ReplaceKeys(*MakeKeyStore(MakeKeySet(), OvmfBuild::k4M, kTime), keys, kTime);
  EXPECT_THAT(replaced->rebuilt, IsEmpty());
  EXPECT_THAT(replaced->kept, Contains("MokList: the set says nothing of it, 1 entry"));
  EXPECT_TRUE(ByName(replaced->image).contains(u"SbatLevel"));
}

TEST(ReplaceKeys, SbatLevelNeverGoesBack) {
  KeySet old = MakeKeySet();
  old.sbat_level = "sbat,1,2022052400\ngrub,2\n";
  const Bytes image = *MakeKeyStore(MakeKeySet(), OvmfBuild::k4M, kTime);
  EXPECT_THAT(ReplaceKeys(image, old, kTime)->kept, Contains(StartsWith("SbatLevel: as new")));
  EXPECT_THAT(ReplaceKeys(*MakeKeyStore(old, OvmfBuild::k4M, kTime), MakeKeySet(), kTime)->rebuilt,
              ElementsAre(StartsWith("SbatLevel: ")));
}

TEST(ReplaceKeys, DamagedStoreIsRefused) {
  Bytes image = *MakeKeyStore(MakeKeySet(), OvmfBuild::k4M, kTime);
  image[50] ^= std::byte{1};
  EXPECT_EQ(ReplaceKeys(image, MakeKeySet(), kTime).error().code(), ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace vallum::firmware

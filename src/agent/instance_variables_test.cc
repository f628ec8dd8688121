// SPDX-License-Identifier: Apache-2.0
#include "agent/instance_variables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "agent/boot_keys.h"
#include "agent/state_files.h"
#include "agent/test_support.h"
#include "firmware/key_store.h"
#include "firmware/signature_list.h"
#include "firmware/variable_store_editor.h"

namespace vallum::agent {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

std::string Lists(std::initializer_list<int> seeds) {
  std::vector<firmware::Signature> entries;
  for (const int seed : seeds) {
    entries.push_back(firmware::MakeSignature(firmware::SignatureType::kSha256,
                                              firmware::kGlobalVariableGuid,
                                              Bytes(32, static_cast<std::byte>(seed))));
  }
  return std::string(AsText(firmware::EncodeSignatureLists(entries)));
}

class InstanceVariables : public testing::Test {
 protected:
  InstanceVariables() {
    std::filesystem::create_directories(paths_.directory);
    WriteTemplate(firmware::OvmfBuild::k4M);
    plan_.variable_template = (dir_.path() / "template.fd").string();
    desired_.set_uid(kUid);
    desired_.mutable_boot()->set_mode(v1::BOOT_MODE_SECURE);
    Assign(1, Lists({4}));
  }

  void WriteTemplate(firmware::OvmfBuild build) {
    const auto blank = firmware::VariableStoreEditor::Create(build);
    ASSERT_TRUE(WriteFileAtomically(dir_.path() / "template.fd", blank.image(), 0600));
  }
  void Assign(int version, const std::string& dbx) {
    v1::KeySetContent& keys = *desired_.mutable_key_set();
    keys.set_pk(Lists({1}));
    keys.set_kek(Lists({2}));
    keys.set_db(Lists({3}));
    keys.set_dbx(dbx);
    desired_.set_key_set_name("prod");
    desired_.set_key_set_version(version);
    v1::BootEffective& effective = plan_.effective;
    effective.set_mode(desired_.boot().mode());
    effective.set_key_set("prod");
    effective.set_key_set_version(version);
    effective.set_key_set_sha256(KeySetDigest(*ToKeySet(desired_)));
  }
  Result<std::vector<std::string>> Prepare() {
    return PrepareVariables(paths_, desired_, plan_, SystemClock().Now());
  }
  Bytes Store() {
    auto content = ReadWholeFile(paths_.variables, ByteCount::MiB(16));
    EXPECT_TRUE(content.has_value());
    return content ? *std::move(content) : Bytes();
  }
  std::string Value(const char* name) {
    const auto store = firmware::VariableStore::Parse(Store());
    EXPECT_TRUE(store.has_value());
    for (const auto* variable : store->Variables()) {
      if (variable->NameText() == name) return std::string(AsText(variable->data));
    }
    return "";
  }
  // As a guest writes a variable.
  void GuestSets(const std::u16string& name, const firmware::Guid& vendor, uint32_t attributes,
                 const std::string& value) {
    auto editor = firmware::VariableStoreEditor::Open(Store());
    ASSERT_TRUE(editor.has_value());
    const auto set = editor->Set({.name = name,
                                  .vendor = vendor,
                                  .attributes = attributes,
                                  .data = ToBytes(AsBytes(value)),
                                  .time = {},
                                  .monotonic_count = 0,
                                  .public_key_index = 0});
    ASSERT_TRUE(set.has_value()) << set.error().Describe();
    ASSERT_TRUE(WriteFileAtomically(paths_.variables, editor->image(), 0600));
  }
  void GuestSetsBootOrder() { GuestSets(u"BootOrder", firmware::kGlobalVariableGuid, 7, "12"); }

  const TempDir dir_;
  const AgentConfig config_ = MakeConfig(dir_.path());
  const InstancePaths paths_ = MakeInstancePaths(config_, kUid);
  LaunchPlan plan_;
  v1::DesiredInstance desired_;
};

TEST_F(InstanceVariables, FirstStartEnrolsTheKeysWithoutWords) {
  const auto notes = Prepare();
  ASSERT_TRUE(notes.has_value()) << notes.error().Describe();
  EXPECT_THAT(*notes, IsEmpty());
  EXPECT_EQ(Value("PK"), Lists({1}));
  EXPECT_EQ(Value("dbx"), Lists({4}));
  const auto store = firmware::VariableStore::Parse(Store());
  ASSERT_TRUE(store.has_value());
  EXPECT_EQ(DeriveSecureBoot(*store), firmware::SecureBootSetting::kOn);
}

TEST_F(InstanceVariables, LayoutIsTheTemplates) {
  WriteTemplate(firmware::OvmfBuild::k2M);
  ASSERT_TRUE(Prepare().has_value());
  EXPECT_EQ(firmware::VariableStore::Parse(Store())->layout().build, firmware::OvmfBuild::k2M);
}

TEST_F(InstanceVariables, ModeLegacyEnrolsKeysWithSecureBootOff) {
  desired_.mutable_boot()->set_mode(v1::BOOT_MODE_LEGACY);
  Assign(1, Lists({4}));
  ASSERT_TRUE(Prepare().has_value());
  EXPECT_NE(DeriveSecureBoot(*firmware::VariableStore::Parse(Store())),
            firmware::SecureBootSetting::kOn);
}

TEST_F(InstanceVariables, SameKeysKeepEverythingTheGuestWrote) {
  ASSERT_TRUE(Prepare().has_value());
  GuestSetsBootOrder();
  GuestSets(u"dbx", firmware::kSecurityDatabaseGuid, 0x27, Lists({4, 5}));
  const Bytes before = Store();
  const auto notes = Prepare();
  ASSERT_TRUE(notes.has_value());
  EXPECT_THAT(*notes, IsEmpty());
  EXPECT_TRUE(Store() == before) << "the guest's own dbx update too";
}

TEST_F(InstanceVariables, OtherVersionReplacesTheKeysAndKeepsTheRest) {
  ASSERT_TRUE(Prepare().has_value());
  GuestSetsBootOrder();
  Assign(2, Lists({4, 6}));
  const auto notes = Prepare();
  ASSERT_TRUE(notes.has_value()) << notes.error().Describe();
  EXPECT_EQ(Value("dbx"), Lists({4, 6}));
  EXPECT_EQ(Value("BootOrder"), "12");
  EXPECT_THAT(*notes, Contains(HasSubstr("version 2")));
  EXPECT_THAT(*notes, Contains(HasSubstr("dbx")));
  EXPECT_THAT(*notes, Contains(HasSubstr("BootOrder")));
  EXPECT_THAT(*Prepare(), IsEmpty()) << "said once";
}

TEST_F(InstanceVariables, OtherModeReplacesTheSwitchAndKeepsTheRest) {
  ASSERT_TRUE(Prepare().has_value());
  GuestSetsBootOrder();
  desired_.mutable_boot()->set_mode(v1::BOOT_MODE_LEGACY);
  Assign(1, Lists({4}));
  const auto notes = Prepare();
  ASSERT_TRUE(notes.has_value()) << notes.error().Describe();
  EXPECT_FALSE(notes->empty());
  EXPECT_EQ(Value("BootOrder"), "12");
  EXPECT_NE(DeriveSecureBoot(*firmware::VariableStore::Parse(Store())),
            firmware::SecureBootSetting::kOn);
}

TEST_F(InstanceVariables, StoreOfASnapshotGetsTheKeysWhateverItHas) {
  ASSERT_TRUE(Prepare().has_value());
  GuestSetsBootOrder();
  GuestSets(u"db", firmware::kSecurityDatabaseGuid, 0x27, Lists({3, 9}));
  GuestSets(u"dbt", firmware::kSecurityDatabaseGuid, 0x27, Lists({9}));
  GuestSets(u"MokList", firmware::kShimLockGuid, 3, Lists({9}));
  GuestSets(u"MokSBState", firmware::kShimLockGuid, 3, "\1");
  ASSERT_TRUE(StoreVariableOrigin(paths_, kPlacedOrigin));
  const auto notes = Prepare();
  ASSERT_TRUE(notes.has_value()) << notes.error().Describe();
  EXPECT_EQ(Value("db"), Lists({3}));
  for (const char* gone : {"dbt", "MokList", "MokSBState"}) EXPECT_EQ(Value(gone), "") << gone;
  EXPECT_EQ(Value("BootOrder"), "12");
  EXPECT_THAT(*notes, Contains(HasSubstr("snapshot")));
  GuestSets(u"MokList", firmware::kShimLockGuid, 3, Lists({9}));
  EXPECT_THAT(*Prepare(), IsEmpty()) << "from now on it is the guest's";
  EXPECT_EQ(Value("MokList"), Lists({9}));
}

TEST_F(InstanceVariables, StoreOfASnapshotWithTheSameKeysIsTakenWithoutWords) {
  ASSERT_TRUE(Prepare().has_value());
  GuestSetsBootOrder();
  ASSERT_TRUE(StoreVariableOrigin(paths_, kPlacedOrigin));
  EXPECT_THAT(*Prepare(), IsEmpty());
  EXPECT_EQ(Value("BootOrder"), "12");
}

TEST_F(InstanceVariables, DamagedStoreIsRefusedWithTheFix) {
  ASSERT_TRUE(Prepare().has_value());
  Bytes damaged = Store();
  std::fill_n(damaged.begin() + 100, 16, std::byte{0xee});
  ASSERT_TRUE(WriteFileAtomically(paths_.variables, damaged, 0600));
  const auto notes = Prepare();
  ASSERT_FALSE(notes.has_value());
  EXPECT_EQ(notes.error().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(notes.error().fix(), HasSubstr("key set"));
  EXPECT_TRUE(Store() == damaged) << "evidence is not touched";
}

TEST_F(InstanceVariables, DamagedStoreIsMadeAnewWhenTheKeysChange) {
  ASSERT_TRUE(Prepare().has_value());
  ASSERT_TRUE(WriteFileAtomically(paths_.variables, AsBytes("rubbish"), 0600));
  Assign(2, Lists({4}));
  const auto notes = Prepare();
  ASSERT_TRUE(notes.has_value()) << notes.error().Describe();
  EXPECT_THAT(*notes, Contains(HasSubstr("nothing of it was kept")));
  EXPECT_EQ(Value("PK"), Lists({1}));
}

TEST_F(InstanceVariables, StoreOfAnotherLayoutIsMadeAnew) {
  ASSERT_TRUE(Prepare().has_value());
  WriteTemplate(firmware::OvmfBuild::k2M);
  const auto notes = Prepare();
  ASSERT_TRUE(notes.has_value()) << notes.error().Describe();
  EXPECT_THAT(*notes, Contains(HasSubstr("layout")));
  EXPECT_EQ(firmware::VariableStore::Parse(Store())->layout().build, firmware::OvmfBuild::k2M);
}

TEST_F(InstanceVariables, StoreThatWentMissingIsSaid) {
  ASSERT_TRUE(Prepare().has_value());
  std::filesystem::remove(paths_.variables);
  const auto notes = Prepare();
  ASSERT_TRUE(notes.has_value());
  EXPECT_THAT(*notes, Contains(HasSubstr("missing")));
}

TEST_F(InstanceVariables, KeySetThatDoesNotParseIsRefusedByName) {
  desired_.mutable_key_set()->set_db("rubbish");
  const auto notes = Prepare();
  ASSERT_FALSE(notes.has_value());
  EXPECT_EQ(notes.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(notes.error().Describe(), HasSubstr("db"));
}

TEST_F(InstanceVariables, WithoutKeysTheStoreIsTheTemplate) {
  desired_.clear_key_set();
  plan_.effective.clear_key_set_sha256();
  ASSERT_TRUE(Prepare().has_value());
  EXPECT_TRUE(Store() == *ReadWholeFile(plan_.variable_template, ByteCount::MiB(16)));
}

TEST(KeyComparison, WhatShimTrustsBesidesIsANote) {
  firmware::KeySet keys;
  keys.mok = *firmware::ParseSignatureLists(AsBytes(Lists({9})));
  keys.dbt = *firmware::ParseSignatureLists(AsBytes(Lists({8})));
  const auto image = firmware::MakeKeyStore(keys, firmware::OvmfBuild::k4M,
                                            firmware::VariableTime{2024, 1, 1, 0, 0, 0});
  const auto store = firmware::VariableStore::Parse(*image);
  ASSERT_TRUE(store.has_value());
  firmware::KeySet assigned;
  assigned.mokx = *firmware::ParseSignatureLists(AsBytes(Lists({7})));
  assigned.sbat_level = "sbat,1,2024010900\n";
  const auto compared = CompareKeys(*store, {KeySetLabel("prod", 2), assigned});
  ASSERT_TRUE(compared.has_value());
  EXPECT_THAT(compared->contradictions, IsEmpty());
  EXPECT_THAT(compared->notes, Contains(HasSubstr("MokList of the variable store has entries")));
  EXPECT_THAT(compared->notes, Contains(HasSubstr("dbt of the variable store has entries")));
  EXPECT_THAT(compared->notes, Contains(HasSubstr("MokListX of the variable store lacks")));
  EXPECT_THAT(compared->notes, Contains(HasSubstr("SbatLevel")));
}

TEST(KeyComparison, ContentOfAStoreIsWhatWasEnrolled) {
  v1::DesiredInstance desired;
  desired.mutable_boot()->set_mode(v1::BOOT_MODE_SECURE);
  desired.mutable_key_set()->set_pk(Lists({1}));
  desired.mutable_key_set()->set_kek(Lists({2}));
  desired.mutable_key_set()->set_db(Lists({3}));
  desired.mutable_key_set()->set_sbat_level("sbat,1,2024010900\n");
  const auto keys = ToKeySet(desired);
  ASSERT_TRUE(keys.has_value());
  const auto image = firmware::MakeKeyStore(*keys, firmware::OvmfBuild::k4M,
                                            firmware::VariableTime{2024, 1, 1, 0, 0, 0});
  ASSERT_TRUE(image.has_value());
  const auto store = firmware::VariableStore::Parse(*image);
  ASSERT_TRUE(store.has_value());
  EXPECT_EQ(ToContent(*store).SerializeAsString(), desired.key_set().SerializeAsString());
  const auto compared = CompareKeys(*store, {KeySetLabel("prod", 2), *keys});
  ASSERT_TRUE(compared.has_value());
  EXPECT_THAT(compared->contradictions, IsEmpty());
  EXPECT_THAT(compared->notes, IsEmpty());
}

}  // namespace
}  // namespace vallum::agent

// SPDX-License-Identifier: Apache-2.0
#include "firmware/variable_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "firmware/variable_store_editor.h"

namespace vallum::firmware {
namespace {

using ::testing::HasSubstr;

constexpr size_t kFirstRecord = 100;

Bytes ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return ToBytes(AsBytes(text.str()));
}

Variable MakeVariable(std::u16string name, std::string_view data) {
  Variable variable;
  variable.name = std::move(name);
  variable.vendor = kGlobalVariableGuid;
  variable.attributes = 7;
  variable.data = ToBytes(AsBytes(data));
  return variable;
}

Bytes MakeValidImage() {
  return *MakeVariableStoreImage({MakeVariable(u"PK", "key"), MakeVariable(u"Lang", "eng")});
}

// Puts two records with the given states at the beginning of an empty store.
Bytes MakePair(VariableState first, VariableState second) {
  Bytes image = *MakeVariableStoreImage({});
  const Bytes old_record = EncodeRecord(MakeVariable(u"ab", "old!"), first);
  const Bytes new_record = EncodeRecord(MakeVariable(u"ab", "new!"), second);
  const size_t next = kFirstRecord + (old_record.size() + 3) / 4 * 4;
  std::copy(old_record.begin(), old_record.end(), image.begin() + kFirstRecord);
  std::copy(new_record.begin(), new_record.end(), image.begin() + static_cast<long>(next));
  return image;
}

Error Refusal(const Bytes& image) {
  const auto store = VariableStore::Parse(image);
  EXPECT_FALSE(store.has_value());
  return store.has_value() ? Internal("accepted") : store.error();
}

TEST(VariableStore, VariablesAreFoundByNameAndVendor) {
  const auto store = VariableStore::Parse(MakeValidImage());
  ASSERT_TRUE(store.has_value());
  ASSERT_EQ(store->Variables().size(), 2U);
  const Variable* found = store->Find("Lang", kGlobalVariableGuid);
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(AsText(found->data), "eng");
  EXPECT_EQ(found->attributes, 7U);
  EXPECT_EQ(store->Find("Lan", kGlobalVariableGuid), nullptr);
  EXPECT_EQ(store->Find("Lang", kSecurityDatabaseGuid), nullptr);
}

TEST(VariableStore, ReplacementWinsOverTheRecordInTransition) {
  for (const Bytes& image : {MakePair(VariableState::kInTransition, VariableState::kAdded),
                             MakePair(VariableState::kDeleted, VariableState::kAdded)}) {
    const auto store = VariableStore::Parse(image);
    ASSERT_TRUE(store.has_value());
    ASSERT_EQ(store->Variables().size(), 1U);
    EXPECT_EQ(AsText(store->Variables().front()->data), "new!");
    EXPECT_EQ(store->records().size(), 2U);
  }
}

TEST(VariableStore, RecordInTransitionCountsUntilItsReplacementIsComplete) {
  const auto store =
      VariableStore::Parse(MakePair(VariableState::kInTransition, VariableState::kUnfinished));
  ASSERT_TRUE(store.has_value());
  ASSERT_EQ(store->Variables().size(), 1U);
  EXPECT_EQ(AsText(store->Variables().front()->data), "old!");
}

// As a firmware leaves it that is ended by force in the middle of a write.
TEST(VariableStore, HeaderThatWasWrittenInPartIsPassedOver) {
  const Bytes whole = MakeValidImage();
  const size_t free = VariableStore::Parse(whole)->layout().free_offset;
  for (size_t written = 1; written <= 60; ++written) {
    Bytes image = whole;
    const Bytes header = ToBytes(ByteView(whole).subspan(100, 60));  // of the first record
    std::copy_n(header.begin(), written, image.begin() + static_cast<std::ptrdiff_t>(free));
    image[free + 2] = std::byte{0xff};
    const auto store = VariableStore::Parse(image);
    ASSERT_TRUE(store.has_value()) << written << ": " << store.error().Describe();
    EXPECT_EQ(store->Variables().size(), 2U) << written;
    EXPECT_EQ(store->layout().free_offset, written == 1 ? free : free + 60) << written;
  }
}

TEST(VariableStore, DeletedVariableIsNotThere) {
  const auto store =
      VariableStore::Parse(MakePair(VariableState::kDeleted, VariableState::kDeleted));
  ASSERT_TRUE(store.has_value());
  EXPECT_TRUE(store->Variables().empty());
}

TEST(VariableStore, SameVariableTwiceIsAContradiction) {
  EXPECT_THAT(Refusal(MakePair(VariableState::kAdded, VariableState::kAdded)).message(),
              HasSubstr("there twice"));
}

TEST(VariableStore, DamageIsSaidInWords) {
  const struct {
    size_t offset;
    uint8_t value;
    const char* words;
  } damages[] = {
      {40, 0, "_FVH"},
      {16, 0, "holds no variables"},
      {50, 0, "checksum"},
      {56, 0xff, "checksum"},
      {72, 0, "unknown variable store"},
      {92, 0xff, "not formatted"},
      {93, 0xff, "not formatted"},
      {91, 0x7f, "does not fit its volume"},
      {100, 0, "neither a variable nor erased"},
      {102, 0x12, "unknown state"},
      {139, 0x7f, "does not fit"},
      {143, 0x7f, "does not fit"},
      {160, 0, "only zero"},
      {136, 5, "a name of 5 bytes"},
      {136, 0, "a name of 0 bytes"},
  };
  for (const auto& damage : damages) {
    Bytes image = MakeValidImage();
    image[damage.offset] = static_cast<std::byte>(damage.value);
    if (damage.offset == 102) {
      image[damage.offset] = std::byte{0x1f};
    }
    EXPECT_THAT(Refusal(image).Describe(), HasSubstr(damage.words)) << damage.offset;
  }
}

TEST(VariableStore, EveryTruncationIsRefusedOrReadsTheSame) {
  const Bytes image = MakeValidImage();
  for (size_t size = 0; size < 300; ++size) {
    EXPECT_FALSE(VariableStore::Parse(ByteView(image).first(size)).has_value()) << size;
  }
}

TEST(VariableStore, LeftoversInTheSpareAreaAreNotJudged) {
  Bytes image = MakeValidImage();
  image.back() = std::byte{0};
  EXPECT_TRUE(VariableStore::Parse(image).has_value());
}

TEST(VariableStore, CodeFileIsRefusedWithTheFix) {
  const Error error = Refusal(Bytes(1024));
  EXPECT_EQ(error.code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(error.fix(), HasSubstr("OVMF_VARS"));
}

TEST(VariableStore, NameIsSafeToPrint) {
  EXPECT_EQ(MakeVariable(u"a\x1b\u00e9", "").NameText(), "a\\u001b\\u00e9");
}

void ExpectRecordsRoundTrip(const std::string& path) {
  const Bytes image = ReadFile(path);
  const auto store = VariableStore::Parse(image);
  ASSERT_TRUE(store.has_value()) << path << ": " << store.error().Describe();
  for (const VariableRecord& record : store->records()) {
    if (record.state != VariableState::kAdded) {
      continue;
    }
    const Bytes encoded = EncodeRecord(record.variable, record.state);
    EXPECT_EQ(encoded, ToBytes(ByteView(image).subspan(record.offset, record.size)))
        << path << " " << record.variable.NameText();
  }
}

TEST(VariableStore, AllTemplatesOfOvmfRoundTrip) {
  size_t seen = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/share/OVMF", error)) {
    if (entry.path().filename().string().starts_with("OVMF_VARS")) {
      ExpectRecordsRoundTrip(entry.path());
      ++seen;
    }
  }
  if (seen == 0) {
    GTEST_SKIP() << "package ovmf is not installed";
  }
}

TEST(VariableStore, VectorHoldsTheVariablesOfTheManifest) {
  const char* set = std::getenv("VALLUM_VECTORS");
  const std::string root =
      set != nullptr ? set
                     : (std::filesystem::path(VALLUM_TESTDATA) / "../../../../shared/vectors")
                           .lexically_normal()
                           .string();
  const Bytes image = ReadFile(root + "/uefi/OVMF_VARS.fd");
  if (image.empty()) {
    GTEST_SKIP() << "no vectors at " << root;
  }
  ExpectRecordsRoundTrip(root + "/uefi/OVMF_VARS.fd");
  const auto store = VariableStore::Parse(image);
  ASSERT_TRUE(store.has_value());
  for (const char* name : {"PK", "KEK"}) {
    EXPECT_NE(store->Find(name, kGlobalVariableGuid), nullptr) << name;
  }
  EXPECT_NE(store->Find("db", kSecurityDatabaseGuid), nullptr);
  EXPECT_EQ(DeriveSecureBoot(*store), SecureBootSetting::kOn);
}

Variable MakeEnable(std::string_view value) {
  Variable enable = MakeVariable(u"SecureBootEnable", value);
  enable.vendor = kSecureBootEnableGuid;
  return enable;
}

TEST(SecureBoot, IsDerivedFromPlatformKeyAndSwitch) {
  using namespace std::string_view_literals;
  const Variable pk = MakeVariable(u"PK", "key");
  const struct {
    std::vector<Variable> variables;
    SecureBootSetting setting;
  } cases[] = {{{}, SecureBootSetting::kSetupMode},
               {{MakeEnable("\x01"sv)}, SecureBootSetting::kSetupMode},
               {{pk}, SecureBootSetting::kOn},
               {{pk, MakeEnable("\x01"sv)}, SecureBootSetting::kOn},
               {{pk, MakeEnable("\x00"sv)}, SecureBootSetting::kOff},
               {{pk, MakeEnable("\x02"sv)}, SecureBootSetting::kOff}};
  for (const auto& test : cases) {
    const auto store = VariableStore::Parse(*MakeVariableStoreImage(test.variables));
    ASSERT_TRUE(store.has_value());
    EXPECT_EQ(DeriveSecureBoot(*store), test.setting);
  }
}

}  // namespace
}  // namespace vallum::firmware

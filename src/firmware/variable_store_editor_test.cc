// SPDX-License-Identifier: Apache-2.0
#include "firmware/variable_store_editor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <utility>

#include "firmware/variable_store_format.h"
#include "formats/test_support.h"

namespace vallum::firmware {
namespace {

using formats::testing::ReadFile;
using formats::testing::VectorsDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr size_t kFirstRecord = 100;
constexpr size_t kWorking4M = 0x41000;
constexpr size_t kSpare4M = 0x42000;
constexpr OvmfBuild kBuilds[] = {OvmfBuild::k2M, OvmfBuild::k4M};

Variable MakeVariable(std::u16string name, std::string_view data) {
  Variable variable;
  variable.name = std::move(name);
  variable.vendor = kGlobalVariableGuid;
  variable.attributes = 7;
  variable.data = ToBytes(AsBytes(data));
  return variable;
}

std::vector<Variable> VariablesOf(const Bytes& image) {
  const auto store = VariableStore::Parse(image);
  EXPECT_TRUE(store.has_value()) << store.error().Describe();
  std::vector<Variable> variables;
  if (store.has_value()) {
    for (const Variable* variable : store->Variables()) variables.push_back(*variable);
  }
  return variables;
}

Bytes MakeValidImage(OvmfBuild build = OvmfBuild::k4M) {
  return *MakeVariableStoreImage({MakeVariable(u"a", "one"), MakeVariable(u"b", "two!!")}, build);
}

VariableStoreEditor OpenValid(const Bytes& image) {
  auto editor = VariableStoreEditor::Open(image);
  EXPECT_TRUE(editor.has_value()) << editor.error().Describe();
  return *std::move(editor);
}

void Put(Bytes& image, size_t offset, ByteView bytes) {
  std::ranges::copy(bytes, image.begin() + static_cast<long>(offset));
}

// Debian's templates and the store of a used machine.
std::vector<std::string> Stores() {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/share/OVMF", error)) {
    if (entry.path().filename().string().starts_with("OVMF_VARS")) paths.push_back(entry.path());
  }
  if (!VectorsDir().empty()) paths.push_back(VectorsDir() + "/uefi/OVMF_VARS.fd");
  return paths;
}

TEST(VariableStoreEditor, EmptyStoreIsByteForByteDebiansBlankTemplate) {
  size_t seen = 0;
  for (const auto& [name, build] :
       {std::pair{"OVMF_VARS.fd", OvmfBuild::k2M}, std::pair{"OVMF_VARS_4M.fd", OvmfBuild::k4M}}) {
    const Bytes debian = ReadFile(std::string("/usr/share/OVMF/") + name);
    if (debian.empty()) continue;
    EXPECT_TRUE(VariableStoreEditor::Create(build).image() == debian) << name;
    ++seen;
  }
  if (seen == 0) GTEST_SKIP() << "package ovmf is not installed";
}

TEST(VariableStoreEditor, StoreThatIsNotEditedKeepsItsBytes) {
  const auto stores = Stores();
  if (stores.empty()) GTEST_SKIP() << "package ovmf is not installed";
  for (const std::string& path : stores) {
    const Bytes image = ReadFile(path);
    EXPECT_TRUE(OpenValid(image).image() == image) << path;
  }
}

TEST(VariableStoreEditor, SettingAndDeletingLeavesTheOthersAlone) {
  const auto stores = Stores();
  if (stores.empty()) GTEST_SKIP() << "package ovmf is not installed";
  for (const std::string& path : stores) {
    const Bytes image = ReadFile(path);
    VariableStoreEditor editor = OpenValid(image);
    ASSERT_TRUE(editor.Set(MakeVariable(u"mine", "value")).has_value()) << path;
    ASSERT_TRUE(editor.Delete(u"mine", kGlobalVariableGuid).has_value()) << path;
    EXPECT_EQ(VariablesOf(editor.image()), VariablesOf(image)) << path;
    editor.Reclaim();
    EXPECT_EQ(VariablesOf(editor.image()), VariablesOf(image)) << path;
  }
}

TEST(VariableStoreEditor, StoreMadeFromItsVariablesMeansTheSame) {
  const auto stores = Stores();
  if (stores.empty()) GTEST_SKIP() << "package ovmf is not installed";
  for (const std::string& path : stores) {
    const Bytes image = ReadFile(path);
    const auto made =
        MakeVariableStoreImage(VariablesOf(image), VariableStore::Parse(image)->layout().build);
    ASSERT_TRUE(made.has_value()) << path << made.error().Describe();
    EXPECT_EQ(VariablesOf(*made), VariablesOf(image)) << path;
  }
}

TEST(VariableStoreEditor, WholeVariableIsStored) {
  for (const OvmfBuild build : kBuilds) {
    Variable variable = MakeVariable(u"d\u00e9", "data");
    variable.attributes = 0x27;
    variable.time = {.year = 2026, .month = 2, .day = 3, .hour = 4, .minute = 5, .second = 6};
    variable.monotonic_count = 7;
    variable.public_key_index = 8;
    VariableStoreEditor editor = VariableStoreEditor::Create(build);
    ASSERT_TRUE(editor.Set(variable).has_value());
    EXPECT_THAT(VariablesOf(editor.image()), ElementsAre(variable));
  }
}

TEST(VariableStoreEditor, ReplacedValueIsAppendedAndTheOldOneMarkedAsTheFirmwareDoes) {
  VariableStoreEditor editor = OpenValid(MakeValidImage());
  const Bytes before = editor.image();
  ASSERT_TRUE(editor.Set(MakeVariable(u"a", "new")).has_value());
  EXPECT_THAT(VariablesOf(editor.image()),
              ElementsAre(MakeVariable(u"b", "two!!"), MakeVariable(u"a", "new")));
  EXPECT_EQ(editor.image()[kFirstRecord + 2], std::byte{0x3c});
  int changed = 0;
  for (size_t i = 0; i < kFirstRecord + 140; ++i) changed += before[i] != editor.image()[i] ? 1 : 0;
  EXPECT_EQ(changed, 1) << "more than the state of the old record";
}

TEST(VariableStoreEditor, DeletedVariableIsMarkedAsTheFirmwareDoes) {
  VariableStoreEditor editor = OpenValid(MakeValidImage());
  ASSERT_TRUE(editor.Delete(u"a", kGlobalVariableGuid).has_value());
  EXPECT_EQ(editor.image()[kFirstRecord + 2], std::byte{0x3d});
  EXPECT_THAT(VariablesOf(editor.image()), ElementsAre(MakeVariable(u"b", "two!!")));
}

TEST(VariableStoreEditor, SettingTheSameAgainChangesNothing) {
  const Bytes image = MakeValidImage();
  VariableStoreEditor editor = OpenValid(image);
  ASSERT_TRUE(editor.Set(*editor.Find(u"a", kGlobalVariableGuid)).has_value());
  EXPECT_TRUE(editor.image() == image);
  Variable other = MakeVariable(u"a", "one");
  other.attributes = 3;
  ASSERT_TRUE(editor.Set(other).has_value());
  EXPECT_EQ(editor.Find(u"a", kGlobalVariableGuid)->attributes, 3U);
}

TEST(VariableStoreEditor, VendorsAreToldApart) {
  VariableStoreEditor editor = OpenValid(MakeValidImage());
  Variable other = MakeVariable(u"a", "other");
  other.vendor = kShimLockGuid;
  ASSERT_TRUE(editor.Set(other).has_value());
  ASSERT_TRUE(editor.Delete(u"a", kGlobalVariableGuid).has_value());
  EXPECT_THAT(VariablesOf(editor.image()), ElementsAre(MakeVariable(u"b", "two!!"), other));
}

TEST(VariableStoreEditor, DeletingWhatIsNotThereIsSaid) {
  const Bytes image = MakeValidImage();
  VariableStoreEditor editor = OpenValid(image);
  const auto result = editor.Delete(u"c", kGlobalVariableGuid);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(result.error().Describe(), HasSubstr("no variable c"));
  EXPECT_TRUE(editor.image() == image);
}

TEST(VariableStoreEditor, StoreIsReclaimedWhenItsEndIsReached) {
  for (const OvmfBuild build : kBuilds) {
    VariableStoreEditor editor = OpenValid(MakeValidImage(build));
    const Bytes outside = editor.image();
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(editor.Set(MakeVariable(u"b", std::string(5000, static_cast<char>('0' + i % 10))))
                      .has_value());
    }
    EXPECT_THAT(VariablesOf(editor.image()),
                ElementsAre(MakeVariable(u"a", "one"), MakeVariable(u"b", std::string(5000, '9'))));
    EXPECT_GE(editor.FreeBytesAfterReclaim(), editor.FreeBytes());
    const size_t end = build == OvmfBuild::k2M ? 0xe000 : 0x40000;
    EXPECT_TRUE(
        std::equal(outside.begin(), outside.begin() + kFirstRecord, editor.image().begin()));
    EXPECT_TRUE(std::equal(outside.begin() + static_cast<long>(end), outside.end(),
                           editor.image().begin() + static_cast<long>(end)))
        << "something behind the store changed";
  }
}

TEST(VariableStoreEditor, StoreCanBeFilledToItsLastByteAndNoFurther) {
  for (const OvmfBuild build : kBuilds) {
    VariableStoreEditor editor = VariableStoreEditor::Create(build);
    const size_t overhead = VariableStoreEditor::RecordBytes(MakeVariable(u"v00", ""));
    int number = 0;
    while (editor.FreeBytes() != 0) {
      const size_t size = std::min<size_t>(editor.FreeBytes(), 8000);
      const std::u16string name = {u'v', static_cast<char16_t>(u'0' + number / 10),
                                   static_cast<char16_t>(u'0' + number % 10)};
      ASSERT_TRUE(editor.Set(MakeVariable(name, std::string(size - overhead, 'x'))).has_value());
      ++number;
    }
    EXPECT_EQ(VariablesOf(editor.image()).size(), static_cast<size_t>(number));
    const Bytes full = editor.image();
    const auto more = editor.Set(MakeVariable(u"w", "1"));
    ASSERT_FALSE(more.has_value());
    EXPECT_EQ(more.error().code(), ErrorCode::kExhausted);
    EXPECT_THAT(more.error().Describe(), HasSubstr("needs 68 bytes; the store has 0 left"));
    EXPECT_TRUE(editor.image() == full);
    ASSERT_TRUE(editor.Delete(u"v00", kGlobalVariableGuid).has_value());
    EXPECT_TRUE(editor.Set(MakeVariable(u"w", "1")).has_value()) << "not reclaimed";
  }
}

TEST(VariableStoreEditor, VariableThatTheFirmwareCouldNotHandleIsRefused) {
  const struct {
    OvmfBuild build;
    uint32_t attributes;
    size_t most;
  } cases[] = {{OvmfBuild::k2M, 7, 0x2000},
               {OvmfBuild::k2M, 0x27, 0x2800},
               {OvmfBuild::k4M, 7, 0x8400},
               {OvmfBuild::k4M, 0x27, 0x8400}};
  for (const auto& test : cases) {
    VariableStoreEditor editor = VariableStoreEditor::Create(test.build);
    Variable variable = MakeVariable(u"a", std::string(test.most - 64, 'x'));
    variable.attributes = test.attributes;
    EXPECT_TRUE(editor.Set(variable).has_value());
    variable.data.emplace_back();
    const auto result = editor.Set(variable);
    ASSERT_FALSE(result.has_value());
    EXPECT_THAT(result.error().Describe(), HasSubstr(std::to_string(test.most)));
  }
}

TEST(VariableStoreEditor, VariablesThatNoStoreHoldsAreRefused) {
  VariableStoreEditor editor = VariableStoreEditor::Create(OvmfBuild::k4M);
  const auto refused = [&](const Variable& variable) {
    const auto result = editor.Set(variable);
    return !result.has_value() && result.error().code() == ErrorCode::kInvalidInput;
  };
  EXPECT_TRUE(refused(MakeVariable(u"", "x")));
  EXPECT_TRUE(refused(MakeVariable(std::u16string(u"a\0b", 3), "x")));
  for (const uint32_t attributes : {0U, 6U, 0x47U}) {
    Variable variable = MakeVariable(u"a", "x");
    variable.attributes = attributes;
    EXPECT_TRUE(refused(variable)) << attributes;
  }
}

TEST(VariableStoreEditor, InterruptedUpdateIsFinishedByTheNextOne) {
  VariableStoreEditor made = OpenValid(MakeValidImage());
  ASSERT_TRUE(made.Set(MakeVariable(u"a", "new")).has_value());
  Bytes image = made.image();
  image[kFirstRecord + 2] = std::byte{0x3e};  // before the old record was deleted
  EXPECT_THAT(VariableStore::Parse(image)->Notes(),
              ElementsAre(HasSubstr("an update of a was interrupted; its new value counts")));
  VariableStoreEditor editor = OpenValid(image);
  ASSERT_TRUE(editor.Delete(u"a", kGlobalVariableGuid).has_value());
  EXPECT_THAT(VariablesOf(editor.image()), ElementsAre(MakeVariable(u"b", "two!!")));
  editor = OpenValid(image);
  editor.Reclaim();
  EXPECT_THAT(VariableStore::Parse(editor.image())->Notes(), IsEmpty());
  EXPECT_EQ(VariablesOf(editor.image()), VariablesOf(image));
}

// One write of the whole store, as the reclaim of OVMF queues it.
Bytes MakeWrite(uint8_t flags, uint8_t record_flags) {
  ByteWriter out;
  out.U8(flags).U8(0xff).U8(0xff).U8(0xff).Zeros(16).U32Le(0xffffffff).U64Le(1).U64Le(0);
  out.U8(record_flags);
  for (int i = 0; i < 7; ++i) out.U8(0xff);
  out.U64Le(0).U64Le(0x48).U64Le(0x3ffb8).U64Le(0xffffffffffff0000);
  return std::move(out).Take();
}

Bytes MakeImageWithWrites(const std::vector<std::pair<uint8_t, uint8_t>>& writes) {
  Bytes image = MakeValidImage();
  size_t offset = kWorking4M + 32;
  for (const auto& [flags, record_flags] : writes) {
    const Bytes write = MakeWrite(flags, record_flags);
    Put(image, offset, write);
    offset += write.size();
  }
  return image;
}

TEST(FaultTolerantWrite, PendingWriteIsRefusedWithWhatToDo) {
  for (const auto& writes :
       {std::vector<std::pair<uint8_t, uint8_t>>{{0xfc, 0xfd}},
        std::vector<std::pair<uint8_t, uint8_t>>{{0xf8, 0xf9}, {0xfc, 0xfd}}}) {
    const auto editor = VariableStoreEditor::Open(MakeImageWithWrites(writes));
    ASSERT_FALSE(editor.has_value());
    EXPECT_EQ(editor.error().code(), ErrorCode::kCorrupt);
    EXPECT_THAT(editor.error().Describe(), HasSubstr("a write of the store was interrupted"));
    EXPECT_THAT(editor.error().fix(), HasSubstr("start the machine once"));
  }
}

TEST(FaultTolerantWrite, WritesThatAreCompleteOrWereNeverBegunDoNoHarm) {
  const struct {
    std::vector<std::pair<uint8_t, uint8_t>> writes;
    size_t notes;
  } cases[] = {{{{0xf8, 0xf9}}, 0},
               {{{0xf8, 0xf9}, {0xf8, 0xf9}}, 0},
               {{{0xfc, 0xf9}}, 0},  // only the mark of the whole is missing
               {{{0xfe, 0xff}}, 1},  // announced
               {{{0xfc, 0xff}}, 1},  // records written, spare area not
               {{{0xf8, 0xf9}, {0xfc, 0xff}}, 1}};
  for (const auto& test : cases) {
    const auto store = VariableStore::Parse(MakeImageWithWrites(test.writes));
    ASSERT_TRUE(store.has_value()) << store.error().Describe();
    EXPECT_EQ(store->Notes().size(), test.notes);
  }
}

TEST(FaultTolerantWrite, InterruptedRewriteOfTheWorkingBlockIsRefused) {
  Bytes image = MakeValidImage();
  Put(image, kSpare4M, ToBytes(ByteView(image).subspan(kWorking4M, 32)));
  EXPECT_TRUE(VariableStore::Parse(image).has_value()) << "the working block counts";
  Put(image, kWorking4M, Bytes(32, std::byte{0xff}));
  EXPECT_THAT(VariableStore::Parse(image).error().Describe(), HasSubstr("was interrupted"));
}

TEST(FaultTolerantWrite, ErasedWorkingBlockIsMadeByTheFirmware) {
  Bytes image = MakeValidImage();
  Put(image, kWorking4M, Bytes(4096, std::byte{0xff}));
  EXPECT_TRUE(VariableStore::Parse(image).has_value());
}

TEST(FaultTolerantWrite, DamagedWorkingBlockIsSaid) {
  for (size_t i = 0; i < 32; ++i) {
    Bytes image = MakeValidImage();
    image[kWorking4M + i] ^= std::byte{0x10};
    EXPECT_THAT(VariableStore::Parse(image).error().Describe(),
                HasSubstr("neither a fault tolerant working block nor erased"))
        << i;
  }
}

TEST(FaultTolerantWrite, QueueThatLeavesTheBlockIsDamage) {
  for (const size_t field : {24U, 32U}) {  // number of records, private bytes of each
    Bytes image = MakeImageWithWrites({{0xfc, 0xfd}});
    Put(image, kWorking4M + 32 + field, Bytes(8, std::byte{0xfe}));
    EXPECT_THAT(VariableStore::Parse(image).error().Describe(),
                HasSubstr("leave the working block"));
  }
}

TEST(FaultTolerantWrite, QueueThatFillsTheBlockIsRead) {
  std::vector<std::pair<uint8_t, uint8_t>> writes((4096 - 32) / 80, {0xf8, 0xf9});
  EXPECT_TRUE(VariableStore::Parse(MakeImageWithWrites(writes)).has_value());
}

TEST(VariableStoreEditor, RandomEditsAgreeWithAMap) {
  std::mt19937 random(7);
  for (const OvmfBuild build : kBuilds) {
    VariableStoreEditor editor = VariableStoreEditor::Create(build);
    std::map<std::u16string, Variable> model;
    for (int step = 0; step < 400; ++step) {
      const std::u16string name(1, static_cast<char16_t>(u'a' + random() % 9));
      if (random() % 4 == 0) {
        EXPECT_EQ(editor.Delete(name, kGlobalVariableGuid).has_value(), model.erase(name) == 1);
      } else {
        const Variable variable = MakeVariable(name, std::string(random() % 3000, 'x'));
        ASSERT_TRUE(editor.Set(variable).has_value());
        model[name] = variable;
      }
      if (step % 20 != 0) continue;
      const auto found = VariablesOf(editor.image());
      ASSERT_EQ(found.size(), model.size());
      for (const Variable& variable : found) EXPECT_EQ(variable, model[variable.name]);
      editor = OpenValid(editor.image());
    }
  }
}

}  // namespace
}  // namespace vallum::firmware

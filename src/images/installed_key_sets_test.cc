// SPDX-License-Identifier: Apache-2.0
#include "images/installed_key_sets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/bytes.h"
#include "firmware/test_keys.h"
#include "formats/test_support.h"
#include "images/firmware_files.h"
#include "images/inspection_request.h"

namespace vallum::images {
namespace {

using firmware::KeySet;
using firmware::testing::Entry;
using firmware::testing::TestKeys;
using formats::testing::TempDir;
using formats::testing::WriteFile;
using ::testing::HasSubstr;
using ::testing::Not;

KeySet MakeKeySet(const Bytes& certificate) {
  KeySet keys;
  keys.name = "said by the file";
  keys.pk = keys.kek = keys.db = {Entry(certificate)};
  return keys;
}

TEST(KeySetFile, VariableStoreIsReadUnderTheNameOfItsFile) {
  const std::string vectors = formats::testing::VectorsDir();
  if (vectors.empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
  const auto keys = ReadKeySetFile(vectors + "/uefi/OVMF_VARS.fd");
  ASSERT_TRUE(keys.has_value()) << keys.error().Describe();
  EXPECT_EQ(keys->name, "OVMF_VARS.fd");
  EXPECT_FALSE(keys->pk.empty());
  EXPECT_FALSE(keys->db.empty());
}

TEST(KeySetFile, CertificatesInPemAndDerArePkKekAndDb) {
  TestKeys keys;
  const Bytes certificate = keys.MakeAuthority("root");
  for (const std::string name : {"root.crt", "root.der"}) {
    const auto read = ReadKeySetFile(keys.File(name));
    ASSERT_TRUE(read.has_value()) << read.error().Describe();
    EXPECT_EQ(read->name, name);
    for (const auto* list : {&read->pk, &read->kek, &read->db}) {
      ASSERT_EQ(list->size(), 1U);
      EXPECT_EQ(list->front().data, certificate);
    }
    EXPECT_TRUE(read->secure_boot);
    EXPECT_TRUE(read->dbx.empty());
  }
}

TEST(KeySetFile, JsonIsReadUnderTheNameThatItSays) {
  TestKeys keys;
  const KeySet written = MakeKeySet(keys.MakeAuthority("root"));
  WriteFile(keys.File("set"), AsBytes(firmware::ToJson(written)));
  const auto read = ReadKeySetFile(keys.File("set"));
  ASSERT_TRUE(read.has_value()) << read.error().Describe();
  EXPECT_EQ(*read, written);
}

TEST(KeySetFile, NonsenseIsRefusedWithWhatIsAccepted) {
  const TempDir dir;
  for (const std::string text : {"", "{}", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n"}) {
    WriteFile(dir.File("f"), AsBytes(text));
    const auto read = ReadKeySetFile(dir.File("f"));
    ASSERT_FALSE(read.has_value()) << text;
    EXPECT_EQ(read.error().code(), ErrorCode::kInvalidInput);
    EXPECT_THAT(read.error().fix(), HasSubstr("PEM or DER"));
  }
}

TEST(KeySetFile, MissingFileAndFolderAreErrors) {
  const TempDir dir;
  EXPECT_EQ(ReadKeySetFile(dir.File("none")).error().code(), ErrorCode::kNotFound);
  EXPECT_FALSE(ReadKeySetFile(dir.File("")).has_value());
}

// A request takes names of 64 bytes: a file may have a longer one.
TEST(KeySetFile, LongNameOfAFileStillMakesARequest) {
  TestKeys keys;
  const Bytes certificate = keys.MakeAuthority("root");
  for (const std::string& name : {std::string(200, 'n') + ".der", std::string(63, 'n') + "\xc3\xa4",
                                  std::string("\xff\x1b.der")}) {
    WriteFile(keys.File(name), certificate);
    const auto read = ReadKeySetFile(keys.File(name));
    ASSERT_TRUE(read.has_value()) << read.error().Describe();
    EXPECT_THAT(read->name, Not(HasSubstr("\x1b")));
    const auto request = RequestFromJson(RequestToJson({.key_sets = {*read}, .prediction = {}}));
    ASSERT_TRUE(request.has_value()) << request.error().Describe();
    EXPECT_EQ(request->key_sets.front().name, read->name);
  }
}

TEST(ReadDescriptorFiles, LinkToNothingMasksAndIsNoProblem) {
  const formats::testing::TempDir dir;
  formats::testing::MustRun("ln -s /dev/null " + dir.File("50-masked.json"));
  const std::string folder = std::filesystem::path(dir.File("x")).parent_path();
  std::vector<std::string> problems;
  const auto files = ReadDescriptorFiles({folder}, problems);
  ASSERT_EQ(files.size(), 1U);
  EXPECT_EQ(files.front().name, "50-masked.json");
  EXPECT_TRUE(files.front().content.empty());
  EXPECT_TRUE(problems.empty());
}

}  // namespace
}  // namespace vallum::images

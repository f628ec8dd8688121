// SPDX-License-Identifier: Apache-2.0
// What cryptsetup writes, and the shared vectors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/detect.h"
#include "formats/luks.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::MustRun;
using testing::ReadFile;
using testing::SparseReader;
using testing::TempDir;
using testing::VectorsDir;

Result<LuksHeader> Parse(ByteView image) { return ParseLuks(MemoryReader(image)); }

struct FormatCase {
  std::string name;
  std::string options;
};
class MadeByCryptsetup : public ::testing::TestWithParam<FormatCase> {};

// An image and the header that cryptsetup wrote into it.
void ExpectAsCryptsetupSays(const LuksHeader& header, const std::string& file) {
  const std::string dump = MustRun("/usr/sbin/cryptsetup luksDump " + file);
  EXPECT_THAT(dump, HasSubstr(header.uuid));
  if (header.version == 1) {
    EXPECT_THAT(dump, ::testing::ContainsRegex("Payload offset:[ \t]*" +
                                               std::to_string(header.payload_offset / 512) + "\n"));
    EXPECT_THAT(
        dump, ::testing::ContainsRegex("MK bits:[ \t]*" + std::to_string(header.key_bits) + "\n"));
    for (uint32_t i = 0; i < kLuks1KeySlots; ++i) {
      const bool active = std::ranges::any_of(
          header.key_slots, [&](const LuksKeySlot& slot) { return slot.number == i; });
      EXPECT_THAT(
          dump, HasSubstr("Key Slot " + std::to_string(i) + (active ? ": ENABLED" : ": DISABLED")));
    }
    return;
  }
  const auto metadata =
      json::parse(MustRun("/usr/sbin/cryptsetup luksDump --dump-json-metadata " + file));
  const json& segment = metadata["segments"]["0"];
  EXPECT_EQ(json(header.cipher), segment["encryption"]);
  EXPECT_EQ(json(header.sector_size), segment["sector_size"]);
  EXPECT_EQ(json(std::to_string(header.payload_offset)), segment["offset"]);
  ASSERT_EQ(header.key_slots.size(), metadata["keyslots"].size());
  for (const LuksKeySlot& slot : header.key_slots) {
    const json& expected = metadata["keyslots"][std::to_string(slot.number)];
    EXPECT_EQ(header.key_bits, expected["key_size"].get<uint32_t>() * 8);
    EXPECT_EQ(LuksKdfName(slot.cost.kdf), expected["kdf"]["type"].get<std::string>());
    EXPECT_EQ(json(std::to_string(slot.area_offset)), expected["area"]["offset"]);
    if (slot.cost.kdf == LuksKdf::kPbkdf2) {
      EXPECT_EQ(json(slot.cost.iterations), expected["kdf"]["iterations"]);
    } else {
      EXPECT_EQ(json(slot.cost.iterations), expected["kdf"]["time"]);
      EXPECT_EQ(json(slot.cost.memory_kib), expected["kdf"]["memory"]);
    }
  }
}

constexpr const char* kPbkdf2Options = " --pbkdf pbkdf2 --pbkdf-force-iterations 1000";

TEST_P(MadeByCryptsetup, HeaderIsReadAsItSays) {
  if (!testing::HasTool("cryptsetup")) GTEST_SKIP() << "no cryptsetup";
  const TempDir dir;
  const std::string file = dir.File("image");
  MustRun("truncate -s 20M " + file + " && printf pw | /usr/sbin/cryptsetup luksFormat -q " +
          GetParam().options + " --key-file - " + file);
  const auto header = Parse(ReadFile(file));
  ASSERT_TRUE(header.has_value()) << header.error().Describe();
  ExpectAsCryptsetupSays(*header, file);
}
INSTANTIATE_TEST_SUITE_P(
    Kinds, MadeByCryptsetup,
    ::testing::Values(
        FormatCase{"Luks1", "--type luks1" + std::string(kPbkdf2Options)},
        FormatCase{"Luks1Aes128", "--type luks1 --cipher aes-xts-plain64 --key-size 256" +
                                      std::string(kPbkdf2Options)},
        FormatCase{"Luks1Cbc",
                   "--type luks1 --cipher aes-cbc-essiv:sha256 --key-size 128 "
                   "--hash ripemd160" +
                       std::string(kPbkdf2Options)},
        FormatCase{"Luks2Pbkdf2", "--type luks2" + std::string(kPbkdf2Options)},
        FormatCase{"Luks2Argon2id",
                   "--type luks2 --pbkdf argon2id --pbkdf-force-iterations 4 "
                   "--pbkdf-memory 64 --pbkdf-parallel 2"},
        FormatCase{"Luks2Argon2i",
                   "--type luks2 --pbkdf argon2i --pbkdf-force-iterations 4 "
                   "--pbkdf-memory 32 --pbkdf-parallel 1"},
        FormatCase{"Luks2LargeMetadata",
                   "--type luks2 --luks2-metadata-size 256k "
                   "--luks2-keyslots-size 4m" +
                       std::string(kPbkdf2Options)},
        FormatCase{"Luks2Sector4096", "--type luks2 --sector-size 4096 --label l --subsystem s" +
                                          std::string(kPbkdf2Options)}),
    [](const auto& row) { return row.param.name; });

TEST(MadeByCryptsetup, AddedAndRemovedKeysAndConversionAreRead) {
  if (!testing::HasTool("cryptsetup")) GTEST_SKIP() << "no cryptsetup";
  const TempDir dir;
  const std::string file = dir.File("image");
  const std::string tool = "PATH=$PATH:/usr/sbin cryptsetup -q ";
  MustRun("cd " + dir.File("") + " && truncate -s 20M image && printf a >a && printf b >b && " +
          tool + "luksFormat --type luks2 --sector-size 512" + kPbkdf2Options + " image a && " +
          tool + "luksAddKey" + kPbkdf2Options + " --key-file a image b && " + tool +
          "luksRemoveKey image a");
  const auto two = Parse(ReadFile(file));
  ASSERT_TRUE(two.has_value()) << two.error().Describe();
  ExpectAsCryptsetupSays(*two, file);
  ASSERT_EQ(two->key_slots.size(), 1U);
  EXPECT_EQ(two->key_slots[0].number, 1U);
  MustRun(tool + "convert --type luks1 " + file);
  const auto one = Parse(ReadFile(file));
  ASSERT_TRUE(one.has_value()) << one.error().Describe();
  EXPECT_EQ(one->version, 1U);
  ExpectAsCryptsetupSays(*one, file);
  MustRun(tool + "convert --type luks2 " + file);
  const auto again = Parse(ReadFile(file));
  ASSERT_TRUE(again.has_value()) << again.error().Describe();
  EXPECT_EQ(again->version, 2U);
}

void ExpectAsManifestSays(const LuksHeader& header, const json& expect) {
  EXPECT_EQ(json(header.version), expect["version"]);
  if (expect.contains("uuid")) {
    EXPECT_EQ(json(header.uuid), expect["uuid"]);
  }
  if (expect.contains("key_bits")) {
    EXPECT_EQ(json(header.key_bits), expect["key_bits"]);
  }
  if (expect.contains("hash")) {
    EXPECT_EQ(json(header.hash), expect["hash"]);
  }
  if (expect.contains("label")) {
    EXPECT_EQ(json(header.label), expect["label"]);
  }
  if (expect.contains("subsystem")) {
    EXPECT_EQ(json(header.subsystem), expect["subsystem"]);
  }
  if (expect.contains("sector_size")) {
    EXPECT_EQ(json(header.sector_size), expect["sector_size"]);
  }
  if (expect.contains("cipher")) {
    const auto mode = expect.contains("mode") ? "-" + expect["mode"].get<std::string>() : "";
    EXPECT_EQ(header.cipher, expect["cipher"].get<std::string>() + mode);
  }
  if (expect.contains("payload_offset_sectors")) {
    EXPECT_EQ(json(header.payload_offset / 512), expect["payload_offset_sectors"]);
  }
  if (expect.contains("segment_offset")) {
    EXPECT_EQ(json(header.payload_offset), expect["segment_offset"]);
  }
  if (expect.contains("kdf")) {
    EXPECT_EQ(LuksKdfName(header.key_slots[0].cost.kdf), expect["kdf"].get<std::string>());
  }
  if (expect.contains("active_keyslots")) {
    std::vector<uint32_t> active;
    for (const LuksKeySlot& slot : header.key_slots) active.push_back(slot.number);
    EXPECT_EQ(active, expect["active_keyslots"].get<std::vector<uint32_t>>());
  }
}

TEST(LuksVectors, AreReadAsTheirManifestSays) {
  const std::string dir = VectorsDir();
  if (dir.empty()) GTEST_SKIP() << "no test vectors: set VALLUM_VECTORS";
  // Some files are cut before their payload; what is said of them is true of the whole.
  constexpr uint64_t kWhole = 1228800;
  size_t seen = 0;
  for (const auto& vector : json::parse(AsText(ReadFile(dir + "/manifest.json")))) {
    if (vector["kind"] != "luks_header") continue;
    ++seen;
    const auto file = vector["file"].get<std::string>();
    SCOPED_TRACE(file);
    const json& expect = vector["expect"];
    const Bytes bytes = ReadFile(dir + "/" + file);
    const SparseReader whole(bytes, std::max<uint64_t>(bytes.size(), kWhole));
    const auto header = ParseLuks(whole);
    const std::string verdict = expect.value("verdict", "");
    if (verdict.starts_with("reject")) {
      EXPECT_FALSE(header.has_value());
      continue;
    }
    ASSERT_TRUE(header.has_value()) << header.error().Describe();
    const bool damaged = verdict.starts_with("primary");
    EXPECT_EQ(header->used, damaged ? LuksHeaderCopy::kSecondary : LuksHeaderCopy::kPrimary);
    if (expect.contains("version")) ExpectAsManifestSays(*header, expect);
    const auto found = DetectFormats(whole);
    ASSERT_EQ(found->size(), 1U);
    EXPECT_EQ(found->front().format, Format::kLuks);
  }
  EXPECT_GE(seen, 10U);
}

}  // namespace
}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
#include "formats/gpt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <string>

#include "base/bytes.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using testing::FixGptCrcs;
using ::testing::HasSubstr;
using testing::MakeGptDisk;
using testing::MustRun;
using testing::PutLe32;
using testing::PutLe64;
using testing::ReadFile;
using testing::TempDir;

Result<GptTable> Parse(ByteView disk, uint32_t sector_size = 512) {
  return ParseGpt(MemoryReader(disk), sector_size);
}

Bytes Valid() { return MakeGptDisk(512, 2048, {{100, 199, kEspTypeGuid}, {200, 1000}}); }

class SectorSizes : public ::testing::TestWithParam<uint32_t> {};
TEST_P(SectorSizes, ValidTableIsRead) {
  const uint32_t sector = GetParam();
  const Bytes disk = MakeGptDisk(sector, 1024, {{100, 199, kEspTypeGuid}, {200, 900}});
  EXPECT_EQ(*FindGptSectorSize(MemoryReader(disk)), sector);
  const auto table = Parse(disk, sector);
  ASSERT_TRUE(table.has_value()) << table.error().Describe();
  ASSERT_EQ(table->partitions.size(), 2U);
  EXPECT_EQ(FormatGuid(table->partitions[0].type), kEspTypeGuid);
  EXPECT_EQ(table->partitions[0].first_lba, 100U);
  EXPECT_EQ(table->partitions[1].sectors(), 701U);
}
INSTANTIATE_TEST_SUITE_P(Sizes, SectorSizes, ::testing::Values(512, 4096));

struct DamageCase {
  std::string name;
  std::function<void(Bytes&)> damage;  // CRCs are made right again if fix_crcs
  std::string reason;
  bool fix_crcs = false;
};
class DamagedGpt : public ::testing::TestWithParam<DamageCase> {};

TEST_P(DamagedGpt, IsRefusedWithItsReason) {
  Bytes disk = Valid();
  ASSERT_TRUE(Parse(disk).has_value()) << Parse(disk).error().Describe();
  GetParam().damage(disk);
  if (GetParam().fix_crcs) FixGptCrcs(disk, 512);
  const auto table = Parse(disk);
  ASSERT_FALSE(table.has_value());
  EXPECT_THAT(table.error().Describe(), HasSubstr(GetParam().reason));
  EXPECT_FALSE(table.error().fix().empty());
}

constexpr size_t kBackup = 2047 * 512;
constexpr size_t kBackupEntries = 2015 * 512;

// Patches an entry in both arrays.
void PatchEntry(Bytes& disk, size_t index, size_t field, uint64_t value) {
  PutLe64(disk, 1024 + index * 128 + field, value);
  PutLe64(disk, kBackupEntries + index * 128 + field, value);
}
// Patches a field of both headers.
void PatchHeaders(Bytes& disk, size_t field, uint64_t value) {
  PutLe64(disk, 512 + field, value);
  PutLe64(disk, kBackup + field, value);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, DamagedGpt,
    ::testing::Values(
        DamageCase{"MbrSignature", [](Bytes& d) { d[510] = std::byte{0}; }, "signature"},
        DamageCase{"MbrType", [](Bytes& d) { d[450] = std::byte{0x83}; }, "type 0x83"},
        DamageCase{"MbrStart", [](Bytes& d) { PutLe32(d, 454, 2); }, "starts at sector 2"},
        DamageCase{"MbrSize", [](Bytes& d) { PutLe32(d, 458, 999999); }, "covers"},
        DamageCase{"MbrExtraEntry", [](Bytes& d) { d[462 + 4] = std::byte{0x83}; }, "second entry"},
        DamageCase{"MbrEmpty", [](Bytes& d) { std::fill_n(d.begin() + 446, 64, std::byte{0}); },
                   "empty"},
        DamageCase{"HeaderCrc", [](Bytes& d) { d[512 + 60] ^= std::byte{1}; }, "wrong CRC"},
        DamageCase{"EntriesCrc", [](Bytes& d) { d[1024 + 130] ^= std::byte{1}; }, "wrong CRC"},
        DamageCase{"BackupHeaderCrc", [](Bytes& d) { d[kBackup + 60] ^= std::byte{1}; },
                   "wrong CRC"},
        DamageCase{"BackupEntriesCrc", [](Bytes& d) { d[kBackupEntries + 20] ^= std::byte{1}; },
                   "wrong CRC"},
        DamageCase{"BackupMissing",
                   [](Bytes& d) { std::fill_n(d.begin() + kBackup, 512, std::byte{0}); },
                   "no signature"},
        DamageCase{"BackupDisagrees", [](Bytes& d) { PutLe64(d, kBackup + 56, 42); }, "disagrees",
                   true},
        DamageCase{"BackupEntriesDiffer", [](Bytes& d) { d[kBackupEntries + 20] ^= std::byte{1}; },
                   "disagrees", true},
        DamageCase{"Overlap", [](Bytes& d) { PatchEntry(d, 1, 32, 150); }, "overlap", true},
        DamageCase{"PastTheEnd", [](Bytes& d) { PatchEntry(d, 1, 40, 5000); }, "usable", true},
        DamageCase{"BeforeUsable", [](Bytes& d) { PatchEntry(d, 0, 32, 5); }, "usable", true},
        DamageCase{"EndBeforeStart", [](Bytes& d) { PatchEntry(d, 1, 40, 3); }, "usable", true},
        DamageCase{"UsableIncludesTable", [](Bytes& d) { PatchHeaders(d, 40, 10); },
                   "include the table", true},
        DamageCase{"UsablePastEnd", [](Bytes& d) { PatchHeaders(d, 48, 99999); }, "usable sectors",
                   true},
        DamageCase{"MyLba", [](Bytes& d) { PutLe64(d, 512 + 24, 7); }, "says that it is", true},
        DamageCase{"AlternatePastEnd", [](Bytes& d) { PutLe64(d, 512 + 32, 1U << 30U); },
                   "backup header", true},
        DamageCase{"Revision", [](Bytes& d) { PutLe32(d, 520, 2); }, "revision", true},
        DamageCase{"HeaderSize", [](Bytes& d) { PutLe32(d, 524, 600); }, "600 bytes"},
        DamageCase{"HeaderSizeSmall", [](Bytes& d) { PutLe32(d, 524, 20); }, "20 bytes"}),
    [](const auto& row) { return row.param.name; });

TEST(Gpt, HugeEntryCountsAreRefusedBeforeReading) {
  Bytes disk = Valid();
  PutLe32(disk, 512 + 80, 0x7fffffff);
  // The CRC of the header alone is made right.
  Bytes covered = ToBytes(ByteView(disk).subspan(512, 92));
  EXPECT_FALSE(Parse(disk).has_value());
}

TEST(Gpt, EveryTruncationIsRefused) {
  const Bytes disk = Valid();
  for (size_t size = 0; size < disk.size(); size += 511) {
    EXPECT_FALSE(Parse(ByteView(disk).first(size)).has_value()) << size;
  }
}

TEST(Gpt, FlippedBitsNeverCrash) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 3000; ++i) {
    Bytes disk = Valid();
    for (int k = 0; k < 3; ++k) disk[random() % 1600] ^= std::byte{1} << (random() % 8);
    if (i % 2 == 0) FixGptCrcs(disk, 512);
    static_cast<void>(Parse(disk));
  }
}

TEST(Gpt, DiskThatWasEnlargedIsRead) {
  Bytes disk = Valid();
  disk.resize(disk.size() + 1000 * 512);
  const auto table = Parse(disk);
  ASSERT_TRUE(table.has_value()) << table.error().Describe();
  EXPECT_NE(table->backup_lba, table->last_lba);
}

TEST(Gpt, AgreesWithSgdisk) {
  if (!testing::HasTool("sgdisk")) GTEST_SKIP() << "no sgdisk";
  const TempDir dir;
  const std::string file = dir.File("disk");
  MustRun("truncate -s 40M " + file +
          " && /usr/sbin/sgdisk -n 1:2048:+8M -t 1:ef00 -c 1:'EFI é' "
          "-n 2:0:0 -c 2:root " +
          file);
  const auto table = Parse(ReadFile(file));
  ASSERT_TRUE(table.has_value()) << table.error().Describe();
  ASSERT_EQ(table->partitions.size(), 2U);
  EXPECT_EQ(table->partitions[0].first_lba, 2048U);
  EXPECT_EQ(table->partitions[0].sectors(), 16384U);
  EXPECT_EQ(table->partitions[1].name, "root");
  EXPECT_THAT(MustRun("/usr/sbin/sgdisk -i 1 " + file),
              HasSubstr(FormatGuid(table->partitions[0].unique)));
}

}  // namespace
}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
#include "formats/mbr.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "formats/detect.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using ::testing::HasSubstr;
using testing::MustRun;
using testing::PutLe32;
using testing::PutText;
using testing::ReadFile;
using testing::TempDir;

constexpr size_t kSectors = 1000;

struct Entry {
  uint8_t status;
  uint8_t type;
  uint32_t first;
  uint32_t sectors;
};

// Writes an entry of the table in that sector.
void PutEntry(Bytes& disk, size_t sector, size_t index, Entry e) {
  const size_t at = sector * 512 + 446 + index * 16;
  disk[at] = std::byte{e.status};
  disk[at + 4] = std::byte{e.type};
  PutLe32(disk, at + 8, e.first);
  PutLe32(disk, at + 12, e.sectors);
  PutText(disk, sector * 512 + 510, "\x55\xaa");
}

// A bootable disk: 1 active, 2 plain, 3 extended (sectors 500 to 899) with the logical 5 and 6.
Bytes Valid() {
  Bytes disk(kSectors * 512);
  PutText(disk, 0, "\xeb\x63\x90");
  PutEntry(disk, 0, 0, {0x80, 0x83, 63, 100});
  PutEntry(disk, 0, 1, {0, 0x07, 200, 300});
  PutEntry(disk, 0, 2, {0, 0x05, 500, 400});
  PutEntry(disk, 500, 0, {0, 0x83, 10, 50});
  PutEntry(disk, 500, 1, {0, 0x05, 100, 100});
  PutEntry(disk, 600, 0, {0, 0x82, 1, 99});
  return disk;
}

Result<MbrTable> Parse(ByteView disk) { return ParseMbr(MemoryReader(disk)); }

TEST(Mbr, ValidTableIsRead) {
  const auto table = Parse(Valid());
  ASSERT_TRUE(table.has_value()) << table.error().Describe();
  ASSERT_EQ(table->partitions.size(), 5U);
  EXPECT_EQ(table->active, 1U);
  EXPECT_TRUE(table->has_boot_code);
  EXPECT_EQ(table->partitions[0].sectors, 100U);
  EXPECT_EQ(table->partitions[3].number, 5U);
  EXPECT_EQ(table->partitions[3].first_lba, 510U);
  EXPECT_EQ(table->partitions[4].number, 6U);
  EXPECT_EQ(table->partitions[4].first_lba, 601U);
}

TEST(Mbr, DiskWithoutBootCodeOrActivePartitionSaysSo) {
  Bytes disk = Valid();
  std::fill_n(disk.begin(), 440, std::byte{0});
  disk[446] = std::byte{0};
  const auto table = Parse(disk);
  ASSERT_TRUE(table.has_value());
  EXPECT_FALSE(table->has_boot_code);
  EXPECT_EQ(table->active, 0U);
}

TEST(Mbr, EmptyExtendedPartitionIsRead) {
  Bytes disk = Valid();
  std::fill_n(disk.begin() + 500 * 512 + 446, 64, std::byte{0});
  const auto table = Parse(disk);
  ASSERT_TRUE(table.has_value()) << table.error().Describe();
  EXPECT_EQ(table->partitions.size(), 3U);
}

TEST(Mbr, ChainWhoseFirstPartitionWasDeletedIsRead) {
  Bytes disk = Valid();
  PutEntry(disk, 500, 0, {0, 0, 0, 0});
  const auto table = Parse(disk);
  ASSERT_TRUE(table.has_value()) << table.error().Describe();
  ASSERT_EQ(table->partitions.size(), 4U);
  EXPECT_EQ(table->partitions[3].first_lba, 601U);
}

struct DamageCase {
  std::string name;
  std::function<void(Bytes&)> damage;
  std::string reason;
};
class DamagedMbr : public ::testing::TestWithParam<DamageCase> {};

TEST_P(DamagedMbr, IsRefusedWithItsReason) {
  Bytes disk = Valid();
  GetParam().damage(disk);
  const auto table = Parse(disk);
  ASSERT_FALSE(table.has_value());
  EXPECT_EQ(table.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(table.error().Describe(), HasSubstr(GetParam().reason));
  EXPECT_FALSE(table.error().fix().empty());
}

INSTANTIATE_TEST_SUITE_P(
    Rows, DamagedMbr,
    ::testing::Values(
        DamageCase{"Signature", [](Bytes& d) { d[510] = std::byte{0}; }, "no signature"},
        DamageCase{"NoPartition", [](Bytes& d) { std::fill_n(d.begin() + 446, 64, std::byte{0}); },
                   "no partition"},
        DamageCase{"Status", [](Bytes& d) { d[446] = std::byte{0x11}; }, "status 0x11"},
        DamageCase{"TwoActive", [](Bytes& d) { d[462] = std::byte{0x80}; }, "both active"},
        DamageCase{"NoSectors", [](Bytes& d) { PutLe32(d, 458, 0); }, "no sectors"},
        DamageCase{"NoType", [](Bytes& d) { d[450] = std::byte{0}; }, "no type"},
        DamageCase{"StatusAlone", [](Bytes& d) { d[494] = std::byte{0x80}; }, "no sectors"},
        DamageCase{"StartsAtZero", [](Bytes& d) { PutLe32(d, 454, 0); }, "not inside the disk"},
        DamageCase{"PastTheEnd", [](Bytes& d) { PutLe32(d, 458, 0xffffffff); },
                   "not inside the disk"},
        DamageCase{"EndsPastTheEnd", [](Bytes& d) { PutLe32(d, 454, 990); }, "not inside"},
        DamageCase{"Overlap", [](Bytes& d) { PutLe32(d, 458, 138); }, "1 and 2 overlap"},
        DamageCase{"Protective",
                   [](Bytes& d) {
                     std::fill_n(d.begin() + 446, 64, std::byte{0});
                     PutEntry(d, 0, 0, {0, 0xee, 1, 999});
                   },
                   "protective"},
        DamageCase{"Hybrid", [](Bytes& d) { PutEntry(d, 0, 3, {0, 0xee, 1, 62}); }, "hybrid"},
        DamageCase{"TwoExtended", [](Bytes& d) { PutEntry(d, 0, 3, {0, 0x0f, 900, 100}); },
                   "both extended"},
        DamageCase{"RecordSignature", [](Bytes& d) { d[600 * 512 + 510] = std::byte{0}; },
                   "sector 600 has no signature"},
        DamageCase{"RecordThirdEntry", [](Bytes& d) { PutEntry(d, 500, 2, {0, 0x83, 90, 5}); },
                   "more than two"},
        DamageCase{"RecordLinkOutside", [](Bytes& d) { PutEntry(d, 500, 1, {0, 0x05, 350, 100}); },
                   "not inside the extended"},
        DamageCase{"RecordLinkHuge",
                   [](Bytes& d) { PutEntry(d, 500, 1, {0, 0x05, 0xffffffff, 0xffffffff}); },
                   "not inside the extended"},
        DamageCase{"RecordLinkType", [](Bytes& d) { PutEntry(d, 500, 1, {0, 0x83, 100, 100}); },
                   "type 0x83"},
        DamageCase{"LoopToItself", [](Bytes& d) { PutEntry(d, 600, 1, {0, 0x05, 100, 100}); },
                   "come back to sector 600"},
        DamageCase{"LoopToTheFirst", [](Bytes& d) { PutEntry(d, 600, 1, {0, 0x05, 0, 100}); },
                   "come back to sector 500"},
        DamageCase{"LogicalOutside", [](Bytes& d) { PutEntry(d, 600, 0, {0, 0x83, 1, 300}); },
                   "partition 6"},
        DamageCase{"LogicalOverItsRecord", [](Bytes& d) { PutEntry(d, 600, 0, {0, 0x83, 0, 50}); },
                   "partition 6"},
        DamageCase{"LogicalOverTheNextRecord",
                   [](Bytes& d) { PutEntry(d, 500, 0, {0, 0x83, 10, 91}); },
                   "overlaps the extended boot record at sector 600"},
        DamageCase{"LogicalOverlap",
                   [](Bytes& d) {
                     PutEntry(d, 500, 1, {0, 0x05, 5, 100});
                     PutEntry(d, 505, 0, {0, 0x83, 20, 20});
                   },
                   "5 and 6 overlap"},
        DamageCase{"LogicalExtended", [](Bytes& d) { PutEntry(d, 600, 0, {0, 0x0f, 1, 50}); },
                   "type 0x0f"},
        DamageCase{"LogicalProtective", [](Bytes& d) { PutEntry(d, 600, 0, {0, 0xee, 1, 50}); },
                   "type 0xee"},
        DamageCase{"LogicalStatus", [](Bytes& d) { d[600 * 512 + 446] = std::byte{1}; },
                   "status 0x01"}),
    [](const auto& row) { return row.param.name; });

TEST(Mbr, LongChainsAreRefusedAfterBoundedReads) {
  Bytes disk(kSectors * 512);
  PutEntry(disk, 0, 0, {0, 0x05, 1, kSectors - 1});
  for (uint32_t i = 0; i + 2 < kSectors; ++i) {
    PutEntry(disk, 1 + i, 1, {0, 0x05, i + 1, 1});
  }
  const MemoryReader reader(disk);
  const testing::CountingReader counted(reader);
  const auto table = ParseMbr(counted);
  ASSERT_FALSE(table.has_value());
  EXPECT_THAT(table.error().Describe(), HasSubstr("more than 128"));
  EXPECT_LE(counted.bytes(), (kMbrMaxLogical + 1) * 512);
}

TEST(Mbr, KindsAreToldApart) {
  Bytes disk(512);
  EXPECT_EQ(ClassifyMbr(ByteView(disk).first(300)), MbrKind::kNone);
  EXPECT_EQ(ClassifyMbr(disk), MbrKind::kNone);
  PutText(disk, 510, "\x55\xaa");
  EXPECT_EQ(ClassifyMbr(disk), MbrKind::kEmpty);
  PutEntry(disk, 0, 1, {0, 0xee, 1, 999});
  EXPECT_EQ(ClassifyMbr(disk), MbrKind::kProtective);
  PutEntry(disk, 0, 0, {0, 0x83, 63, 10});
  EXPECT_EQ(ClassifyMbr(disk), MbrKind::kHybrid);
  PutEntry(disk, 0, 1, {0, 0, 0, 0});
  EXPECT_EQ(ClassifyMbr(disk), MbrKind::kPartitions);
}

TEST(Mbr, BrokenTableIsDetectedAsABootSectorOnly) {
  Bytes disk = Valid();
  const auto formats = [&] { return *DetectFormats(MemoryReader(disk)); };
  ASSERT_EQ(formats().size(), 1U);
  EXPECT_EQ(formats()[0].format, Format::kMbr);
  disk[446] = std::byte{0x11};
  ASSERT_EQ(formats().size(), 1U);
  EXPECT_EQ(formats()[0].format, Format::kBootSector);
}

TEST(Mbr, BrokenChainIsDetectedAsAnMbrSoThatItsFaultIsNamed) {
  Bytes disk = Valid();
  disk[600 * 512 + 510] = std::byte{0};
  const auto found = DetectFormats(MemoryReader(disk));
  ASSERT_EQ(found->size(), 1U);
  EXPECT_EQ(found->front().format, Format::kMbr);
}

TEST(Mbr, EveryTruncationIsRefused) {
  const Bytes disk = Valid();
  for (size_t size = 0; size < 899 * 512; size += 511) {
    const auto table = Parse(ByteView(disk).first(size));
    ASSERT_FALSE(table.has_value()) << size;
    EXPECT_FALSE(table.error().fix().empty()) << size;
  }
}

TEST(Mbr, FlippedBitsNeverCrash) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 3000; ++i) {
    Bytes disk = Valid();
    for (int k = 0; k < 3; ++k) {
      constexpr size_t kTables[] = {0, 500, 600};
      disk[kTables[random() % 3] * 512 + 446 + random() % 66] ^= std::byte{1} << (random() % 8);
    }
    static_cast<void>(Parse(disk));
  }
}

TEST(Mbr, AgreesWithSfdisk) {
  if (!testing::HasTool("sfdisk")) GTEST_SKIP() << "no sfdisk";
  const TempDir dir;
  const std::string file = dir.File("disk");
  MustRun("truncate -s 64M " + file + " && printf '2048,4096,83,*\\n,8192,82\\n,,5\\n,4096,83\\n" +
          ",2048,7\\n,,83\\n' | /usr/sbin/sfdisk -q -X dos " + file);
  const auto table = Parse(ReadFile(file));
  ASSERT_TRUE(table.has_value()) << table.error().Describe();
  const std::string dump = MustRun("/usr/sbin/sfdisk -d " + file + " | tr -d ' '");
  ASSERT_EQ(table->partitions.size(), 6U);
  for (const MbrPartition& p : table->partitions) {
    EXPECT_THAT(dump, HasSubstr(std::to_string(p.number) + ":start=" + std::to_string(p.first_lba) +
                                ",size=" + std::to_string(p.sectors) + ","));
  }
  EXPECT_EQ(table->active, 1U);
}

TEST(Mbr, ExtendedPartitionThatSfdiskLeftEmptyIsRead) {
  if (!testing::HasTool("sfdisk")) GTEST_SKIP() << "no sfdisk";
  const TempDir dir;
  const std::string file = dir.File("disk");
  MustRun("truncate -s 8M " + file +
          " && printf ',4096,5\\n,4096,83\\n' | /usr/sbin/sfdisk -q -X dos " + file);
  const auto table = Parse(ReadFile(file));
  ASSERT_TRUE(table.has_value()) << table.error().Describe();
  EXPECT_EQ(table->partitions.size(), 2U);
}

}  // namespace
}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
#include "formats/vhdx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "formats/crc32c.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using testing::CountingReader;
using ::testing::HasSubstr;
using testing::MustRun;
using testing::PutBe64;
using testing::PutLe32;
using testing::PutLe64;
using testing::PutText;
using testing::ReadFile;
using testing::SparseReader;
using testing::TempDir;
using testing::WriteFile;

// Where qemu-img puts things.
constexpr size_t kMiB = 1 << 20;
constexpr size_t kHeader1 = 64 << 10;
constexpr size_t kHeader2 = 128 << 10;
constexpr size_t kRegions1 = 192 << 10;
constexpr size_t kRegions2 = 256 << 10;
constexpr size_t kBatEntry = kRegions1 + 16;
constexpr size_t kMetadataEntry = kRegions1 + 48;
constexpr size_t kBat = 2 * kMiB;
constexpr size_t kMetadata = 3 * kMiB;
constexpr size_t kItems = kMetadata + (64 << 10);
constexpr size_t kFileParameters = kItems;
constexpr size_t kVirtualSize = kItems + 8;
constexpr size_t kLogicalSector = kItems + 32;
constexpr size_t kPhysicalSector = kItems + 36;
// The entry in the metadata table of the item of that number.
constexpr size_t MetadataEntry(size_t i) { return kMetadata + 32 * (i + 1); }

Result<VhdxImage> Parse(ByteView image) { return ParseVhdx(MemoryReader(image)); }

// Five blocks of 1 MiB, of which the first and the fourth hold data.
const Bytes& Dynamic() {
  static const Bytes image = [] {
    const TempDir dir;
    const std::string file = dir.File("a.vhdx");
    MustRun("qemu-img create -q -f vhdx -o block_size=1M " + file + " 5M");
    MustRun("qemu-io -f vhdx -c 'write -P 7 0 1M' -c 'write -P 9 3M 8k' " + file);
    return ReadFile(file);
  }();
  return image;
}

void SealPart(Bytes& image, size_t at, size_t bytes) {
  PutLe32(image, at + 4, 0);
  PutLe32(image, at + 4, Crc32c(ByteView(image).subspan(at, bytes)));
}

// The second region table becomes a copy of the first; all checksums become right.
void Seal(Bytes& image) {
  std::copy_n(image.begin() + kRegions1, kVhdxRegionTableBytes, image.begin() + kRegions2);
  SealPart(image, kHeader1, kVhdxHeaderBytes);
  SealPart(image, kHeader2, kVhdxHeaderBytes);
  SealPart(image, kRegions1, kVhdxRegionTableBytes);
  SealPart(image, kRegions2, kVhdxRegionTableBytes);
}

void PutHeaders32(Bytes& image, size_t at, uint32_t value) {
  PutLe32(image, kHeader1 + at, value);
  PutLe32(image, kHeader2 + at, value);
}
void PutHeaders64(Bytes& image, size_t at, uint64_t value) {
  PutLe64(image, kHeader1 + at, value);
  PutLe64(image, kHeader2 + at, value);
}
// Entry 2 of the region table and entry 5 of the metadata table: of a GUID that nobody knows.
void AddRegion(Bytes& image, uint64_t offset, uint32_t length, uint32_t flags) {
  PutLe32(image, kRegions1 + 8, 3);
  PutText(image, kRegions1 + 80, "0123456789abcdef");
  PutLe64(image, kRegions1 + 96, offset);
  PutLe32(image, kRegions1 + 104, length);
  PutLe32(image, kRegions1 + 108, flags);
}
void AddItem(Bytes& image, uint32_t offset, uint32_t length, uint32_t flags) {
  PutLe32(image, kMetadata + 8, 6U << 16U);
  PutText(image, MetadataEntry(5), "0123456789abcdef");
  PutLe32(image, MetadataEntry(5) + 16, offset);
  PutLe32(image, MetadataEntry(5) + 20, length);
  PutLe32(image, MetadataEntry(5) + 24, flags);
}

struct HostileCase {
  std::string name;
  std::function<void(Bytes&)> damage;  // what the checksums cover is sealed after it
  std::string reason;
};

class HostileVhdx : public ::testing::TestWithParam<HostileCase> {};

TEST_P(HostileVhdx, IsRefusedWithItsReason) {
  Bytes image = Dynamic();
  GetParam().damage(image);
  Seal(image);
  const Result<VhdxImage> result = Parse(image);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(result.error().Describe(), HasSubstr(GetParam().reason));
  EXPECT_THAT(result.error().Describe(), ::testing::Not(HasSubstr("\n")));
  EXPECT_FALSE(result.error().fix().empty()) << result.error().Describe();
}

INSTANTIATE_TEST_SUITE_P(
    Headers, HostileVhdx,
    ::testing::Values(
        HostileCase{"Signature", [](Bytes& i) { i[0] = std::byte{0}; }, "no signature"},
        HostileCase{"BothHeaderSignatures", [](Bytes& i) { PutHeaders32(i, 0, 0); },
                    "neither the header"},
        HostileCase{"Version", [](Bytes& i) { PutHeaders32(i, 64, 2U << 16U); },
                    "unknown version 2"},
        HostileCase{"LogNotReplayed", [](Bytes& i) { PutHeaders32(i, 60, 1); },
                    "dirty: the log has not been replayed"},
        HostileCase{"LogVersion", [](Bytes& i) { PutHeaders32(i, 64, 1U << 16U | 1U); },
                    "log version 1"},
        HostileCase{"LogUnaligned", [](Bytes& i) { PutHeaders64(i, 72, kMiB + 4096); }, "the log"},
        HostileCase{"LogLengthOdd", [](Bytes& i) { PutHeaders32(i, 68, 4096); }, "the log"},
        HostileCase{"LogOutside", [](Bytes& i) { PutHeaders64(i, 72, uint64_t{1} << 50U); },
                    "the log"},
        HostileCase{"LogWraps", [](Bytes& i) { PutHeaders64(i, 72, ~uint64_t{kMiB - 1}); },
                    "the log"},
        HostileCase{"LogInTheHeaderSection", [](Bytes& i) { PutHeaders64(i, 72, 0); },
                    "overlaps the header section"},
        HostileCase{"LogOnTheTable", [](Bytes& i) { PutHeaders64(i, 72, kBat); }, "overlaps"},
        HostileCase{"LogOnABlock",
                    [](Bytes& i) { PutHeaders64(i, 72, U64Le(i, kBat) & ~uint64_t{0xfffff}); },
                    "block 0 at offset"},
        HostileCase{"RegionSignature", [](Bytes& i) { i[kRegions1] = std::byte{0}; },
                    "region table at offset 196608"},
        HostileCase{"RegionCount", [](Bytes& i) { PutLe32(i, kRegions1 + 8, 2048); },
                    "2048 entries"},
        HostileCase{"RegionNone", [](Bytes& i) { PutLe32(i, kRegions1 + 8, 0); },
                    "no block allocation table"},
        HostileCase{"RegionWithoutMetadata", [](Bytes& i) { PutLe32(i, kRegions1 + 8, 1); },
                    "no metadata region"},
        HostileCase{"RegionTwice",
                    [](Bytes& i) {
                      PutLe32(i, kRegions1 + 8, 3);
                      std::copy_n(i.begin() + kBatEntry, 32, i.begin() + kRegions1 + 80);
                    },
                    "twice"},
        HostileCase{"RegionUnknownRequired", [](Bytes& i) { AddRegion(i, 4 * kMiB, kMiB, 1); },
                    "unknown region"},
        HostileCase{"RegionUnknownOnTheTable", [](Bytes& i) { AddRegion(i, kBat, kMiB, 0); },
                    "overlaps"},
        HostileCase{"RegionOutside",
                    [](Bytes& i) { PutLe64(i, kBatEntry + 16, uint64_t{1} << 40U); },
                    "inside the file"},
        HostileCase{"RegionWraps",
                    [](Bytes& i) { PutLe64(i, kBatEntry + 16, ~uint64_t{kMiB - 1}); },
                    "inside the file"},
        HostileCase{"RegionLong", [](Bytes& i) { PutLe32(i, kBatEntry + 24, 0xfff00000); },
                    "inside the file"},
        HostileCase{"RegionUnaligned", [](Bytes& i) { PutLe64(i, kBatEntry + 16, kBat + 512); },
                    "whole MiB"},
        HostileCase{"RegionLengthOdd", [](Bytes& i) { PutLe32(i, kBatEntry + 24, 512); },
                    "whole MiB"},
        HostileCase{"RegionInTheHeaderSection", [](Bytes& i) { PutLe64(i, kBatEntry + 16, 0); },
                    "overlaps"},
        HostileCase{"RegionsOverlap", [](Bytes& i) { PutLe64(i, kMetadataEntry + 16, kBat); },
                    "overlaps"}),
    [](const auto& row) { return row.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Metadata, HostileVhdx,
    ::testing::Values(
        HostileCase{"Empty", [](Bytes& i) { PutLe32(i, kMetadataEntry + 24, 0); }, "no room"},
        HostileCase{"Signature", [](Bytes& i) { i[kMetadata] = std::byte{0}; }, "signature"},
        HostileCase{"Count", [](Bytes& i) { PutLe32(i, kMetadata + 8, 2048U << 16U); },
                    "more than 2047"},
        HostileCase{"ItemMissing", [](Bytes& i) { PutLe32(i, kMetadata + 8, 4U << 16U); },
                    "no physical sector size"},
        HostileCase{"ItemTwice",
                    [](Bytes& i) {
                      PutLe32(i, kMetadata + 8, 6U << 16U);
                      std::copy_n(i.begin() + MetadataEntry(0), 32, i.begin() + MetadataEntry(5));
                    },
                    "twice"},
        HostileCase{"ItemOutside", [](Bytes& i) { PutLe32(i, MetadataEntry(1) + 16, 0xffffffff); },
                    "misplaced"},
        HostileCase{"ItemInTheTable", [](Bytes& i) { PutLe32(i, MetadataEntry(1) + 16, 64); },
                    "misplaced"},
        HostileCase{"ItemLong", [](Bytes& i) { PutLe32(i, MetadataEntry(1) + 20, 9); },
                    "has 9 bytes, not 8"},
        HostileCase{"ItemHuge", [](Bytes& i) { PutLe32(i, MetadataEntry(1) + 20, 0xffffffff); },
                    "too long"},
        HostileCase{"ItemEmpty",
                    [](Bytes& i) {
                      PutLe32(i, MetadataEntry(1) + 16, 0);
                      PutLe32(i, MetadataEntry(1) + 20, 0);
                    },
                    "has 0 bytes"},
        HostileCase{"ItemOfAUser", [](Bytes& i) { PutLe32(i, MetadataEntry(1) + 24, 7); },
                    "user's item"},
        HostileCase{"ItemsOverlap",
                    [](Bytes& i) { PutLe32(i, MetadataEntry(1) + 16, (64 << 10) + 4); },
                    "overlap at offset"},
        HostileCase{"ItemUnknownRequired", [](Bytes& i) { AddItem(i, 70000, 8, 4); },
                    "unknown metadata item"},
        HostileCase{"ItemUnknownOnAnother", [](Bytes& i) { AddItem(i, 64 << 10, 8, 0); },
                    "overlap at offset"},
        HostileCase{"ParentLocator",
                    [](Bytes& i) {
                      AddItem(i, 70000, 20, 4);
                      PutBe64(i, MetadataEntry(5), 0x2d5fd3a80bb34d45);
                      PutBe64(i, MetadataEntry(5) + 8, 0xabf7d3d84834ab0c);
                    },
                    "differencing: a parent locator"},
        HostileCase{"HasParent", [](Bytes& i) { PutLe32(i, kFileParameters + 4, 2); },
                    "differencing"},
        HostileCase{"FlagUnknown", [](Bytes& i) { PutLe32(i, kFileParameters + 4, 4); },
                    "unknown feature"},
        HostileCase{"BlockSizeZero", [](Bytes& i) { PutLe32(i, kFileParameters, 0); },
                    "block size 0"},
        HostileCase{"BlockSizeSmall", [](Bytes& i) { PutLe32(i, kFileParameters, 1 << 19); },
                    "block size"},
        HostileCase{"BlockSizeHuge", [](Bytes& i) { PutLe32(i, kFileParameters, 1 << 29); },
                    "block size"},
        HostileCase{"BlockSizeNoPowerOfTwo", [](Bytes& i) { PutLe32(i, kFileParameters, 3 << 20); },
                    "block size"},
        HostileCase{"SizeZero", [](Bytes& i) { PutLe64(i, kVirtualSize, 0); }, "virtual size 0"},
        HostileCase{"SizeOdd", [](Bytes& i) { PutLe64(i, kVirtualSize, 513); }, "virtual size"},
        HostileCase{"SizeHuge",
                    [](Bytes& i) { PutLe64(i, kVirtualSize, kVhdxMaxVirtualSize + 512); },
                    "virtual size"},
        HostileCase{"SizeWraps", [](Bytes& i) { PutLe64(i, kVirtualSize, ~uint64_t{511}); },
                    "virtual size"},
        HostileCase{"SizePastTheTable",
                    [](Bytes& i) { PutLe64(i, kVirtualSize, uint64_t{200'000} << 20U); },
                    "the virtual size needs 200048"},
        HostileCase{"LogicalSector520", [](Bytes& i) { PutLe32(i, kLogicalSector, 520); },
                    "sectors of 520"},
        HostileCase{"LogicalSector4096", [](Bytes& i) { PutLe32(i, kLogicalSector, 4096); },
                    "logical sectors of 4096"},
        HostileCase{"PhysicalSectorZero", [](Bytes& i) { PutLe32(i, kPhysicalSector, 0); },
                    "sectors of 0"}),
    [](const auto& row) { return row.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Bat, HostileVhdx,
    ::testing::Values(
        HostileCase{"PartiallyPresent", [](Bytes& i) { PutLe64(i, kBat, U64Le(i, kBat) | 7U); },
                    "block 0 is partially present"},
        HostileCase{"StateReserved", [](Bytes& i) { PutLe64(i, kBat + 16, 4); },
                    "block 2 has the unknown state 4"},
        HostileCase{"ReservedBits", [](Bytes& i) { PutLe64(i, kBat + 16, 0x82); },
                    "block 2 has reserved bits"},
        HostileCase{"BlockOutside",
                    [](Bytes& i) { PutLe64(i, kBat + 16, uint64_t{1} << 40U | 6U); },
                    "truncated: block 2"},
        HostileCase{"BlockAtTheVeryEnd",
                    [](Bytes& i) { PutLe64(i, kBat + 16, ~uint64_t{0xfffff} | 6U); },
                    "truncated: block 2"},
        HostileCase{"BlockInTheHeaderSection", [](Bytes& i) { PutLe64(i, kBat + 16, 6); },
                    "block 2 at offset 0 overlaps"},
        HostileCase{"BlockOnTheLog", [](Bytes& i) { PutLe64(i, kBat + 16, kMiB | 6U); },
                    "overlaps"},
        HostileCase{"BlockOnTheTable", [](Bytes& i) { PutLe64(i, kBat + 16, kBat | 6U); },
                    "overlaps"},
        HostileCase{"BlockOnTheMetadata", [](Bytes& i) { PutLe64(i, kBat + 16, kMetadata | 6U); },
                    "overlaps"},
        HostileCase{"BlockTwice", [](Bytes& i) { PutLe64(i, kBat + 16, U64Le(i, kBat)); },
                    "block 2 at offset 8388608 overlaps"}),
    [](const auto& row) { return row.param.name; });

TEST(Vhdx, IsAccepted) {
  const auto vhdx = Parse(Dynamic());
  ASSERT_TRUE(vhdx.has_value()) << vhdx.error().Describe();
  EXPECT_EQ(vhdx->virtual_size, 5 * kMiB);
  EXPECT_EQ(vhdx->block_size, kMiB);
  EXPECT_EQ(vhdx->allocated_blocks, 2U);
  EXPECT_FALSE(vhdx->fixed);
}

TEST(Vhdx, WhatIsUnknownButNotRequiredIsAccepted) {
  Bytes image = Dynamic();
  AddRegion(image, 4 * kMiB, kMiB, 0);
  AddItem(image, 70000, 8, 1);
  Seal(image);
  EXPECT_TRUE(Parse(image).has_value()) << Parse(image).error().Describe();
}

TEST(Vhdx, TheHeaderWithTheHigherNumberCounts) {
  for (const size_t current : {kHeader1, kHeader2}) {
    const size_t other = current == kHeader1 ? kHeader2 : kHeader1;
    Bytes image = Dynamic();
    PutLe64(image, current + 8, 20);
    PutLe64(image, other + 8, 19);
    PutLe32(image, other + 60, 1);  // says that a log is to be replayed
    Seal(image);
    EXPECT_TRUE(Parse(image).has_value()) << Parse(image).error().Describe();
    PutLe64(image, other + 8, 21);
    Seal(image);
    EXPECT_THAT(Parse(image).error().Describe(), HasSubstr("dirty"));
    // Damaged, it does not count whatever its number.
    image[other + 100] ^= std::byte{1};
    EXPECT_TRUE(Parse(image).has_value()) << Parse(image).error().Describe();
  }
}

TEST(Vhdx, HeadersOfTheSameNumberMustBeEqual) {
  Bytes image = Dynamic();
  std::copy_n(image.begin() + kHeader1, kVhdxHeaderBytes, image.begin() + kHeader2);
  EXPECT_TRUE(Parse(image).has_value());
  image[kHeader2 + 200] ^= std::byte{1};
  Seal(image);
  EXPECT_THAT(Parse(image).error().Describe(), HasSubstr("they differ"));
}

TEST(Vhdx, WrongChecksumsAreRefused) {
  Bytes image = Dynamic();
  image[kHeader1 + 4000] ^= std::byte{1};
  EXPECT_TRUE(Parse(image).has_value());
  image[kHeader2 + 4000] ^= std::byte{1};
  EXPECT_THAT(Parse(image).error().Describe(), HasSubstr("neither the header"));
  for (const size_t table : {kRegions1, kRegions2}) {
    Bytes other = Dynamic();
    other[table + 60000] ^= std::byte{1};
    EXPECT_THAT(Parse(other).error().Describe(),
                HasSubstr("region table at offset " + std::to_string(table)));
  }
}

TEST(Vhdx, RegionTablesThatDifferAreRefused) {
  Bytes image = Dynamic();
  PutLe64(image, kRegions2 + 32, 4 * kMiB);
  SealPart(image, kRegions2, kVhdxRegionTableBytes);
  EXPECT_THAT(Parse(image).error().Describe(), HasSubstr("262144 differ"));
}

TEST(Vhdx, SignatureAloneIsRefused) {
  Bytes image(8);
  PutText(image, 0, "vhdxfile");
  EXPECT_THAT(Parse(image).error().Describe(), HasSubstr("truncated"));
  image.resize(4 * kMiB);
  EXPECT_THAT(Parse(image).error().Describe(), HasSubstr("neither the header"));
}

TEST(Vhdx, EveryTruncationIsRefused) {
  const Bytes& image = Dynamic();
  std::vector<size_t> sizes = {0, 1, 7, 8, 200, 511, 512, 4096, image.size() - 1};
  for (size_t size = 60'000; size < image.size(); size += 60'000) sizes.push_back(size);
  for (const size_t size : sizes) {
    EXPECT_FALSE(Parse(ByteView(image).first(size)).has_value()) << size;
  }
}

TEST(Vhdx, SectorBitmapIsRefused) {
  // The entry after the 4096 blocks of the first chunk.
  const TempDir dir;
  MustRun("qemu-img create -q -f vhdx -o block_size=1M " + dir.File("a") + " 5G");
  Bytes image = ReadFile(dir.File("a"));
  ASSERT_TRUE(Parse(image).has_value()) << Parse(image).error().Describe();
  PutLe64(image, kBat + size_t{4096} * 8, 6 * kMiB | 6U);
  EXPECT_THAT(Parse(image).error().Describe(), HasSubstr("differencing: entry 4096"));
  // What would be a block stands behind it.
  PutLe64(image, kBat + size_t{4096} * 8, 0);
  PutLe64(image, kBat + size_t{4097} * 8, 6 * kMiB | 6U);
  const MemoryReader reader(image);
  const auto disk = VhdxDisk::Open(reader);
  ASSERT_TRUE(disk.has_value()) << disk.error().Describe();
  EXPECT_EQ(*disk->NextData(0), uint64_t{4} << 30U);
}

TEST(Vhdx, StatesWithoutDataReadAsZeroes) {
  for (const uint64_t state : {0U, 1U, 2U, 3U, 5U}) {
    Bytes image = Dynamic();
    PutLe64(image, kBat, (U64Le(image, kBat) & ~uint64_t{7}) | state);
    const MemoryReader reader(image);
    const auto disk = VhdxDisk::Open(reader);
    ASSERT_TRUE(disk.has_value()) << disk.error().Describe();
    EXPECT_TRUE(*ReadBytesAt(*disk, 0, 4096) == Bytes(4096));
    EXPECT_EQ(*disk->NextData(0), uint64_t{3} << 20U);
  }
}

TEST(Vhdx, TableMadeOfHolesIsNotRead) {
  // 64 TiB in blocks of 1 MiB: a table of 513 MiB, all hole.
  Bytes front(Dynamic().begin(), Dynamic().begin() + 4 * kMiB);
  PutLe64(front, kVirtualSize, kVhdxMaxVirtualSize);
  PutLe64(front, kBatEntry + 16, 4 * kMiB);
  PutLe32(front, kBatEntry + 24, 513 * kMiB);
  Seal(front);
  const SparseReader file(front, uint64_t{1} << 40U);
  const CountingReader counted(file);
  class Holes final : public RandomAccessReader {
   public:
    Holes(const RandomAccessReader& data, const RandomAccessReader& holes)
        : data_(data), holes_(holes) {}
    uint64_t size() const override { return data_.size(); }
    Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override {
      return data_.ReadAt(offset, out);
    }
    Result<std::optional<uint64_t>> NextData(uint64_t offset) const override {
      return holes_.NextData(offset);
    }

   private:
    const RandomAccessReader& data_;
    const RandomAccessReader& holes_;
  };
  const auto vhdx = ParseVhdx(Holes(counted, file));
  ASSERT_TRUE(vhdx.has_value()) << vhdx.error().Describe();
  EXPECT_EQ(vhdx->virtual_size, kVhdxMaxVirtualSize);
  EXPECT_LE(counted.bytes(), kMiB);
}

TEST(Vhdx, FileThatIsTooLargeIsRefused) {
  const SparseReader file(Bytes(Dynamic().begin(), Dynamic().begin() + 4096),
                          kVhdxMaxFileBytes + 1);
  EXPECT_THAT(ParseVhdx(file).error().Describe(), HasSubstr("too large"));
}

TEST(Vhdx, FlippedBitsNeverCrash) {
  std::mt19937_64 random(1);
  Bytes image = Dynamic();
  constexpr size_t kPlaces[] = {kHeader1, kRegions1, kMetadata, kItems, kBat};
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::pair<size_t, std::byte>> before;
    for (int i = 0; i < 3; ++i) {
      const size_t at = kPlaces[random() % std::size(kPlaces)] + random() % 200;
      before.emplace_back(at, image[at]);
      image[at] ^= static_cast<std::byte>(1U << (random() % 8));
    }
    if (round % 8 != 0) Seal(image);
    const MemoryReader reader(image);
    const auto disk = VhdxDisk::Open(reader);
    if (disk.has_value()) static_cast<void>(ReadUpTo(*disk, 0, 1 << 16));
    for (auto it = before.rbegin(); it != before.rend(); ++it) image[it->first] = it->second;
  }
}

struct BenignCase {
  std::string name;
  std::string options;
  size_t cut;  // bytes that the source lacks to 9 MiB
};
class BenignVhdx : public ::testing::TestWithParam<BenignCase> {};

// Facts equal those of qemu-img info, and every byte of the disk equals what QEMU reads.
TEST_P(BenignVhdx, AgreesWithQemu) {
  const TempDir dir;
  Bytes source(9 * kMiB - GetParam().cut);
  std::mt19937_64 random(5);
  for (size_t i = 0; i + 8 <= source.size(); i += 8) {
    if (i / (3 << 19) % 2 == 0) PutBe64(source, i, random());
  }
  WriteFile(dir.File("source"), source);
  MustRun("qemu-img convert -f raw -O vhdx -o " + GetParam().options + " " + dir.File("source") +
          " " + dir.File("vhdx"));
  MustRun("qemu-img convert -f vhdx -O raw " + dir.File("vhdx") + " " + dir.File("raw"));
  const Bytes image = ReadFile(dir.File("vhdx"));

  const MemoryReader reader(image);
  const auto vhdx = ParseVhdx(reader);
  ASSERT_TRUE(vhdx.has_value()) << vhdx.error().Describe();
  EXPECT_EQ(vhdx->fixed, GetParam().options.starts_with("subformat=fixed"));
  const std::string info = MustRun("qemu-img info -f vhdx --output=json " + dir.File("vhdx"));
  EXPECT_THAT(info, HasSubstr("\"virtual-size\": " + std::to_string(vhdx->virtual_size)));
  EXPECT_THAT(info, HasSubstr("\"cluster-size\": " + std::to_string(vhdx->block_size)));
  const VhdxDisk disk(reader, *vhdx);
  const auto content = ReadBytesAt(disk, 0, static_cast<size_t>(disk.size()));
  ASSERT_TRUE(content.has_value()) << content.error().Describe();
  EXPECT_TRUE(*content == ReadFile(dir.File("raw")));
  EXPECT_TRUE(*content == source);
  const auto part = ReadBytesAt(disk, kMiB - 100, 5000);
  ASSERT_TRUE(part.has_value());
  EXPECT_TRUE(std::equal(part->begin(), part->end(), source.begin() + kMiB - 100));
  EXPECT_FALSE(ReadBytesAt(disk, disk.size() - 1, 2).has_value());
  EXPECT_FALSE(ReadBytesAt(disk, ~uint64_t{0}, 2).has_value());
}

INSTANTIATE_TEST_SUITE_P(
    Options, BenignVhdx,
    ::testing::Values(BenignCase{"Dynamic", "subformat=dynamic", 0},
                      BenignCase{"DynamicOdd", "subformat=dynamic,block_size=1M", 512},
                      BenignCase{"Dynamic2M", "block_size=2M", 0},
                      BenignCase{"Dynamic4MOdd", "block_size=4M", 100 << 10},
                      BenignCase{"Dynamic32M", "block_size=32M", 1536},
                      BenignCase{"LargeLog", "log_size=3M,block_size=1M", 0},
                      BenignCase{"StateNotPresent", "block_state_zero=off,block_size=1M", 0},
                      BenignCase{"Fixed", "subformat=fixed", 0},
                      BenignCase{"FixedOdd", "subformat=fixed,block_size=1M", 512},
                      BenignCase{"Fixed4MOdd", "subformat=fixed,block_size=4M", 1536}),
    [](const auto& row) { return row.param.name; });

TEST(VhdxDisk, NextDataSkipsWhatIsNotPresent) {
  const MemoryReader reader(Dynamic());
  const auto disk = VhdxDisk::Open(reader);
  ASSERT_TRUE(disk.has_value());
  EXPECT_EQ(*disk->NextData(0), 0U);
  EXPECT_EQ(*disk->NextData(100), 100U);
  EXPECT_EQ(*disk->NextData(kMiB), 3 * kMiB);
  EXPECT_EQ(*disk->NextData(4 * kMiB), std::nullopt);
  EXPECT_EQ(*disk->NextData(disk->size()), std::nullopt);
  EXPECT_EQ(*disk->NextData(~uint64_t{0}), std::nullopt);
}

TEST(VhdxDisk, NextDataSkipsTheHolesOfTheFile) {
  // The file is hole behind the metadata: so is every block.
  const Bytes& image = Dynamic();
  const SparseReader sparse(Bytes(image.begin(), image.begin() + 4 * kMiB), image.size());
  const auto disk = VhdxDisk::Open(sparse);
  ASSERT_TRUE(disk.has_value()) << disk.error().Describe();
  EXPECT_EQ(*disk->NextData(0), std::nullopt);
}

}  // namespace
}  // namespace vallum::formats

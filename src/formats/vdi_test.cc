// SPDX-License-Identifier: Apache-2.0
#include "formats/vdi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/test_support.h"
#include "formats/vdi_disk.h"

namespace vallum::formats {
namespace {

using ::testing::HasSubstr;
using testing::MustRun;
using testing::PutBe64;
using testing::PutLe32;
using testing::PutLe64;
using testing::ReadFile;
using testing::TempDir;
using testing::WriteFile;

constexpr size_t kMiB = 1 << 20;

Result<VdiImage> Parse(ByteView file) { return ParseVdi(MemoryReader(file)); }

void ExpectRefused(ByteView file, const std::string& reason) {
  const Result<VdiImage> result = Parse(file);
  ASSERT_FALSE(result.has_value()) << reason;
  EXPECT_EQ(result.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(result.error().Describe(), HasSubstr(reason));
  EXPECT_FALSE(result.error().fix().empty()) << result.error().Describe();
}

// Data in the first and fourth MiB of five; not a whole number of blocks.
const Bytes& Source() {
  static const Bytes source = [] {
    Bytes out(5 * kMiB - 512);
    std::mt19937_64 random(5);
    for (const size_t block : {size_t{0}, size_t{3}}) {
      for (size_t i = 0; i < kMiB; i += 8) PutBe64(out, block * kMiB + i, random());
    }
    return out;
  }();
  return source;
}

Bytes Convert(const std::string& options) {
  const TempDir dir;
  WriteFile(dir.File("raw"), Source());
  MustRun("qemu-img convert -f raw -O vdi " + options + " " + dir.File("raw") + " " +
          dir.File("vdi"));
  return ReadFile(dir.File("vdi"));
}
const Bytes& Dynamic() {
  static const Bytes image = Convert("");
  return image;
}
size_t Map(const Bytes& image) { return U32Le(image, 0x154); }

struct HostileCase {
  std::string name;
  std::function<void(Bytes&)> damage;
  std::string reason;
};
class HostileVdi : public ::testing::TestWithParam<HostileCase> {};

TEST_P(HostileVdi, IsRefusedWithItsReason) {
  Bytes image = Dynamic();
  ASSERT_TRUE(Parse(image).has_value()) << Parse(image).error().Describe();
  GetParam().damage(image);
  ExpectRefused(image, GetParam().reason);
}

std::function<void(Bytes&)> Put32(size_t at, uint32_t value) {
  return [=](Bytes& i) { PutLe32(i, at, value); };
}
std::function<void(Bytes&)> Entry(size_t index, uint32_t value) {
  return [=](Bytes& i) { PutLe32(i, Map(i) + index * 4, value); };
}

INSTANTIATE_TEST_SUITE_P(
    Rows, HostileVdi,
    ::testing::Values(
        HostileCase{"Signature", Put32(64, 0), "no signature"},
        HostileCase{"Version0", Put32(68, 1), "unknown version 0.1"},
        HostileCase{"Version2", Put32(68, 0x20000), "unknown version 2.0"},
        HostileCase{"HeaderSize", Put32(72, 0xffffffff), "a header of 4294967295 bytes"},
        HostileCase{"Undo", Put32(76, 3), "parent: type 3 at offset 76 is an undo image"},
        HostileCase{"Differencing", Put32(76, 4), "a differencing image"},
        HostileCase{"Type0", Put32(76, 0), "unknown type 0"},
        HostileCase{"Type5", Put32(76, 5), "unknown type 5"},
        HostileCase{"DifferencingFlag", Put32(80, 2), "unknown flags 0x2"},
        HostileCase{"UnknownFlag", Put32(80, 0x10001), "unknown flags 0x10000"},
        HostileCase{"MapInHeader", Put32(0x154, 0), "block map"},
        HostileCase{"MapUnaligned", Put32(0x154, 520), "block map"},
        HostileCase{"MapOverData", Put32(0x154, 1024), "block map"},
        HostileCase{"MapPastFile", Put32(0x154, 0xfffffe00), "block map"},
        HostileCase{"DataUnaligned", Put32(0x158, 1025), "block map"},
        HostileCase{"DataInMap", Put32(0x158, 512), "block map"},
        HostileCase{"DataPastFile", Put32(0x158, 0xfffffe00), "truncated: the data"},
        HostileCase{"SectorSize", Put32(0x168, 4096), "sectors of 4096"},
        HostileCase{"VirtualSize0", [](Bytes& i) { PutLe64(i, 0x170, 0); }, "virtual size 0"},
        HostileCase{"VirtualSizeOdd", [](Bytes& i) { PutLe64(i, 0x170, 5 * kMiB - 511); },
                    "virtual size"},
        HostileCase{"VirtualSizePastBlocks", [](Bytes& i) { PutLe64(i, 0x170, 5 * kMiB + 512); },
                    "virtual size"},
        HostileCase{"VirtualSizeHuge", [](Bytes& i) { PutLe64(i, 0x170, ~uint64_t{511}); },
                    "virtual size"},
        HostileCase{"BlockSize0", Put32(0x178, 0), "blocks of 0 bytes"},
        HostileCase{"BlockSizeOther", Put32(0x178, 2 << 20), "blocks of 2097152"},
        HostileCase{"BlockExtra", Put32(0x17c, 512), "with 512 before each"},
        HostileCase{"BlocksHuge", Put32(0x180, 0xffffffff), "too many"},
        HostileCase{"BlocksFewer", Put32(0x180, 4), "virtual size"},
        HostileCase{"UsedMoreThanFile", Put32(0x184, 3), "3 blocks are used"},
        HostileCase{"UsedLessThanMap", Put32(0x184, 1), "is block 1, but 1 are used"},
        HostileCase{"ParentUuid", Put32(0x1a8, 1), "UUID 01000000"},
        HostileCase{"ParentChangeUuid", Put32(0x1c4, 1), "parent"},
        HostileCase{"EntryPastFile", Entry(0, 2), "is block 2"},
        HostileCase{"EntryHuge", Entry(0, 0xfffffffd), "is block 4294967293"},
        HostileCase{"EntryTwice", Entry(0, 1), "which another entry uses"},
        HostileCase{"EntryGone", Entry(0, kVdiUnallocated), "the block map uses 1"},
        HostileCase{"EntryZero", Entry(3, kVdiZero), "the block map uses 1"},
        HostileCase{"Short", [](Bytes& i) { i.resize(511); }, "truncated"},
        HostileCase{"ShortByOneByte", [](Bytes& i) { i.pop_back(); }, "truncated"}),
    [](const auto& row) { return row.param.name; });

TEST(Vdi, EveryTruncationIsRefused) {
  const Bytes& image = Dynamic();
  for (size_t size = 0; size < image.size(); size += size < 4096 ? 100 : 65536) {
    EXPECT_FALSE(Parse(ByteView(image).first(size)).has_value()) << size;
  }
}

TEST(Vdi, FlippedBitsNeverCrash) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 300; ++round) {
    Bytes image(Dynamic().begin(), Dynamic().end());
    for (int i = 0; i < 3; ++i) {
      image[random() % 1100] ^= static_cast<std::byte>(1U << (random() % 8));
    }
    const MemoryReader reader(image);
    const auto disk = VdiDisk::Open(reader);
    if (disk.has_value()) static_cast<void>(ReadUpTo(*disk, 0, 5 * kMiB));
  }
}

TEST(Vdi, TheGeometryOfVirtualBoxIsAccepted) {
  Bytes image = Dynamic();
  PutLe32(image, 72, 400);
  PutLe32(image, 80, 1);
  EXPECT_TRUE(Parse(image).has_value());
}

// Facts equal those of qemu-img info, and every byte of the disk equals what qemu reads.
void ExpectAgreesWithQemu(const Bytes& image, VdiSubformat subformat, const Bytes& content) {
  const MemoryReader reader(image);
  const auto parsed = ParseVdi(reader);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(VdiSubformatName(parsed->subformat), VdiSubformatName(subformat));
  const TempDir dir;
  WriteFile(dir.File("vdi"), image);
  const std::string info = MustRun("qemu-img info -f vdi --output=json " + dir.File("vdi"));
  EXPECT_THAT(info, HasSubstr("\"virtual-size\": " + std::to_string(parsed->virtual_size)));
  EXPECT_THAT(info, HasSubstr("\"cluster-size\": " + std::to_string(parsed->cluster_size)));
  const auto disk = VdiDisk::Open(reader);
  ASSERT_TRUE(disk.has_value());
  const auto all = ReadBytesAt(*disk, 0, static_cast<size_t>(disk->size()));
  ASSERT_TRUE(all.has_value()) << all.error().Describe();
  EXPECT_TRUE(*all == content);
  EXPECT_FALSE(ReadBytesAt(*disk, disk->size() - 1, 2).has_value());
}

TEST(Vdi, DynamicAgreesWithQemu) {
  ExpectAgreesWithQemu(Dynamic(), VdiSubformat::kDynamic, Source());
  EXPECT_EQ(Parse(Dynamic())->data_blocks, 2U);
}

TEST(Vdi, StaticAgreesWithQemu) {
  ExpectAgreesWithQemu(Convert("-o static=on"), VdiSubformat::kStatic, Source());
}

TEST(Vdi, EmptyAgreesWithQemu) {
  ExpectAgreesWithQemu(testing::QemuImgCreate("vdi", "", "3M"), VdiSubformat::kDynamic,
                       Bytes(3 * kMiB));
}

TEST(VdiDisk, NextDataSkipsWhatTheFileDoesNotHold) {
  Bytes image = Dynamic();
  PutLe32(image, Map(image) + 4, kVdiZero);
  const MemoryReader reader(image);
  const auto disk = VdiDisk::Open(reader);
  ASSERT_TRUE(disk.has_value());
  EXPECT_EQ(**disk->NextData(5), 5U);
  EXPECT_EQ(**disk->NextData(kMiB), 3 * kMiB);
  EXPECT_EQ(**disk->NextData(3 * kMiB + 7), 3 * kMiB + 7);
  EXPECT_FALSE(disk->NextData(4 * kMiB)->has_value());
}

TEST(VdiVectors, AreJudgedAsTheManifestSays) {
  const std::string dir = testing::VectorsDir();
  if (dir.empty()) GTEST_SKIP() << "the shared vectors are not here";
  const auto parsed = Parse(ReadFile(dir + "/images/gen/plain.vdi"));
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(parsed->virtual_size, 1048576U);
  EXPECT_EQ(parsed->cluster_size, 1048576U);
}

}  // namespace
}  // namespace vallum::formats

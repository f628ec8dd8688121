// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/units.h"
#include "formats/fields.h"
#include "formats/qcow2_disk.h"
#include "formats/qcow2_entries.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using ::testing::HasSubstr;
using testing::MustRun;
using testing::PutBe32;
using testing::PutBe64;
using testing::PutText;
using testing::QemuImgCreate;
using testing::ReadFile;
using testing::TempDir;
using testing::WriteFile;

Result<Qcow2Usage> CheckAll(ByteView image) {
  const MemoryReader reader(image);
  ASSIGN_OR_RETURN(const Qcow2Header header, ParseQcow2Header(reader));
  RETURN_IF_ERROR(ValidateQcow2(header, reader.size()));
  return CheckQcow2Tables(reader, header);
}

// Reads the whole guest disk; content faults are fine, crashes are not.
void ReadDisk(ByteView image) {
  const MemoryReader reader(image);
  const Result<Qcow2Disk> disk = Qcow2Disk::Open(reader);
  if (!disk.has_value()) return;
  static_cast<void>(ReadUpTo(*disk, 0, 1 << 20));
  static_cast<void>(disk->NextData(0));
}

const Bytes& Plain() {
  static const Bytes image = QemuImgCreate("qcow2", "", "8M");
  return image;
}

// A small image with data in some clusters.
const Bytes& WithData() {
  static const Bytes image = [] {
    const TempDir dir;
    const std::string file = dir.File("a.qcow2");
    MustRun("qemu-img create -q -f qcow2 -o cluster_size=4096 " + file + " 4M");
    MustRun("qemu-io -f qcow2 -c 'write -P 7 0 64k' -c 'write -P 9 3M 8k' " + file);
    return ReadFile(file);
  }();
  return image;
}

struct HostileCase {
  std::string name;
  std::function<void(Bytes&)> damage;
  std::string reason;
};

class HostileQcow2 : public ::testing::TestWithParam<HostileCase> {};

TEST_P(HostileQcow2, IsRefusedWithItsReason) {
  Bytes image = Plain();
  ASSERT_TRUE(CheckAll(image).has_value()) << CheckAll(image).error().Describe();
  GetParam().damage(image);
  const Result<Qcow2Usage> result = CheckAll(image);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(result.error().Describe(), HasSubstr(GetParam().reason));
  EXPECT_THAT(result.error().Describe(), ::testing::Not(HasSubstr("\n")));
  EXPECT_FALSE(result.error().fix().empty()) << result.error().Describe();
}

// An extension in place of those that qemu wrote.
void PutExtension(Bytes& image, uint32_t type, const std::string& data) {
  const size_t at = U32Be(image, 100);
  std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(at), 512, std::byte{0});
  PutBe32(image, at, type);
  PutBe32(image, at + 4, static_cast<uint32_t>(data.size()));
  PutText(image, at + 8, data);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, HostileQcow2,
    ::testing::Values(
        HostileCase{"Magic", [](Bytes& i) { i[0] = std::byte{0}; }, "magic"},
        HostileCase{"Version1", [](Bytes& i) { PutBe32(i, 4, 1); }, "unknown version 1"},
        HostileCase{"Version4", [](Bytes& i) { PutBe32(i, 4, 4); }, "unknown version 4"},
        HostileCase{"BackingFile",
                    [](Bytes& i) {
                      PutBe64(i, 8, 700);
                      PutBe32(i, 16, 11);
                      PutText(i, 700, "/etc/passwd");
                    },
                    "backing file"},
        HostileCase{"BackingSizeAlone", [](Bytes& i) { PutBe32(i, 16, 11); }, "backing file"},
        HostileCase{"BackingFormatAlone", [](Bytes& i) { PutExtension(i, 0xe2792aca, "raw"); },
                    "backing file"},
        HostileCase{"DataFileBitWithoutName", [](Bytes& i) { PutBe64(i, 72, 4); }, "data file"},
        HostileCase{"DataFileNameWithoutBit",
                    [](Bytes& i) { PutExtension(i, 0x44415441, "/etc/shadow"); }, "data file"},
        HostileCase{"DataFileRawBit", [](Bytes& i) { PutBe64(i, 88, 2); }, "data file"},
        HostileCase{"UnknownBit5", [](Bytes& i) { PutBe64(i, 72, 1U << 5U); }, "unknown feature"},
        HostileCase{"UnknownBit63", [](Bytes& i) { PutBe64(i, 72, uint64_t{1} << 63U); },
                    "unknown feature"},
        HostileCase{"Dirty", [](Bytes& i) { PutBe64(i, 72, 1); }, "dirty"},
        HostileCase{"Corrupt", [](Bytes& i) { PutBe64(i, 72, 2); }, "corrupt"},
        HostileCase{"CryptMethod1", [](Bytes& i) { PutBe32(i, 32, 1); }, "encrypted"},
        HostileCase{"CryptMethod2WithoutExtension", [](Bytes& i) { PutBe32(i, 32, 2); },
                    "encrypted"},
        HostileCase{"EncryptionExtensionAlone",
                    [](Bytes& i) { PutExtension(i, 0x0537be77, "0123456789abcdef"); }, "encrypted"},
        HostileCase{"CompressionBitAlone", [](Bytes& i) { PutBe64(i, 72, 8); }, "disagree"},
        HostileCase{"CompressionTypeAlone", [](Bytes& i) { i[104] = std::byte{1}; }, "disagree"},
        HostileCase{"CompressionTypeUnknown", [](Bytes& i) { i[104] = std::byte{2}; },
                    "compression type 2"},
        HostileCase{"VirtualSizeHuge", [](Bytes& i) { PutBe64(i, 24, uint64_t{1} << 60U); },
                    "virtual size"},
        HostileCase{"VirtualSizeZero", [](Bytes& i) { PutBe64(i, 24, 0); }, "virtual size"},
        HostileCase{"VirtualSizeOdd", [](Bytes& i) { PutBe64(i, 24, 513); }, "virtual size"},
        HostileCase{"VirtualSizePastL1", [](Bytes& i) { PutBe64(i, 24, uint64_t{1} << 40U); },
                    "the virtual size needs"},
        HostileCase{"L1Huge", [](Bytes& i) { PutBe32(i, 36, 0x7fffffff); }, "L1 table has"},
        HostileCase{"L1PastFile", [](Bytes& i) { PutBe32(i, 36, 100); }, "L1 table"},
        HostileCase{"L1Offset", [](Bytes& i) { PutBe64(i, 40, uint64_t{1} << 50U); }, "L1 table"},
        HostileCase{"L1OffsetWraps", [](Bytes& i) { PutBe64(i, 40, ~uint64_t{0xffff}); },
                    "L1 table"},
        HostileCase{"L1Unaligned", [](Bytes& i) { PutBe64(i, 40, 0x10008); }, "L1 table"},
        HostileCase{"L1InHeader", [](Bytes& i) { PutBe64(i, 40, 0); }, "L1 table"},
        HostileCase{"L1OnRefcounts", [](Bytes& i) { PutBe64(i, 40, U64Be(i, 48)); }, "overlap"},
        HostileCase{"RefcountTableOutside", [](Bytes& i) { PutBe64(i, 48, uint64_t{1} << 40U); },
                    "refcount table"},
        HostileCase{"RefcountTableHuge", [](Bytes& i) { PutBe32(i, 56, 0xffffffff); },
                    "refcount table"},
        HostileCase{"RefcountTableNone", [](Bytes& i) { PutBe32(i, 56, 0); }, "refcount table"},
        HostileCase{"RefcountBlockOutside",
                    [](Bytes& i) { PutBe64(i, 0x10000, uint64_t{1} << 40U); }, "refcount block"},
        HostileCase{"RefcountBlockOnL1", [](Bytes& i) { PutBe64(i, 0x10000, 0x10000); },
                    "overlaps"},
        HostileCase{"RefcountOrder", [](Bytes& i) { PutBe32(i, 96, 7); }, "refcount order"},
        HostileCase{"Snapshots",
                    [](Bytes& i) {
                      PutBe32(i, 60, 0xffffffff);
                      PutBe64(i, 64, 0x10000);
                    },
                    "snapshots"},
        HostileCase{"Bitmaps", [](Bytes& i) { PutExtension(i, 0x23852875, "x"); }, "bitmaps"},
        HostileCase{"HeaderLengthPastFile", [](Bytes& i) { PutBe32(i, 100, 0x7ffffff8); },
                    "header length"},
        HostileCase{"HeaderLengthShort", [](Bytes& i) { PutBe32(i, 100, 72); }, "header length"},
        HostileCase{"HeaderLengthOdd", [](Bytes& i) { PutBe32(i, 100, 113); }, "header length"},
        HostileCase{"ExtensionPastCluster",
                    [](Bytes& i) { PutBe32(i, U32Be(i, 100) + 4, 0xfffffff0); },
                    "header extension"},
        HostileCase{"ClusterBits0", [](Bytes& i) { PutBe32(i, 20, 0); }, "cluster_bits"},
        HostileCase{"ClusterBits63", [](Bytes& i) { PutBe32(i, 20, 63); }, "cluster_bits"},
        HostileCase{"L2Outside",
                    [](Bytes& i) { PutBe64(i, U64Be(i, 40), uint64_t{1} << 63U | 0x100000000); },
                    "L2 table"},
        HostileCase{"L2OnRefcounts", [](Bytes& i) { PutBe64(i, U64Be(i, 40), 0x10000); },
                    "overlaps"},
        HostileCase{"L1Reserved", [](Bytes& i) { PutBe64(i, U64Be(i, 40), 1); }, "reserved"}),
    [](const auto& row) { return row.param.name; });

// Where the first data cluster's L2 entry of WithData() stands.
size_t FirstL2Entry(const Bytes& image) {
  return static_cast<size_t>(U64Be(image, static_cast<size_t>(U64Be(image, 40))) &
                             kQcow2OffsetMask);
}

TEST(Qcow2Tables, DataOutsideTheFileIsRefused) {
  Bytes image = WithData();
  ASSERT_TRUE(CheckAll(image).has_value());
  PutBe64(image, FirstL2Entry(image), uint64_t{1} << 63U | (uint64_t{1} << 40U));
  EXPECT_FALSE(CheckAll(image).has_value());
}

TEST(Qcow2Tables, UnalignedDataIsRefused) {
  Bytes image = WithData();
  const size_t at = FirstL2Entry(image);
  PutBe64(image, at, U64Be(image, at) + 512);
  EXPECT_FALSE(CheckAll(image).has_value());
}

TEST(Qcow2Tables, DataInsideTheL1TableIsRefused) {
  Bytes image = WithData();
  PutBe64(image, FirstL2Entry(image), uint64_t{1} << 63U | U64Be(image, 40));
  const auto result = CheckAll(image);
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().Describe(), HasSubstr("in a table"));
}

TEST(Qcow2Tables, CompressedDataOutsideTheFileIsRefused) {
  Bytes image = WithData();
  PutBe64(image, FirstL2Entry(image), kL2Compressed | (image.size() + 4096));
  const auto result = CheckAll(image);
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().Describe(), HasSubstr("compressed"));
}

TEST(Qcow2Tables, ReservedBitsAreRefused) {
  Bytes image = WithData();
  const size_t at = FirstL2Entry(image);
  PutBe64(image, at, U64Be(image, at) | 2);
  EXPECT_FALSE(CheckAll(image).has_value());
}

TEST(Qcow2Tables, OneTableUsedTwiceIsRefused) {
  const TempDir dir;
  const std::string file = dir.File("a.qcow2");
  MustRun("qemu-img create -q -f qcow2 -o cluster_size=512 " + file + " 1M");
  MustRun("qemu-io -f qcow2 -c 'write -P 7 0 128k' " + file);
  Bytes image = ReadFile(file);
  ASSERT_TRUE(CheckAll(image).has_value()) << CheckAll(image).error().Describe();
  const auto l1 = static_cast<size_t>(U64Be(image, 40));
  PutBe64(image, l1 + 8, U64Be(image, l1));
  const auto result = CheckAll(image);
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().Describe(), HasSubstr("overlaps"));
}

TEST(Qcow2Tables, TablesMadeOfHolesCostABoundedAmountOfReading) {
  // Claims 64 TiB in a file of holes: 4 Mi L1 entries, each with its own L2 table of 64 KiB.
  const auto overlay = MakeQcow2Overlay(ByteCount::Bytes(kQcow2MaxVirtualSize));
  ASSERT_TRUE(overlay.has_value());
  Bytes front = *overlay;
  for (uint64_t i = 0; i < U32Be(front, 36); ++i) {
    PutBe64(front, static_cast<size_t>(U64Be(front, 40) + i * 8), (uint64_t{64} + i) << 16U);
  }
  const testing::SparseReader file(front, uint64_t{1} << 40U);
  const testing::CountingReader counted(file);
  const auto header = ParseQcow2Header(counted);
  ASSERT_TRUE(header.has_value());
  ASSERT_TRUE(ValidateQcow2(*header, counted.size()).has_value());
  const auto result = CheckQcow2Tables(counted, *header);
  ASSERT_FALSE(result.has_value());
  EXPECT_LE(counted.bytes(), kQcow2MaxL2BytesRead + (uint64_t{8} << 20U));
}

TEST(Qcow2, EveryTruncationOfAnImageWithDataIsRefused) {
  const Bytes& image = WithData();
  std::vector<size_t> sizes = {0,   1,   4,   71,  72,   103,  104, 111,
                               112, 200, 511, 512, 4095, 4096, 4097};
  for (size_t size = 8192; size < image.size(); size += 4096) sizes.push_back(size);
  sizes.push_back(image.size() - 1);
  for (const size_t size : sizes) {
    EXPECT_FALSE(CheckAll(ByteView(image).first(size)).has_value()) << size;
  }
}

TEST(Qcow2, FlippedBitsNeverCrash) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 3000; ++round) {
    Bytes image = WithData();
    const bool in_header = round % 2 == 0;
    for (int i = 0; i < 3; ++i) {
      const size_t at = random() % (in_header ? 128 : image.size());
      image[at] ^= static_cast<std::byte>(1U << (random() % 8));
    }
    if (CheckAll(image).has_value()) ReadDisk(image);
  }
}

void ExpectNextDataSkipsOnlyZeroes(const Qcow2Disk& disk, const Bytes& content) {
  for (uint64_t at = 0; at < disk.size();) {
    const auto next = disk.NextData(at);
    ASSERT_TRUE(next.has_value()) << next.error().Describe();
    const uint64_t data = next->value_or(disk.size());
    ASSERT_GE(data, at);
    for (; at < data; ++at) ASSERT_EQ(content[static_cast<size_t>(at)], std::byte{0}) << at;
    at = data + 512;
  }
}

struct BenignCase {
  std::string options;
  bool compressed = false;
};
class BenignQcow2 : public ::testing::TestWithParam<BenignCase> {};

// Facts equal those of qemu-img info, and every byte of the disk equals what qemu reads.
TEST_P(BenignQcow2, AgreesWithQemu) {
  const TempDir dir;
  const std::string raw = dir.File("source.raw");
  Bytes source(3 << 20);
  std::mt19937_64 random(5);
  for (size_t i = 0; i < source.size(); i += 8) {
    // Some of it random, some compressible, some zero.
    const size_t kind = i / 50000 % 3;
    const uint64_t value = kind == 0 ? random() : kind == 1 ? i / 4096 : 0;
    PutBe64(source, i, value);
  }
  source.resize(source.size() - 512);  // not a whole number of clusters
  WriteFile(raw, source);
  const std::string file = dir.File("image.qcow2");
  MustRun(std::string("qemu-img convert -f raw -O qcow2 ") + (GetParam().compressed ? "-c " : "") +
          "-o " + GetParam().options + " " + raw + " " + file);
  const Bytes image = ReadFile(file);
  const MemoryReader reader(image);
  const auto header = ParseQcow2Header(reader);
  ASSERT_TRUE(header.has_value()) << header.error().Describe();
  const auto usage = CheckAll(image);
  ASSERT_TRUE(usage.has_value()) << usage.error().Describe();
  EXPECT_EQ(usage->compressed_clusters > 0, GetParam().compressed);

  const std::string info = MustRun("qemu-img info -f qcow2 --output=json " + file);
  EXPECT_THAT(info, HasSubstr("\"virtual-size\": " + std::to_string(header->virtual_size)));
  EXPECT_THAT(info, HasSubstr("\"cluster-size\": " + std::to_string(header->cluster_size())));
  EXPECT_THAT(info,
              HasSubstr(header->version == 2 ? "\"compat\": \"0.10\"" : "\"compat\": \"1.1\""));
  EXPECT_THAT(info,
              HasSubstr("\"refcount-bits\": " + std::to_string(1U << header->refcount_order)));

  const auto disk = Qcow2Disk::Open(reader);
  ASSERT_TRUE(disk.has_value());
  const auto content = ReadBytesAt(*disk, 0, static_cast<size_t>(disk->size()));
  ASSERT_TRUE(content.has_value()) << content.error().Describe();
  EXPECT_TRUE(*content == source);
  const auto part = ReadBytesAt(*disk, 65530, 5000);
  ASSERT_TRUE(part.has_value());
  EXPECT_TRUE(std::equal(part->begin(), part->end(), source.begin() + 65530));
  ExpectNextDataSkipsOnlyZeroes(*disk, source);
}

INSTANTIATE_TEST_SUITE_P(
    Options, BenignQcow2,
    ::testing::Values(BenignCase{"compat=0.10"}, BenignCase{"compat=1.1"},
                      BenignCase{"compat=1.1,cluster_size=512"},
                      BenignCase{"compat=0.10,cluster_size=512"}, BenignCase{"cluster_size=2M"},
                      BenignCase{"cluster_size=4096"}, BenignCase{"refcount_bits=1"},
                      BenignCase{"refcount_bits=64"}, BenignCase{"lazy_refcounts=on"},
                      BenignCase{"preallocation=metadata"}, BenignCase{"preallocation=falloc"},
                      BenignCase{"extended_l2=on"}, BenignCase{"extended_l2=on,cluster_size=16k"},
                      BenignCase{"compat=0.10", true}, BenignCase{"compat=1.1", true},
                      BenignCase{"compression_type=zstd", true},
                      BenignCase{"compression_type=zstd,cluster_size=2M", true},
                      BenignCase{"cluster_size=512", true},
                      BenignCase{"extended_l2=on,cluster_size=128k", true}));

TEST(Qcow2Disk, DamagedCompressedDataIsAnError) {
  const TempDir dir;
  WriteFile(dir.File("raw"), Bytes(65536, std::byte{0x41}));
  MustRun("qemu-img convert -c -f raw -O qcow2 " + dir.File("raw") + " " + dir.File("q"));
  Bytes image = ReadFile(dir.File("q"));
  const size_t at = FirstL2Entry(image);
  const auto range = CompressedRange(U64Be(image, at), 16);
  std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(range.offset), 20, std::byte{0xff});
  const MemoryReader reader(image);
  const auto disk = Qcow2Disk::Open(reader);
  ASSERT_TRUE(disk.has_value());
  const auto read = ReadBytesAt(*disk, 0, 512);
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().code(), ErrorCode::kInvalidInput);
}

TEST(Qcow2Disk, NextDataSkipsWhatHoldsNothing) {
  const TempDir dir;
  const std::string file = dir.File("a.qcow2");
  for (const std::string options : {"cluster_size=4096", "cluster_size=16k,extended_l2=on"}) {
    MustRun("qemu-img create -q -f qcow2 -o " + options + " " + file + " 1G");
    MustRun(
        "qemu-io -f qcow2 -c 'write -P 7 64k 32k' -c 'write -z 64k 16k' -c 'write -P 9 900M 8k' " +
        file);
    const Bytes image = ReadFile(file);
    const MemoryReader reader(image);
    const auto disk = Qcow2Disk::Open(reader);
    ASSERT_TRUE(disk.has_value());
    EXPECT_EQ(*disk->NextData(0), std::optional<uint64_t>(80 << 10));
    EXPECT_EQ(*disk->NextData(81 << 10), std::optional<uint64_t>(81 << 10));
    EXPECT_EQ(*disk->NextData(96 << 10), std::optional<uint64_t>(900 << 20));
    EXPECT_EQ(*disk->NextData((900 << 20) + (16 << 10)), std::nullopt);
    EXPECT_EQ(*disk->NextData(disk->size()), std::nullopt);
    EXPECT_EQ(*disk->NextData(~uint64_t{0}), std::nullopt);
  }
}

TEST(Qcow2Disk, NextDataReadsTheL1TableOfAnEmptyDiskAndNoMore) {
  const auto overlay = MakeQcow2Overlay(ByteCount::Bytes(kQcow2MaxVirtualSize));
  ASSERT_TRUE(overlay.has_value());
  const MemoryReader reader(*overlay);
  const testing::CountingReader counted(reader);
  const auto disk = Qcow2Disk::Open(counted);
  ASSERT_TRUE(disk.has_value());
  EXPECT_EQ(*disk->NextData(0), std::nullopt);
  EXPECT_LE(counted.bytes(), (uint64_t{1} << 20U) + 2048);
}

TEST(Qcow2Disk, ReadsPastTheEndAreErrors) {
  const MemoryReader reader(Plain());
  const auto disk = Qcow2Disk::Open(reader);
  ASSERT_TRUE(disk.has_value());
  EXPECT_FALSE(ReadBytesAt(*disk, disk->size() - 1, 2).has_value());
  EXPECT_FALSE(ReadBytesAt(*disk, ~uint64_t{0}, 2).has_value());
}

TEST(Qcow2Overlay, IsCleanForQemuAtAllSizes) {
  const TempDir dir;
  const std::string file = dir.File("o.qcow2");
  for (const uint64_t size : {uint64_t{1}, uint64_t{512}, uint64_t{10} << 30U,
                              (uint64_t{5} << 40U) + 512, kQcow2MaxVirtualSize}) {
    const auto overlay = MakeQcow2Overlay(ByteCount::Bytes(size));
    ASSERT_TRUE(overlay.has_value());
    EXPECT_TRUE(CheckAll(*overlay).has_value());
    WriteFile(file, *overlay);
    EXPECT_THAT(MustRun("qemu-img check -f qcow2 " + file), HasSubstr("No errors"));
    EXPECT_THAT(MustRun("qemu-img info -f qcow2 --output=json " + file),
                HasSubstr("\"virtual-size\": " + std::to_string((size + 511) / 512 * 512)));
  }
  EXPECT_FALSE(MakeQcow2Overlay(ByteCount::Bytes(0)).has_value());
  EXPECT_FALSE(MakeQcow2Overlay(ByteCount::Bytes(kQcow2MaxVirtualSize + 1)).has_value());
}

TEST(Qcow2Overlay, QemuReadsTheBaseThatTheBlockGraphNames) {
  const TempDir dir;
  const std::string base = dir.File("base.qcow2");
  const std::string overlay = dir.File("overlay.qcow2");
  MustRun("qemu-img create -q -f qcow2 " + base + " 64M");
  MustRun("qemu-io -f qcow2 -c 'write -P 0xab 1M 64k' " + base);
  const Bytes before = ReadFile(base);
  WriteFile(overlay, *MakeQcow2Overlay(ByteCount::MiB(128)));  // larger than its base
  const std::string graph =
      R"('json:{"driver":"qcow2","file":{"driver":"file","filename":")" + overlay +
      R"("},"backing":{"driver":"qcow2","read-only":true,"file":{"driver":"file","filename":")" +
      base + R"("}}}')";
  const std::string output = MustRun(
      "qemu-io -c 'read -P 0xab 1M 64k' -c 'write -P 0xcd 1M 512' "
      "-c 'read -P 0xcd 1M 512' -c 'read -P 0xab 1049088 512' -c 'read -P 0 100M 64k' " +
      graph);
  EXPECT_THAT(output, ::testing::Not(HasSubstr("verification failed")));
  EXPECT_TRUE(ReadFile(base) == before);
  EXPECT_THAT(MustRun("qemu-img check -f qcow2 " + overlay), HasSubstr("No errors"));
  // QEMU does not write the name of the base into the overlay either.
  EXPECT_THAT(MustRun("qemu-img info -f qcow2 " + overlay),
              ::testing::Not(HasSubstr("backing file")));
}

}  // namespace
}  // namespace vallum::formats

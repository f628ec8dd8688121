// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "formats/detect.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using testing::CountingReader;
using ::testing::HasSubstr;
using testing::MustRun;
using testing::PutBe32;
using testing::PutBe64;
using testing::PutText;
using testing::QemuImgCreate;
using testing::ReadFile;
using testing::SparseReader;
using testing::TempDir;
using testing::WriteFile;

constexpr size_t kHeader = 512;  // where qemu-img puts the dynamic header and the table
constexpr size_t kTable = 1536;

Result<VhdImage> Parse(ByteView image) { return ParseVhd(MemoryReader(image)); }

const Bytes& Fixed() {
  static const Bytes image = QemuImgCreate("vpc", "-o subformat=fixed,force_size=on", "64k");
  return image;
}

// Three blocks of 2 MiB, of which the first and the last hold data.
const Bytes& Dynamic() {
  static const Bytes image = [] {
    const TempDir dir;
    const std::string file = dir.File("a.vhd");
    MustRun("qemu-img create -q -f vpc -o force_size=on " + file + " 6M");
    MustRun("qemu-io -f vpc -c 'write -P 9 5M 8k' -c 'write -P 7 0 64k' " + file);
    return ReadFile(file);
  }();
  return image;
}

uint32_t Checksum(ByteView data, size_t at) {
  uint32_t sum = 0;
  for (size_t i = 0; i < data.size(); ++i) {
    if (i < at || i >= at + 4) sum += std::to_integer<uint32_t>(data[i]);
  }
  return ~sum;
}

// The footer at the end gets its checksum; in a dynamic image also its copy and the header.
void Seal(Bytes& image, bool dynamic) {
  const size_t end = image.size() - kVhdFooterBytes;
  PutBe32(image, end + 64, Checksum(ByteView(image).subspan(end), 64));
  if (!dynamic) return;
  std::ranges::copy(ByteView(image).subspan(end), image.begin());
  PutBe32(image, kHeader + 36,
          Checksum(ByteView(image).subspan(kHeader, kVhdDynamicHeaderBytes), 36));
}

struct HostileCase {
  std::string name;
  bool dynamic;
  // Changes the image; what the checksums cover is sealed after it.
  std::function<void(Bytes& image, size_t footer)> damage;
  std::string reason;
};

class HostileVhd : public ::testing::TestWithParam<HostileCase> {};

TEST_P(HostileVhd, IsRefusedWithItsReason) {
  Bytes image = GetParam().dynamic ? Dynamic() : Fixed();
  ASSERT_TRUE(Parse(image).has_value()) << Parse(image).error().Describe();
  GetParam().damage(image, image.size() - kVhdFooterBytes);
  Seal(image, GetParam().dynamic);
  const Result<VhdImage> result = Parse(image);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(result.error().Describe(), HasSubstr(GetParam().reason));
  EXPECT_THAT(result.error().Describe(), ::testing::Not(HasSubstr("\n")));
  EXPECT_FALSE(result.error().fix().empty()) << result.error().Describe();
}

INSTANTIATE_TEST_SUITE_P(
    Footer, HostileVhd,
    ::testing::Values(
        HostileCase{"Cookie", false, [](Bytes& i, size_t f) { i[f] = std::byte{0}; }, "no footer"},
        HostileCase{"Version", false, [](Bytes& i, size_t f) { PutBe32(i, f + 12, 0x20000); },
                    "unknown version 0x00020000"},
        HostileCase{"Feature", false, [](Bytes& i, size_t f) { PutBe32(i, f + 8, 6); },
                    "unknown feature: bits 0x4"},
        HostileCase{"TypeUnknown", false, [](Bytes& i, size_t f) { PutBe32(i, f + 60, 5); },
                    "unknown disk type 5"},
        HostileCase{"TypeDynamicWithoutCopy", false,
                    [](Bytes& i, size_t f) { PutBe32(i, f + 60, 3); }, "differ"},
        HostileCase{"TypeDifferencing", false, [](Bytes& i, size_t f) { PutBe32(i, f + 60, 4); },
                    "differencing"},
        HostileCase{"SavedState", false, [](Bytes& i, size_t f) { i[f + 84] = std::byte{1}; },
                    "saved state"},
        HostileCase{"FixedWithDataOffset", false,
                    [](Bytes& i, size_t f) { PutBe64(i, f + 16, 512); }, "data offset of 512"},
        HostileCase{"FixedShorterThanItsSize", false,
                    [](Bytes& i, size_t f) { PutBe64(i, f + 48, f + 512); }, "truncated"},
        HostileCase{"FixedLongerThanItsSize", false,
                    [](Bytes& i, size_t f) { PutBe64(i, f + 48, f - 512); }, "65536 bytes stand"},
        HostileCase{"FixedWithFooterAtTheFrontToo", false,
                    [](Bytes& i, size_t) { PutText(i, 0, "conectix"); }, "ambiguous"},
        HostileCase{"SizeZero", false, [](Bytes& i, size_t f) { PutBe64(i, f + 48, 0); },
                    "virtual size 0"},
        HostileCase{"SizeOdd", false, [](Bytes& i, size_t f) { PutBe64(i, f + 48, f + 1); },
                    "virtual size"},
        HostileCase{"SizeHuge", true,
                    [](Bytes& i, size_t f) { PutBe64(i, f + 48, kVhdMaxVirtualSize + 512); },
                    "virtual size"},
        HostileCase{"SizeWraps", true, [](Bytes& i, size_t f) { PutBe64(i, f + 48, ~511ULL); },
                    "virtual size"},
        HostileCase{"GeometryZero", true,
                    [](Bytes& i, size_t f) {
                      PutText(i, f + 28, "qemu");
                      PutBe32(i, f + 56, 0);
                    },
                    "virtual size 0 (by the geometry"},
        HostileCase{"GeometryAboveCurrentSize", true,
                    [](Bytes& i, size_t f) {
                      PutText(i, f + 28, "vpc ");
                      PutBe32(i, f + 56, 0x1000'04'11);
                    },
                    "the geometry at offset 56"}),
    [](const auto& row) { return row.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Dynamic, HostileVhd,
    ::testing::Values(
        HostileCase{"HeaderCookie", true, [](Bytes& i, size_t) { i[kHeader] = std::byte{0}; },
                    "cxsparse"},
        HostileCase{"HeaderVersion", true, [](Bytes& i, size_t) { PutBe32(i, kHeader + 24, 1); },
                    "unknown version"},
        HostileCase{"HeaderNext", true, [](Bytes& i, size_t) { PutBe64(i, kHeader + 8, 4096); },
                    "next one at offset 4096"},
        HostileCase{"HeaderOutside", true,
                    [](Bytes& i, size_t f) { PutBe64(i, f + 16, uint64_t{1} << 40U); },
                    "dynamic header"},
        HostileCase{"HeaderOffsetWraps", true,
                    [](Bytes& i, size_t f) { PutBe64(i, f + 16, ~uint64_t{0}); }, "dynamic header"},
        HostileCase{"HeaderOnTheCopy", true, [](Bytes& i, size_t f) { PutBe64(i, f + 16, 0); },
                    "overlaps the footer copy"},
        HostileCase{"HeaderOnTheFooter", true,
                    [](Bytes& i, size_t f) { PutBe64(i, f + 16, f - 512); }, "overlaps the footer"},
        HostileCase{"HeaderUnaligned", true, [](Bytes& i, size_t f) { PutBe64(i, f + 16, 513); },
                    "whole sectors"},
        HostileCase{"ParentName", true,
                    [](Bytes& i, size_t) { PutText(i, kHeader + 64, std::string("\0p\0w", 4)); },
                    "names a parent, \"pw\""},
        HostileCase{"ParentLocator", true,
                    [](Bytes& i, size_t) { PutText(i, kHeader + 576, "W2ku"); }, "parent"},
        HostileCase{"BlockSizeZero", true, [](Bytes& i, size_t) { PutBe32(i, kHeader + 32, 0); },
                    "block size"},
        HostileCase{"BlockSizeNoPowerOfTwo", true,
                    [](Bytes& i, size_t) { PutBe32(i, kHeader + 32, 3 << 20); }, "block size"},
        HostileCase{"BlockSizeSmall", true, [](Bytes& i, size_t) { PutBe32(i, kHeader + 32, 512); },
                    "block size"},
        HostileCase{"BlockSizeHuge", true,
                    [](Bytes& i, size_t) { PutBe32(i, kHeader + 32, 1U << 31U); }, "block size"},
        HostileCase{"TableTooSmall", true, [](Bytes& i, size_t) { PutBe32(i, kHeader + 28, 2); },
                    "the virtual size needs 3"},
        HostileCase{"TableHuge", true,
                    [](Bytes& i, size_t) { PutBe32(i, kHeader + 28, 0xffffffff); }, "more than"},
        HostileCase{"TableOutside", true,
                    [](Bytes& i, size_t) { PutBe64(i, kHeader + 16, uint64_t{1} << 40U); },
                    "block allocation table"},
        HostileCase{"TablePastTheEnd", true,
                    [](Bytes& i, size_t) { PutBe32(i, kHeader + 28, 1 << 21U); },
                    "block allocation table"},
        HostileCase{"TableOnTheHeader", true,
                    [](Bytes& i, size_t) { PutBe64(i, kHeader + 16, 1024); },
                    "overlaps the dynamic header"},
        HostileCase{"TableOnTheFooter", true,
                    [](Bytes& i, size_t f) { PutBe64(i, kHeader + 16, f); }, "overlaps the footer"},
        HostileCase{"BlockOutside", true,
                    [](Bytes& i, size_t) { PutBe32(i, kTable + 4, 0xfffffffe); },
                    "truncated: block 1"},
        HostileCase{"BlockPastTheEnd", true,
                    [](Bytes& i, size_t) { PutBe32(i, kTable, U32Be(i, kTable) + 1); },
                    "overlaps the footer"},
        HostileCase{"BlockOnTheCopy", true, [](Bytes& i, size_t) { PutBe32(i, kTable + 4, 0); },
                    "overlaps the footer copy"},
        HostileCase{"BlockOnTheTable", true, [](Bytes& i, size_t) { PutBe32(i, kTable + 4, 3); },
                    "overlaps the block allocation table"},
        HostileCase{"BlockTwice", true,
                    [](Bytes& i, size_t) { PutBe32(i, kTable + 4, U32Be(i, kTable)); },
                    "two blocks overlap"},
        HostileCase{"BlocksOverlap", true,
                    [](Bytes& i, size_t) { PutBe32(i, kTable + 4, U32Be(i, kTable + 8) + 1); },
                    "two blocks overlap"}),
    [](const auto& row) { return row.param.name; });

TEST(Vhd, WrongChecksumsAreRefused) {
  Bytes fixed = Fixed();
  fixed[fixed.size() - 1] ^= std::byte{1};
  EXPECT_THAT(Parse(fixed).error().Describe(), HasSubstr("checksum at offset 64 of the footer"));
  Bytes dynamic = Dynamic();
  dynamic[kHeader + 1000] ^= std::byte{1};
  EXPECT_THAT(Parse(dynamic).error().Describe(), HasSubstr("checksum at offset 36"));
}

TEST(Vhd, DynamicWhoseFootersDifferIsRefused) {
  Bytes image = Dynamic();
  image[70] ^= std::byte{1};
  EXPECT_THAT(Parse(image).error().Describe(), HasSubstr("its copy at offset 0 differ"));
}

TEST(Vhd, DifferencingIsRefusedNamingTheParent) {
  Bytes image = Dynamic();
  PutText(image, kHeader + 64, std::string("\0C\0:\0\\\0b\0a\0s\0e\0.\0v\0h\0d", 22));
  PutBe32(image, image.size() - kVhdFooterBytes + 60, 4);
  Seal(image, true);
  EXPECT_THAT(Parse(image).error().Describe(),
              ::testing::AllOf(HasSubstr("differencing"), HasSubstr("base.vhd")));
  PutBe64(image, image.size() - kVhdFooterBytes + 16, ~uint64_t{0});
  Seal(image, true);
  EXPECT_THAT(Parse(image).error().Describe(), HasSubstr("parent is not named"));
}

// Two formats at once: what the whole is declared as decides who must refuse it.
TEST(Vhd, FooterBehindAnotherDiskIsDetectedBesideIt) {
  const Bytes gpt = testing::MakeGptDisk(512, 128, {{.first_lba = 40, .last_lba = 80}});
  Bytes image = gpt;
  image.insert(image.end(), Fixed().end() - kVhdFooterBytes, Fixed().end());
  const auto found = DetectFormats(MemoryReader(image));
  ASSERT_TRUE(found.has_value());
  std::vector<Format> formats;
  for (const Detection& detection : *found) formats.push_back(detection.format);
  EXPECT_THAT(formats, ::testing::UnorderedElementsAre(Format::kGpt, Format::kVhd));
  // As a VHD it is one only if the footer is of this disk.
  ASSERT_EQ(gpt.size(), U64Be(ByteView(image).last(kVhdFooterBytes), 48));
  EXPECT_TRUE(Parse(image).has_value());
  image.insert(image.begin(), 512, std::byte{0});
  EXPECT_THAT(Parse(image).error().Describe(), HasSubstr("inconsistent"));
}

TEST(Vhd, FooterOf511BytesIsRefusedByName) {
  for (const Bytes* image : {&Fixed(), &Dynamic()}) {
    EXPECT_THAT(Parse(ByteView(*image).first(image->size() - 1)).error().Describe(),
                HasSubstr("511 bytes"));
  }
}

TEST(Vhd, EveryTruncationIsRefused) {
  for (const Bytes* image : {&Fixed(), &Dynamic()}) {
    std::vector<size_t> sizes = {0, 1, 200, 511, 512, 513, 1023, 1024, 1536, 2048, 2560};
    for (size_t size = 4096; size < image->size(); size += 32768) sizes.push_back(size);
    sizes.push_back(image->size() - 512);
    sizes.push_back(image->size() - 2);
    for (const size_t size : sizes) {
      EXPECT_FALSE(Parse(ByteView(*image).first(size)).has_value()) << size;
    }
  }
}

TEST(Vhd, TableOfTheLargestDiskIsReadOnce) {
  // 2040 GiB in blocks of 512 KiB, nothing allocated: a table of 16 MiB.
  Bytes image = Dynamic();
  image.resize(kTable);
  const uint32_t entries = kVhdMaxVirtualSize / (512 << 10);
  PutBe32(image, kHeader + 28, entries);
  PutBe32(image, kHeader + 32, 512 << 10);
  PutBe64(image, 48, kVhdMaxVirtualSize);
  image.resize(kTable + entries * 4, std::byte{0xff});
  image.insert(image.end(), image.begin(), image.begin() + kVhdFooterBytes);
  Seal(image, true);
  const MemoryReader reader(image);
  const CountingReader counted(reader);
  const auto vhd = ParseVhd(counted);
  ASSERT_TRUE(vhd.has_value()) << vhd.error().Describe();
  EXPECT_EQ(vhd->virtual_size, kVhdMaxVirtualSize);
  EXPECT_LE(counted.bytes(), image.size() + 4096);
}

TEST(Vhd, FixedDiskOfHolesCostsNothing) {
  Bytes footer = Fixed();
  footer.erase(footer.begin(), footer.end() - kVhdFooterBytes);
  class Tail final : public RandomAccessReader {
   public:
    explicit Tail(Bytes footer) : footer_(std::move(footer)) {}
    uint64_t size() const override { return (uint64_t{1} << 40U) + kVhdFooterBytes; }
    Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override {
      std::ranges::fill(out, std::byte{0});
      if (offset + out.size() == size()) std::ranges::copy(footer_, out.begin());
      return Ok();
    }

   private:
    Bytes footer_;
  };
  PutBe64(footer, 48, uint64_t{1} << 40U);
  Seal(footer, false);
  const Tail tail(footer);
  const CountingReader counted(tail);
  const auto vhd = ParseVhd(counted);
  ASSERT_TRUE(vhd.has_value()) << vhd.error().Describe();
  EXPECT_EQ(vhd->virtual_size, uint64_t{1} << 40U);
  EXPECT_LE(counted.bytes(), 4096U);
}

TEST(Vhd, FlippedBitsNeverCrash) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 1500; ++round) {
    const bool dynamic = round % 2 == 0;
    Bytes image = dynamic ? Dynamic() : Fixed();
    for (int i = 0; i < 3; ++i) {
      const size_t at = dynamic ? random() % 2048 : image.size() - 1 - random() % 512;
      image[at] ^= static_cast<std::byte>(1U << (random() % 8));
    }
    if (dynamic && random() % 2 == 0) {
      std::ranges::copy(ByteView(image).first(kVhdFooterBytes), image.end() - kVhdFooterBytes);
    }
    Seal(image, dynamic);
    const MemoryReader reader(image);
    const auto disk = VhdDisk::Open(reader);
    if (disk.has_value()) static_cast<void>(ReadUpTo(*disk, 0, 1 << 20));
  }
}

// The sizes that QEMU gives, for every creator that it knows and some that it does not.
TEST(Vhd, SizeIsTheOneThatQemuGoesBy) {
  const TempDir dir;
  for (const std::string& app :
       {std::string("vpc "), std::string("qemu"), std::string("qem2"), std::string("win "),
        std::string("d2v "), std::string("CTXS"), std::string("tap\0", 4), std::string("wa\0\0", 4),
        std::string("vbox"), std::string("tapX")}) {
    for (const uint32_t geometry : {0x0010'04'11U, 0xffff'10'ffU}) {
      Bytes image = Fixed();
      const size_t footer = image.size() - kVhdFooterBytes;
      PutText(image, footer + 28, app);
      PutBe32(image, footer + 56, geometry);
      // More than the geometry of 16 * 4 * 17 sectors tells.
      image.insert(image.begin(), 600 << 10, std::byte{7});
      PutBe64(image, image.size() - kVhdFooterBytes + 48, image.size() - kVhdFooterBytes);
      Seal(image, false);
      WriteFile(dir.File("a.vhd"), image);
      const auto vhd = Parse(image);
      ASSERT_TRUE(vhd.has_value()) << vhd.error().Describe();
      EXPECT_THAT(MustRun("qemu-img info -f vpc --output=json " + dir.File("a.vhd")),
                  HasSubstr("\"virtual-size\": " + std::to_string(vhd->virtual_size)))
          << app << geometry;
    }
  }
}

struct BenignCase {
  std::string name;
  std::string options;
  size_t cut;  // bytes that the source lacks to 7 MiB
};
class BenignVhd : public ::testing::TestWithParam<BenignCase> {};

// Facts equal those of qemu-img info, and every byte of the disk equals what QEMU reads.
TEST_P(BenignVhd, AgreesWithQemu) {
  const TempDir dir;
  Bytes source((7 << 20) - GetParam().cut);
  std::mt19937_64 random(5);
  for (size_t i = 0; i + 8 <= source.size(); i += 8) {
    if (i / (3 << 19) % 2 == 0) PutBe64(source, i, random());
  }
  WriteFile(dir.File("source"), source);
  MustRun("qemu-img convert -f raw -O vpc -o " + GetParam().options + " " + dir.File("source") +
          " " + dir.File("vhd"));
  MustRun("qemu-img convert -f vpc -O raw " + dir.File("vhd") + " " + dir.File("raw"));
  const Bytes image = ReadFile(dir.File("vhd"));
  const Bytes raw = ReadFile(dir.File("raw"));

  const MemoryReader reader(image);
  const auto vhd = ParseVhd(reader);
  ASSERT_TRUE(vhd.has_value()) << vhd.error().Describe();
  const std::string info = MustRun("qemu-img info -f vpc --output=json " + dir.File("vhd"));
  EXPECT_THAT(info, HasSubstr("\"virtual-size\": " + std::to_string(vhd->virtual_size)));
  if (vhd->type == VhdType::kDynamic) {
    EXPECT_THAT(info, HasSubstr("\"cluster-size\": " + std::to_string(vhd->block_size)));
  }
  const VhdDisk disk(reader, *vhd);
  const auto content = ReadBytesAt(disk, 0, static_cast<size_t>(disk.size()));
  ASSERT_TRUE(content.has_value()) << content.error().Describe();
  EXPECT_TRUE(*content == raw);
  const auto part = ReadBytesAt(disk, 2097000, 5000);
  ASSERT_TRUE(part.has_value());
  EXPECT_TRUE(std::equal(part->begin(), part->end(), raw.begin() + 2097000));
  EXPECT_FALSE(ReadBytesAt(disk, disk.size() - 1, 2).has_value());
  EXPECT_FALSE(ReadBytesAt(disk, ~uint64_t{0}, 2).has_value());
}

INSTANTIATE_TEST_SUITE_P(
    Options, BenignVhd,
    ::testing::Values(BenignCase{"Fixed", "subformat=fixed", 0},
                      BenignCase{"FixedOdd", "subformat=fixed", 512},
                      BenignCase{"FixedForced", "subformat=fixed,force_size=on", 512},
                      BenignCase{"Dynamic", "subformat=dynamic", 0},
                      BenignCase{"DynamicOdd", "subformat=dynamic", 1536},
                      BenignCase{"DynamicForced", "subformat=dynamic,force_size=on", 1536}),
    [](const auto& row) { return row.param.name; });

TEST(VhdDisk, NextDataSkipsWhatIsNotAllocated) {
  const MemoryReader reader(Dynamic());
  const auto disk = VhdDisk::Open(reader);
  ASSERT_TRUE(disk.has_value());
  EXPECT_EQ(*disk->NextData(0), 0U);
  EXPECT_EQ(*disk->NextData(100), 100U);
  EXPECT_EQ(*disk->NextData(2 << 20), uint64_t{4} << 20U);
  EXPECT_EQ(*disk->NextData(5 << 20), uint64_t{5} << 20U);
  EXPECT_EQ(*disk->NextData(disk->size()), std::nullopt);
  EXPECT_EQ(*disk->NextData(~uint64_t{0}), std::nullopt);
}

TEST(VhdDisk, NextDataSkipsTheHolesOfTheFile) {
  // All of the file is hole behind the first block's bitmap: so is every block.
  const Bytes& image = Dynamic();
  const auto vhd = Parse(image);
  ASSERT_TRUE(vhd.has_value());
  const SparseReader sparse(Bytes(image.begin(), image.begin() + 2560), image.size());
  EXPECT_EQ(*VhdDisk(sparse, *vhd).NextData(0), std::nullopt);

  const auto fixed = Parse(Fixed());
  ASSERT_TRUE(fixed.has_value());
  const SparseReader front(Bytes(100), Fixed().size());
  EXPECT_EQ(*VhdDisk(front, *fixed).NextData(5), 5U);
  EXPECT_EQ(*VhdDisk(front, *fixed).NextData(100), std::nullopt);
  // What follows the disk is not data of it.
  EXPECT_EQ(*VhdDisk(MemoryReader(Fixed()), *fixed).NextData(fixed->virtual_size), std::nullopt);
}

TEST(Vhd, SharedVectorsHaveTheirFacts) {
  const std::string dir = testing::VectorsDir();
  if (dir.empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
  int checked = 0;
  for (const auto& entry : nlohmann::json::parse(AsText(ReadFile(dir + "/manifest.json")))) {
    const auto& expect = entry["expect"];
    if (entry["kind"] != "disk_image" || expect.value("format", "") != "vpc") continue;
    SCOPED_TRACE(entry["file"]);
    ++checked;
    const auto vhd = Parse(ReadFile(dir + "/" + entry["file"].get<std::string>()));
    ASSERT_TRUE(vhd.has_value()) << vhd.error().Describe();
    EXPECT_EQ(vhd->virtual_size, expect["virtual_size"].get<uint64_t>());
    EXPECT_EQ(vhd->block_size, expect.value("cluster_size", 0U));
  }
  EXPECT_GE(checked, 3);
}

}  // namespace
}  // namespace vallum::formats

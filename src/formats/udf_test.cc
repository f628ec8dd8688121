// SPDX-License-Identifier: Apache-2.0
#include "formats/udf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/detect.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using testing::MustRun;
using testing::PutLe32;
using testing::PutText;
using testing::ReadFile;
using testing::TempDir;

constexpr size_t kSector = 2048;
constexpr size_t kSectors = 600;
constexpr size_t kMain = 32;
constexpr size_t kPrimary = kMain * kSector;
constexpr size_t kPartition = (kMain + 1) * kSector;
constexpr size_t kLogical = (kMain + 2) * kSector;
constexpr size_t kTerminator = (kMain + 3) * kSector;
constexpr size_t kAnchor = 256 * kSector;

void PutLe16(Bytes& image, size_t at, uint32_t value) {
  image[at] = static_cast<std::byte>(value & 0xffU);
  image[at + 1] = static_cast<std::byte>(value >> 8U);
}

// Makes CRC and checksum of the tag right again.
void FixTag(Bytes& image, size_t at) {
  uint32_t crc = 0;
  for (size_t i = 0; i < U16Le(image, at + 10); ++i) {
    crc ^= std::to_integer<uint32_t>(image[at + 16 + i]) << 8U;
    for (int bit = 0; bit < 8; ++bit) {
      crc = ((crc << 1U) ^ ((crc & 0x8000U) != 0 ? 0x1021U : 0U)) & 0xffffU;
    }
  }
  PutLe16(image, at + 8, crc);
  uint32_t sum = 0;
  for (size_t i = 0; i < 16; ++i) {
    if (i != 4) sum += std::to_integer<uint32_t>(image[at + i]);
  }
  image[at + 4] = static_cast<std::byte>(sum & 0xffU);
}

void PutTag(Bytes& image, size_t at, uint16_t type) {
  PutLe16(image, at, type);
  PutLe16(image, at + 2, 2);
  PutLe16(image, at + 10, 496);
  PutLe32(image, at + 12, static_cast<uint32_t>(at / kSector));
  FixTag(image, at);
}

void PutAnchor(Bytes& image, size_t at) {
  PutLe32(image, at + 16, 16 * kSector);
  PutLe32(image, at + 20, kMain);
  PutLe32(image, at + 24, 16 * kSector);
  PutLe32(image, at + 28, kMain + 16);
  PutTag(image, at, 2);
}

void PutName(Bytes& image, size_t at, size_t size, const std::string& name) {
  PutText(image, at, "\x08" + name);
  image[at + size - 1] = static_cast<std::byte>(name.size() + 1);
}

Bytes MakeValidUdf() {
  Bytes image(kSectors * kSector);
  PutText(image, 16 * kSector + 1, "BEA01");
  PutText(image, 17 * kSector + 1, "NSR02");
  PutText(image, 18 * kSector + 1, "TEA01");
  PutAnchor(image, kAnchor);
  PutName(image, kPrimary + 24, 32, "volume");
  PutTag(image, kPrimary, 1);
  PutLe32(image, kPartition + 188, 300);
  PutLe32(image, kPartition + 192, 200);
  PutTag(image, kPartition, 5);
  PutName(image, kLogical + 84, 128, "logical");
  PutLe32(image, kLogical + 212, kSector);
  PutText(image, kLogical + 217, "*OSTA UDF Compliant");
  PutLe32(image, kLogical + 264, 6);
  PutLe32(image, kLogical + 268, 1);
  PutText(image, kLogical + 440, "\x01\x06");
  PutTag(image, kLogical, 6);
  PutTag(image, kTerminator, 8);
  return image;
}

Result<UdfVolume> Parse(ByteView image) { return ParseUdf(MemoryReader(image)); }

TEST(Udf, ValidVolumeIsRead) {
  const auto volume = Parse(MakeValidUdf());
  ASSERT_TRUE(volume.has_value()) << volume.error().Describe();
  EXPECT_EQ(volume->nsr, 2U);
  EXPECT_EQ(volume->block_size, kSector);
  EXPECT_EQ(volume->volume_id, "volume");
  EXPECT_EQ(volume->logical_volume_id, "logical");
  ASSERT_EQ(volume->partitions.size(), 1U);
  EXPECT_EQ(volume->partitions[0].offset, 300 * kSector);
  EXPECT_EQ(volume->partitions[0].size, 200 * kSector);
}

TEST(Udf, AnchorAtTheEndIsUsedWhenTheFirstIsDamaged) {
  for (const size_t at : {kSectors - 1, kSectors - 257}) {
    Bytes image = MakeValidUdf();
    PutAnchor(image, at * kSector);
    image[kAnchor + 20] ^= std::byte{1};
    const auto volume = Parse(image);
    ASSERT_TRUE(volume.has_value()) << volume.error().Describe();
    EXPECT_THAT(volume->facts, Contains(HasSubstr("the one at " + std::to_string(at))));
  }
}

TEST(Udf, PrevailingDescriptorIsTheOneOfTheHighestNumber) {
  Bytes image = MakeValidUdf();
  std::ranges::copy(ByteView(image).subspan(kPrimary, kSector),
                    image.begin() + static_cast<std::ptrdiff_t>(kTerminator));
  PutLe32(image, kTerminator + 16, 7);
  PutName(image, kTerminator + 24, 32, "newer");
  PutTag(image, kTerminator, 1);
  PutTag(image, kTerminator + kSector, 8);
  const auto volume = Parse(image);
  ASSERT_TRUE(volume.has_value()) << volume.error().Describe();
  EXPECT_EQ(volume->volume_id, "newer");
}

struct DamageCase {
  std::string name;
  std::function<void(Bytes&)> damage;
  std::string reason;
};
class HostileUdf : public ::testing::TestWithParam<DamageCase> {};

TEST_P(HostileUdf, IsRefusedWithItsReason) {
  Bytes image = MakeValidUdf();
  GetParam().damage(image);
  const auto volume = Parse(image);
  ASSERT_FALSE(volume.has_value());
  EXPECT_EQ(volume.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(volume.error().Describe(), HasSubstr(GetParam().reason));
  EXPECT_FALSE(volume.error().fix().empty());
}

// Sets a field and makes the tag right again.
auto Set(size_t descriptor, size_t field, uint32_t value) {
  return [=](Bytes& image) {
    PutLe32(image, descriptor + field, value);
    FixTag(image, descriptor);
  };
}

INSTANTIATE_TEST_SUITE_P(
    Rows, HostileUdf,
    ::testing::Values(
        DamageCase{"NoBeginning", [](Bytes& i) { i[16 * kSector + 1] = std::byte{0}; },
                   "no recognition sequence"},
        DamageCase{"NoNsr", [](Bytes& i) { PutText(i, 17 * kSector + 1, "NSR04"); },
                   "no recognition sequence"},
        DamageCase{"NoEnd", [](Bytes& i) { i[18 * kSector + 1] = std::byte{0}; },
                   "no recognition sequence"},
        DamageCase{"NoAnchor", [](Bytes& i) { i[kAnchor] = std::byte{0}; }, "no anchor"},
        DamageCase{"AnchorChecksum", [](Bytes& i) { i[kAnchor + 4] ^= std::byte{1}; },
                   "wrong tag checksum"},
        DamageCase{"AnchorCrc", [](Bytes& i) { i[kAnchor + 20] ^= std::byte{1}; }, "wrong CRC"},
        DamageCase{"AnchorCrcLength",
                   [](Bytes& i) {
                     PutLe16(i, kAnchor + 10, 0xfff0);
                     FixTag(i, kAnchor);
                   },
                   "wrong CRC"},
        DamageCase{"AnchorPlace", Set(kAnchor, 12, 257), "says that it is at sector 257"},
        DamageCase{"SequencePastTheEnd", Set(kAnchor, 20, 590), "main volume descriptor"},
        DamageCase{"SequenceWraps", Set(kAnchor, 20, 0xffffffff), "main volume descriptor"},
        DamageCase{"SequenceShort", Set(kAnchor, 16, 15 * kSector), "main volume descriptor"},
        DamageCase{"SequenceHuge", Set(kAnchor, 16, 0xfffff800), "main volume descriptor"},
        DamageCase{"SequenceOdd", Set(kAnchor, 16, 16 * kSector + 1), "main volume descriptor"},
        DamageCase{"ReservePastTheEnd", Set(kAnchor, 28, 590), "reserve volume descriptor"},
        DamageCase{"DescriptorChecksum", [](Bytes& i) { i[kPrimary + 4] ^= std::byte{1}; },
                   "sector 32 has a wrong tag checksum"},
        DamageCase{"DescriptorCrc", [](Bytes& i) { i[kLogical + 100] ^= std::byte{1}; },
                   "sector 34 has a wrong CRC"},
        DamageCase{"DescriptorVersion",
                   [](Bytes& i) {
                     PutLe16(i, kPrimary + 2, 4);
                     FixTag(i, kPrimary);
                   },
                   "version 4"},
        DamageCase{"DescriptorPlace", Set(kPrimary, 12, 33), "says that it is at sector 33"},
        DamageCase{"DescriptorType", [](Bytes& i) { PutTag(i, kTerminator, 3); }, "unknown type 3"},
        DamageCase{"NoPrimary", [](Bytes& i) { PutTag(i, kPrimary, 4); }, "lacks"},
        DamageCase{"NoPartition", [](Bytes& i) { PutTag(i, kPartition, 7); }, "lacks"},
        DamageCase{"NoLogicalVolume", [](Bytes& i) { PutTag(i, kLogical, 4); }, "lacks"},
        DamageCase{"NoTerminator",
                   [](Bytes& i) {
                     for (size_t k = 3; k < 16; ++k) PutTag(i, (kMain + k) * kSector, 7);
                   },
                   "no terminator"},
        DamageCase{"PartitionPastTheEnd", Set(kPartition, 192, 301), "partition 0"},
        DamageCase{"PartitionStartPastTheEnd", Set(kPartition, 188, 0xffffffff), "partition 0"},
        DamageCase{"PartitionEmpty", Set(kPartition, 192, 0), "partition 0"},
        DamageCase{"PartitionAtZero", Set(kPartition, 188, 0), "partition 0"},
        DamageCase{"PartitionsOverlap",
                   [](Bytes& i) {
                     PutLe32(i, kTerminator + 188, 400);
                     PutLe32(i, kTerminator + 192, 10);
                     PutLe16(i, kTerminator + 22, 1);
                     PutTag(i, kTerminator, 5);
                     PutTag(i, kTerminator + kSector, 8);
                   },
                   "partitions 0 and 1 overlap"},
        DamageCase{"BlockSize", Set(kLogical, 212, 512), "blocks of 512"},
        DamageCase{"Domain", Set(kLogical, 217, 0), "domain"},
        DamageCase{"IntegrityOutside", Set(kLogical, 432, 0xffffffff), "integrity"},
        DamageCase{"MapsHuge", Set(kLogical, 264, 0xffffffff), "partition maps"},
        DamageCase{"MapsNone", Set(kLogical, 268, 0), "partition maps"},
        DamageCase{"MapsMany", Set(kLogical, 268, 0xffffffff), "end early"},
        DamageCase{"MapType", Set(kLogical, 440, 0x0603), "partition map 0"},
        DamageCase{"MapLength", Set(kLogical, 440, 0x0001), "partition map 0"},
        DamageCase{"MapOfNoPartition", Set(kLogical, 444, 9), "names partition 9"}),
    [](const auto& row) { return row.param.name; });

TEST(Udf, EveryTruncationIsRefusedAndReadsAreBounded) {
  const Bytes image = MakeValidUdf();
  for (size_t size = 0; size < 500 * kSector; size += 2047) {
    const MemoryReader reader(ByteView(image).first(size));
    const testing::CountingReader counted(reader);
    const auto volume = ParseUdf(counted);
    ASSERT_FALSE(volume.has_value()) << size;
    EXPECT_FALSE(volume.error().fix().empty()) << size;
    EXPECT_LE(counted.bytes(), 65536U);
  }
}

TEST(Udf, FlippedBitsNeverCrash) {
  std::mt19937_64 random(6);
  Bytes image = MakeValidUdf();
  for (int i = 0; i < 3000; ++i) {
    constexpr size_t kPlaces[] = {kAnchor, kPrimary, kPartition, kLogical};
    const size_t place = kPlaces[random() % 4];
    const Bytes before = ToBytes(ByteView(image).subspan(place, kSector));
    for (int k = 0; k < 3; ++k) {
      image[place + random() % 460] ^= std::byte{1} << (random() % 8);
    }
    if (U16Le(image, place + 10) <= kSector - 16) FixTag(image, place);
    static_cast<void>(Parse(image));
    std::ranges::copy(before, image.begin() + static_cast<std::ptrdiff_t>(place));
  }
}

class MadeByMkudffs : public ::testing::TestWithParam<std::string> {};
TEST_P(MadeByMkudffs, IsReadAndDetected) {
  if (!testing::HasTool("mkudffs")) GTEST_SKIP() << "no mkudffs";
  const TempDir dir;
  const std::string file = dir.File("image");
  MustRun("truncate -s 20M " + file + " && /usr/sbin/mkudffs --utf8 --label='Ein Bänd' " +
          GetParam() + " " + file);
  const Bytes image = ReadFile(file);
  const auto volume = Parse(image);
  ASSERT_TRUE(volume.has_value()) << volume.error().Describe();
  EXPECT_EQ(volume->logical_volume_id, "Ein Bänd");
  EXPECT_THAT(GetParam(), HasSubstr(std::to_string(volume->block_size)));
  const auto found = DetectFormats(MemoryReader(image));
  EXPECT_TRUE(
      std::ranges::any_of(*found, [](const Detection& d) { return d.format == Format::kUdf; }));
}
INSTANTIATE_TEST_SUITE_P(Kinds, MadeByMkudffs,
                         ::testing::Values("--blocksize=512", "--blocksize=1024",
                                           "--blocksize=2048", "--blocksize=4096",
                                           "--blocksize=2048 --media-type=dvd",
                                           "--blocksize=2048 --media-type=cdrw",
                                           "--blocksize=2048 --udfrev=1.02",
                                           "--media-type=bdr --blocksize=2048 --udfrev=2.60"));

}  // namespace
}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
#include "formats/iso9660.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/detect.h"
#include "formats/mbr.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using testing::MustRun;
using testing::PutBe32;
using testing::PutLe32;
using testing::PutText;
using testing::ReadFile;
using testing::TempDir;
using testing::VectorsDir;

constexpr size_t kSectors = 64;
constexpr size_t kPrimary = 16 * 2048;
constexpr size_t kBoot = 17 * 2048;
constexpr size_t kJoliet = 18 * 2048;
constexpr size_t kCatalogue = 24 * 2048;

void PutBoth32(Bytes& image, size_t at, uint32_t value) {
  PutLe32(image, at, value);
  PutBe32(image, at + 4, value);
}
void PutBoth16(Bytes& image, size_t at, uint8_t low, uint8_t high = 0) {
  image[at] = image[at + 3] = std::byte{low};
  image[at + 1] = image[at + 2] = std::byte{high};
}

void PutDescriptor(Bytes& image, size_t at, uint8_t type, uint32_t root) {
  image[at] = std::byte{type};
  PutText(image, at + 1, "CD001\x01");
  PutText(image, at + 40, "A VOLUME                        ");
  PutBoth32(image, at + 80, kSectors);
  PutBoth16(image, at + 120, 1);
  PutBoth16(image, at + 124, 1);
  PutBoth16(image, at + 128, 0, 8);  // 2048
  PutBoth32(image, at + 132, 10);
  PutLe32(image, at + 140, 20);
  PutBe32(image, at + 148, 21);
  image[at + 156] = std::byte{34};
  PutBoth32(image, at + 158, root);
  PutBoth32(image, at + 166, 2048);
  image[at + 156 + 25] = std::byte{2};
  image[at + 881] = std::byte{1};
}

// Makes the sum of the validation entry zero again.
void FixCatalogue(Bytes& image) {
  uint32_t sum = 0;
  for (size_t i = 0; i < 32; i += 2) {
    if (i == 28) continue;
    sum += std::to_integer<uint32_t>(image[kCatalogue + i]) +
           (std::to_integer<uint32_t>(image[kCatalogue + i + 1]) << 8U);
  }
  const uint32_t wanted = (0x10000 - (sum & 0xffffU)) & 0xffffU;
  image[kCatalogue + 28] = static_cast<std::byte>(wanted & 0xffU);
  image[kCatalogue + 29] = static_cast<std::byte>(wanted >> 8U);
}

// A volume with Joliet names that starts under BIOS and UEFI.
Bytes MakeValidIso() {
  Bytes image(kSectors * 2048);
  PutDescriptor(image, kPrimary, 1, 22);
  PutText(image, kBoot, std::string("\0CD001\x01", 7) + "EL TORITO SPECIFICATION");
  PutLe32(image, kBoot + 0x47, 24);
  PutDescriptor(image, kJoliet, 2, 23);
  PutText(image, kJoliet + 88, "%/E");
  PutText(image, 19 * 2048,
          "\xff"
          "CD001\x01");
  image[kCatalogue] = std::byte{1};
  PutText(image, kCatalogue + 30, "\x55\xaa");
  FixCatalogue(image);
  image[kCatalogue + 32] = std::byte{0x88};
  image[kCatalogue + 38] = std::byte{4};
  PutLe32(image, kCatalogue + 40, 25);
  PutText(image, kCatalogue + 64, std::string("\x91\xef\x01", 3));
  image[kCatalogue + 96] = std::byte{0x88};
  PutLe32(image, kCatalogue + 104, 30);
  return image;
}

Result<IsoVolume> Parse(ByteView image) { return ParseIso9660(MemoryReader(image)); }

TEST(Iso9660, ValidVolumeIsRead) {
  const auto volume = Parse(MakeValidIso());
  ASSERT_TRUE(volume.has_value()) << volume.error().Describe();
  EXPECT_EQ(volume->volume_id, "A VOLUME");
  EXPECT_EQ(volume->block_size, 2048U);
  EXPECT_EQ(volume->size, kSectors * 2048);
  EXPECT_TRUE(volume->joliet);
  EXPECT_FALSE(volume->system_area_used);
  ASSERT_EQ(volume->boot.size(), 2U);
  EXPECT_EQ(volume->boot[0].size, 2048U);
  EXPECT_EQ(volume->boot[1].offset, 30U * 2048);
  EXPECT_EQ(volume->boot[1].size, 34U * 2048) << "to the end";
  EXPECT_TRUE(volume->bootable_bios);
  EXPECT_TRUE(volume->bootable_uefi);
}

TEST(Iso9660, EntryThatIsNotBootableStartsNothing) {
  Bytes image = MakeValidIso();
  image[kCatalogue + 96] = std::byte{0};
  const auto volume = Parse(image);
  ASSERT_TRUE(volume.has_value());
  EXPECT_TRUE(volume->bootable_bios);
  EXPECT_FALSE(volume->bootable_uefi);
  EXPECT_THAT(volume->facts, Contains(HasSubstr("BIOS only")));
}

TEST(Iso9660, EntryWithAnExtensionIsRead) {
  Bytes image = MakeValidIso();
  image[kCatalogue + 97] = std::byte{0x20};
  image[kCatalogue + 128] = std::byte{0x44};
  EXPECT_TRUE(Parse(image).has_value());
}

struct DamageCase {
  std::string name;
  std::function<void(Bytes&)> damage;
  std::string reason;
};
class HostileIso : public ::testing::TestWithParam<DamageCase> {};

TEST_P(HostileIso, IsRefusedWithItsReason) {
  Bytes image = MakeValidIso();
  GetParam().damage(image);
  const auto volume = Parse(image);
  ASSERT_FALSE(volume.has_value());
  EXPECT_EQ(volume.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(volume.error().Describe(), HasSubstr(GetParam().reason));
  EXPECT_FALSE(volume.error().fix().empty());
}

INSTANTIATE_TEST_SUITE_P(
    Rows, HostileIso,
    ::testing::Values(
        DamageCase{"Id", [](Bytes& i) { i[kPrimary + 1] = std::byte{0}; }, "no volume descriptor"},
        DamageCase{"NoPrimary", [](Bytes& i) { i[kPrimary] = std::byte{3}; }, "no primary"},
        DamageCase{"UnknownType", [](Bytes& i) { i[kJoliet] = std::byte{9}; }, "type 9"},
        DamageCase{"Version", [](Bytes& i) { i[kPrimary + 6] = std::byte{2}; }, "version 2"},
        DamageCase{"Structure", [](Bytes& i) { i[kPrimary + 881] = std::byte{9}; }, "structure 9"},
        DamageCase{"NoTerminator", [](Bytes& i) { i[19 * 2048 + 1] = std::byte{0}; },
                   "nor a terminator, at sector 19"},
        DamageCase{"SecondPrimaryDiffers",
                   [](Bytes& i) {
                     PutDescriptor(i, kJoliet, 1, 22);
                     PutBoth32(i, kJoliet + 80, 63);
                   },
                   "differs"},
        DamageCase{"SizesDisagree", [](Bytes& i) { PutLe32(i, kPrimary + 80, 63); }, "disagree"},
        DamageCase{"SetSizesDisagree", [](Bytes& i) { i[kPrimary + 120] = std::byte{2}; },
                   "disagree"},
        DamageCase{"SequencesDisagree", [](Bytes& i) { i[kPrimary + 124] = std::byte{2}; },
                   "disagree"},
        DamageCase{"BlockSizesDisagree", [](Bytes& i) { i[kPrimary + 129] = std::byte{4}; },
                   "disagree"},
        DamageCase{"PathTableSizesDisagree", [](Bytes& i) { PutLe32(i, kPrimary + 132, 11); },
                   "disagree"},
        DamageCase{"RootPlacesDisagree", [](Bytes& i) { PutLe32(i, kPrimary + 158, 23); },
                   "disagree"},
        DamageCase{"RootSizesDisagree", [](Bytes& i) { PutLe32(i, kPrimary + 166, 4096); },
                   "disagree"},
        DamageCase{"BlockSize", [](Bytes& i) { PutBoth16(i, kPrimary + 128, 0, 16); }, "blocks of"},
        DamageCase{"VolumePastTheEnd", [](Bytes& i) { PutBoth32(i, kPrimary + 80, 65); },
                   "truncated"},
        DamageCase{"VolumeHuge", [](Bytes& i) { PutBoth32(i, kPrimary + 80, 0xffffffff); },
                   "truncated"},
        DamageCase{"VolumeEmpty", [](Bytes& i) { PutBoth32(i, kPrimary + 80, 0); }, "truncated"},
        DamageCase{"JolietPastTheEnd", [](Bytes& i) { PutBoth32(i, kJoliet + 80, 65); },
                   "truncated"},
        DamageCase{"PathTableOutside", [](Bytes& i) { PutLe32(i, kPrimary + 140, 64); },
                   "path table"},
        DamageCase{"PathTableBigEndianOutside", [](Bytes& i) { PutBe32(i, kPrimary + 148, 64); },
                   "path table"},
        DamageCase{"OptionalPathTableOutside", [](Bytes& i) { PutLe32(i, kPrimary + 144, 99); },
                   "path table"},
        DamageCase{"PathTableHuge", [](Bytes& i) { PutBoth32(i, kPrimary + 132, 0xffffffff); },
                   "path table"},
        DamageCase{"RootRecordShort", [](Bytes& i) { i[kPrimary + 156] = std::byte{33}; },
                   "33 bytes"},
        DamageCase{"RootIsAFile", [](Bytes& i) { i[kPrimary + 181] = std::byte{0}; },
                   "no directory"},
        DamageCase{"RootOutside", [](Bytes& i) { PutBoth32(i, kPrimary + 158, 64); },
                   "root directory"},
        DamageCase{"RootInTheSystemArea", [](Bytes& i) { PutBoth32(i, kPrimary + 158, 0); },
                   "root directory"},
        DamageCase{"RootHuge", [](Bytes& i) { PutBoth32(i, kPrimary + 166, 0xffffffff); },
                   "root directory"},
        DamageCase{"CatalogueOutside", [](Bytes& i) { PutLe32(i, kBoot + 0x47, 64); },
                   "boot catalogue at sector 64"},
        DamageCase{"CatalogueWraps", [](Bytes& i) { PutLe32(i, kBoot + 0x47, 0xffffffff); },
                   "boot catalogue"},
        DamageCase{"CatalogueChecksum", [](Bytes& i) { i[kCatalogue + 5] = std::byte{1}; },
                   "wrong checksum"},
        DamageCase{"CatalogueSignature",
                   [](Bytes& i) {
                     i[kCatalogue + 30] = std::byte{0x54};
                     FixCatalogue(i);
                   },
                   "wrong checksum or signature"},
        DamageCase{"SecondBootRecord",
                   [](Bytes& i) {
                     PutText(i, kJoliet, std::string("\0CD001\x01", 7) + "EL TORITO SPECIFICATION");
                   },
                   "second El Torito"},
        DamageCase{"EntryIndicator", [](Bytes& i) { i[kCatalogue + 32] = std::byte{0x80}; },
                   "indicator 0x80"},
        DamageCase{"EntryMedia", [](Bytes& i) { i[kCatalogue + 33] = std::byte{5}; },
                   "media type 5"},
        DamageCase{"EntryInDescriptors", [](Bytes& i) { PutLe32(i, kCatalogue + 40, 16); },
                   "block 16"},
        DamageCase{"EntryPastTheEnd", [](Bytes& i) { PutLe32(i, kCatalogue + 40, 64); },
                   "block 64"},
        DamageCase{"EntryEndsPastTheEnd", [](Bytes& i) { i[kCatalogue + 39] = std::byte{0xff}; },
                   "not inside the file"},
        DamageCase{"EntryFloppyPastTheEnd", [](Bytes& i) { i[kCatalogue + 33] = std::byte{3}; },
                   "not inside the file"},
        DamageCase{"EntryWithoutSectors", [](Bytes& i) { i[kCatalogue + 38] = std::byte{0}; },
                   "0 bytes"},
        DamageCase{"SectionTooLong", [](Bytes& i) { i[kCatalogue + 67] = std::byte{0xff}; },
                   "more than 63 entries"},
        DamageCase{"SectionEndless",
                   [](Bytes& i) {
                     for (size_t at = 64; at < 2048; at += 32) {
                       PutText(i, kCatalogue + at, std::string("\x90\0\0\0", 4));
                     }
                   },
                   "no last section"},
        DamageCase{"ExtensionMissing", [](Bytes& i) { i[kCatalogue + 97] = std::byte{0x20}; },
                   "no extension record"},
        DamageCase{"ExtensionsEndless",
                   [](Bytes& i) {
                     i[kCatalogue + 97] = std::byte{0x20};
                     for (size_t at = 128; at < 2048; at += 32) {
                       PutText(i, kCatalogue + at, "\x44\x20");
                     }
                   },
                   "more than 63 entries"}),
    [](const auto& row) { return row.param.name; });

TEST(Iso9660, EndlessDescriptorsAreRefusedAfterBoundedReads) {
  Bytes image = MakeValidIso();
  image.resize(200 * 2048);
  for (size_t sector = 17; sector < 200; ++sector)
    PutText(image, sector * 2048,
            "\x03"
            "CD001");
  const MemoryReader reader(image);
  const testing::CountingReader counted(reader);
  const auto volume = ParseIso9660(counted);
  ASSERT_FALSE(volume.has_value());
  EXPECT_THAT(volume.error().Describe(), HasSubstr("more than 64"));
  EXPECT_LE(counted.bytes(), kIsoMaxDescriptors * 2048);
}

TEST(Iso9660, EveryTruncationIsRefused) {
  const Bytes image = MakeValidIso();
  for (size_t size = 0; size < image.size(); size += 511) {
    const auto volume = Parse(ByteView(image).first(size));
    ASSERT_FALSE(volume.has_value()) << size;
    EXPECT_FALSE(volume.error().fix().empty()) << size;
  }
}

TEST(Iso9660, FlippedBitsNeverCrash) {
  std::mt19937_64 random(5);
  for (int i = 0; i < 3000; ++i) {
    Bytes image = MakeValidIso();
    constexpr size_t kPlaces[] = {kPrimary, kBoot, kJoliet, kCatalogue};
    for (int k = 0; k < 3; ++k) {
      image[kPlaces[random() % 4] + random() % 200] ^= std::byte{1} << (random() % 8);
    }
    FixCatalogue(image);
    static_cast<void>(Parse(image));
  }
}

TEST(Iso9660, AgreesWithXorriso) {
  if (!testing::HasTool("xorriso")) GTEST_SKIP() << "no xorriso";
  const TempDir dir;
  const std::string in = dir.File("");
  MustRun("cd " + in +
          " && mkdir d && head -c 4096 /dev/zero >d/bios && head -c 1474560 /dev/zero" +
          " >d/efi && xorriso -as mkisofs -quiet -J -V 'TEST VOLUME' -b bios -c cat -no-emul-boot" +
          " -boot-load-size 4 -eltorito-alt-boot -e efi -no-emul-boot -o both.iso d 2>/dev/null" +
          " && xorriso -as mkisofs -quiet -V PLAIN -o plain.iso d 2>/dev/null");
  const Bytes image = ReadFile(dir.File("both.iso"));
  const auto volume = Parse(image);
  ASSERT_TRUE(volume.has_value()) << volume.error().Describe();
  EXPECT_EQ(volume->volume_id, "TEST VOLUME");
  EXPECT_TRUE(volume->joliet);
  EXPECT_TRUE(volume->bootable_bios);
  EXPECT_TRUE(volume->bootable_uefi);
  EXPECT_EQ(DetectFormats(MemoryReader(image))->front().format, Format::kIso9660);
  const std::string report =
      MustRun("xorriso -indev " + dir.File("both.iso") + " -report_el_torito plain 2>/dev/null");
  for (const IsoBootEntry& entry : volume->boot) {
    EXPECT_THAT(report, ::testing::ContainsRegex(" " + std::to_string(entry.offset / 2048) + "\n"));
  }
  const auto plain = Parse(ReadFile(dir.File("plain.iso")));
  ASSERT_TRUE(plain.has_value()) << plain.error().Describe();
  EXPECT_FALSE(plain->bootable_bios || plain->bootable_uefi);
  EXPECT_THAT(plain->facts, Contains(HasSubstr("starts under nothing")));
}

TEST(Iso9660, HybridOfXorrisoSaysThatItsSystemAreaIsUsed) {
  if (!testing::HasTool("xorriso")) GTEST_SKIP() << "no xorriso";
  const TempDir dir;
  MustRun("cd " + dir.File("") + " && mkdir d && head -c 4096 /dev/zero >d/bios" +
          " && head -c 432 /dev/urandom >mbr && xorriso -as mkisofs -quiet -b bios -no-emul-boot" +
          " -boot-load-size 4 -isohybrid-mbr mbr -o hybrid.iso d 2>/dev/null");
  const Bytes image = ReadFile(dir.File("hybrid.iso"));
  const auto volume = Parse(image);
  ASSERT_TRUE(volume.has_value()) << volume.error().Describe();
  EXPECT_TRUE(volume->system_area_used);
  EXPECT_NE(ClassifyMbr(image), MbrKind::kNone);
}

TEST(Iso9660Vectors, IsReadAndDetected) {
  const std::string dir = VectorsDir();
  if (dir.empty()) GTEST_SKIP() << "no test vectors: set VALLUM_VECTORS";
  const Bytes image = ReadFile(dir + "/images/iso9660.iso");
  const auto volume = Parse(image);
  ASSERT_TRUE(volume.has_value()) << volume.error().Describe();
  EXPECT_EQ(volume->volume_id, "CDROM");
  EXPECT_EQ(volume->size, 179U * 2048);
  const auto found = DetectFormats(MemoryReader(image));
  ASSERT_EQ(found->size(), 1U);
  EXPECT_EQ(found->front().format, Format::kIso9660);
}

}  // namespace
}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
#include "formats/luks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/detect.h"
#include "formats/luks_test_support.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::HasSubstr;
using testing::kLuks2Areas;
using testing::kLuks2Copy;
using testing::kLuks2ImageSize;
using testing::kLuks2Segment;
using testing::PutBe32;
using testing::PutBe64;
using testing::PutText;
using testing::SparseReader;
using testing::ValidLuks2Metadata;

constexpr const char* kUuid = "01234567-89ab-cdef-0123-456789abcdef";

// ---- LUKS1

constexpr size_t kSlot0 = 208;

// Two active slots of eight; the payload at sector 4096, 1000 sectors long.
Bytes MakeValidLuks1() {
  Bytes image((4096 + 1000) * 512);
  PutText(image, 0, std::string(kLuksMagic));
  image[7] = std::byte{1};
  PutText(image, 8, "aes");
  PutText(image, 40, "xts-plain64");
  PutText(image, 72, "sha256");
  PutBe32(image, 104, 4096);
  PutBe32(image, 108, 64);
  PutBe32(image, 164, 1000);
  PutText(image, 168, kUuid);
  for (size_t i = 0; i < 8; ++i) {
    const size_t at = kSlot0 + i * 48;
    PutBe32(image, at, i < 2 ? 0x00ac71f3 : 0x0000dead);
    PutBe32(image, at + 4, i < 2 ? 2000 : 0);
    PutBe32(image, at + 40, static_cast<uint32_t>(8 + i * 504));
    PutBe32(image, at + 44, 4000);
  }
  return image;
}

Result<LuksHeader> Parse(ByteView image) { return ParseLuks(MemoryReader(image)); }

TEST(Luks1, ValidHeaderIsRead) {
  const auto header = Parse(MakeValidLuks1());
  ASSERT_TRUE(header.has_value()) << header.error().Describe();
  EXPECT_EQ(header->version, 1U);
  EXPECT_EQ(header->used, LuksHeaderCopy::kPrimary);
  EXPECT_EQ(header->cipher, "aes-xts-plain64");
  EXPECT_EQ(header->hash, "sha256");
  EXPECT_EQ(header->key_bits, 512U);
  EXPECT_EQ(header->uuid, kUuid);
  EXPECT_EQ(header->sector_size, 512U);
  EXPECT_EQ(header->payload_offset, 4096U * 512);
  EXPECT_EQ(header->payload_size, 1000U * 512);
  ASSERT_EQ(header->key_slots.size(), 2U);
  EXPECT_EQ(header->key_slots[1].number, 1U);
  EXPECT_EQ(header->key_slots[1].cost.iterations, 2000U);
  EXPECT_EQ(header->key_slots[1].area_offset, 512U * 512);
  EXPECT_EQ(header->key_slots[1].area_size, 256000U);
  EXPECT_TRUE(RequireLuks1(*header).has_value());
}

struct DamageCase {
  std::string name;
  std::function<void(Bytes&)> damage;
  std::string reason;
};
class HostileLuks1 : public ::testing::TestWithParam<DamageCase> {};

TEST_P(HostileLuks1, IsRefusedWithItsReason) {
  Bytes image = MakeValidLuks1();
  GetParam().damage(image);
  const auto header = Parse(image);
  ASSERT_FALSE(header.has_value());
  EXPECT_EQ(header.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(header.error().Describe(), HasSubstr(GetParam().reason));
  EXPECT_FALSE(header.error().fix().empty());
}

INSTANTIATE_TEST_SUITE_P(
    Rows, HostileLuks1,
    ::testing::Values(
        DamageCase{"Magic", [](Bytes& i) { i[4] = std::byte{0}; }, "no magic"},
        DamageCase{"Version0", [](Bytes& i) { i[7] = std::byte{0}; }, "unknown version 0"},
        DamageCase{"Version3", [](Bytes& i) { i[7] = std::byte{3}; }, "unknown version 3"},
        DamageCase{"Version257", [](Bytes& i) { i[6] = std::byte{1}; }, "unknown version 257"},
        DamageCase{"CipherNull", [](Bytes& i) { PutText(i, 8, "cipher_null"); },
                   "no encryption at all"},
        DamageCase{"CipherNullEcb",
                   [](Bytes& i) {
                     PutText(i, 8, "cipher_null");
                     PutText(i, 40, std::string("ecb\0\0\0\0\0\0\0\0", 11));
                   },
                   "no encryption at all"},
        DamageCase{"CipherUnknown", [](Bytes& i) { PutText(i, 8, "rot"); }, "unknown cipher"},
        DamageCase{"CipherUnended", [](Bytes& i) { PutText(i, 8, std::string(32, 'a')); },
                   "does not end"},
        DamageCase{"ModeEcb", [](Bytes& i) { PutText(i, 40, std::string("ecb\0", 4)); },
                   "unknown cipher"},
        DamageCase{"ModeUnended", [](Bytes& i) { PutText(i, 40, std::string(32, 'a')); },
                   "does not end"},
        DamageCase{"HashUnknown", [](Bytes& i) { PutText(i, 72, "md5\0\0"); }, "unknown hash"},
        DamageCase{"HashUnended", [](Bytes& i) { PutText(i, 72, std::string(32, 'a')); },
                   "does not end"},
        DamageCase{"KeyBytes0", [](Bytes& i) { PutBe32(i, 108, 0); }, "key of 0 bytes"},
        DamageCase{"KeyBytesHuge", [](Bytes& i) { PutBe32(i, 108, 0xffffffff); },
                   "key of 4294967295 bytes"},
        DamageCase{"DigestIterations0", [](Bytes& i) { PutBe32(i, 164, 0); }, "KDF budget"},
        DamageCase{"DigestIterationsHuge", [](Bytes& i) { PutBe32(i, 164, 0xffffffff); },
                   "KDF budget"},
        DamageCase{"Uuid", [](Bytes& i) { i[168] = std::byte{'\n'}; }, "UUID"},
        DamageCase{"UuidShort", [](Bytes& i) { i[180] = std::byte{0}; }, "UUID"},
        DamageCase{"PayloadZero", [](Bytes& i) { PutBe32(i, 104, 0); }, "detached"},
        DamageCase{"PayloadAtTheEnd", [](Bytes& i) { PutBe32(i, 104, 5096); }, "past the end"},
        DamageCase{"PayloadPastTheEnd", [](Bytes& i) { PutBe32(i, 104, 0xffffffff); },
                   "past the end"},
        DamageCase{"PayloadInKeyMaterial", [](Bytes& i) { PutBe32(i, 104, 4000); },
                   "overlaps the payload"},
        DamageCase{"PayloadNotWholeSectors", [](Bytes& i) { i.resize(i.size() - 1); }, "truncated"},
        DamageCase{"SlotState", [](Bytes& i) { PutBe32(i, kSlot0, 1); }, "neither active"},
        DamageCase{"SlotIterations0", [](Bytes& i) { PutBe32(i, kSlot0 + 4, 0); }, "KDF budget"},
        DamageCase{"SlotIterationsHuge", [](Bytes& i) { PutBe32(i, kSlot0 + 4, 0xffffffff); },
                   "KDF budget"},
        DamageCase{"SlotIterationsOverBudget",
                   [](Bytes& i) { PutBe32(i, kSlot0 + 4, kLuksMaxPbkdf2Iterations + 1); },
                   "KDF budget"},
        DamageCase{"Stripes", [](Bytes& i) { PutBe32(i, kSlot0 + 44, 4001); }, "4001 stripes"},
        DamageCase{"StripesOfAnInactiveSlot", [](Bytes& i) { PutBe32(i, kSlot0 + 7 * 48 + 44, 1); },
                   "1 stripes"},
        DamageCase{"SlotInHeader", [](Bytes& i) { PutBe32(i, kSlot0 + 40, 1); },
                   "overlaps the header"},
        DamageCase{"SlotPastTheEnd", [](Bytes& i) { PutBe32(i, kSlot0 + 40, 0xffffffff); },
                   "past the end"},
        DamageCase{"SlotInPayload", [](Bytes& i) { PutBe32(i, kSlot0 + 40, 4500); },
                   "overlaps the payload"},
        DamageCase{"SlotsOverlap", [](Bytes& i) { PutBe32(i, kSlot0 + 48 + 40, 100); },
                   "overlaps that of slot 0"},
        DamageCase{"InactiveSlotsOverlap",
                   [](Bytes& i) { PutBe32(i, kSlot0 + 7 * 48 + 40, 8 + 6 * 504); },
                   "overlaps that of slot 6"},
        DamageCase{"NoActiveSlot",
                   [](Bytes& i) {
                     PutBe32(i, kSlot0, 0xdead);
                     PutBe32(i, kSlot0 + 48, 0xdead);
                   },
                   "no key slot"},
        DamageCase{"Luks2HeaderInside",
                   [](Bytes& i) {
                     PutText(i, 0x8000, std::string(kLuks2SecondaryMagic));
                     PutBe64(i, 0x8000 + 256, 0x8000);
                   },
                   "ambiguous"},
        DamageCase{"CutToTheMagic", [](Bytes& i) { i.resize(6); }, "truncated"},
        DamageCase{"CutInTheHeader", [](Bytes& i) { i.resize(591); }, "truncated"},
        DamageCase{"CutBeforeThePayload", [](Bytes& i) { i.resize(4096 * 512); }, "past the end"}),
    [](const auto& row) { return row.param.name; });

// ---- LUKS2

void FixChecksum(Bytes& image, uint64_t at, uint64_t size) {
  const auto begin = image.begin() + static_cast<std::ptrdiff_t>(at);
  std::fill_n(begin + 448, 64, std::byte{0});
  const Sha256Digest digest =
      Sha256(ByteView(image).subspan(static_cast<size_t>(at), static_cast<size_t>(size)));
  std::ranges::copy(digest, begin + 448);
}

void WriteCopy(Bytes& image, uint64_t offset, uint64_t size, const std::string& text) {
  const auto at = static_cast<size_t>(offset);
  PutText(image, at, std::string(at == 0 ? kLuksMagic : kLuks2SecondaryMagic));
  image[at + 7] = std::byte{2};
  PutBe64(image, at + 8, size);
  PutBe64(image, at + 16, 3);
  PutText(image, at + 24, "a label");
  PutText(image, at + 72, "sha256");
  PutText(image, at + 168, kUuid);
  PutText(image, at + 208, "a subsystem");
  PutBe64(image, at + 256, offset);
  PutText(image, at + 4096, text);
  FixChecksum(image, offset, size);
}

Bytes MakeLuks2(const std::string& text) {
  Bytes image(kLuks2ImageSize);
  WriteCopy(image, 0, kLuks2Copy, text);
  WriteCopy(image, kLuks2Copy, kLuks2Copy, text);
  return image;
}
Bytes MakeValidLuks2() { return MakeLuks2(ValidLuks2Metadata().dump()); }

TEST(Luks2, ValidHeaderIsRead) {
  const auto header = Parse(MakeValidLuks2());
  ASSERT_TRUE(header.has_value()) << header.error().Describe();
  EXPECT_EQ(header->version, 2U);
  EXPECT_EQ(header->used, LuksHeaderCopy::kPrimary);
  EXPECT_EQ(header->uuid, kUuid);
  EXPECT_EQ(header->label, "a label");
  EXPECT_EQ(header->subsystem, "a subsystem");
  EXPECT_EQ(header->cipher, "aes-xts-plain64");
  EXPECT_EQ(header->key_bits, 256U);
  EXPECT_EQ(header->payload_offset, kLuks2Segment);
  EXPECT_EQ(header->payload_size, 0x10000U);
  ASSERT_EQ(header->key_slots.size(), 2U);
  EXPECT_EQ(header->key_slots[1].cost.kdf, LuksKdf::kArgon2id);
  EXPECT_EQ(header->key_slots[1].cost.memory_kib, 1048576U);
  EXPECT_THAT(header->facts, Contains("token 0 of type luks2-keyring"));
}

TEST(Luks2, PathThatCanOnlyUseLuks1RefusesItAndSaysHowToConvert) {
  const auto header = Parse(MakeValidLuks2());
  ASSERT_TRUE(header.has_value());
  const auto required = RequireLuks1(*header);
  ASSERT_FALSE(required.has_value());
  EXPECT_EQ(required.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(required.error().message(), HasSubstr("only version 1 can be used"));
  EXPECT_THAT(required.error().fix(), HasSubstr("cryptsetup convert --type luks1"));
}

class BinaryHeaderSizes : public ::testing::TestWithParam<uint64_t> {};
TEST_P(BinaryHeaderSizes, AreAllReadAndTheirSecondaryFound) {
  const uint64_t size = GetParam();
  json metadata = ValidLuks2Metadata();
  metadata["config"]["json_size"] = std::to_string(size - 4096);
  metadata["keyslots"]["0"]["area"]["offset"] = std::to_string(2 * size);
  metadata["keyslots"]["1"]["area"]["offset"] = std::to_string(2 * size + 131072);
  metadata["segments"]["0"]["offset"] = std::to_string(2 * size + kLuks2Areas);
  Bytes image(2 * size + kLuks2Areas + 4096);
  WriteCopy(image, 0, size, metadata.dump());
  WriteCopy(image, size, size, metadata.dump());
  const auto header = Parse(image);
  ASSERT_TRUE(header.has_value()) << header.error().Describe();
  image[0] = std::byte{0};
  const auto damaged = Parse(image);
  ASSERT_TRUE(damaged.has_value()) << damaged.error().Describe();
  EXPECT_EQ(damaged->used, LuksHeaderCopy::kSecondary);
  const auto found = DetectFormats(MemoryReader(image));
  ASSERT_EQ(found->size(), 1U);
  EXPECT_EQ(found->front().format, Format::kLuks);
  EXPECT_EQ(found->front().offset, size);
}
INSTANTIATE_TEST_SUITE_P(All, BinaryHeaderSizes,
                         ::testing::Values(0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000,
                                           0x100000, 0x200000, 0x400000));

class DamagedPrimary : public ::testing::TestWithParam<DamageCase> {};
TEST_P(DamagedPrimary, LeavesTheSecondaryAndSaysSo) {
  Bytes image = MakeValidLuks2();
  GetParam().damage(image);
  const auto header = Parse(image);
  ASSERT_TRUE(header.has_value()) << header.error().Describe();
  EXPECT_EQ(header->used, LuksHeaderCopy::kSecondary);
  EXPECT_THAT(header->facts, Contains(AllOf(HasSubstr("primary header is damaged"),
                                            HasSubstr(GetParam().reason))));
  image[kLuks2Copy + 5000] ^= std::byte{1};
  const auto both = Parse(image);
  ASSERT_FALSE(both.has_value());
  EXPECT_THAT(both.error().Describe(), HasSubstr("both headers are damaged"));
  EXPECT_FALSE(both.error().fix().empty());
}
INSTANTIATE_TEST_SUITE_P(
    Rows, DamagedPrimary,
    ::testing::Values(
        DamageCase{"Magic", [](Bytes& i) { i[5] = std::byte{0}; }, "no magic"},
        DamageCase{"Checksum", [](Bytes& i) { i[448] ^= std::byte{1}; }, "wrong checksum"},
        DamageCase{"Json", [](Bytes& i) { i[4200] ^= std::byte{1}; }, "wrong checksum"},
        DamageCase{"Padding", [](Bytes& i) { i[600] ^= std::byte{1}; }, "wrong checksum"},
        DamageCase{"Size", [](Bytes& i) { PutBe64(i, 8, 0x5000); }, "size"},
        DamageCase{"SizeHuge", [](Bytes& i) { PutBe64(i, 8, 0x400000); }, "truncated"},
        DamageCase{"Offset",
                   [](Bytes& i) {
                     PutBe64(i, 256, 0x4000);
                     FixChecksum(i, 0, kLuks2Copy);
                   },
                   "says that it is at"},
        DamageCase{"Algorithm",
                   [](Bytes& i) {
                     PutText(i, 72, "crc32\n");
                     FixChecksum(i, 0, kLuks2Copy);
                   },
                   "unknown checksum \"crc32\\x0a\""},
        DamageCase{"Label",
                   [](Bytes& i) {
                     PutText(i, 24, std::string(48, 'x'));
                     FixChecksum(i, 0, kLuks2Copy);
                   },
                   "does not end"}),
    [](const auto& row) { return row.param.name; });

TEST(Luks2, DamagedSecondaryIsAFact) {
  Bytes image = MakeValidLuks2();
  image[kLuks2Copy + 5000] ^= std::byte{1};
  const auto header = Parse(image);
  ASSERT_TRUE(header.has_value());
  EXPECT_EQ(header->used, LuksHeaderCopy::kPrimary);
  EXPECT_THAT(header->facts, Contains(HasSubstr("secondary header is damaged")));
}

TEST(Luks2, NewerCopyIsUsed) {
  for (const uint64_t newer : {uint64_t{0}, kLuks2Copy}) {
    Bytes image = MakeValidLuks2();
    PutBe64(image, newer + 16, 4);
    PutText(image, newer + 24, "newer..");
    FixChecksum(image, newer, kLuks2Copy);
    const auto header = Parse(image);
    ASSERT_TRUE(header.has_value());
    EXPECT_EQ(header->label, "newer..");
    EXPECT_EQ(header->used, newer == 0 ? LuksHeaderCopy::kPrimary : LuksHeaderCopy::kSecondary);
    EXPECT_THAT(header->facts, Contains(HasSubstr("is newer (4 after 3)")));
  }
}

TEST(Luks2, CopiesOfOneSequenceThatDifferAreRefused) {
  Bytes image = MakeValidLuks2();
  json other = ValidLuks2Metadata();
  other["tokens"] = json::object();
  std::fill_n(image.begin() + kLuks2Copy + 4096, kLuks2Copy - 4096, std::byte{0});
  WriteCopy(image, kLuks2Copy, kLuks2Copy, other.dump());
  const auto header = Parse(image);
  ASSERT_FALSE(header.has_value());
  EXPECT_THAT(header.error().Describe(), HasSubstr("but differ"));
}

TEST(Luks2, SecondaryOfANestedVolumeIsNotTakenForThisOnes) {
  // A LUKS2 in a partition at 0x4000 has its secondary at 0x8000 of the disk, an allowed offset.
  Bytes image(0x100000);
  const Bytes inner = MakeValidLuks2();
  std::ranges::copy(inner, image.begin() + 0x4000);
  EXPECT_FALSE(FindLuks2Secondary(MemoryReader(image))->has_value());
  EXPECT_TRUE(DetectFormats(MemoryReader(image))->empty());
}

TEST(Luks2, BytesAfterTheJsonAreRefused) {
  Bytes image = MakeValidLuks2();
  for (const uint64_t at : {uint64_t{0}, kLuks2Copy}) {
    image[at + kLuks2Copy - 1] = std::byte{'x'};
    FixChecksum(image, at, kLuks2Copy);
  }
  const auto header = Parse(image);
  ASSERT_FALSE(header.has_value());
  EXPECT_THAT(header.error().Describe(), HasSubstr("after its JSON"));
}

TEST(Luks2, JsonWithoutAnEndIsRefused) {
  Bytes image = MakeValidLuks2();
  for (const uint64_t at : {uint64_t{0}, kLuks2Copy}) {
    std::replace(image.begin() + static_cast<std::ptrdiff_t>(at + 4096),
                 image.begin() + static_cast<std::ptrdiff_t>(at + kLuks2Copy), std::byte{0},
                 std::byte{' '});
    FixChecksum(image, at, kLuks2Copy);
  }
  const auto header = Parse(image);
  ASSERT_FALSE(header.has_value());
  EXPECT_THAT(header.error().Describe(), HasSubstr("does not end in a NUL"));
}

// ---- both

TEST(Luks, EveryTruncationIsRefused) {
  for (const Bytes& image : {MakeValidLuks1(), MakeValidLuks2()}) {
    const size_t payload_end = image.size();
    for (size_t size = 0; size < payload_end; size += size < 40000 ? 97 : 20011) {
      const auto header = Parse(ByteView(image).first(size));
      if (header.has_value()) {
        EXPECT_GE(size, header->payload_offset + 512);
      } else {
        EXPECT_FALSE(header.error().fix().empty()) << size;
      }
    }
  }
}

TEST(Luks, FlippedBitsNeverCrashAndReadsAreBounded) {
  std::mt19937_64 random(4);
  const Bytes one = MakeValidLuks1();
  const Bytes two = MakeValidLuks2();
  for (int i = 0; i < 2000; ++i) {
    Bytes image = i % 2 == 0 ? one : two;
    const size_t span = i % 2 == 0 ? 592 : 4096 + 2000;
    for (int k = 0; k < 3; ++k) image[random() % span] ^= std::byte{1} << (random() % 8);
    if (i % 4 == 1) FixChecksum(image, 0, kLuks2Copy);
    const MemoryReader reader(image);
    const testing::CountingReader counted(reader);
    static_cast<void>(ParseLuks(counted));
    EXPECT_LE(counted.bytes(), 3 * kLuks2Copy + 32768);
  }
}

TEST(Luks, HolesCostNothing) {
  const SparseReader hole(Bytes(), uint64_t{1} << 40U);
  const testing::CountingReader counted(hole);
  EXPECT_FALSE(ParseLuks(counted).has_value());
  EXPECT_LE(counted.bytes(), 4096U);
}

}  // namespace
}  // namespace vallum::formats

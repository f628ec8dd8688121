// SPDX-License-Identifier: Apache-2.0
#include "firmware/grub_image.h"

#include <gtest/gtest.h>

#include <random>
#include <utility>

namespace vallum::firmware {
namespace {

struct Object {
  uint32_t type;
  std::string content;
};

Bytes MakeSection(const std::vector<Object>& objects) {
  ByteWriter list;
  for (const Object& object : objects) {
    list.U32Le(object.type).U32Le(static_cast<uint32_t>(object.content.size() + 8));
    list.Raw(AsBytes(object.content));
  }
  ByteWriter section;
  section.U32Le(0x676d696d).U32Le(0).U64Le(24).U64Le(24 + list.size()).Raw(list.bytes());
  return std::move(section.Zeros(16)).Take();
}

Bytes MakeValidSection() {
  return MakeSection({{0, "\177ELF"},
                      {1, "disk"},
                      {2, std::string("normal (memdisk)/grub.cfg\n\0\0", 28)},
                      {3, std::string("/EFI/debian\0", 12)}});
}

TEST(GrubImage, PrefixConfigurationAndMemdiskAreFound) {
  const Bytes section = MakeValidSection();
  const auto image = ParseGrubModules(section);
  ASSERT_TRUE(image.has_value()) << image.error().Describe();
  EXPECT_EQ(image->prefix, "/EFI/debian");
  EXPECT_EQ(image->config, "normal (memdisk)/grub.cfg\n");
  EXPECT_EQ(AsText(image->memdisk), "disk");
}

TEST(GrubImage, SectionWithoutItsMagicIsRefused) {
  Bytes section = MakeValidSection();
  section[0] = std::byte{'M'};
  EXPECT_EQ(ParseGrubModules(section).error().code(), ErrorCode::kInvalidInput);
}

TEST(GrubImage, ListOutsideTheSectionIsRefused) {
  for (const size_t at : {8U, 16U}) {
    Bytes section = MakeValidSection();
    section[at + 7] = std::byte{0xff};
    EXPECT_EQ(ParseGrubModules(section).error().code(), ErrorCode::kCorrupt) << at;
  }
}

TEST(GrubImage, ObjectThatIsTooShortOrTooLongIsRefused) {
  for (const auto size : {std::byte{0}, std::byte{7}, std::byte{0xff}}) {
    Bytes section = MakeValidSection();
    section[28] = size;
    EXPECT_EQ(ParseGrubModules(section).error().code(), ErrorCode::kCorrupt);
  }
}

TEST(GrubImage, TwoObjectsOfAKindAreRefused) {
  for (const uint32_t type : {1U, 2U, 3U}) {
    EXPECT_EQ(ParseGrubModules(MakeSection({{type, "a"}, {type, "b"}})).error().code(),
              ErrorCode::kCorrupt);
  }
}

TEST(GrubImage, TooManyObjectsAreRefused) {
  const std::vector<Object> objects(kGrubMaxModules + 1, {0, ""});
  EXPECT_EQ(ParseGrubModules(MakeSection(objects)).error().code(), ErrorCode::kExhausted);
}

TEST(GrubImage, DamageNeverCrashes) {
  const Bytes valid = MakeValidSection();
  std::mt19937 random(1);  // NOLINT: the same damage each time
  for (int i = 0; i < 2000; ++i) {
    Bytes section = valid;
    section[random() % section.size()] ^= static_cast<std::byte>(1U << (random() % 8));
    section.resize(random() % (section.size() + 1));
    static_cast<void>(ParseGrubModules(section).has_value());
  }
}

}  // namespace
}  // namespace vallum::firmware

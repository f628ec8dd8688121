// SPDX-License-Identifier: Apache-2.0
#include "formats/fat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using ::testing::HasSubstr;
using testing::MustRun;
using testing::PutLe32;
using testing::ReadFile;
using testing::TempDir;
using testing::WriteFile;

Bytes Pattern(size_t size) {
  Bytes out(size);
  for (size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(i * 7 + i / 251);
  return out;
}

// A volume made by mkfs.fat with \EFI\BOOT\BOOTX64.EFI, a long name and an empty file.
Bytes MakeVolume(const std::string& options, const std::string& size, size_t file_size) {
  const TempDir dir;
  const std::string file = dir.File("fat");
  WriteFile(dir.File("data"), Pattern(file_size));
  WriteFile(dir.File("empty"), {});
  MustRun("truncate -s " + size + " " + file + " && /usr/sbin/mkfs.fat " + options + " " + file);
  MustRun("export MTOOLS_SKIP_CHECK=1; mmd -i " + file + " ::/EFI ::/EFI/BOOT && mcopy -i " + file +
          " " + dir.File("data") + " ::/EFI/BOOT/BOOTX64.EFI && mcopy -i " + file + " " +
          dir.File("data") + " '::/EFI/A long name with spaces é.efi' && mcopy -i " + file + " " +
          dir.File("empty") + " ::/EFI/empty.txt");
  return ReadFile(file);
}

struct KindCase {
  std::string options;
  std::string size;
  FatKind kind;
};
class FatKinds : public ::testing::TestWithParam<KindCase> {};

TEST_P(FatKinds, FilesAreReadAsTheyWereWritten) {
  const Bytes image = MakeVolume(GetParam().options, GetParam().size, 100001);
  const MemoryReader reader(image);
  const auto volume = FatVolume::Open(reader);
  ASSERT_TRUE(volume.has_value()) << volume.error().Describe();
  EXPECT_EQ(volume->kind(), GetParam().kind);
  for (const std::string path :
       {"\\efi\\boot\\bootx64.efi", "/EFI/A long name with spaces é.efi"}) {
    const auto entry = volume->Find(path);
    ASSERT_TRUE(entry.has_value()) << path << entry.error().Describe();
    const auto content = volume->Read(*entry, 1 << 20);
    ASSERT_TRUE(content.has_value()) << content.error().Describe();
    EXPECT_TRUE(*content == Pattern(100001));
    EXPECT_EQ(volume->Read(*entry, 1000).error().code(), ErrorCode::kExhausted);
  }
  EXPECT_EQ(volume->Read(*volume->Find("/EFI/empty.txt"), 10)->size(), 0U);
  const auto list = volume->List(*volume->Find("/EFI"));
  ASSERT_TRUE(list.has_value());
  EXPECT_EQ(list->size(), 3U);
  EXPECT_EQ(volume->Find("/EFI/none").error().code(), ErrorCode::kNotFound);
  EXPECT_FALSE(volume->List(*volume->Find("/EFI/empty.txt")).has_value());
}
INSTANTIATE_TEST_SUITE_P(Kinds, FatKinds,
                         ::testing::Values(KindCase{"-F 12", "4M", FatKind::kFat12},
                                           KindCase{"-F 16", "20M", FatKind::kFat16},
                                           KindCase{"-F 32", "40M", FatKind::kFat32},
                                           KindCase{"-F 32 -s 1", "40M", FatKind::kFat32}));

const Bytes& Small() {
  static const Bytes image = MakeVolume("-F 16 -s 4", "10M", 20000);
  return image;
}
size_t FatOffset(const Bytes& image) { return size_t{U16Le(image, 14)} * U16Le(image, 11); }

TEST(Fat, FileWhoseChainLoopsIsRefused) {
  Bytes image = Small();
  const MemoryReader reader(image);
  const auto volume = FatVolume::Open(reader);
  const FatEntry file = *volume->Find("/EFI/BOOT/BOOTX64.EFI");
  const size_t last = FatOffset(image) + (file.first_cluster + 20000 / 2048) * 2;
  image[last] = static_cast<std::byte>(file.first_cluster);
  image[last + 1] = static_cast<std::byte>(file.first_cluster >> 8U);
  const auto content = FatVolume::Open(reader)->Read(file, 1 << 20);
  ASSERT_FALSE(content.has_value());
  EXPECT_THAT(content.error().Describe(), HasSubstr("loop"));
}

TEST(Fat, FileWhoseChainEndsEarlyOrLeavesTheVolumeIsRefused) {
  for (const uint16_t next : {uint16_t{0xffff}, uint16_t{0}, uint16_t{1}, uint16_t{0xfff0}}) {
    Bytes image = Small();
    const MemoryReader reader(image);
    const FatEntry file = *FatVolume::Open(reader)->Find("/EFI/BOOT/BOOTX64.EFI");
    const size_t at = FatOffset(image) + file.first_cluster * 2;
    image[at] = static_cast<std::byte>(next);
    image[at + 1] = static_cast<std::byte>(next >> 8U);
    EXPECT_FALSE(FatVolume::Open(reader)->Read(file, 1 << 20).has_value()) << next;
  }
}

TEST(Fat, DirectoryWhoseChainLoopsIsRefused) {
  Bytes image = Small();
  const MemoryReader reader(image);
  const FatEntry dir = *FatVolume::Open(reader)->Find("/EFI");
  // Full of deleted entries, so that no end mark stops the walk, and linked to itself.
  const uint64_t data = image.size() - uint64_t{FatVolume::Open(reader)->cluster_count()} * 2048;
  const size_t at = FatOffset(image) + dir.first_cluster * 2;
  image[at] = static_cast<std::byte>(dir.first_cluster);
  image[at + 1] = std::byte{0};
  // The data area may end a little before the file; both starts are filled.
  const size_t root = FatOffset(image) + size_t{U8(image, 16)} * U16Le(image, 22) * 512;
  const size_t start = root + size_t{U16Le(image, 17)} * 32 + (dir.first_cluster - 2) * 2048;
  ASSERT_LE(start, data + (dir.first_cluster - 2) * 2048);
  for (size_t i = 0; i < 2048; i += 32) image[start + i] = std::byte{0xe5};
  const auto list = FatVolume::Open(reader)->List(dir);
  ASSERT_FALSE(list.has_value());
  EXPECT_THAT(list.error().Describe(), HasSubstr("loops"));
}

TEST(Fat, BootSectorsThatDoNotFitAreRefused) {
  const std::vector<std::pair<size_t, std::byte>> damages = {
      {510, std::byte{0}}, {11, std::byte{7}},    {12, std::byte{0xff}}, {13, std::byte{3}},
      {13, std::byte{0}},  {14, std::byte{0}},    {16, std::byte{0}},    {16, std::byte{9}},
      {23, std::byte{99}}, {20, std::byte{0xff}}, {22, std::byte{1}}};
  for (const auto& [offset, value] : damages) {
    Bytes image = Small();
    image[offset] = value;
    EXPECT_FALSE(FatVolume::Open(MemoryReader(image)).has_value()) << offset;
  }
  EXPECT_FALSE(FatVolume::Open(MemoryReader(ByteView(Small()).first(5000000))).has_value());
  EXPECT_FALSE(FatVolume::Open(MemoryReader(ByteView(Small()).first(100))).has_value());
}

TEST(Fat, FlippedBitsNeverCrash) {
  std::mt19937_64 random(3);
  const size_t metadata = FatOffset(Small()) * 2 + 200 * 1024;
  for (int i = 0; i < 300; ++i) {
    Bytes image = ToBytes(ByteView(Small()).first(Small().size()));
    for (int k = 0; k < 8; ++k) {
      image[random() % (i % 2 == 0 ? 64 : metadata)] ^= std::byte{1} << (random() % 8);
    }
    const MemoryReader reader(image);
    const auto volume = FatVolume::Open(reader);
    if (!volume.has_value()) continue;
    const auto file = volume->Find("/EFI/BOOT/BOOTX64.EFI");
    if (file.has_value()) static_cast<void>(volume->Read(*file, 1 << 20));
  }
}

}  // namespace
}  // namespace vallum::formats

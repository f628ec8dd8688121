// SPDX-License-Identifier: Apache-2.0
#include "formats/bzimage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <random>
#include <string>

#include "base/bytes.h"
#include "formats/decompress.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using ::testing::HasSubstr;
using testing::kTestKernelSetup;
using testing::MakeBzImage;
using testing::MustRun;
using testing::PutLe32;
using testing::PutText;
using testing::ReadFile;
using testing::TempDir;
using testing::WriteFile;

constexpr std::byte operator""_b(unsigned long long value) { return static_cast<std::byte>(value); }

void ExpectRefused(const Bytes& file, ErrorCode code, const std::string& why) {
  const auto kernel = ParseBzImage(file);
  ASSERT_FALSE(kernel.has_value()) << why;
  EXPECT_EQ(kernel.error().code(), code) << kernel.error().Describe();
  EXPECT_THAT(kernel.error().Describe(), HasSubstr(why));
}

TEST(BzImage, FieldsAreRead) {
  const auto kernel = ParseBzImage(MakeBzImage());
  ASSERT_TRUE(kernel.has_value()) << kernel.error().Describe();
  EXPECT_EQ(kernel->protocol, 0x020f);
  EXPECT_EQ(kernel->setup_size, kTestKernelSetup);
  EXPECT_EQ(kernel->protected_size, 4096U);
  EXPECT_EQ(kernel->version, "6.1.0-test (builder) #1 SMP");
  EXPECT_EQ(kernel->max_command_line, 2047U);
  EXPECT_TRUE(kernel->relocatable);
  EXPECT_TRUE(kernel->has_64bit_entry);
  EXPECT_EQ(kernel->payload_offset, kTestKernelSetup + 64);
  EXPECT_EQ(kernel->payload, Compression::kGzip);
  EXPECT_EQ(kernel->efi_machine, 0x8664);
  EXPECT_EQ(kernel->crc, KernelCrc::kMatches);
}

TEST(BzImage, DebiansSignedKernelIsRead) {
  const std::string guest = testing::GuestDir();
  if (guest.empty()) GTEST_SKIP() << "no guest made: scripts/make-debian-guest";
  size_t found = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(guest + "/cache")) {
    if (!entry.path().filename().string().starts_with("vmlinuz-")) continue;
    ++found;
    Bytes file = ReadFile(entry.path().string());
    const auto kernel = ParseBzImage(file);
    ASSERT_TRUE(kernel.has_value()) << kernel.error().Describe();
    EXPECT_THAT(entry.path().string(),
                HasSubstr(kernel->version.substr(0, kernel->version.find(' '))));
    EXPECT_TRUE(kernel->has_64bit_entry);
    EXPECT_EQ(kernel->efi_machine, 0x8664);
    EXPECT_EQ(kernel->crc, KernelCrc::kMatches);
    file[file.size() / 2] ^= 1_b;
    EXPECT_EQ(ParseBzImage(file)->crc, KernelCrc::kDiffersOrAbsent);
  }
  EXPECT_GE(found, 1U);
}

TEST(BzImage, SigningKeepsTheCrc) {
  if (!testing::HasTool("sbsign")) GTEST_SKIP() << "no sbsign";
  const TempDir dir;
  WriteFile(dir.File("kernel"), MakeBzImage());
  MustRun("openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=x -keyout " +
          dir.File("key") + " -out " + dir.File("crt"));
  MustRun("sbsign --key " + dir.File("key") + " --cert " + dir.File("crt") + " --output " +
          dir.File("signed") + " " + dir.File("kernel"));
  const Bytes file = ReadFile(dir.File("signed"));
  EXPECT_NE(file, MakeBzImage());
  const auto kernel = ParseBzImage(file);
  ASSERT_TRUE(kernel.has_value()) << kernel.error().Describe();
  EXPECT_EQ(kernel->crc, KernelCrc::kMatches);
}

TEST(BzImage, KernelWithoutEfiStubIsRead) {
  Bytes file = MakeBzImage();
  PutText(file, 0, "xx");
  const auto kernel = ParseBzImage(file);
  ASSERT_TRUE(kernel.has_value()) << kernel.error().Describe();
  EXPECT_FALSE(kernel->efi_machine.has_value());
}

TEST(BzImage, OtherContentIsRefused) {
  ExpectRefused({}, ErrorCode::kInvalidInput, "not a bzImage");
  ExpectRefused(Bytes(1U << 16U), ErrorCode::kInvalidInput, "not a bzImage");
  Bytes file = MakeBzImage();
  PutText(file, 0x202, "hdrs");
  ExpectRefused(file, ErrorCode::kInvalidInput, "not a bzImage");
}

TEST(BzImage, OldProtocolIsRefusedByName) {
  Bytes file = MakeBzImage();
  file[0x206] = 5_b;
  ExpectRefused(file, ErrorCode::kInvalidInput, "boot protocol 2.05 at offset 0x206");
  file[0x207] = 3_b;
  ExpectRefused(file, ErrorCode::kInvalidInput, "boot protocol 3.05");
}

TEST(BzImage, FieldsOfALaterProtocolAreNotRead) {
  Bytes file = MakeBzImage();
  file[0x206] = 6_b;
  const auto kernel = ParseBzImage(file);
  ASSERT_TRUE(kernel.has_value()) << kernel.error().Describe();
  EXPECT_EQ(kernel->payload_offset, 0U);
  EXPECT_FALSE(kernel->has_64bit_entry);
  EXPECT_EQ(kernel->crc, KernelCrc::kDiffersOrAbsent);
}

TEST(BzImage, ZImageIsRefused) {
  Bytes file = MakeBzImage();
  file[0x211] = 0_b;
  ExpectRefused(file, ErrorCode::kInvalidInput, "a zImage");
}

TEST(BzImage, CutKernelIsRefused) {
  Bytes file = MakeBzImage();
  file.pop_back();
  ExpectRefused(file, ErrorCode::kInvalidInput, "truncated");
  file.resize(0x300);
  ExpectRefused(file, ErrorCode::kInvalidInput, "truncated");
  file.resize(0x210);
  ExpectRefused(file, ErrorCode::kInvalidInput, "not a bzImage");
}

TEST(BzImage, SizesThatDoNotFitTheFileAreRefused) {
  Bytes file = MakeBzImage();
  PutLe32(file, 0x1f4, 0xffffffff);
  ExpectRefused(file, ErrorCode::kInvalidInput, "truncated");
  PutLe32(file, 0x1f4, 0);
  ExpectRefused(file, ErrorCode::kCorrupt, "0 of kernel");
  file = MakeBzImage();
  file[0x1f1] = 64_b;
  ExpectRefused(file, ErrorCode::kInvalidInput, "truncated");
}

TEST(BzImage, HeaderThatEndsBeforeItsFieldsIsRefused) {
  Bytes file = MakeBzImage();
  file[0x201] = 0x40_b;
  ExpectRefused(file, ErrorCode::kCorrupt, "cut short");
}

TEST(BzImage, BytesAfterTheKernelAreRefused) {
  Bytes file = MakeBzImage();
  file.resize(file.size() + 100);
  EXPECT_TRUE(ParseBzImage(file).has_value());
  file.back() = 1_b;
  ExpectRefused(file, ErrorCode::kInvalidInput, "100 bytes after its end at offset 6656");
}

TEST(BzImage, VersionOutsideTheSetupOrNotPrintableIsRefused) {
  Bytes file = MakeBzImage();
  file[0x20f] = 0x40_b;
  ExpectRefused(file, ErrorCode::kCorrupt, "after the setup");
  for (const std::byte bad : {0x1b_b, 0x0a_b, 0xff_b}) {
    file = MakeBzImage();
    file[0x302] = bad;
    ExpectRefused(file, ErrorCode::kCorrupt, "no printable text");
  }
  file = MakeBzImage();
  for (size_t i = 0x300; i < kTestKernelSetup; ++i) file[i] = 0x41_b;
  ExpectRefused(file, ErrorCode::kCorrupt, "no printable text of less than 512 bytes");
  file = MakeBzImage();
  file[0x20e] = 0_b;
  file[0x20f] = 0_b;
  EXPECT_EQ(ParseBzImage(file)->version, "");
}

TEST(BzImage, AlignmentThatIsNoPowerOfTwoIsRefused) {
  Bytes file = MakeBzImage();
  PutLe32(file, 0x230, 0x200001);
  ExpectRefused(file, ErrorCode::kCorrupt, "alignment 0x200001");
  PutLe32(file, 0x230, 0x100000);
  ExpectRefused(file, ErrorCode::kCorrupt, "at least 2^21");
}

TEST(BzImage, CommandLineSizeIsBounded) {
  for (const uint32_t size : {0U, 0xffffffffU}) {
    Bytes file = MakeBzImage();
    PutLe32(file, 0x238, size);
    ExpectRefused(file, ErrorCode::kCorrupt, "a command line of");
  }
}

TEST(BzImage, PayloadOutsideTheKernelIsRefused) {
  Bytes file = MakeBzImage();
  PutLe32(file, 0x24c, 4096);
  ExpectRefused(file, ErrorCode::kCorrupt, "a payload of 4096 bytes at offset 64");
  PutLe32(file, 0x248, 0xffffffff);
  ExpectRefused(file, ErrorCode::kCorrupt, "a payload");
}

TEST(BzImage, DamagedEfiStubIsRefused) {
  Bytes file = MakeBzImage();
  PutText(file, 0x40, "XX");
  ExpectRefused(file, ErrorCode::kInvalidInput, "the EFI stub of the kernel");
}

TEST(BzImage, CertificatesInsideTheKernelAreRefused) {
  Bytes file = MakeBzImage();
  constexpr size_t kEntry = 0x58 + 112 + 32;
  PutLe32(file, kEntry, kTestKernelSetup);
  PutLe32(file, kEntry + 4, 8);
  PutLe32(file, kTestKernelSetup, 8);
  ExpectRefused(file, ErrorCode::kCorrupt, "certificates at offset 2560");
}

TEST(BzImage, FlippedBitsAndCutsNeverCrash) {
  const Bytes valid = MakeBzImage();
  std::mt19937_64 random(7);
  for (int i = 0; i < 20000; ++i) {
    Bytes file = valid;
    for (int k = 0; k < 3; ++k) file[random() % 0x280] ^= 1_b << (random() % 8);
    if (random() % 4 == 0) file.resize(random() % file.size());
    static_cast<void>(ParseBzImage(file));
  }
}

}  // namespace
}  // namespace vallum::formats

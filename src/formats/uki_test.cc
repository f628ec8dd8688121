// SPDX-License-Identifier: Apache-2.0
#include "formats/uki.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "formats/kernel_image.h"
#include "formats/pe.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::kTestPeSections;
using testing::MakeBzImage;
using testing::MakePe;
using testing::MustRun;
using testing::PutLe32;
using testing::ReadFile;
using testing::TempDir;
using testing::TestSection;
using testing::WriteFile;

constexpr char kStub[] = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
constexpr char kMeasure[] = "/lib/systemd/systemd-measure";

Bytes Text(const std::string& text) { return ToBytes(AsBytes(text)); }

Bytes MakeInitrd() {
  std::string out = "070701" + std::string(13 * 8, '0') + "TRAILER!!!" + std::string(4, '\0');
  out.replace(94, 8, "0000000B");
  return Text(out);
}

// Sections 1 to 7 of the file; .text is the first.
std::vector<TestSection> MakeValidSections() {
  return {{".sdmagic", Text("#### LoaderInfo: systemd-stub 252.39-1 ####")},
          {".osrel", Text("ID=debian\n")},
          {".cmdline", Text("root=/dev/vda1 quiet")},
          {".initrd", MakeInitrd()},
          {".linux", MakeBzImage()},
          {".uname", Text("6.1.0-test")},
          {".sbat", Text("sbat,1,x\n")}};
}
Bytes MakeValidUki() {
  Bytes file = MakePe(MakeValidSections());
  // .linux has more than the 4 KiB that MakePe gives a section in memory.
  for (const uint32_t i : {6U, 7U}) PutLe32(file, kTestPeSections + i * 40 + 12, 0x10000U * i);
  return file;
}

// The field of a section's header: 8 virtual size, 12 address, 16 raw size, 20 raw offset.
void PutField(Bytes& file, size_t section, size_t field, uint32_t value) {
  PutLe32(file, kTestPeSections + section * 40 + field, value);
}

void ExpectRefused(const Bytes& file, ErrorCode code, const std::string& why) {
  const auto pe = PeImage::Parse(file);
  ASSERT_TRUE(pe.has_value()) << pe.error().Describe();
  const auto uki = ParseUki(*pe);
  ASSERT_FALSE(uki.has_value()) << why;
  EXPECT_EQ(uki.error().code(), code);
  EXPECT_THAT(uki.error().Describe(), HasSubstr(why));
  EXPECT_FALSE(uki.error().fix().empty());
}

std::vector<std::string> MeasuredNames(const std::string& stub) {
  std::vector<TestSection> sections = MakeValidSections();
  sections[0].content = Text(stub);
  Bytes file = MakePe(sections);
  for (const size_t i : {6U, 7U}) PutField(file, i, 12, static_cast<uint32_t>(0x10000 * i));
  const auto pe = PeImage::Parse(file);
  const auto uki = ParseUki(*pe);
  if (!uki.has_value()) return {uki.error().Describe()};
  const auto measured = UkiMeasurements(*uki);
  if (!measured.has_value()) return {measured.error().Describe()};
  std::vector<std::string> names;
  for (const UkiSection& s : *measured) names.emplace_back(s.name);
  return names;
}

// PCR 11 after the stub, SHA-256.
std::string Replay(const std::vector<UkiSection>& measured) {
  Bytes pcr(32);
  const auto extend = [&](ByteView data) {
    Hasher hasher(HashAlgorithm::kSha256);
    hasher.Update(pcr);
    hasher.Update(Digest(HashAlgorithm::kSha256, data));
    pcr = hasher.Finish();
  };
  for (const UkiSection& s : measured) {
    extend(AsBytes(std::string(s.name) + '\0'));
    extend(s.content);
  }
  return ToHex(pcr);
}

TEST(Uki, SectionsAreDescribed) {
  const Bytes file = MakeValidUki();
  const auto pe = PeImage::Parse(file);
  ASSERT_TRUE(pe.has_value()) << pe.error().Describe();
  const auto uki = ParseUki(*pe);
  ASSERT_TRUE(uki.has_value()) << uki.error().Describe();
  EXPECT_EQ(uki->sections.size(), 6U);
  EXPECT_EQ(uki->kernel.version, "6.1.0-test (builder) #1 SMP");
  EXPECT_EQ(uki->command_line, "root=/dev/vda1 quiet");
  EXPECT_EQ(uki->uname, "6.1.0-test");
  EXPECT_EQ(uki->stub_version, 252U);
  ASSERT_TRUE(uki->initrd.has_value());
  EXPECT_EQ(uki->initrd->members.size(), 1U);
  EXPECT_EQ(AsText(uki->Find(".osrel")->content), "ID=debian\n");
}

TEST(Uki, MeasuredSectionsFollowTheStubsVersion) {
  EXPECT_THAT(MeasuredNames("#### LoaderInfo: systemd-stub 252.39-1 ####"),
              ElementsAre(".linux", ".osrel", ".cmdline", ".initrd"));
  EXPECT_THAT(MeasuredNames("#### LoaderInfo: systemd-stub 257 ####"),
              ElementsAre(".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"));
  EXPECT_THAT(MeasuredNames("#### LoaderInfo: systemd-stub 251 ####"),
              ElementsAre(HasSubstr("is not known")));
  EXPECT_THAT(MeasuredNames("another stub"), ElementsAre(HasSubstr("is not known")));
}

TEST(Uki, SectionsChosenAtBootLeavePcr11Unknown) {
  std::vector<TestSection> sections = MakeValidSections();
  sections[6].name = ".dtbauto";
  Bytes file = MakePe(sections);
  for (const size_t i : {6U, 7U}) PutField(file, i, 12, static_cast<uint32_t>(0x10000 * i));
  const auto pe = PeImage::Parse(file);
  const auto uki = ParseUki(*pe);
  ASSERT_TRUE(uki.has_value()) << uki.error().Describe();
  EXPECT_THAT(UkiMeasurements(*uki).error().Describe(), HasSubstr(".dtbauto is chosen at boot"));
}

// systemd-measure is the reference: the same PCR 11 for what objcopy makes of systemd's own stub.
TEST(Uki, Pcr11IsTheOneThatSystemdMeasurePredicts) {
  if (!std::filesystem::exists(kStub) || !std::filesystem::exists(kMeasure) ||
      !testing::HasTool("objcopy")) {
    GTEST_SKIP() << "no systemd stub, systemd-measure or objcopy";
  }
  const TempDir dir;
  WriteFile(dir.File("linux"), MakeBzImage());
  WriteFile(dir.File("osrel"), AsBytes("ID=debian\nVERSION_ID=12\n"));
  WriteFile(dir.File("cmdline"), AsBytes("console=ttyS0"));
  WriteFile(dir.File("initrd"), MakeInitrd());
  std::string objcopy = "objcopy";
  std::string measure = std::string(kMeasure) + " calculate --bank=sha256 --phase=:";
  int address = 0x100000;
  for (const std::string name : {"osrel", "cmdline", "initrd", "linux"}) {
    objcopy += " --add-section ." + name + "=" + dir.File(name) + " --change-section-vma ." + name +
               "=" + std::to_string(address += 0x10000);
    measure += " --" + name + "=" + dir.File(name);
  }
  MustRun(objcopy + " " + kStub + " " + dir.File("uki"));
  const Bytes file = ReadFile(dir.File("uki"));
  const auto pe = PeImage::Parse(file);
  ASSERT_TRUE(pe.has_value()) << pe.error().Describe();
  const auto uki = ParseUki(*pe);
  ASSERT_TRUE(uki.has_value()) << uki.error().Describe();
  EXPECT_GE(uki->stub_version, kUkiFirstStub);
  const auto measured = UkiMeasurements(*uki);
  ASSERT_TRUE(measured.has_value()) << measured.error().Describe();
  EXPECT_THAT(MustRun(measure), HasSubstr("11:sha256=" + Replay(*measured)));
}

TEST(Uki, ProgramWithoutItsSectionsIsRefused) {
  ExpectRefused(MakePe({}), ErrorCode::kInvalidInput, "no section .linux");
  ExpectRefused(MakePe({{".linux", Text("x")}}), ErrorCode::kInvalidInput, "no section .linux");
  ExpectRefused(MakePe({{".linux", {}}, {".osrel", Text("x")}}), ErrorCode::kInvalidInput,
                ".linux is empty");
}

TEST(Uki, SectionOfASecondTimeIsRefused) {
  std::vector<TestSection> sections = MakeValidSections();
  sections[6].name = ".cmdline";
  Bytes file = MakePe(sections);
  for (const size_t i : {6U, 7U}) PutField(file, i, 12, static_cast<uint32_t>(0x10000 * i));
  ExpectRefused(file, ErrorCode::kInvalidInput, "two sections .cmdline");
}

TEST(Uki, OverlappingSectionsAreRefused) {
  Bytes file = MakeValidUki();
  PutField(file, 2, 20, 0x600);  // into .sdmagic
  ExpectRefused(file, ErrorCode::kCorrupt, "overlap in the file at 0x600");
  // What objcopy makes when a kernel outgrows the place that was chosen for it.
  file = MakeValidUki();
  PutField(file, 6, 12, 0x6800);
  ExpectRefused(file, ErrorCode::kCorrupt, "sections .linux and .uname overlap in memory");
}

TEST(Uki, SectionLargerInMemoryThanInTheFileIsRefused) {
  for (const uint32_t size : {0U, 0x300U}) {
    Bytes file = MakeValidUki();
    PutField(file, 3, 8, size);
    ExpectRefused(file, ErrorCode::kCorrupt, "section .cmdline has");
  }
}

TEST(Uki, TextIsBoundedAndSafeToPrint) {
  std::vector<TestSection> sections = MakeValidSections();
  sections.erase(sections.begin() + 5);
  sections[2].content = Text("quiet\x1b[2J");
  Bytes file = MakePe(sections);
  PutField(file, 6, 12, 0x60000);
  auto pe = PeImage::Parse(file);
  const auto uki = ParseUki(*pe);
  ASSERT_TRUE(uki.has_value()) << uki.error().Describe();
  EXPECT_EQ(uki->command_line, "quiet\\x1b[2J");
  sections[5].content = Bytes(kUkiMaxText + 1, std::byte{'x'});
  file = MakePe(sections);
  PutField(file, 6, 12, 0x60000);
  ExpectRefused(file, ErrorCode::kInvalidInput, "section .sbat of 65537 bytes");
}

TEST(Uki, DamagedKernelOrInitrdInsideIsRefused) {
  std::vector<TestSection> sections = MakeValidSections();
  sections.resize(5);
  sections[4].content = Text("no kernel");
  ExpectRefused(MakePe(sections), ErrorCode::kInvalidInput, "section .linux of the UKI");
  sections = MakeValidSections();
  sections.resize(5);
  sections[3].content = Text("no initrd");
  ExpectRefused(MakePe(sections), ErrorCode::kInvalidInput, "section .initrd of the UKI");
}

TEST(KernelImage, EachKindIsRecognised) {
  const auto bzimage = CheckKernel(MemoryReader(MakeBzImage()));
  ASSERT_TRUE(bzimage.has_value()) << bzimage.error().Describe();
  EXPECT_EQ(bzimage->kind, KernelKind::kBzImage);
  EXPECT_EQ(bzimage->efi_machine, 0x8664);
  const Bytes file = MakeValidUki();
  const auto uki = CheckKernel(MemoryReader(file));
  ASSERT_TRUE(uki.has_value()) << uki.error().Describe();
  EXPECT_EQ(uki->kind, KernelKind::kUki);
  EXPECT_EQ(uki->command_line, "root=/dev/vda1 quiet");
  EXPECT_TRUE(uki->has_initrd);
  EXPECT_TRUE(uki->bzimage.has_value());
  const Bytes loader = MakePe({});
  const auto pe = CheckKernel(MemoryReader(loader));
  ASSERT_TRUE(pe.has_value()) << pe.error().Describe();
  EXPECT_EQ(pe->kind, KernelKind::kPe);
  EXPECT_FALSE(pe->bzimage.has_value());
}

TEST(KernelImage, WhatIsNoKernelIsRefusedByName) {
  const auto expect = [](const Bytes& file, const std::string& why) {
    const auto facts = CheckKernel(MemoryReader(file));
    ASSERT_FALSE(facts.has_value()) << why;
    EXPECT_EQ(facts.error().code(), ErrorCode::kInvalidInput);
    EXPECT_THAT(facts.error().Describe(), HasSubstr(why));
    EXPECT_THAT(facts.error().fix(), HasSubstr("bzImage"));
  };
  expect({}, "nor any known format");
  expect(Bytes(65536), "nor any known format");
  expect(Text("\x7f"
              "ELF and so on"),
         "ELF (offset 0)");
  expect(Text("070701 and so on"), "cpio");
  expect(Text("QFI\xfb and so on"), "qcow2 (offset 0)");
  expect(Text("\x1f\x8b\x08 and so on"), "gzip");
  Bytes both = MakeBzImage();
  both.resize(40000);
  testing::PutText(both, 32769, "CD001");
  expect(both, "ambiguous");
}

TEST(KernelImage, HugeFileIsRefusedUnread) {
  const testing::SparseReader sparse(MakeBzImage(), uint64_t{1} << 40U);
  const testing::CountingReader counting(sparse);
  EXPECT_FALSE(CheckKernel(counting).has_value());
  EXPECT_EQ(counting.bytes(), 0U);
}

TEST(Uki, FlippedBitsNeverCrash) {
  const Bytes valid = MakeValidUki();
  std::mt19937_64 random(8);
  for (int i = 0; i < 5000; ++i) {
    Bytes file = valid;
    for (int k = 0; k < 3; ++k) {
      const size_t end = k == 0 ? file.size() : size_t{0x300};
      file[random() % end] ^= std::byte{1} << (random() % 8);
    }
    const auto pe = PeImage::Parse(file);
    if (!pe.has_value()) continue;
    const auto uki = ParseUki(*pe);
    if (uki.has_value()) static_cast<void>(UkiMeasurements(*uki));
  }
}

}  // namespace
}  // namespace vallum::formats

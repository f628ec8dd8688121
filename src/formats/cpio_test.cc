// SPDX-License-Identifier: Apache-2.0
#include "formats/cpio.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "formats/decompress.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using std::string_literals::operator""s;
using testing::CountingReader;
using ::testing::HasSubstr;
using testing::MustRun;
using testing::ReadFile;
using testing::TempDir;
using testing::WriteFile;

struct Entry {
  std::string name;
  std::string content;
  uint32_t mode = 0100755;
};

std::string Padded(std::string text) {
  text.resize((text.size() + 3) / 4 * 4);
  return text;
}

uint32_t SumOf(std::string_view content) {
  uint32_t sum = 0;
  for (const char c : content) sum += static_cast<unsigned char>(c);
  return sum;
}

std::string NewcEntry(const Entry& e, std::string_view magic) {
  const uint32_t check = magic == "070702" ? SumOf(e.content) : 0;
  std::string out = fmt::format(
      "{}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}", magic, 1,
      e.mode, 0, 0, 1, 0, e.content.size(), 0, 0, 0, 0, e.name.size() + 1, check);
  return Padded(Padded(out + e.name + "\0"s) + e.content);
}

std::string Newc(const std::vector<Entry>& entries, std::string_view magic = "070701") {
  std::string out;
  for (const Entry& e : entries) out += NewcEntry(e, magic);
  return out + NewcEntry({"TRAILER!!!", "", 0}, magic);
}

std::string MakeValidInitrd() {
  return Newc({{".", "", 040755}, {"init", "#!/bin/sh\n"}, {"dev/console", "", 020600}});
}

Result<InitrdFacts> Check(const std::string& file) {
  return CheckInitrd(MemoryReader(AsBytes(file)));
}

void ExpectRefused(const std::string& file, const std::string& why) {
  const auto facts = Check(file);
  ASSERT_FALSE(facts.has_value()) << why;
  EXPECT_EQ(facts.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(facts.error().Describe(), HasSubstr(why));
  EXPECT_FALSE(facts.error().fix().empty());
}

// Overwrites at an offset.
std::string Patched(std::string file, size_t offset, const std::string& text) {
  return file.replace(offset, text.size(), text);
}

std::string Compress(const std::string& content, const std::string& command) {
  const TempDir dir;
  WriteFile(dir.File("in"), AsBytes(content));
  MustRun(command + " <" + dir.File("in") + " >" + dir.File("out"));
  return std::string(AsText(ReadFile(dir.File("out"))));
}

struct Tool {
  std::string command;
  Compression compression;
};
const std::vector<Tool>& Tools() {
  static const std::vector<Tool> tools = {
      {"gzip -n -9", Compression::kGzip},
      {"bzip2 -9", Compression::kBzip2},
      {"xz --format=lzma", Compression::kLzma},
      {"xz -6", Compression::kXz},
      {"xz --check=crc32 --lzma2=dict=1MiB", Compression::kXz},
      {"lz4 -9", Compression::kLz4},
      {"lz4 -9 -l", Compression::kLz4Legacy},
      {"zstd -q -19", Compression::kZstd},
  };
  return tools;
}

TEST(Cpio, PlainArchiveIsDescribed) {
  const std::string file = MakeValidInitrd();
  const auto facts = Check(file);
  ASSERT_TRUE(facts.has_value()) << facts.error().Describe();
  ASSERT_EQ(facts->members.size(), 1U);
  EXPECT_EQ(facts->members[0].kind, CpioKind::kNewc);
  EXPECT_EQ(facts->members[0].compression, Compression::kNone);
  EXPECT_EQ(facts->members[0].entries, 3U);
  EXPECT_EQ(facts->members[0].size, file.size());
  EXPECT_EQ(facts->members[0].uncompressed_bytes, file.size());
  EXPECT_TRUE(facts->has_init);
  EXPECT_FALSE(facts->has_early_microcode);
}

TEST(Cpio, EveryCompressionIsRead) {
  const std::string plain = MakeValidInitrd();
  for (const Tool& tool : Tools()) {
    const std::string file = Compress(plain, tool.command);
    const auto facts = Check(file);
    ASSERT_TRUE(facts.has_value()) << tool.command << ": " << facts.error().Describe();
    ASSERT_EQ(facts->members.size(), 1U) << tool.command;
    EXPECT_EQ(facts->members[0].compression, tool.compression);
    EXPECT_EQ(facts->members[0].size, file.size()) << tool.command;
    EXPECT_EQ(facts->members[0].uncompressed_bytes, plain.size());
    EXPECT_EQ(facts->members[0].entries, 3U);
    EXPECT_TRUE(facts->has_init);
  }
}

TEST(Cpio, EveryKindThatCpioMakesIsRead) {
  const TempDir dir;
  MustRun("mkdir -p " + dir.File("t/bin") + " && cd " + dir.File("t") +
          " && echo hello >init && seq 9999 >bin/long && ln -s long bin/link && ln init hard");
  for (const auto& [format, kind] :
       {std::pair("newc", CpioKind::kNewc), std::pair("crc", CpioKind::kCrc),
        std::pair("odc", CpioKind::kOdc)}) {
    MustRun("cd " + dir.File("t") + " && find . | cpio --quiet -o -H " + format + " >" +
            dir.File("out"));
    const Bytes file = ReadFile(dir.File("out"));
    const auto facts = CheckInitrd(MemoryReader(file));
    ASSERT_TRUE(facts.has_value()) << format << ": " << facts.error().Describe();
    ASSERT_EQ(facts->members.size(), 1U);
    EXPECT_EQ(facts->members[0].kind, kind);
    EXPECT_EQ(facts->members[0].entries, 6U) << format;
    EXPECT_TRUE(facts->has_init);
  }
  MustRun("cd " + dir.File("t") + " && find . | cpio --quiet -o -H bin >" + dir.File("out"));
  ExpectRefused(std::string(AsText(ReadFile(dir.File("out")))), "old binary format at offset 0");
}

// What initramfs-tools and dracut make: microcode in front, plain, then the rest, compressed.
TEST(Cpio, SeveralMembersAreRead) {
  const std::string early =
      Newc({{"kernel/x86/microcode/GenuineIntel.bin", "code", 0100644}}) + std::string(300, '\0');
  for (const Tool& tool : Tools()) {
    const std::string middle = Compress(MakeValidInitrd(), tool.command);
    const size_t padding = 4 - (early.size() + middle.size()) % 4;
    const std::string file =
        early + middle + std::string(padding, '\0') + Newc({{"etc/x", "y"}}) + std::string(9, '\0');
    const auto facts = Check(file);
    ASSERT_TRUE(facts.has_value()) << tool.command << ": " << facts.error().Describe();
    ASSERT_EQ(facts->members.size(), 3U) << tool.command;
    EXPECT_EQ(facts->members[1].offset, early.size());
    EXPECT_EQ(facts->members[2].offset, early.size() + middle.size() + padding);
    EXPECT_TRUE(facts->has_early_microcode);
    EXPECT_TRUE(facts->has_init);
  }
}

TEST(Cpio, DebiansInitrdIsRead) {
  const std::string guest = testing::GuestDir();
  if (guest.empty() || !testing::HasTool("mcopy")) GTEST_SKIP() << "no mcopy, or no guest made";
  const TempDir dir;
  MustRun("mcopy -i " + guest + "/debian.raw@@1048576 ::/initrd.img " + dir.File("initrd"));
  const Bytes initrd = ReadFile(dir.File("initrd"));
  const auto facts = CheckInitrd(MemoryReader(initrd));
  ASSERT_TRUE(facts.has_value()) << facts.error().Describe();
  EXPECT_TRUE(facts->has_init);
  EXPECT_EQ(facts->members[0].compression, Compression::kGzip);
}

TEST(Cpio, MicrocodeThatTheKernelWouldNotFindIsNotCounted) {
  const std::string early = Newc({{"kernel/x86/microcode/GenuineIntel.bin", "code", 0100644}});
  EXPECT_FALSE(Check(MakeValidInitrd() + early)->has_early_microcode);
  EXPECT_FALSE(Check(Compress(early, "gzip"))->has_early_microcode);
}

TEST(Cpio, SeveralArchivesInOneStreamAreRead) {
  const std::string two = Newc({{"a", "b"}}) + std::string(512, '\0') + MakeValidInitrd();
  const auto facts = Check(Compress(two, "gzip"));
  ASSERT_TRUE(facts.has_value()) << facts.error().Describe();
  ASSERT_EQ(facts->members.size(), 1U);
  EXPECT_EQ(facts->members[0].entries, 4U);
  EXPECT_TRUE(facts->has_init);
}

TEST(Cpio, WhatIsNotAnInitrdIsRefused) {
  ExpectRefused("", "nothing but zeroes");
  ExpectRefused(std::string(5000, '\0'), "nothing but zeroes");
  ExpectRefused(
      "\x7f"
      "ELF etc",
      "neither cpio nor a known compression at offset 0");
  ExpectRefused("QFI\xfb and more", "neither cpio nor a known compression");
  ExpectRefused("0707", "neither cpio nor a known compression");
  ExpectRefused("\x89LZO\0\r\n\x1a\n"s, "lzo compression");
  for (const Tool& tool : Tools()) {
    ExpectRefused(Compress("just text, long enough", tool.command), "no cpio archive");
    ExpectRefused(Compress("", tool.command), "it is empty");
  }
}

TEST(Cpio, ContentAfterTheLastMemberIsRefused) {
  const std::string valid = MakeValidInitrd();
  ExpectRefused(valid + "x", fmt::format("further member at offset {}", valid.size()));
  ExpectRefused(valid + "\0\0\0\0x"s, fmt::format("further member at offset {}", valid.size() + 4));
  for (const Tool& tool : Tools()) {
    const std::string file = Compress(valid, tool.command);
    // In LZ4's legacy format the length of a block could follow: this one cannot be.
    ExpectRefused(file + "\xff\xff\xff\xff",
                  fmt::format("further member at offset {}", file.size()));
  }
}

TEST(Cpio, HeaderWithOtherThanHexadecimalDigitsIsRefused) {
  for (const char* bad : {" ", "g", "x", "+", "-"}) {
    ExpectRefused(Patched(MakeValidInitrd(), 6 + 8 * 2, bad), "no hexadecimal digit");
  }
}

TEST(Cpio, NameThatIsNotBoundedIsRefused) {
  const std::string valid = MakeValidInitrd();
  ExpectRefused(Patched(valid, 94, "00001001"), "a name of 4097 bytes");
  ExpectRefused(Patched(valid, 94, "00000001"), "a name of 1 bytes");
  ExpectRefused(Patched(valid, 94, "FFFFFFFF"), "a name of 4294967295 bytes");
  ExpectRefused(Patched(valid, 111, "x"), "does not end in its only NUL");
  const std::string longest = Newc({{std::string(4095, 'n'), "x"}});
  EXPECT_TRUE(Check(longest).has_value());
}

TEST(Cpio, ContentPastTheEndIsRefused) {
  const std::string file = Newc({{"a", "content"}});
  ExpectRefused(Patched(file, 54, "7FFFFFFF"), "truncated");
  ExpectRefused(Compress(Patched(file, 54, "7FFFFFFF"), "gzip"), "truncated");
}

TEST(Cpio, ArchiveWithoutTrailerIsRefused) {
  const std::string entry = NewcEntry({"init", "x"}, "070701");
  ExpectRefused(entry, "truncated");
  ExpectRefused(entry + std::string(512, '\0'), "no trailer before");
  ExpectRefused(Compress(entry, "gzip"), "truncated");
}

TEST(Cpio, TrailerWithContentIsRefused) {
  ExpectRefused(NewcEntry({"TRAILER!!!", "x", 0}, "070701"), "a trailer with content");
}

TEST(Cpio, PaddingThatIsNotZeroIsRefused) {
  // "init" and its NUL end at 115 of the entry; 110 + 5 is one byte short of a multiple of 4.
  const std::string file = Newc({{"init", "x"}});
  ExpectRefused(Patched(file, 115, "x"), "padding that is not zero");
  ExpectRefused(Patched(file, 118, "x"), "padding that is not zero");
}

TEST(Cpio, PlainArchiveAtAnOddOffsetIsRefused) {
  ExpectRefused("\0"s + MakeValidInitrd(), "does not start at a multiple of 4 at offset 1");
  ExpectRefused(Compress(MakeValidInitrd() + "\0"s + MakeValidInitrd(), "gzip"),
                "does not start at a multiple of 4");
}

TEST(Cpio, UnknownModeAndMisplacedContentAreRefused) {
  ExpectRefused(Newc({{"a", "", 0}}), "unknown mode");
  ExpectRefused(Newc({{"a", "content", 040755}}), "has 7 bytes of content");
  ExpectRefused(Newc({{"a", std::string(5000, 'x'), 0120777}}), "has 5000 bytes of content");
}

TEST(Cpio, ChecksumOfContentIsVerified) {
  const std::string file = Newc({{"a", "content"}}, "070702");
  const auto facts = Check(file);
  ASSERT_TRUE(facts.has_value()) << facts.error().Describe();
  EXPECT_EQ(facts->members[0].kind, CpioKind::kCrc);
  ExpectRefused(Patched(file, 112, "C"), "its header says");
}

TEST(Cpio, MixedKindsInOneArchiveAreRefused) {
  ExpectRefused(NewcEntry({"a", "b"}, "070702") + MakeValidInitrd(), "of the archive's kind");
}

TEST(Cpio, TruncatedStreamIsRefused) {
  for (const Tool& tool : Tools()) {
    const std::string file = Compress(MakeValidInitrd(), tool.command);
    for (const size_t cut : {size_t{1}, size_t{5}, file.size() / 2}) {
      const auto facts = Check(file.substr(0, file.size() - cut));
      EXPECT_FALSE(facts.has_value()) << tool.command << " less " << cut;
    }
  }
}

TEST(Cpio, DamagedStreamIsRefused) {
  std::mt19937_64 random(5);
  std::string noise(200'000, '\0');
  for (char& c : noise) c = static_cast<char>(random());
  const std::string plain = Newc({{"init", noise}});
  for (const Tool& tool : Tools()) {
    // These two have no checksum of the content.
    if (tool.compression == Compression::kLzma || tool.compression == Compression::kLz4Legacy) {
      continue;
    }
    std::string file = Compress(plain, tool.command);
    file[file.size() / 2] = static_cast<char>(file[file.size() / 2] ^ 1);
    const auto facts = Check(file);
    EXPECT_FALSE(facts.has_value()) << tool.command;
  }
}

TEST(Cpio, BombIsRefusedEarly) {
  const std::string plain = Newc({{"init", std::string(8U << 20U, '\0')}});
  for (const Tool& tool : Tools()) {
    ExpectRefused(Compress(plain, tool.command), "more than 128 times as many");
  }
}

TEST(Cpio, DictionaryOfMoreThanTheMemoryIsRefused) {
  const std::string plain = MakeValidInitrd();
  ExpectRefused(Compress(plain, "xz --lzma2=dict=64MiB"), "more than 48 MiB");
  ExpectRefused(Compress(plain, "zstd -q --ultra --long=27"), "too much memory");
}

TEST(Cpio, TooManyMembersAreRefused) {
  std::string file;
  for (size_t i = 0; i <= kInitrdMaxMembers; ++i) file += Newc({});
  ExpectRefused(file, "more than 256 members");
}

TEST(Cpio, HugeFileIsRefusedUnread) {
  const testing::SparseReader sparse(ToBytes(AsBytes(MakeValidInitrd())), uint64_t{1} << 40U);
  const CountingReader counting(sparse);
  EXPECT_FALSE(CheckInitrd(counting).has_value());
  EXPECT_EQ(counting.bytes(), 0U);
}

TEST(Cpio, ContentThatIsNotCompressedIsNotRead) {
  const std::string file = Newc({{"init", std::string(8U << 20U, 'x')}});
  const MemoryReader memory(AsBytes(file));
  const CountingReader counting(memory);
  ASSERT_TRUE(CheckInitrd(counting).has_value());
  EXPECT_LT(counting.bytes(), 1U << 20U);
}

TEST(Cpio, FlippedBitsAndCutsNeverCrash) {
  std::mt19937_64 random(6);
  for (const Tool& tool : Tools()) {
    const std::string valid = MakeValidInitrd() + Compress(MakeValidInitrd(), tool.command);
    for (int i = 0; i < (testing::kSanitized ? 100 : 1000); ++i) {
      std::string file = valid;
      for (int k = 0; k < 2; ++k) {
        char& c = file[random() % file.size()];
        c = static_cast<char>(c ^ 1 << random() % 8);
      }
      file.resize(file.size() - random() % 3 * (random() % 200));
      const MemoryReader memory(AsBytes(file));
      const CountingReader counting(memory);
      static_cast<void>(CheckInitrd(counting));
      EXPECT_LT(counting.bytes(), 4U << 20U);
    }
  }
}

}  // namespace
}  // namespace vallum::formats

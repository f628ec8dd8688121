// SPDX-License-Identifier: Apache-2.0
#include "formats/ova.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "formats/reader.h"
#include "formats/tar.h"
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

constexpr char kOvf[] =
    R"(<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References><File ovf:href="disk.vmdk" ovf:id="f" ovf:size="5"/></References>
<DiskSection><Disk ovf:capacity="1" ovf:diskId="d" ovf:fileRef="f"/></DiskSection>
<VirtualSystem ovf:id="vm"><Name>vm</Name></VirtualSystem></Envelope>)";

void FixChecksum(std::string& tar, size_t at) {
  tar.replace(at + 148, 8, "        ");
  unsigned sum = 0;
  for (size_t i = 0; i < kTarBlock; ++i) sum += static_cast<unsigned char>(tar[at + i]);
  tar.replace(at + 148, 8, fmt::format("{:06o}", sum) + "\0 "s);
}

std::string TarEntry(const std::string& name, const std::string& content, char type = '0') {
  std::string header(kTarBlock, '\0');
  header.replace(0, name.size(), name);
  header.replace(100, 7, "0000644");
  header.replace(124, 11, fmt::format("{:011o}", content.size()));
  header[156] = type;
  header.replace(257, 8,
                 "ustar\0"
                 "00"s);
  FixChecksum(header, 0);
  std::string out = header + content;
  out.resize((out.size() + kTarBlock - 1) / kTarBlock * kTarBlock);
  return out;
}

std::string End() { return std::string(2 * kTarBlock, '\0'); }

std::string Sha256Hex(const std::string& text) { return ToHex(Sha256(AsBytes(text))); }

std::string Manifest() {
  return "SHA256(vm.ovf)= " + Sha256Hex(kOvf) + "\nSHA256(disk.vmdk)= " + Sha256Hex("hello") + "\n";
}

std::string MakeValidOva() {
  return TarEntry("vm.ovf", kOvf) + TarEntry("vm.mf", Manifest()) + TarEntry("disk.vmdk", "hello") +
         End();
}

void ExpectRefused(const std::string& file, const std::string& why,
                   ErrorCode code = ErrorCode::kInvalidInput) {
  const auto ova = ParseOva(MemoryReader(AsBytes(file)));
  ASSERT_FALSE(ova.has_value()) << why;
  EXPECT_EQ(ova.error().code(), code) << ova.error().Describe();
  EXPECT_THAT(ova.error().Describe(), HasSubstr(why));
}

// The valid one with bytes of its first header replaced, and its checksum good again.
std::string WithHeader(size_t offset, const std::string& bytes) {
  std::string file = MakeValidOva();
  file.replace(offset, bytes.size(), bytes);
  FixChecksum(file, 0);
  return file;
}

TEST(Ova, MembersAndManifestAreRead) {
  const std::string file = MakeValidOva();
  const auto ova = ParseOva(MemoryReader(AsBytes(file)));
  ASSERT_TRUE(ova.has_value()) << ova.error().Describe();
  EXPECT_EQ(ova->ovf.name, "vm");
  ASSERT_EQ(ova->members.size(), 3U);
  const TarMember* disk = ova->Find(ova->ovf.disks[0].href);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(file.substr(static_cast<size_t>(disk->offset), static_cast<size_t>(disk->size)),
            "hello");
  ASSERT_EQ(ova->manifest.size(), 2U);
  EXPECT_EQ(ToHex(ova->manifest[1].digest), Sha256Hex("hello"));
  EXPECT_FALSE(ova->has_certificate);
}

TEST(Ova, WhatTarMakesIsRead) {
  const TempDir dir;
  WriteFile(dir.File("vm.ovf"), AsBytes(kOvf));
  WriteFile(dir.File("vm.mf"), AsBytes(Manifest()));
  WriteFile(dir.File("disk.vmdk"), AsBytes("hello"));
  WriteFile(dir.File("vm.cert"), AsBytes("x"));
  for (const std::string format : {"ustar", "pax", "posix", "gnu", "oldgnu"}) {
    MustRun("cd " + dir.File("") + " && tar --format=" + format +
            " -cf out vm.ovf vm.mf disk.vmdk vm.cert");
    const Bytes file = ReadFile(dir.File("out"));
    const auto ova = ParseOva(MemoryReader(file));
    ASSERT_TRUE(ova.has_value()) << format << ": " << ova.error().Describe();
    EXPECT_EQ(ova->members.size(), 4U);
    EXPECT_TRUE(ova->has_certificate);
  }
}

TEST(Ova, LargeSizesOfTarAreRead) {
  const TempDir dir;
  MustRun("cd " + dir.File("") +
          " && truncate -s 9G big && tar --format=gnu "
          "-cf - big 2>/dev/null | head -c 512 >gnu");
  const Bytes header = ReadFile(dir.File("gnu"));
  const testing::SparseReader sparse(header, (uint64_t{9} << 30U) + 512 + 10240 - 512);
  const auto members = ListTar(sparse);
  ASSERT_TRUE(members.has_value()) << members.error().Describe();
  EXPECT_EQ(members->at(0).size, uint64_t{9} << 30U);
}

TEST(Ova, PaxPathAndSizeAreHonoured) {
  const std::string pax =
      "18 path=disk.vmdk\n"
      "9 size=5\n"
      "11 mtime=1\n";
  const std::string file =
      TarEntry("vm.ovf", kOvf) + TarEntry("pax", pax, 'x') + TarEntry("short", "hello") + End();
  const auto ova = ParseOva(MemoryReader(AsBytes(file)));
  ASSERT_TRUE(ova.has_value()) << ova.error().Describe();
  EXPECT_EQ(ova->members[1].name, "disk.vmdk");
}

TEST(Ova, DamagedPaxHeadersAreRefused) {
  for (const std::string record :
       {"99 path=a\n", "1 a=b\n", "path=a\n", "9 path=ab", "7 pathx\n", "10 size=-1\n",
        "9 size=x\n", "14 linkpath=a\n", "23 GNU.sparse.major=1\n\n"}) {
    ExpectRefused(TarEntry("vm.ovf", kOvf) + TarEntry("pax", record, 'x') +
                      TarEntry("disk.vmdk", "hello") + End(),
                  "pax");
  }
  ExpectRefused(TarEntry("g", "10 path=a\n", 'g') + MakeValidOva(), "not accepted here");
  ExpectRefused(TarEntry("x", std::string(kTarMaxPaxBytes + 1, 'x'), 'x') + MakeValidOva(),
                "a pax header of");
}

TEST(Ova, OtherThanPlainFilesIsRefusedByName) {
  const std::vector<std::pair<char, std::string>> types = {
      {'1', "a hard link"},   {'2', "a symbolic link"}, {'3', "a device"},
      {'4', "a device"},      {'5', "a directory"},     {'6', "a FIFO"},
      {'S', "a sparse file"}, {'L', "a GNU long name"}, {'K', "a GNU long name"},
      {'V', "unknown type"}};
  for (const auto& [type, name] : types) {
    ExpectRefused(TarEntry("vm.ovf", kOvf) + TarEntry("x", "", type) + End(), name);
  }
}

TEST(Ova, NamesThatLeaveThePackageAreRefused) {
  for (const std::string name :
       {"/etc/x", "../x", "a/../x", "./x", "a//x", "", "a\\x", "\x1b[2J"}) {
    ExpectRefused(TarEntry("vm.ovf", kOvf) + TarEntry(name, "x") + End(),
                  "is not that of a file in the package");
  }
}

TEST(Ova, MemberOfTheSameNameIsRefused) {
  ExpectRefused(TarEntry("vm.ovf", kOvf) + TarEntry("a", "x") + TarEntry("a", "y") + End(),
                "two members are named", ErrorCode::kCorrupt);
}

TEST(Ova, DamagedHeadersAreRefused) {
  std::string file = MakeValidOva();
  file[5] = 'x';
  ExpectRefused(file, "checksum differs");
  ExpectRefused(WithHeader(257, "nostar"), "no ustar header");
  ExpectRefused(WithHeader(124, "9"), "a size that is no number");
  ExpectRefused(WithHeader(124, "-1"), "a size that is no number");
  ExpectRefused(WithHeader(124, "\xff\xff"), "a size that is no number");
  ExpectRefused(WithHeader(124, "77777777777"), "truncated");
  ExpectRefused(WithHeader(124, "\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"s), "truncated");
}

TEST(Ova, CutArchiveIsRefused) {
  const std::string file = MakeValidOva();
  ExpectRefused("", "truncated");
  ExpectRefused(file.substr(0, 700), "truncated");
  ExpectRefused(file.substr(0, file.size() - 2 * kTarBlock), "truncated");
  ExpectRefused(file.substr(0, file.size() - kTarBlock), "no second block of zeroes");
}

TEST(Ova, BytesAfterTheEndAreRefused) {
  ExpectRefused(MakeValidOva() + "x", "bytes other than zero after the end");
  ExpectRefused(MakeValidOva() + std::string(2U << 20U, '\0'), "bytes after the end");
}

TEST(Ova, DescriptorMustBeTheFirstAndOnlyOne) {
  ExpectRefused(End(), "first member is not the descriptor");
  ExpectRefused(TarEntry("disk.vmdk", "hello") + TarEntry("vm.ovf", kOvf) + End(),
                "first member is not the descriptor");
  ExpectRefused(TarEntry("vm.ovf", kOvf) + TarEntry("b.ovf", kOvf) + End(), "several descriptors");
  ExpectRefused(TarEntry("vm.ovf", std::string(kOvfMaxBytes + 1, ' ')) + End(), "a descriptor of");
}

TEST(Ova, FilesThatAreNotInTheArchiveAreRefused) {
  ExpectRefused(TarEntry("vm.ovf", kOvf) + End(), "\"disk.vmdk\", which is not in the archive",
                ErrorCode::kCorrupt);
  ExpectRefused(TarEntry("vm.ovf", kOvf) + TarEntry("disk.vmdk", "hell") + End(),
                "has 4 bytes, the descriptor says 5", ErrorCode::kCorrupt);
}

TEST(Ova, ManifestThatDoesNotFitIsRefused) {
  const std::string disk = TarEntry("disk.vmdk", "hello") + End();
  ExpectRefused(
      TarEntry("vm.ovf", kOvf) + TarEntry("vm.mf", "SHA256(vm.ovf)= " + Sha256Hex("other")) + disk,
      "the sha256 of the descriptor differs", ErrorCode::kCorrupt);
  ExpectRefused(
      TarEntry("vm.ovf", kOvf) + TarEntry("vm.mf", "SHA256(none)= " + Sha256Hex("other")) + disk,
      "names \"none\"", ErrorCode::kCorrupt);
  ExpectRefused(TarEntry("vm.ovf", kOvf) + TarEntry("vm.mf", "nonsense") + disk, "line 1");
}

TEST(Ova, DisksAreNotRead) {
  const std::string big(8U << 20U, 'x');
  std::string ovf = kOvf;
  ovf.replace(ovf.find("\"5\""), 3, "\"8388608\"");
  const std::string file = TarEntry("vm.ovf", ovf) + TarEntry("disk.vmdk", big) + End();
  const MemoryReader memory(AsBytes(file));
  const CountingReader counting(memory);
  const auto ova = ParseOva(counting);
  ASSERT_TRUE(ova.has_value()) << ova.error().Describe();
  EXPECT_LT(counting.bytes(), 8192U);
}

TEST(Ova, FlippedBitsAndCutsNeverCrash) {
  const std::string valid = MakeValidOva();
  std::mt19937_64 random(10);
  for (int i = 0; i < 3000; ++i) {
    std::string file = valid;
    for (int k = 0; k < 2; ++k) {
      char& c = file[random() % file.size()];
      c = static_cast<char>(c ^ 1 << random() % 8);
    }
    FixChecksum(file, 0);
    if (random() % 4 == 0) file.resize(random() % file.size());
    const MemoryReader memory(AsBytes(file));
    const CountingReader counting(memory);
    static_cast<void>(ParseOva(counting));
    EXPECT_LT(counting.bytes(), 4U << 20U);
  }
}

}  // namespace
}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
// Files that an attacker would upload: each must be refused by name, whatever it is declared as.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/crc32c.h"
#include "formats/fields.h"
#include "formats/luks.h"
#include "formats/reader.h"
#include "formats/test_support.h"
#include "images/fd_reader.h"
#include "images/inspection.h"

namespace vallum::images {
namespace {

using formats::MemoryReader;
using formats::U32Be;
using formats::U64Be;
using formats::U64Le;
using ::testing::HasSubstr;
using namespace formats::testing;  // NOLINT(google-build-using-namespace): test helpers

constexpr std::array kEveryFormat = {
    DeclaredFormat::kQcow2, DeclaredFormat::kVmdk, DeclaredFormat::kVhd,    DeclaredFormat::kVhdx,
    DeclaredFormat::kVdi,   DeclaredFormat::kIso,  DeclaredFormat::kGpt,    DeclaredFormat::kMbr,
    DeclaredFormat::kRaw,   DeclaredFormat::kLuks, DeclaredFormat::kKernel, DeclaredFormat::kInitrd,
    DeclaredFormat::kOva};

void ExpectRefusal(const Error& error, const std::string& reason) {
  EXPECT_EQ(error.code(), ErrorCode::kInvalidInput) << error.Describe();
  EXPECT_THAT(error.Describe(), HasSubstr(reason));
  EXPECT_THAT(error.Describe(), ::testing::Not(HasSubstr("\n")));
  EXPECT_FALSE(error.fix().empty()) << error.Describe();
}

void ExpectRefused(ByteView image, DeclaredFormat declared, const std::string& reason) {
  SCOPED_TRACE("declared " + std::string(DeclaredFormatName(declared)));
  const auto result = Inspect(MemoryReader(image), declared);
  ASSERT_FALSE(result.has_value()) << "accepted; expected: " << reason;
  ExpectRefusal(result.error(), reason);
}

struct HostileCase {
  std::string name;
  DeclaredFormat declared;
  std::function<Bytes()> make;
  std::string reason;  // when declared so; other declarations are refused for any reason
};
class HostileImage : public ::testing::TestWithParam<HostileCase> {};

TEST_P(HostileImage, IsRefusedWithItsReasonAndWhateverIsDeclared) {
  const Bytes image = GetParam().make();
  ExpectRefused(image, GetParam().declared, GetParam().reason);
  for (const DeclaredFormat declared : kEveryFormat) ExpectRefused(image, declared, "");
  const auto detected = DetectFormat(MemoryReader(image));
  if (detected.has_value()) {
    EXPECT_NE(*detected, DeclaredFormat::kRaw);
  } else {
    ExpectRefusal(detected.error(), "");
  }
}

std::string NameOf(const ::testing::TestParamInfo<HostileCase>& row) { return row.param.name; }

using Damage = std::function<void(Bytes&)>;
std::function<Bytes()> Damaged(const Bytes& (*valid)(), const Damage& damage) {
  return [=] {
    Bytes image = valid();
    EXPECT_FALSE(image.empty());
    damage(image);
    return image;
  };
}
std::function<Bytes()> Created(const std::string& format, const std::string& options,
                               const std::string& size) {
  return [=] { return QemuImgCreate(format, options, size); };
}
std::function<Bytes()> Text(const std::string& text) {
  return [=] { return ToBytes(AsBytes(text)); };
}

const Bytes& GptDisk() {
  static const Bytes disk = MakeGptDisk(512, 256, {{40, 80}, {81, 120}});
  return disk;
}

// What qemu-img makes of that disk.
Bytes Convert(const std::string& options) {
  const TempDir dir;
  WriteFile(dir.File("raw"), GptDisk());
  MustRun("qemu-img convert -f raw -O " + options + " " + dir.File("raw") + " " +
          dir.File("image"));
  return ReadFile(dir.File("image"));
}

// ---- qcow2

const Bytes& Qcow2() {
  static const Bytes image = QemuImgCreate("qcow2", "", "8M");
  return image;
}
void PutExtension(Bytes& image, uint32_t type, const std::string& data) {
  const size_t at = U32Be(image, 100);
  std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(at), 512, std::byte{0});
  PutBe32(image, at, type);
  PutBe32(image, at + 4, static_cast<uint32_t>(data.size()));
  PutText(image, at + 8, data);
}
HostileCase Qcow2Case(const std::string& name, const Damage& damage, const std::string& reason) {
  return {name, DeclaredFormat::kQcow2, Damaged(Qcow2, damage), reason};
}
HostileCase Qcow2Created(const std::string& name, const std::string& options,
                         const std::string& reason) {
  return {name, DeclaredFormat::kQcow2, Created("qcow2", options, "8M"), reason};
}
// qemu-img makes the data file, so the path in the header has to be one that it may write.
Bytes Qcow2WithDataFile() {
  const TempDir dir;
  MustRun("qemu-img create -q -f qcow2 -o data_file_raw=on,data_file=" + dir.File("data") + " " +
          dir.File("image") + " 8M");
  return ReadFile(dir.File("image"));
}

INSTANTIATE_TEST_SUITE_P(
    Qcow2, HostileImage,
    ::testing::Values(
        Qcow2Created("BackingFile", "-u -b /etc/passwd -F raw", "backing file"),
        Qcow2Created("BackingNbd", "-u -b nbd://host/export -F raw", "backing file"),
        Qcow2Created("BackingJson", "-u -b 'json:{\"driver\":\"null-co\"}' -F raw", "backing file"),
        HostileCase{"DataFile", DeclaredFormat::kQcow2, Qcow2WithDataFile, "data file"},
        Qcow2Case(
            "DataFileBitAlone", [](Bytes& i) { PutBe64(i, 72, 4); }, "data file"),
        Qcow2Case(
            "DataFileNameAlone", [](Bytes& i) { PutExtension(i, 0x44415441, "/etc/shadow"); },
            "data file"),
        Qcow2Case(
            "UnknownBit5", [](Bytes& i) { PutBe64(i, 72, 32); }, "unknown feature"),
        Qcow2Case(
            "Version4", [](Bytes& i) { PutBe32(i, 4, 4); }, "unknown version 4"),
        Qcow2Case(
            "Dirty", [](Bytes& i) { PutBe64(i, 72, 1); }, "dirty"),
        Qcow2Case(
            "CryptMethod1", [](Bytes& i) { PutBe32(i, 32, 1); }, "encrypted"),
        Qcow2Case(
            "CryptMethod2", [](Bytes& i) { PutBe32(i, 32, 2); }, "encrypted"),
        Qcow2Case(
            "VirtualSize", [](Bytes& i) { PutBe64(i, 24, uint64_t{1} << 60U); }, "virtual size"),
        Qcow2Case(
            "L1LargerThanTheFile", [](Bytes& i) { PutBe32(i, 36, 0x7fffffff); }, "L1 table"),
        Qcow2Case(
            "SnapshotTable",
            [](Bytes& i) {
              PutBe32(i, 60, 0xffffffff);
              PutBe64(i, 64, 0x10000);
            },
            "snapshots"),
        Qcow2Case(
            "HeaderLength", [](Bytes& i) { PutBe32(i, 100, 0x7ffffff8); }, "header length"),
        Qcow2Case(
            "RefcountTable", [](Bytes& i) { PutBe64(i, 48, uint64_t{1} << 40U); },
            "refcount table"),
        Qcow2Case(
            "CutTo200Bytes", [](Bytes& i) { i.resize(200); }, "truncated"),
        Qcow2Case(
            "CutToFourBytes", [](Bytes& i) { i.resize(4); }, "truncated"),
        Qcow2Case(
            "WithAnIso", [](Bytes& i) { PutText(i, 32769, "CD001"); }, "ambiguous"),
        Qcow2Case(
            "WithAnMbr", [](Bytes& i) { PutText(i, 510, "\x55\xaa"); }, "ambiguous")),
    NameOf);

// Extended L2 entries and another compression say nothing about other files: accepted.
TEST(Qcow2Policy, FeaturesThatReadNothingElseAreAccepted) {
  for (const std::string options : {"extended_l2=on,cluster_size=64k", "compression_type=zstd"}) {
    const Bytes image = QemuImgCreate("qcow2", "-o " + options, "8M");
    const auto result = Inspect(MemoryReader(image), DeclaredFormat::kQcow2);
    EXPECT_TRUE(result.has_value()) << options << result.error().Describe();
  }
}

// ---- VMDK

constexpr size_t kVmdkDescriptor = 512;

const Bytes& Vmdk() {
  static const Bytes image = QemuImgCreate("vmdk", "", "8M");
  return image;
}
const Bytes& StreamVmdk() {
  static const Bytes image = Convert("vmdk -o subformat=streamOptimized");
  return image;
}
// Its descriptor with one text replaced, or with a line more.
Damage Descriptor(const std::string& from, const std::string& to) {
  return [=](Bytes& image) {
    std::string text(AsText(ByteView(image).subspan(kVmdkDescriptor, 20 * 512)));
    text.resize(text.find('\0'));
    const size_t at = from.empty() ? text.size() : text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    text.resize(20 * 512);
    PutText(image, kVmdkDescriptor, text);
  };
}
HostileCase VmdkCase(const std::string& name, const std::string& from, const std::string& to,
                     const std::string& reason) {
  return {name, DeclaredFormat::kVmdk, Damaged(Vmdk, Descriptor(from, to)), reason};
}
HostileCase VmdkText(const std::string& name, const std::string& create_type,
                     const std::string& rest, const std::string& reason) {
  return {name, DeclaredFormat::kVmdk,
          Text("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"" +
               create_type + "\"\n" + rest + "\n"),
          reason};
}
// A footer that gives the place of the directory and half the capacity.
void AppendFooter(Bytes& image) {
  const size_t at = image.size();
  image.resize(at + 3 * 512);
  PutLe64(image, at, 1);
  PutLe32(image, at + 12, 3);
  std::copy_n(image.begin(), 512, image.begin() + static_cast<std::ptrdiff_t>(at + 512));
  PutLe64(image, at + 512 + 12, U64Le(image, 12) / 2);
  PutLe64(image, 56, ~uint64_t{0});
}

INSTANTIATE_TEST_SUITE_P(
    Vmdk, HostileImage,
    ::testing::Values(
        VmdkText("FlatAbsolute", "monolithicFlat", "RW 2048 FLAT \"/etc/passwd\" 0",
                 "external extent"),
        VmdkText("FlatRelative", "monolithicFlat", "RW 2048 FLAT \"disk-flat.vmdk\" 0",
                 "external extent"),
        VmdkText("FullDevice", "fullDevice", "RW 1 FLAT \"/dev/sda\" 0", "external extent"),
        VmdkText("Split", "twoGbMaxExtentSparse", "RW 1 SPARSE \"a-s001.vmdk\"", "external extent"),
        VmdkText("ParentOfADescriptor", "monolithicSparse", "parentFileNameHint=\"base.vmdk\"",
                 "parent"),
        VmdkCase("ExtentAbsolute", "SPARSE \"image\"", "FLAT \"/etc/passwd\" 0", "external extent"),
        VmdkCase("ExtentRelative", "\"image\"", "\"../image\"", "external extent"),
        VmdkCase("SecondExtent", "", "RW 1 SPARSE \"other.vmdk\"\n", "names 2"),
        VmdkCase("ParentHint", "", "parentFileNameHint=\"/etc/passwd\"\n", "parent"),
        VmdkCase("ParentCid", "parentCID=ffffffff", "parentCID=12345678", "parentCID=12345678"),
        HostileCase{"FooterDisagrees", DeclaredFormat::kVmdk, Damaged(StreamVmdk, AppendFooter),
                    "footer"},
        HostileCase{"FooterMissing", DeclaredFormat::kVmdk,
                    Damaged(StreamVmdk, [](Bytes& i) { PutLe64(i, 56, ~uint64_t{0}); }), "footer"},
        HostileCase{"CutShort", DeclaredFormat::kVmdk,
                    Damaged(Vmdk, [](Bytes& i) { i.resize(300); }), "truncated"},
        HostileCase{"WithAnMbr", DeclaredFormat::kVmdk,
                    Damaged(Vmdk, [](Bytes& i) { PutText(i, 510, "\x55\xaa"); }), "ambiguous"}),
    NameOf);

// ---- VHD

constexpr size_t kVhdFooter = 512;
constexpr size_t kVhdHeader = 512;
constexpr size_t kVhdHeaderBytes = 1024;

const Bytes& DynamicVhd() {
  static const Bytes image = Convert("vpc -o force_size=on");
  return image;
}
const Bytes& FixedVhd() {
  static const Bytes image = Convert("vpc -o subformat=fixed,force_size=on");
  return image;
}
void SealVhdPart(Bytes& image, size_t begin, size_t size, size_t field) {
  PutBe32(image, begin + field, 0);
  uint32_t sum = 0;
  for (size_t i = 0; i < size; ++i) sum += std::to_integer<uint32_t>(image[begin + i]);
  PutBe32(image, begin + field, ~sum);
}
void MakeDifferencing(Bytes& image) {
  const size_t footer = image.size() - kVhdFooter;
  PutBe32(image, footer + 60, 4);
  SealVhdPart(image, footer, kVhdFooter, 64);
  std::copy_n(image.begin() + static_cast<std::ptrdiff_t>(footer), kVhdFooter, image.begin());
  PutText(image, kVhdHeader + 64, std::string("\0b\0a\0s\0e\0.\0v\0h\0d", 16));
  SealVhdPart(image, kVhdHeader, kVhdHeaderBytes, 36);
}
// Raw content with the footer of another disk behind it.
Bytes BlobWithVhdFooter() {
  Bytes image(65536, std::byte{7});
  image.insert(image.end(), FixedVhd().end() - kVhdFooter, FixedVhd().end());
  return image;
}
Bytes GptWithFootersOfAnother() {
  Bytes image = MakeGptDisk(512, 512, {{40, 80}});
  image.insert(image.end(), FixedVhd().end() - kVhdFooter, FixedVhd().end());
  return image;
}

INSTANTIATE_TEST_SUITE_P(
    Vhd, HostileImage,
    ::testing::Values(
        HostileCase{"FooterOfABlob", DeclaredFormat::kRaw, BlobWithVhdFooter,
                    "declared raw, but detected VHD"},
        HostileCase{"FooterOfAnotherSize", DeclaredFormat::kVhd, BlobWithVhdFooter, "inconsistent"},
        HostileCase{"FooterOfAnotherSizeBehindGpt", DeclaredFormat::kGpt, GptWithFootersOfAnother,
                    "ambiguous"},
        HostileCase{"Differencing", DeclaredFormat::kVhd, Damaged(DynamicVhd, MakeDifferencing),
                    "differencing"},
        HostileCase{"Checksum", DeclaredFormat::kVhd,
                    Damaged(DynamicVhd, [](Bytes& i) { i[i.size() - 400] ^= std::byte{1}; }),
                    "checksum"},
        HostileCase{"CutInItsHeader", DeclaredFormat::kVhd,
                    Damaged(DynamicVhd, [](Bytes& i) { i.resize(1000); }), ""},
        HostileCase{"DynamicWithAGpt", DeclaredFormat::kVhd,
                    Damaged(DynamicVhd, [](Bytes& i) { PutText(i, 512, "EFI PART"); }),
                    "ambiguous"}),
    NameOf);

// Its bytes before the footer are the disk: as raw or gpt, a guest would get the footer as well.
TEST(FixedVhd, WithAGptInsideIsAcceptedAsVhdOnly) {
  const auto result = Inspect(MemoryReader(FixedVhd()), DeclaredFormat::kVhd);
  ASSERT_TRUE(result.has_value()) << result.error().Describe();
  EXPECT_EQ(result->content, ContentFormat::kGpt);
  EXPECT_EQ(result->virtual_size, GptDisk().size());
  EXPECT_EQ(*DetectFormat(MemoryReader(FixedVhd())), DeclaredFormat::kVhd);
  for (const DeclaredFormat declared : kEveryFormat) {
    if (declared != DeclaredFormat::kVhd) ExpectRefused(FixedVhd(), declared, "ambiguous");
  }
}

// ---- VHDX and VDI

constexpr size_t kMiB = 1 << 20;
constexpr size_t kVhdxRegions1 = 192 << 10;
constexpr size_t kVhdxRegions2 = 256 << 10;
constexpr size_t kVhdxRegionBytes = 64 << 10;
constexpr size_t kVhdxFileParameters = 3 * kMiB + (64 << 10);  // where qemu-img puts them

const Bytes& Vhdx() {
  static const Bytes image = QemuImgCreate("vhdx", "-o block_size=1M", "5M");
  return image;
}
Damage VhdxRegion(uint64_t offset) {
  return [=](Bytes& image) {
    for (const size_t table : {kVhdxRegions1, kVhdxRegions2}) {
      PutLe64(image, table + 32, offset);
      PutLe32(image, table + 4, 0);
      PutLe32(image, table + 4, formats::Crc32c(ByteView(image).subspan(table, kVhdxRegionBytes)));
    }
  };
}
const Bytes& Vdi() {
  static const Bytes image = Convert("vdi");
  return image;
}
HostileCase VhdxCase(const std::string& name, const Damage& damage, const std::string& reason) {
  return {name, DeclaredFormat::kVhdx, Damaged(Vhdx, damage), reason};
}
HostileCase VdiCase(const std::string& name, const Damage& damage, const std::string& reason) {
  return {name, DeclaredFormat::kVdi, Damaged(Vdi, damage), reason};
}

INSTANTIATE_TEST_SUITE_P(
    VhdxAndVdi, HostileImage,
    ::testing::Values(
        HostileCase{"VhdxSignatureAlone", DeclaredFormat::kVhdx, Text("vhdxfile"), "truncated"},
        VhdxCase(
            "VhdxSignatureInZeroes",
            [](Bytes& i) { std::fill(i.begin() + 8, i.end(), std::byte{0}); },
            "neither the header"),
        VhdxCase("VhdxRegionOutside", VhdxRegion(uint64_t{1} << 40U), "region"),
        VhdxCase("VhdxRegionWraps", VhdxRegion(~uint64_t{0xfffff}), "region"),
        VhdxCase(
            "VhdxParent", [](Bytes& i) { PutLe32(i, kVhdxFileParameters + 4, 2); }, "differencing"),
        VhdxCase(
            "VhdxCutShort", [](Bytes& i) { i.resize(kMiB); }, ""),
        VdiCase(
            "VdiWithAGpt", [](Bytes& i) { PutText(i, 512, "EFI PART"); }, "ambiguous"),
        VdiCase(
            "VdiDifferencing", [](Bytes& i) { PutLe32(i, 0x4c, 4); }, "parent"),
        VdiCase(
            "VdiParentUuid", [](Bytes& i) { i[0x1b8] = std::byte{1}; }, "parent"),
        VdiCase(
            "VdiVirtualSize", [](Bytes& i) { PutLe64(i, 0x170, uint64_t{1} << 60U); }, ""),
        VdiCase(
            "VdiCutShort", [](Bytes& i) { i.resize(300); }, "truncated"),
        HostileCase{"GptWithVdiMagic", DeclaredFormat::kGpt,
                    Damaged(GptDisk, [](Bytes& i) { PutText(i, 64, "\x7f\x10\xda\xbe"); }),
                    "ambiguous"}),
    NameOf);

// ---- Formats that are never accepted

INSTANTIATE_TEST_SUITE_P(
    Other, HostileImage,
    ::testing::Values(
        HostileCase{"Qed", DeclaredFormat::kRaw, Created("qed", "", "1M"), "detected QED"},
        HostileCase{"QedBacking", DeclaredFormat::kRaw,
                    Created("qed", "-u -b /etc/passwd -F raw", "1M"), "detected QED"},
        HostileCase{"Parallels", DeclaredFormat::kRaw, Created("parallels", "", "1M"),
                    "detected Parallels"},
        HostileCase{"Qcow1", DeclaredFormat::kQcow2, Created("qcow", "", "1M"), "unknown version"},
        HostileCase{"Json", DeclaredFormat::kRaw,
                    Text(R"(json:{"driver":"file","filename":"/etc/shadow"})"), "json:"},
        HostileCase{"JsonQcow2", DeclaredFormat::kQcow2, Text("json:{}"), "json:"},
        HostileCase{"ZeroBytes", DeclaredFormat::kRaw, Text(""), "empty"},
        HostileCase{"Zeroes", DeclaredFormat::kRaw, [] { return Bytes(100000); }, "empty"},
        HostileCase{"Elf", DeclaredFormat::kRaw,
                    Text("\x7f"
                         "ELF\2\1\1"),
                    "ELF"}),
    NameOf);

// ---- GPT

HostileCase GptCase(const std::string& name, const Damage& damage, const std::string& reason) {
  return {name, DeclaredFormat::kGpt, Damaged(GptDisk, damage), reason};
}
// The copies of an entry and the checksums agree, so that only the value is wrong.
Damage GptEntry(size_t field, uint64_t value) {
  return [=](Bytes& image) {
    const auto backup = static_cast<size_t>(U64Le(image, image.size() - 512 + 72)) * 512;
    PutLe64(image, 2 * size_t{512} + field, value);
    PutLe64(image, backup + field, value);
    FixGptCrcs(image, 512);
  };
}

INSTANTIATE_TEST_SUITE_P(
    Gpt, HostileImage,
    ::testing::Values(
        GptCase(
            "MbrType", [](Bytes& i) { i[450] = std::byte{7}; }, "not 0xee"),
        GptCase(
            "MbrStart", [](Bytes& i) { PutLe32(i, 454, 2); }, "starts at sector 2"),
        GptCase(
            "MbrSecondEntry",
            [](Bytes& i) {
              i[466] = std::byte{7};
              PutLe32(i, 470, 40);
              PutLe32(i, 474, 8);
            },
            "second entry"),
        GptCase(
            "MbrEmpty", [](Bytes& i) { std::fill_n(i.begin() + 446, 64, std::byte{0}); }, "empty"),
        GptCase(
            "HeaderCrc", [](Bytes& i) { i[512 + 60] ^= std::byte{1}; }, "wrong CRC"),
        GptCase(
            "EntriesCrc", [](Bytes& i) { i[1024 + 60] ^= std::byte{1}; }, "wrong CRC"),
        GptCase("Overlap", GptEntry(128 + 32, 60), "overlap"),
        GptCase("PastTheEnd", GptEntry(128 + 40, 100000), "not inside the usable sectors"),
        GptCase("EndsBeforeItStarts", GptEntry(40, 3), "partition 1"),
        GptCase(
            "CutShort", [](Bytes& i) { i.resize(i.size() / 2); }, "gpt")),
    NameOf);

// ---- LUKS

constexpr size_t kLuks1Slot = 208;

std::string Cryptsetup(const std::string& options, const std::string& file) {
  return "truncate -s 20M " + file + " && printf pw | /usr/sbin/cryptsetup luksFormat -q " +
         options + " --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file - " + file;
}
Bytes MakeLuks(const std::string& options) {
  const TempDir dir;
  MustRun(Cryptsetup(options, dir.File("image")));
  return ReadFile(dir.File("image"));
}
const Bytes& Luks1() {
  static const Bytes image = MakeLuks("--type luks1");
  return image;
}
const Bytes& Luks2() {
  static const Bytes image = MakeLuks("--type luks2");
  return image;
}
HostileCase Luks1Case(const std::string& name, const Damage& damage, const std::string& reason) {
  return {name, DeclaredFormat::kLuks, Damaged(Luks1, damage), reason};
}
HostileCase Luks2Case(const std::string& name, const Damage& damage, const std::string& reason) {
  return {name, DeclaredFormat::kLuks, Damaged(Luks2, damage), reason};
}

INSTANTIATE_TEST_SUITE_P(
    Luks, HostileImage,
    ::testing::Values(
        Luks1Case(
            "Iterations", [](Bytes& i) { PutBe32(i, kLuks1Slot + 4, 0xffffffff); }, "KDF budget"),
        Luks1Case(
            "DigestIterations", [](Bytes& i) { PutBe32(i, 164, 0xffffffff); }, "KDF budget"),
        Luks1Case(
            "Payload", [](Bytes& i) { PutBe32(i, 104, 0xffffffff); }, "past the end"),
        Luks1Case(
            "SlotsOverlap",
            [](Bytes& i) { PutBe32(i, kLuks1Slot + 48 + 40, U32Be(i, kLuks1Slot + 40)); },
            "overlaps"),
        Luks1Case(
            "Stripes", [](Bytes& i) { PutBe32(i, kLuks1Slot + 44, 4001); }, "4001 stripes"),
        Luks1Case(
            "Version3", [](Bytes& i) { i[7] = std::byte{3}; }, "unknown version 3"),
        Luks1Case(
            "CipherNull", [](Bytes& i) { PutText(i, 8, "cipher_null"); }, "no encryption at all"),
        Luks1Case(
            "CutShort", [](Bytes& i) { i.resize(591); }, "truncated"),
        Luks1Case(
            "WithAnMbr", [](Bytes& i) { PutText(i, 510, "\x55\xaa"); }, "ambiguous"),
        Luks2Case(
            "Luks2BothHeaders", [](Bytes& i) { i[4100] = i[0x4000 + 4100] = std::byte{'x'}; },
            "both headers"),
        Luks2Case(
            "Luks2CutShort", [](Bytes& i) { i.resize(65536); }, "")),
    NameOf);

TEST(Luks2, IsAcceptedButNotWhereThePathIsForVersion1) {
  ASSERT_TRUE(Inspect(MemoryReader(Luks2()), DeclaredFormat::kLuks).has_value());
  const auto header = formats::ParseLuks(MemoryReader(Luks2()));
  ASSERT_TRUE(header.has_value());
  const auto result = formats::RequireLuks1(*header);
  ASSERT_FALSE(result.has_value());
  ExpectRefusal(result.error(), "LUKS");
}

// ---- Kernel and initrd

const Bytes& Kernel() {
  static const Bytes kernel = MakeBzImage();
  return kernel;
}
const Bytes& Initrd() {
  static const Bytes initrd = [] {
    const TempDir dir;
    MustRun("cd " + dir.File("") + " && echo x >init && echo init | cpio -o -H newc >cpio");
    return ReadFile(dir.File("cpio"));
  }();
  return initrd;
}
// The initrd as this command line packs it.
Bytes Packed(const std::string& command) {
  const TempDir dir;
  WriteFile(dir.File("cpio"), Initrd());
  MustRun(command + " <" + dir.File("cpio") + " >" + dir.File("out"));
  return ReadFile(dir.File("out"));
}
Bytes CutPacked() {
  Bytes packed = Packed("gzip");
  packed.resize(packed.size() - 12);
  return packed;
}
Bytes GzipOfOther() {
  const TempDir dir;
  MustRun("echo hello | gzip >" + dir.File("out"));
  return ReadFile(dir.File("out"));
}

INSTANTIATE_TEST_SUITE_P(
    DirectBoot, HostileImage,
    ::testing::Values(
        HostileCase{"KernelThatIsElf", DeclaredFormat::kKernel,
                    Text("\x7f"
                         "ELF\2\1\1"),
                    "declared kernel, but detected ELF"},
        HostileCase{"KernelThatIsGzip", DeclaredFormat::kKernel, GzipOfOther,
                    "declared kernel, but detected gzip"},
        HostileCase{"KernelThatIsZImage", DeclaredFormat::kKernel,
                    Damaged(Kernel, [](Bytes& i) { i[0x211] = std::byte{0}; }), "zImage"},
        HostileCase{"KernelCutShort", DeclaredFormat::kKernel,
                    Damaged(Kernel, [](Bytes& i) { i.resize(2000); }), "truncated"},
        HostileCase{"KernelThatIsACutPe", DeclaredFormat::kKernel,
                    [] {
                      Bytes pe = MakePe({});
                      pe.resize(600);
                      return pe;
                    },
                    "headers of 1024 bytes in a file of 600"},
        HostileCase{"InitrdThatIsElf", DeclaredFormat::kInitrd,
                    Text("\x7f"
                         "ELF\2\1\1"),
                    "declared initrd, but detected ELF"},
        HostileCase{"InitrdThatIsGzipOfText", DeclaredFormat::kInitrd, GzipOfOther, "no cpio"},
        HostileCase{"InitrdCutShort", DeclaredFormat::kInitrd,
                    Damaged(Initrd, [](Bytes& i) { i.resize(150); }), "truncated"},
        HostileCase{"InitrdWithACutStream", DeclaredFormat::kInitrd, CutPacked, "truncated"},
        HostileCase{"InitrdWithBytesBehind", DeclaredFormat::kInitrd,
                    Damaged(Initrd, [](Bytes& i) { i.resize(i.size() + 4, std::byte{'E'}); }),
                    "neither padding nor a further member"}),
    NameOf);

TEST(Initrd, EveryCompressionAndSeveralMembersAreAccepted) {
  for (const std::string command :
       {"cat", "gzip", "xz --check=crc32", "zstd -q", "lz4 -lq", "bzip2"}) {
    Bytes image = Packed(command);
    image.resize((image.size() + 3) / 4 * 4);
    image.insert(image.end(), Initrd().begin(), Initrd().end());
    const auto result = Inspect(MemoryReader(image), DeclaredFormat::kInitrd);
    ASSERT_TRUE(result.has_value()) << command << ": " << result.error().Describe();
    EXPECT_FALSE(result->bootable);
    ExpectRefused(image, DeclaredFormat::kRaw, "declared raw");
  }
}

TEST(Kernel, BzImageAndPeAreAccepted) {
  for (const Bytes& image : {Kernel(), MakePe({})}) {
    const auto result = Inspect(MemoryReader(image), DeclaredFormat::kKernel);
    ASSERT_TRUE(result.has_value()) << result.error().Describe();
    ExpectRefused(image, DeclaredFormat::kRaw, "declared raw");
    ExpectRefused(image, DeclaredFormat::kInitrd, "declared initrd");
  }
}

TEST(Declaration, TextThatIsNoneOfItIsRefusedUnlessRaw) {
  for (const DeclaredFormat declared : kEveryFormat) {
    if (declared == DeclaredFormat::kRaw) continue;
    ExpectRefused(AsBytes("plain text, which is a blob"), declared,
                  declared == DeclaredFormat::kGpt ? "no GPT header" : "no signature");
  }
}

// What the hostile images are made of.
const std::vector<std::pair<DeclaredFormat, Bytes>>& ValidImages() {
  static const std::vector<std::pair<DeclaredFormat, Bytes>> images = {
      {DeclaredFormat::kQcow2, Qcow2()},    {DeclaredFormat::kVmdk, Vmdk()},
      {DeclaredFormat::kVhd, DynamicVhd()}, {DeclaredFormat::kVhdx, Vhdx()},
      {DeclaredFormat::kVdi, Vdi()},        {DeclaredFormat::kGpt, GptDisk()},
      {DeclaredFormat::kLuks, Luks2()},     {DeclaredFormat::kKernel, Kernel()},
      {DeclaredFormat::kInitrd, Initrd()},  {DeclaredFormat::kVmdk, StreamVmdk()},
      {DeclaredFormat::kLuks, Luks1()}};
  return images;
}

TEST(ValidImages, AreAccepted) {
  for (const auto& [declared, image] : ValidImages()) {
    const auto result = Inspect(MemoryReader(image), declared);
    ASSERT_TRUE(result.has_value()) << result.error().Describe();
    EXPECT_EQ(*DetectFormat(MemoryReader(image)), declared);
  }
}

// ---- Media and holes

TEST(Medium, WithAGptBesideItIsAcceptedAsIsoOnly) {
  if (!HasTool("xorriso")) GTEST_SKIP() << "no xorriso";
  const TempDir dir;
  MustRun("cd " + dir.File("") +
          " && mkdir d && echo x >d/f && truncate -s 1M efi && "
          "xorriso -as mkisofs -quiet -o iso -appended_part_as_gpt -append_partition 2 0xef efi d");
  const Bytes iso = ReadFile(dir.File("iso"));
  const auto result = Inspect(MemoryReader(iso), DeclaredFormat::kIso);
  ASSERT_TRUE(result.has_value()) << result.error().Describe();
  EXPECT_THAT(result->facts, ::testing::Contains(HasSubstr("a GPT beside it")));
  EXPECT_EQ(*DetectFormat(MemoryReader(iso)), DeclaredFormat::kIso);
  for (const DeclaredFormat declared : kEveryFormat) {
    if (declared != DeclaredFormat::kIso) ExpectRefused(iso, declared, "ambiguous");
  }
}

// Counts what is read and still knows the holes.
class CountingHoles final : public formats::RandomAccessReader {
 public:
  explicit CountingHoles(const formats::RandomAccessReader& inner) : inner_(&inner) {}
  uint64_t size() const override { return inner_->size(); }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override {
    bytes_ += out.size();
    return inner_->ReadAt(offset, out);
  }
  Result<std::optional<uint64_t>> NextData(uint64_t offset) const override {
    return inner_->NextData(offset);
  }
  uint64_t bytes() const { return bytes_; }

 private:
  const formats::RandomAccessReader* inner_;
  mutable uint64_t bytes_ = 0;
};

constexpr uint64_t kTebibyte = uint64_t{1} << 40U;

TEST(Holes, ATebibyteOfThemIsRefusedUnderEveryDeclaration) {
  const SparseReader hole({}, kTebibyte);
  for (const DeclaredFormat declared : kEveryFormat) {
    const CountingHoles counted(hole);
    const auto result = Inspect(counted, declared);
    ASSERT_FALSE(result.has_value());
    ExpectRefusal(result.error(), declared == DeclaredFormat::kRaw ? "empty" : "");
    EXPECT_LT(counted.bytes(), 1U << 16U) << DeclaredFormatName(declared);
  }
}

TEST(Holes, BehindTheFrontOfEveryFormatAreNotReadThrough) {
  for (const auto& [declared, front] : ValidImages()) {
    const SparseReader file(front, kTebibyte);
    const CountingHoles counted(file);
    const auto result = Inspect(counted, declared);
    if (!result.has_value()) ExpectRefusal(result.error(), "");
    EXPECT_LT(counted.bytes(), 16U << 20U) << DeclaredFormatName(declared);
  }
}

TEST(Holes, ADiskOfATebibyteIsAccepted) {
  if (!HasTool("sgdisk")) GTEST_SKIP() << "no sgdisk";
  const TempDir dir;
  MustRun("truncate -s 1T " + dir.File("disk") + " && /usr/sbin/sgdisk -n 1:0:+1G -t 1:8300 " +
          dir.File("disk"));
  const int fd = open(dir.File("disk").c_str(), O_RDONLY | O_CLOEXEC);
  const auto file = FdReader::Open(fd);
  ASSERT_TRUE(file.has_value());
  const CountingHoles counted(*file);
  const auto result = Inspect(counted, DeclaredFormat::kGpt);
  close(fd);
  ASSERT_TRUE(result.has_value()) << result.error().Describe();
  EXPECT_EQ(result->virtual_size, kTebibyte);
  EXPECT_LT(counted.bytes(), 1U << 20U);
}

}  // namespace
}  // namespace vallum::images

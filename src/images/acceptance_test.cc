// SPDX-License-Identifier: Apache-2.0
// What users upload: each image must be accepted with the facts that other tools tell of it, and
// what damage makes of it must never cost more than the image.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "formats/reader.h"
#include "formats/test_support.h"
#include "images/container.h"
#include "images/inspection.h"

namespace vallum::images {
namespace {

using formats::MemoryReader;
using nlohmann::json;
using ::testing::Contains;
using ::testing::HasSubstr;
using namespace formats::testing;  // NOLINT(google-build-using-namespace): test helpers

void ExpectRefused(ByteView image, DeclaredFormat declared, const std::string& reason) {
  const auto result = Inspect(MemoryReader(image), declared);
  ASSERT_FALSE(result.has_value()) << "accepted; expected: " << reason;
  EXPECT_EQ(result.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(result.error().Describe(), HasSubstr(reason));
  EXPECT_FALSE(result.error().fix().empty()) << result.error().Describe();
}

// A disk of 3 MiB: random data, data that compresses well, zeroes.
const Bytes& GptDisk() {
  static const Bytes disk = [] {
    Bytes bytes = MakeGptDisk(512, 6144, {{2048, 4095}, {4096, 5000}});
    std::mt19937_64 random(7);
    for (size_t i = 1 << 20; i < (1 << 20) + 200000; ++i)
      bytes[i] = static_cast<std::byte>(random());
    std::fill_n(bytes.begin() + (2 << 20), 300000, std::byte{0x41});
    return bytes;
  }();
  return disk;
}

// ---- What qemu-img makes

struct BenignCase {
  std::string name;
  std::string qemu;  // the format, as qemu-img says
  DeclaredFormat declared;
  std::string options;
  std::string subformat;
};
class BenignImage : public ::testing::TestWithParam<BenignCase> {};

void MakeBenign(const BenignCase& c, const Bytes& disk, const TempDir& dir) {
  WriteFile(dir.File("raw"), disk);
  MustRun("qemu-img convert -f raw -O " + c.qemu + " " + c.options + " " + dir.File("raw") + " " +
          dir.File("image"));
}

TEST_P(BenignImage, HasTheFactsThatQemuTells) {
  const BenignCase& c = GetParam();
  const TempDir dir;
  MakeBenign(c, GptDisk(), dir);
  const Bytes image = ReadFile(dir.File("image"));
  const json info =
      json::parse(MustRun("qemu-img info --output=json -f " + c.qemu + " " + dir.File("image")));
  const MemoryReader reader(image);
  const auto result = Inspect(reader, c.declared);
  ASSERT_TRUE(result.has_value()) << result.error().Describe();
  EXPECT_EQ(*DetectFormat(reader), c.declared);
  EXPECT_EQ(result->virtual_size, info["virtual-size"].get<uint64_t>());
  EXPECT_EQ(result->cluster_size, info.value("cluster-size", uint64_t{0}));
  EXPECT_EQ(result->subformat, c.subformat);
  if (c.qemu == "vmdk") {
    EXPECT_EQ(json(result->subformat), info["format-specific"]["data"]["create-type"]);
  }
  EXPECT_EQ(result->content, ContentFormat::kGpt);
  EXPECT_TRUE(result->bootable);
  EXPECT_EQ(result->file_size, image.size());
  const auto opened = OpenDisk(reader, c.declared);
  ASSERT_TRUE(opened.has_value());
  const auto content = formats::ReadBytesAt(*opened->disk, 0, GptDisk().size());
  ASSERT_TRUE(content.has_value()) << content.error().Describe();
  EXPECT_TRUE(*content == GptDisk());
}

INSTANTIATE_TEST_SUITE_P(
    Formats, BenignImage,
    ::testing::Values(
        BenignCase{"Qcow2", "qcow2", DeclaredFormat::kQcow2, "", ""},
        BenignCase{"Qcow2Version2", "qcow2", DeclaredFormat::kQcow2, "-o compat=0.10", ""},
        BenignCase{"Qcow2SmallClusters", "qcow2", DeclaredFormat::kQcow2, "-o cluster_size=512",
                   ""},
        BenignCase{"Qcow2LargeClusters", "qcow2", DeclaredFormat::kQcow2, "-o cluster_size=2M", ""},
        BenignCase{"Qcow2Zlib", "qcow2", DeclaredFormat::kQcow2, "-c", ""},
        BenignCase{"Qcow2Zstd", "qcow2", DeclaredFormat::kQcow2, "-c -o compression_type=zstd", ""},
        BenignCase{"Qcow2ExtendedL2", "qcow2", DeclaredFormat::kQcow2, "-o extended_l2=on", ""},
        BenignCase{"Qcow2Preallocated", "qcow2", DeclaredFormat::kQcow2,
                   "-o preallocation=metadata", ""},
        BenignCase{"VmdkSparse", "vmdk", DeclaredFormat::kVmdk, "-o subformat=monolithicSparse",
                   "monolithicSparse"},
        BenignCase{"VmdkZeroedGrains", "vmdk", DeclaredFormat::kVmdk, "-o zeroed_grain=on",
                   "monolithicSparse"},
        BenignCase{"VmdkStream", "vmdk", DeclaredFormat::kVmdk, "-o subformat=streamOptimized",
                   "streamOptimized"},
        BenignCase{"VdiDynamic", "vdi", DeclaredFormat::kVdi, "", "dynamic"},
        BenignCase{"VdiStatic", "vdi", DeclaredFormat::kVdi, "-o static=on", "static"},
        BenignCase{"VhdDynamic", "vpc", DeclaredFormat::kVhd, "-o force_size=on", "dynamic"},
        BenignCase{"VhdDynamicGeometry", "vpc", DeclaredFormat::kVhd, "", "dynamic"},
        BenignCase{"VhdFixed", "vpc", DeclaredFormat::kVhd, "-o subformat=fixed,force_size=on",
                   "fixed"},
        BenignCase{"VhdxDynamic", "vhdx", DeclaredFormat::kVhdx, "", "dynamic"},
        BenignCase{"VhdxSmallBlocks", "vhdx", DeclaredFormat::kVhdx, "-o block_size=1M", "dynamic"},
        BenignCase{"VhdxFixed", "vhdx", DeclaredFormat::kVhdx, "-o subformat=fixed,block_size=1M",
                   "fixed"}),
    [](const auto& row) { return row.param.name; });

// ---- The shared vectors

// Where the manifest leaves it to the reader it is a refusal, with this reason. The damaged LUKS2
// files are only the front of a volume.
const std::map<std::string, std::string>& Decided() {
  static const std::map<std::string, std::string> decided = {
      {"images/gen/dirty.qcow2", "dirty"},
      {"images/gen/snapshot.qcow2", "internal snapshot"},
      {"images/gen/luks-inside.qcow2", "encrypted"},
      {"images/gen/plain.qed", "QED"},
      {"images/gen/gpt.raw", "gpt"},
      {"luks/luks2-primary-bad.img", "not in the file of 65536 bytes"},
      {"luks/luks2-bad-magic.img", "not in the file of 65536 bytes"}};
  return decided;
}

void ExpectFacts(const Inspection& inspection, const json& expect) {
  if (inspection.format == DeclaredFormat::kLuks) {
    EXPECT_THAT(
        inspection.facts,
        Contains(::testing::StartsWith(fmt::format("LUKS{} {}", expect["version"].get<int>(),
                                                   expect["cipher"].get<std::string>()))));
    EXPECT_THAT(inspection.facts,
                Contains(HasSubstr(fmt::format("key of {} bits", expect["key_bits"].get<int>()))));
    return;
  }
  EXPECT_EQ(inspection.virtual_size, expect["virtual_size"].get<uint64_t>());
  EXPECT_EQ(inspection.cluster_size, expect.value("cluster_size", uint64_t{0}));
  const std::string format = expect["format"];
  EXPECT_EQ(DeclaredFormatName(inspection.format), format == "vpc"   ? "vhd"
                                                   : format == "raw" ? "iso"
                                                                     : format);
}

void CheckVector(const Bytes& image, const json& entry) {
  const std::string file = entry["file"];
  const json& expect = entry["expect"];
  const std::string verdict = expect.value("verdict", "accept");
  const auto detected = DetectFormat(MemoryReader(image));
  if (verdict == "accept") {
    ASSERT_TRUE(detected.has_value()) << detected.error().Describe();
    const auto result = Inspect(MemoryReader(image), *detected);
    ASSERT_TRUE(result.has_value()) << result.error().Describe();
    ExpectFacts(*result, expect);
    ExpectRefused(image, DeclaredFormat::kRaw, "");
    return;
  }
  const auto decided = Decided().find(file);
  ASSERT_TRUE(verdict.starts_with("reject") || expect.value("qemu_img", "") == "refuses" ||
              decided != Decided().end())
      << "nobody decided on: " << verdict;
  const std::string reason = decided == Decided().end() ? "" : decided->second;
  if (detected.has_value()) {
    ExpectRefused(image, *detected, reason);
  } else {
    EXPECT_THAT(detected.error().Describe(), HasSubstr(reason));
  }
  ExpectRefused(image, DeclaredFormat::kRaw, "");
}

TEST(SharedVectors, HaveTheirVerdictsAndFacts) {
  const std::string dir = VectorsDir();
  if (dir.empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
  const json manifest = json::parse(AsText(ReadFile(dir + "/manifest.json")));
  int checked = 0;
  for (const json& entry : manifest) {
    if (entry["kind"] != "disk_image" && entry["kind"] != "luks_header") continue;
    SCOPED_TRACE(entry["file"].get<std::string>());
    CheckVector(ReadFile(dir + "/" + entry["file"].get<std::string>()), entry);
    ++checked;
  }
  EXPECT_GT(checked, 30);
}

// ---- OVA

struct OvaFile {
  std::string name;
  std::string href;  // as the OVF names it
  Bytes content;
};

std::string MakeOvf(const std::vector<OvaFile>& disks) {
  std::string files;
  std::string sections;
  for (size_t i = 0; i < disks.size(); ++i) {
    files += fmt::format(R"(<File ovf:href="{}" ovf:id="f{}"/>)", disks[i].href, i);
    sections += fmt::format(
        R"(<Disk ovf:capacity="3145728" ovf:diskId="d{}" ovf:fileRef="f{}" )"
        R"(ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>)",
        i, i);
  }
  return fmt::format(
      R"(<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" )"
      R"(xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"><References>{}</References>)"
      R"(<DiskSection>{}</DiskSection><VirtualSystem ovf:id="vm"><Name>vm</Name></VirtualSystem>)"
      R"(</Envelope>)",
      files, sections);
}

// What tar packs; the manifest covers the OVF and the disks.
Bytes MakeOva(const std::vector<OvaFile>& disks) {
  const TempDir dir;
  const std::string ovf = MakeOvf(disks);
  std::string manifest = "SHA256(vm.ovf)= " + ToHex(Sha256(AsBytes(ovf))) + "\n";
  std::string names = "vm.ovf vm.mf";
  WriteFile(dir.File("vm.ovf"), AsBytes(ovf));
  for (const OvaFile& disk : disks) {
    WriteFile(dir.File(disk.name), disk.content);
    manifest += "SHA256(" + disk.name + ")= " + ToHex(Sha256(disk.content)) + "\n";
    names += " " + disk.name;
  }
  WriteFile(dir.File("vm.mf"), AsBytes(manifest));
  MustRun("cd " + dir.File("") + " && tar --format=ustar -cf ova " + names);
  return ReadFile(dir.File("ova"));
}

const Bytes& StreamVmdk() {
  static const Bytes image = [] {
    const TempDir dir;
    MakeBenign({"", "vmdk", DeclaredFormat::kVmdk, "-o subformat=streamOptimized", ""}, GptDisk(),
               dir);
    return ReadFile(dir.File("image"));
  }();
  return image;
}
const Bytes& Ova() {
  static const Bytes ova = MakeOva({{"disk.vmdk", "disk.vmdk", StreamVmdk()}});
  return ova;
}

TEST(Ova, IsAcceptedAndItsDiskIsJudged) {
  EXPECT_EQ(*DetectFormat(MemoryReader(Ova())), DeclaredFormat::kOva);
  const auto result = Inspect(MemoryReader(Ova()), DeclaredFormat::kOva);
  ASSERT_TRUE(result.has_value()) << result.error().Describe();
  EXPECT_EQ(result->virtual_size, GptDisk().size());
  EXPECT_EQ(result->subformat, "streamOptimized");
  EXPECT_EQ(result->content, ContentFormat::kGpt);
  EXPECT_TRUE(result->bootable);
  EXPECT_THAT(result->facts, Contains(HasSubstr("disk.vmdk: GPT with sectors of 512 bytes")));
  const MemoryReader reader(Ova());
  const auto opened = OpenDisk(reader, DeclaredFormat::kOva);
  ASSERT_TRUE(opened.has_value()) << opened.error().Describe();
  EXPECT_TRUE(*formats::ReadBytesAt(*opened->disk, 0, GptDisk().size()) == GptDisk());
  ExpectRefused(Ova(), DeclaredFormat::kRaw, "declared raw, but detected tar");
}

TEST(Ova, HostileDiskInsideIsRefusedByItsName) {
  const std::string descriptor =
      "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
      "createType=\"monolithicFlat\"\nRW 2048 FLAT \"/etc/passwd\" 0\n";
  ExpectRefused(MakeOva({{"disk.vmdk", "disk.vmdk", ToBytes(AsBytes(descriptor))}}),
                DeclaredFormat::kOva, "external extent");
  // The OVF says VMDK.
  ExpectRefused(MakeOva({{"disk.vmdk", "disk.vmdk", QemuImgCreate("qcow2", "", "1M")}}),
                DeclaredFormat::kOva, "declared vmdk, but detected qcow2");
}

TEST(Ova, WrongDigestInItsManifestIsRefused) {
  Bytes image = Ova();
  const auto found = std::ranges::search(image, AsBytes("SHA256(disk.vmdk)= "));
  ASSERT_FALSE(found.empty());
  std::byte& digit = *found.end();
  digit = digit == std::byte{'0'} ? std::byte{'1'} : std::byte{'0'};
  ExpectRefused(image, DeclaredFormat::kOva, "has not the digest that the manifest says");
}

TEST(Ova, DiskOutsideOfItIsRefused) {
  const std::vector<std::pair<std::string, std::string>> rows = {
      {"../disk.vmdk", "is external"},          {"/etc/passwd", "is external"},
      {"http://host/disk.vmdk", "is external"}, {"file:///etc/passwd", "is external"},
      {"a/../../disk.vmdk", "is external"},     {"other.vmdk", "which is not in the archive"}};
  for (const auto& [href, reason] : rows) {
    SCOPED_TRACE(href);
    ExpectRefused(MakeOva({{"disk.vmdk", href, StreamVmdk()}}), DeclaredFormat::kOva, reason);
  }
}

TEST(Ova, WithTwoDisksIsInspectedButNotOpened) {
  const Bytes image =
      MakeOva({{"a.vmdk", "a.vmdk", StreamVmdk()}, {"b.vmdk", "b.vmdk", StreamVmdk()}});
  const auto result = Inspect(MemoryReader(image), DeclaredFormat::kOva);
  ASSERT_TRUE(result.has_value()) << result.error().Describe();
  EXPECT_THAT(result->facts, Contains(HasSubstr("with 2 disks")));
  const auto opened = OpenDisk(MemoryReader(image), DeclaredFormat::kOva);
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(opened.error().message(), HasSubstr("holds 2 disks"));
}

// ---- Damage

struct DamageCase {
  std::string name;
  DeclaredFormat declared;
  Bytes (*make)();
};
class DamagedImage : public ::testing::TestWithParam<DamageCase> {};

Bytes Converted(const std::string& qemu, const std::string& options) {
  const TempDir dir;
  MakeBenign({"", qemu, DeclaredFormat::kRaw, options, ""}, MakeGptDisk(512, 256, {{40, 80}}), dir);
  return ReadFile(dir.File("image"));
}
Bytes MadeBy(const std::string& commands) {
  const TempDir dir;
  MustRun("cd " + dir.File("") + " && " + commands);
  return ReadFile(dir.File("image"));
}
Bytes MakeLuks(const std::string& type) {
  return MadeBy("truncate -s 3M image && printf pw | /usr/sbin/cryptsetup luksFormat -q --type " +
                type +
                " --key-size 256 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file - " +
                (type == "luks2" ? "--luks2-keyslots-size 512k " : "") + "image");
}
Bytes MakeMbrDisk() {
  Bytes disk(65536, std::byte{7});
  std::fill_n(disk.begin() + 440, 70, std::byte{0});
  disk[450] = std::byte{0x83};
  PutLe32(disk, 454, 8);
  PutLe32(disk, 458, 64);
  PutText(disk, 510, "\x55\xaa");
  return disk;
}

// A multiple of the file for every pass over it, and what the checks of a format read beside that.
uint64_t ReadBudget(size_t size) { return 16 * uint64_t{size} + (uint64_t{1} << 20U); }

void ExpectBounded(ByteView image, DeclaredFormat declared) {
  const MemoryReader memory(image);
  const CountingReader counted(memory);
  const auto result = Inspect(counted, declared);
  if (!result.has_value()) {
    EXPECT_EQ(result.error().code(), ErrorCode::kInvalidInput) << result.error().Describe();
    EXPECT_FALSE(result.error().fix().empty()) << result.error().Describe();
  }
  EXPECT_LE(counted.bytes(), ReadBudget(image.size()));
}

// Half of all damage is in the first 4 KiB, where most headers are.
size_t AnyOffset(std::mt19937_64& random, size_t size) {
  return random() % (random() % 2 == 0 ? std::min<size_t>(size, 4096) : size);
}

TEST_P(DamagedImage, CutAnywhereIsBounded) {
  const Bytes image = GetParam().make();
  ASSERT_TRUE(Inspect(MemoryReader(image), GetParam().declared).has_value())
      << Inspect(MemoryReader(image), GetParam().declared).error().Describe();
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    ExpectBounded(ByteView(image).first(AnyOffset(random, image.size())), GetParam().declared);
  }
}

TEST_P(DamagedImage, WithAFlippedBitIsBounded) {
  Bytes image = GetParam().make();
  std::mt19937_64 random(2);
  for (int round = 0; round < 500; ++round) {
    const size_t at = AnyOffset(random, image.size());
    const auto bit = static_cast<std::byte>(1U << (random() % 8));
    image[at] ^= bit;
    SCOPED_TRACE(fmt::format("bit {} of offset {}", std::to_integer<int>(bit), at));
    ExpectBounded(image, GetParam().declared);
    image[at] ^= bit;
  }
}

TEST_P(DamagedImage, WithSwappedBlocksIsBounded) {
  Bytes image = GetParam().make();
  image.resize((image.size() + 511) / 512 * 512);
  const auto block = [&](size_t offset) {
    return image.begin() + static_cast<std::ptrdiff_t>(offset / 512 * 512);
  };
  std::mt19937_64 random(3);
  for (int round = 0; round < 100; ++round) {
    const auto a = block(AnyOffset(random, image.size()));
    const auto b = block(AnyOffset(random, image.size()));
    if (a == b) continue;
    std::swap_ranges(a, a + 512, b);
    ExpectBounded(image, GetParam().declared);
    std::swap_ranges(a, a + 512, b);
  }
}

INSTANTIATE_TEST_SUITE_P(
    EveryFormat, DamagedImage,
    ::testing::Values(
        DamageCase{"Qcow2", DeclaredFormat::kQcow2, [] { return Converted("qcow2", "-c"); }},
        DamageCase{"VmdkSparse", DeclaredFormat::kVmdk, [] { return Converted("vmdk", ""); }},
        DamageCase{"VmdkStream", DeclaredFormat::kVmdk,
                   [] { return Converted("vmdk", "-o subformat=streamOptimized"); }},
        DamageCase{"VhdDynamic", DeclaredFormat::kVhd,
                   [] { return Converted("vpc", "-o force_size=on"); }},
        DamageCase{"VhdFixed", DeclaredFormat::kVhd,
                   [] { return Converted("vpc", "-o subformat=fixed,force_size=on"); }},
        DamageCase{"Vhdx", DeclaredFormat::kVhdx,
                   [] { return Converted("vhdx", "-o block_size=1M"); }},
        DamageCase{"Vdi", DeclaredFormat::kVdi, [] { return Converted("vdi", ""); }},
        DamageCase{"Iso", DeclaredFormat::kIso,
                   [] {
                     return MadeBy(
                         "mkdir d && echo x >d/f && xorriso -as mkisofs -quiet -J -o image d");
                   }},
        DamageCase{"Gpt", DeclaredFormat::kGpt,
                   [] { return MakeGptDisk(512, 256, {{40, 80}, {81, 120}}); }},
        DamageCase{"Mbr", DeclaredFormat::kMbr, MakeMbrDisk},
        DamageCase{"Raw", DeclaredFormat::kRaw, [] { return Bytes(65536, std::byte{7}); }},
        DamageCase{"Luks1", DeclaredFormat::kLuks, [] { return MakeLuks("luks1"); }},
        DamageCase{"Luks2", DeclaredFormat::kLuks, [] { return MakeLuks("luks2"); }},
        DamageCase{"Kernel", DeclaredFormat::kKernel, MakeBzImage},
        DamageCase{"Pe", DeclaredFormat::kKernel, [] { return MakePe({}); }},
        DamageCase{
            "Initrd", DeclaredFormat::kInitrd,
            [] { return MadeBy("echo x >init && echo init | cpio -o -H newc | gzip >image"); }},
        DamageCase{"Ova", DeclaredFormat::kOva,
                   [] {
                     return MakeOva({{"disk.vmdk", "disk.vmdk",
                                      Converted("vmdk", "-o subformat=streamOptimized")}});
                   }}),
    [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace vallum::images

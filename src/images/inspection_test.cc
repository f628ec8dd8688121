// SPDX-License-Identifier: Apache-2.0
#include "images/inspection.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/text.h"
#include "base/units.h"
#include "formats/detect.h"
#include "formats/gpt.h"
#include "formats/pe.h"
#include "formats/qcow2.h"
#include "formats/reader.h"
#include "formats/test_support.h"
#include "images/boot_binaries.h"
#include "images/boot_config.h"
#include "images/confined_inspector.h"
#include "images/esp.h"
#include "images/fd_reader.h"
#include "images/inspection_json.h"
#include "images/test_disks.h"
#include "measure/boot_chain.h"

namespace vallum::images {
namespace {

using formats::MemoryReader;
using ::testing::Contains;
using ::testing::HasSubstr;
using namespace formats::testing;  // NOLINT(google-build-using-namespace): test helpers
using testing::MakeDisk;
using testing::MakeShim;
using testing::MakeVendorCert;

void ExpectRefused(ByteView image, DeclaredFormat declared, const std::string& reason) {
  const auto result = Inspect(MemoryReader(image), declared);
  ASSERT_FALSE(result.has_value()) << "accepted; expected: " << reason;
  EXPECT_EQ(result.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(result.error().Describe(), HasSubstr(reason));
  EXPECT_THAT(result.error().Describe(), ::testing::Not(HasSubstr("\n")));
  EXPECT_FALSE(result.error().fix().empty()) << result.error().Describe();
}
void ExpectRefusedWhatever(ByteView image, const std::string& reason) {
  for (const auto declared : {DeclaredFormat::kQcow2, DeclaredFormat::kGpt, DeclaredFormat::kRaw}) {
    ExpectRefused(image, declared, reason);
  }
}

// A loader beside an unsigned second one.
const Bytes& BootDisk() {
  static const Bytes disk =
      MakeDisk({{"/EFI/BOOT/BOOTX64.EFI", MakePe({{".sbat", ToBytes(AsBytes("shim,4,x\n"))}})},
                {"/EFI/debian/grubx64.efi", MakePe({})},
                {"/EFI/debian/broken.efi", Bytes(100)},
                {"/EFI/debian/grub.cfg", Bytes(10)}});
  return disk;
}

TEST(Inspect, GptDiskIsAcceptedWithItsBootBinaries) {
  const auto result = Inspect(MemoryReader(BootDisk()), DeclaredFormat::kGpt);
  ASSERT_TRUE(result.has_value()) << result.error().Describe();
  EXPECT_EQ(result->content, ContentFormat::kGpt);
  EXPECT_TRUE(result->bootable);
  EXPECT_EQ(result->virtual_size, BootDisk().size());
  ASSERT_EQ(result->boot_binaries.size(), 2U);
  EXPECT_EQ(result->boot_binaries[0].path, "\\EFI\\BOOT\\BOOTX64.EFI");
  EXPECT_EQ(result->boot_binaries[0].sbat, "shim,4,x\n");
  EXPECT_EQ(result->boot_binaries[0].signer, "");
  EXPECT_EQ(result->boot_binaries[0].authenticode_sha256.size(), 64U);
  EXPECT_EQ(result->boot_binaries[1].path, "\\EFI\\debian\\grubx64.efi");
  EXPECT_THAT(result->facts, Contains(HasSubstr("broken.efi is not read")));
  EXPECT_THAT(result->facts, Contains(HasSubstr("unsigned")));
}

TEST(Inspect, TheSameDiskInsideQcow2IsSeenTheSameWay) {
  const TempDir dir;
  WriteFile(dir.File("raw"), BootDisk());
  const auto raw = Inspect(MemoryReader(BootDisk()), DeclaredFormat::kGpt);
  for (const std::string options : {"", "-c", "-c -o compression_type=zstd"}) {
    MustRun("qemu-img convert " + options + " -f raw -O qcow2 " + dir.File("raw") + " " +
            dir.File("q"));
    const Bytes image = ReadFile(dir.File("q"));
    const auto result = Inspect(MemoryReader(image), DeclaredFormat::kQcow2);
    ASSERT_TRUE(result.has_value()) << result.error().Describe();
    EXPECT_EQ(result->content, ContentFormat::kGpt);
    EXPECT_TRUE(result->bootable);
    ASSERT_EQ(result->boot_binaries.size(), raw->boot_binaries.size());
    EXPECT_EQ(result->boot_binaries[0].authenticode_sha256,
              raw->boot_binaries[0].authenticode_sha256);
    EXPECT_EQ(result->virtual_size, BootDisk().size());
  }
}

InspectionRequest AskForPrediction() {
  return {
      .key_sets = {firmware::KeySet{}},
      .prediction = PredictionRequest{.variables = {}, .failed_boot_options = 0, .platform = {}}};
}

TEST(InspectInstanceDisk, SeesTheImageThroughAnOverlayThatIsLarger) {
  const auto overlay = formats::MakeQcow2Overlay(ByteCount::MiB(64));
  ASSERT_TRUE(overlay.has_value());
  const auto result = InspectInstanceDisk(MemoryReader(*overlay), MemoryReader(BootDisk()),
                                          DeclaredFormat::kGpt, AskForPrediction());
  ASSERT_TRUE(result.has_value()) << result.error().Describe();
  EXPECT_EQ(result->virtual_size, uint64_t{64} << 20U);
  ASSERT_EQ(result->boot_binaries.size(), 2U);
  EXPECT_EQ(result->reports.size(), 1U);
  EXPECT_THAT(result->prediction_problem, HasSubstr("firmware volume header"));
}

TEST(InspectInstanceDisk, SeesWhatTheGuestWroteNotTheImage) {
  const TempDir dir;
  WriteFile(dir.File("base"), BootDisk());
  const Bytes changed = MakeDisk({{"/EFI/BOOT/BOOTX64.EFI", MakePe({{".new", Bytes(10)}})}});
  WriteFile(dir.File("changed"), changed);
  MustRun("qemu-img create -q -f qcow2 -F raw -b " + dir.File("base") + " " + dir.File("o") +
          " && qemu-io -f qcow2 -c 'write -s " + dir.File("changed") + " 0 " +
          std::to_string(changed.size()) + "' " + dir.File("o") +
          " && qemu-img rebase -u -f qcow2 "
          "-b '' " +
          dir.File("o"));
  const Bytes overlay = ReadFile(dir.File("o"));
  const auto result = InspectInstanceDisk(MemoryReader(overlay), MemoryReader(BootDisk()),
                                          DeclaredFormat::kGpt, AskForPrediction());
  ASSERT_TRUE(result.has_value()) << result.error().Describe();
  const auto direct = Inspect(MemoryReader(changed), DeclaredFormat::kGpt);
  ASSERT_TRUE(direct.has_value());
  ASSERT_EQ(result->boot_binaries.size(), 1U);
  EXPECT_EQ(result->boot_binaries[0].authenticode_sha256,
            direct->boot_binaries[0].authenticode_sha256);
}

TEST(InspectInstanceDisk, DiskWithoutAPartitionTableHasAProblemAndNoPrediction) {
  const auto overlay = formats::MakeQcow2Overlay(ByteCount::MiB(1));
  ASSERT_TRUE(overlay.has_value());
  const Bytes base(1 << 20, std::byte{'v'});
  const auto result = InspectInstanceDisk(MemoryReader(*overlay), MemoryReader(base),
                                          DeclaredFormat::kRaw, AskForPrediction());
  ASSERT_TRUE(result.has_value()) << result.error().Describe();
  EXPECT_TRUE(result->predictions.empty());
  EXPECT_THAT(result->prediction_problem, HasSubstr("no GPT"));
  ASSERT_EQ(result->reports.size(), 1U);
}

TEST(InspectInstanceDisk, OverlayThatIsNoQcow2IsRefused) {
  const Bytes overlay(65536, std::byte{1});
  EXPECT_FALSE(InspectInstanceDisk(MemoryReader(overlay), MemoryReader(BootDisk()),
                                   DeclaredFormat::kGpt, AskForPrediction())
                   .has_value());
}

Result<DescribedBinary> Describe(const Bytes& file) {
  ASSIGN_OR_RETURN(const formats::PeImage pe, formats::PeImage::Parse(file));
  return DescribeBootBinary("x", pe);
}

TEST(Inspect, SignerIsNamed) {
  if (!HasTool("sbsign")) GTEST_SKIP() << "no sbsign";
  const TempDir dir;
  WriteFile(dir.File("a"), MakePe({}));
  MustRun(
      "openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj '/O=Example/CN=Test signer' "
      "-keyout " +
      dir.File("key") + " -out " + dir.File("crt"));
  MustRun("sbsign --key " + dir.File("key") + " --cert " + dir.File("crt") + " --output " +
          dir.File("s") + " " + dir.File("a"));
  const auto binary = Describe(ReadFile(dir.File("s")));
  ASSERT_TRUE(binary.has_value()) << binary.error().Describe();
  EXPECT_EQ(binary->binary.signer, "CN=Test signer,O=Example");
  EXPECT_FALSE(binary->binary.signer_certificate.empty());
  EXPECT_EQ(binary->binary.signatures.size(), 1U);
}

TEST(Inspect, VendorCertificateSectionIsKeptWhole) {
  // Nonsense too: what it means is not decided here.
  for (const Bytes& section :
       {MakeVendorCert(AsBytes("0abc")), Bytes(kMaxVendorCertBytes, std::byte{7})}) {
    const auto described = Describe(MakeShim(section));
    ASSERT_TRUE(described.has_value()) << described.error().Describe();
    EXPECT_TRUE(described->binary.vendor_cert_section == section);
    EXPECT_THAT(described->facts, ::testing::IsEmpty());
  }
}

TEST(Inspect, VendorCertificateSectionAboveTheLimitIsAFact) {
  const Bytes shim = MakeShim(Bytes(kMaxVendorCertBytes + 1, std::byte{7}));
  const auto described = Describe(shim);
  ASSERT_TRUE(described.has_value()) << described.error().Describe();
  EXPECT_TRUE(described->binary.vendor_cert_section.empty());
  const auto fact = HasSubstr(".vendor_cert of 262145 bytes is left out");
  EXPECT_THAT(described->facts, ::testing::ElementsAre(fact));
  const auto disk =
      Inspect(MemoryReader(MakeDisk({{"/EFI/BOOT/BOOTX64.EFI", shim}})), DeclaredFormat::kGpt);
  ASSERT_TRUE(disk.has_value()) << disk.error().Describe();
  EXPECT_EQ(disk->boot_binaries.size(), 1U);
  EXPECT_THAT(disk->facts, Contains(fact));
}

TEST(Inspect, DeclaredMustEqualDetected) {
  const Bytes qcow2 = QemuImgCreate("qcow2", "", "8M");
  ExpectRefused(qcow2, DeclaredFormat::kRaw, "declared raw, but detected qcow2");
  ExpectRefused(qcow2, DeclaredFormat::kGpt, "declared gpt, but detected qcow2");
  ExpectRefused(BootDisk(), DeclaredFormat::kQcow2, "declared qcow2, but detected gpt");
  ExpectRefused(BootDisk(), DeclaredFormat::kRaw, "declared raw, but detected gpt");
  ExpectRefused(Bytes(4096, std::byte{7}), DeclaredFormat::kQcow2, "no signature of qcow2");
  ExpectRefused(Bytes(4096, std::byte{7}), DeclaredFormat::kGpt, "no GPT header");
}

TEST(Inspect, RetiredAndUnknownDeclarationsAreNamed) {
  for (const std::string name : {"ami", "AKI", "ari"}) {
    const auto result = ParseDeclaredFormat(name);
    ASSERT_FALSE(result.has_value());
    EXPECT_THAT(result.error().message(), HasSubstr("retired"));
  }
  for (const std::string name : {"vmdk4", "", "\x1b[2J"}) {
    const auto result = ParseDeclaredFormat(name);
    ASSERT_FALSE(result.has_value());
    EXPECT_THAT(result.error().fix(), HasSubstr("accepted formats"));
    EXPECT_THAT(result.error().message(), ::testing::Not(HasSubstr("\x1b")));
  }
  EXPECT_EQ(*ParseDeclaredFormat("QCOW2"), DeclaredFormat::kQcow2);
  EXPECT_EQ(*ParseDeclaredFormat("vpc"), DeclaredFormat::kVhd);
  EXPECT_THAT(ParseDeclaredFormat("qed").error().fix(), HasSubstr("qemu-img convert"));
}

TEST(Inspect, EmptyImagesAreRefused) {
  ExpectRefusedWhatever({}, "empty");
  ExpectRefused(Bytes(100000), DeclaredFormat::kRaw, "empty");
}

TEST(Inspect, ATebibyteOfHoleCostsNothing) {
  const SparseReader hole({}, uint64_t{1} << 40U);
  const CountingReader counted(hole);
  for (const auto declared : {DeclaredFormat::kQcow2, DeclaredFormat::kGpt, DeclaredFormat::kRaw}) {
    const auto result =
        declared == DeclaredFormat::kRaw ? Inspect(hole, declared) : Inspect(counted, declared);
    EXPECT_FALSE(result.has_value());
  }
  EXPECT_LT(counted.bytes(), 1U << 16U);
}

TEST(Inspect, BlobOfNoKnownFormatIsRawAndNotBootable) {
  const auto result = Inspect(MemoryReader(Bytes(1000, std::byte{7})), DeclaredFormat::kRaw);
  ASSERT_TRUE(result.has_value()) << result.error().Describe();
  EXPECT_FALSE(result->bootable);
  EXPECT_EQ(result->content, ContentFormat::kRaw);
}

TEST(Inspect, TwoFormatsAtOnceAreAmbiguous) {
  Bytes qcow2 = QemuImgCreate("qcow2", "", "8M");
  Bytes iso = qcow2;
  PutText(iso, 32769, "CD001");
  ExpectRefusedWhatever(iso, "ambiguous");
  Bytes mbr = qcow2;
  PutText(mbr, 510, "\x55\xaa");
  ExpectRefusedWhatever(mbr, "ambiguous");
  Bytes vhd = qcow2;
  vhd.resize(vhd.size() / 512 * 512 + 1024);
  PutText(vhd, vhd.size() - 512, "conectix");
  ExpectRefusedWhatever(vhd, "ambiguous");
  Bytes gpt = BootDisk();
  PutText(gpt, 64, "\x7f\x10\xda\xbe");
  ExpectRefusedWhatever(gpt, "ambiguous");
  gpt = BootDisk();
  PutText(gpt, 32769, "CD001");
  ExpectRefusedWhatever(gpt, "ambiguous");
  gpt = BootDisk();
  gpt.resize(gpt.size() + 512);
  PutText(gpt, gpt.size() - 512, "conectix");
  ExpectRefusedWhatever(gpt, "ambiguous");
}

TEST(Inspect, OtherFormatsOfQemuAreNamedAndRefused) {
  ExpectRefusedWhatever(QemuImgCreate("vmdk", "", "1M"), "VMDK");
  ExpectRefusedWhatever(QemuImgCreate("vmdk", "-o subformat=streamOptimized", "1M"), "VMDK");
  ExpectRefusedWhatever(QemuImgCreate("vpc", "", "1M"), "VHD");
  ExpectRefusedWhatever(QemuImgCreate("vpc", "-o subformat=fixed", "1M"), "VHD");
  ExpectRefusedWhatever(QemuImgCreate("vhdx", "", "8M"), "VHDX");
  ExpectRefusedWhatever(QemuImgCreate("vdi", "", "1M"), "VDI");
  ExpectRefusedWhatever(QemuImgCreate("qed", "", "1M"), "QED");
  ExpectRefusedWhatever(QemuImgCreate("parallels", "", "1M"), "Parallels");
  ExpectRefusedWhatever(QemuImgCreate("qcow", "", "1M"), "qcow2");
}

TEST(Inspect, SignaturesOfOtherContentAreNamedAndRefused) {
  const std::vector<std::tuple<size_t, std::string, std::string>> rows = {
      {0, "json:{\"driver\":\"file\"}", "json:"},
      {0, "# Disk DescriptorFile\nversion=1\n", "VMDK"},
      {0, "# a comment\n\nversion=1\nRW 1 FLAT \"/etc/passwd\" 0\n", "VMDK"},
      {0, std::string("LUKS\xba\xbe\0\1", 8), "LUKS"},
      {0, std::string("LUKS\xba\xbe\0\2", 8), "LUKS"},
      {0, "070701", "cpio"},
      {0,
       "\x7f"
       "ELF",
       "ELF"},
      {0, "\x1f\x8b\x08", "gzip"},
      {0,
       std::string("\xfd"
                   "7zXZ\0",
                   6),
       "xz"},
      {0, "\x28\xb5\x2f\xfd", "zstd"},
      {257, "ustar", "tar"},
      {32769, "CD001", "ISO 9660"},
      {32769, "NSR03", "UDF"},
      {510, "\x55\xaa", "boot sector"}};
  for (const auto& [offset, magic, name] : rows) {
    Bytes image(65536, std::byte{7});
    std::fill_n(image.begin() + 446, 64, std::byte{0});
    PutText(image, offset, magic);
    ExpectRefusedWhatever(image, name);
  }
  ExpectRefusedWhatever(MakePe({}), "PE/COFF");
  Bytes kernel(4096);
  PutText(kernel, 0, "MZ");
  PutText(kernel, 510, "\x55\xaa");
  PutText(kernel, 0x202, "HdrS");
  ExpectRefusedWhatever(kernel, "bzImage");
}

TEST(Inspect, Qcow2CutShortIsNeverRaw) {
  const Bytes qcow2 = QemuImgCreate("qcow2", "", "8M");
  for (const size_t size : {4U, 100U, 200U, 511U, 513U, 65536U, 131073U}) {
    ExpectRefused(ByteView(qcow2).first(size), DeclaredFormat::kRaw, "detected qcow2");
    ExpectRefused(ByteView(qcow2).first(size), DeclaredFormat::kQcow2, "truncated");
  }
}

TEST(Inspect, ContainerInsideAContainerIsRefused) {
  const TempDir dir;
  for (const std::string format : {"qcow2", "vmdk", "vdi", "vpc -o subformat=fixed"}) {
    MustRun("qemu-img create -q -f " + format + " " + dir.File("inner") + " 1M");
    MustRun("qemu-img convert -f raw -O qcow2 " + dir.File("inner") + " " + dir.File("outer"));
    ExpectRefused(ReadFile(dir.File("outer")), DeclaredFormat::kQcow2, "nested");
  }
}

TEST(Inspect, DamagedGptInsideQcow2IsRefused) {
  const TempDir dir;
  Bytes disk = BootDisk();
  disk[512 + 60] ^= std::byte{1};
  WriteFile(dir.File("raw"), disk);
  MustRun("qemu-img convert -f raw -O qcow2 " + dir.File("raw") + " " + dir.File("q"));
  ExpectRefused(ReadFile(dir.File("q")), DeclaredFormat::kQcow2, "wrong CRC");
}

TEST(InspectedImage, IsBoundToDigestAndSize) {
  const Bytes blob(1000, std::byte{7});
  const auto image = InspectBound(MemoryReader(blob), DeclaredFormat::kRaw, Sha256(blob));
  ASSERT_TRUE(image.has_value());
  EXPECT_TRUE(image->CheckUnchanged(Sha256(blob), blob.size()).has_value());
  EXPECT_EQ(image->CheckUnchanged(Sha256(Bytes(1)), blob.size()).error().code(),
            ErrorCode::kCorrupt);
  EXPECT_EQ(image->CheckUnchanged(Sha256(blob), 999).error().code(), ErrorCode::kCorrupt);
}

TEST(Report, SurvivesJson) {
  auto inspection = Inspect(MemoryReader(BootDisk()), DeclaredFormat::kGpt);
  inspection->firmware_applications = {{"Shell", Bytes(32, std::byte{9})}};
  const auto back = ReportFromJson(ReportToJson(inspection));
  ASSERT_TRUE(back.has_value()) << back.error().Describe();
  ASSERT_EQ(back->firmware_applications.size(), 1U);
  EXPECT_EQ(back->firmware_applications[0].name, "Shell");
  EXPECT_EQ(back->firmware_applications[0].authenticode_sha256, Bytes(32, std::byte{9}));
  EXPECT_EQ(back->facts, inspection->facts);
  ASSERT_EQ(back->boot_binaries.size(), 2U);
  EXPECT_EQ(back->boot_binaries[0].sbat, inspection->boot_binaries[0].sbat);
  const auto refused = ReportFromJson(ReportToJson(InvalidInput("no\nline").WithFix("do x")));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), ErrorCode::kInvalidInput);
  EXPECT_EQ(refused.error().fix(), "do x");
}

TEST(Report, NonsenseFromTheChildIsAnError) {
  for (const std::string text :
       {"", "{", "[]", "{}", "{\"inspection\":1}", "{\"inspection\":{}}", "{\"refused\":[]}",
        "{\"inspection\":{\"format\":\"qcow2\",\"contentFormat\":\"gpt\",\"fileSize\":-1}}"}) {
    EXPECT_FALSE(ReportFromJson(text).has_value()) << text;
  }
}

TEST(DescribeGrub, ConfigurationsAreHeldUpToALimitTogether) {
  constexpr size_t kFiles = 25;
  constexpr size_t kBytes = 200'000;
  std::vector<std::pair<std::string, Bytes>> files;
  for (size_t i = 0; i < kFiles; ++i) {
    files.emplace_back("/EFI/debian/" + std::to_string(i) + ".cfg", Bytes(kBytes, std::byte{' '}));
  }
  const Bytes disk = MakeDisk(files);
  const MemoryReader reader(disk);
  const auto table = formats::ParseGpt(reader, 512);
  ASSERT_TRUE(table.has_value());
  const auto esp = Esp::Open(reader, *table);
  ASSERT_TRUE(esp.has_value());
  const Bytes program = MakePe({});
  const auto grub = formats::PeImage::Parse(program);
  ASSERT_TRUE(grub.has_value());
  const measure::GrubInput input = DescribeGrub(**esp, *grub, "\\EFI\\debian", {});
  size_t held = 0;
  for (const auto& file : input.volumes.front().files) held += file.script.value_or("").size();
  EXPECT_EQ(input.volumes.front().files.size(), kFiles);
  EXPECT_EQ(held, size_t{4 << 20} / kBytes * kBytes);
}

// An OVA whose descriptor has two disks, of these files; both files are in it.
Bytes MakeOvaWithTwoDisks(const std::string& first, const std::string& second) {
  const TempDir dir;
  const auto part = [](const std::string& id, const std::string& file) {
    return "<Disk ovf:diskId='" + id + "' ovf:fileRef='" + file +
           "' ovf:capacity='1048576' ovf:format='vmdk'/>";
  };
  const std::string ovf =
      "<Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1' "
      "xmlns:ovf='http://schemas.dmtf.org/ovf/envelope/1'><References>"
      "<File ovf:id='a' ovf:href='a.vmdk'/><File ovf:id='b' ovf:href='b.vmdk'/></References>"
      "<DiskSection>" +
      part("1", first) + part("2", second) +
      "</DiskSection><VirtualSystem ovf:id='vm'><Name>vm</Name></VirtualSystem></Envelope>";
  WriteFile(dir.File("vm.ovf"), AsBytes(ovf));
  for (const char* const name : {"a.vmdk", "b.vmdk"}) {
    MustRun("qemu-img create -q -f vmdk -o subformat=streamOptimized " + dir.File(name) + " 1M");
  }
  MustRun("tar --format=ustar -C " + dir.File("") + " -cf " + dir.File("ova") +
          " vm.ovf a.vmdk b.vmdk");
  return ReadFile(dir.File("ova"));
}

TEST(Inspect, OvaWithTwoDisksIsAccepted) {
  const Bytes ova = MakeOvaWithTwoDisks("a", "b");
  const auto found = Inspect(MemoryReader(ova), DeclaredFormat::kOva);
  ASSERT_TRUE(found.has_value()) << found.error().Describe();
  EXPECT_THAT(found->facts, Contains(HasSubstr("with 2 disks")));
}

TEST(Inspect, OvaWithOneFileForTwoDisksIsRefused) {
  ExpectRefused(MakeOvaWithTwoDisks("a", "a"), DeclaredFormat::kOva, "are the same file, a.vmdk");
}

class Confined : public ::testing::Test {
 protected:
  Result<InspectedImage> Inspect(ByteView image, DeclaredFormat declared,
                                 const std::string& program = VALLUM_BIN_DIR "/vallum-inspect") {
    WriteFile(dir_.File("image"), image);
    const int fd = open(dir_.File("image").c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_GE(fd, 0);
    const ConfinedInspector inspector(
        {.program = program, .timeout = std::chrono::milliseconds(timeout_ms_)});
    auto result = inspector.Inspect(fd, declared, Sha256(image));
    close(fd);
    return result;
  }
  std::string Script(const std::string& body) {
    const std::string file = dir_.File("program");
    WriteFile(file, AsBytes("#!/bin/sh\n" + body + "\n"));
    MustRun("chmod +x " + file);
    return file;
  }
  TempDir dir_;
  int timeout_ms_ = 60000;
};

TEST_F(Confined, GivesWhatInspectGives) {
  const auto image = Inspect(BootDisk(), DeclaredFormat::kGpt);
  ASSERT_TRUE(image.has_value()) << image.error().DebugString();
  const auto direct = images::Inspect(MemoryReader(BootDisk()), DeclaredFormat::kGpt);
  EXPECT_EQ(image->inspection().facts, direct->facts);
  EXPECT_EQ(image->inspection().boot_binaries.size(), 2U);
  EXPECT_EQ(image->digest(), Sha256(BootDisk()));
}

TEST_F(Confined, InstanceDiskIsReadFromTwoDescriptors) {
  const auto overlay = formats::MakeQcow2Overlay(ByteCount::MiB(64));
  ASSERT_TRUE(overlay.has_value());
  WriteFile(dir_.File("overlay"), *overlay);
  WriteFile(dir_.File("base"), BootDisk());
  const int top = open(dir_.File("overlay").c_str(), O_RDONLY | O_CLOEXEC);
  const int base = open(dir_.File("base").c_str(), O_RDONLY | O_CLOEXEC);
  const ConfinedInspector inspector({.program = VALLUM_BIN_DIR "/vallum-inspect"});
  const auto result =
      inspector.InspectInstanceDisk(top, base, DeclaredFormat::kGpt, AskForPrediction());
  close(top);
  close(base);
  ASSERT_TRUE(result.has_value()) << result.error().DebugString();
  const auto direct = InspectInstanceDisk(MemoryReader(*overlay), MemoryReader(BootDisk()),
                                          DeclaredFormat::kGpt, AskForPrediction());
  EXPECT_EQ(result->facts, direct->facts);
  EXPECT_EQ(result->prediction_problem, direct->prediction_problem);
  EXPECT_EQ(result->boot_binaries.size(), 2U);
}

TEST_F(Confined, RefusalComesBackWithItsFix) {
  Bytes qcow2 = QemuImgCreate("qcow2", "", "8M");
  PutBe64(qcow2, 72, 4);
  const auto image = Inspect(qcow2, DeclaredFormat::kQcow2);
  ASSERT_FALSE(image.has_value());
  EXPECT_EQ(image.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(image.error().Describe(), HasSubstr("data file"));
  EXPECT_FALSE(image.error().fix().empty());
}

TEST_F(Confined, SparseImageIsSeenAsEmpty) {
  MustRun("truncate -s 1T " + dir_.File("hole"));
  const int fd = open(dir_.File("hole").c_str(), O_RDONLY | O_CLOEXEC);
  const ConfinedInspector inspector({.program = VALLUM_BIN_DIR "/vallum-inspect"});
  const auto image = inspector.Inspect(fd, DeclaredFormat::kRaw, {});
  close(fd);
  ASSERT_FALSE(image.has_value());
  EXPECT_THAT(image.error().Describe(), HasSubstr("empty"));
}

TEST_F(Confined, InspectorThatCrashesIsARefusal) {
  const auto image = Inspect(BootDisk(), DeclaredFormat::kGpt, Script("kill -SEGV $$"));
  ASSERT_FALSE(image.has_value());
  EXPECT_EQ(image.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(image.error().message(), HasSubstr("signal 11"));
}

TEST_F(Confined, InspectorThatTakesTooLongIsARefusal) {
  timeout_ms_ = 200;
  const auto image = Inspect(BootDisk(), DeclaredFormat::kGpt, Script("read forever <&1"));
  const auto hanging = Inspect(BootDisk(), DeclaredFormat::kGpt, Script("exec tail -f /dev/null"));
  for (const auto* result : {&hanging}) {
    ASSERT_FALSE(result->has_value());
    EXPECT_THAT(result->error().message(), HasSubstr("did not end"));
  }
  EXPECT_FALSE(image.has_value());
}

TEST_F(Confined, ReportAboutAnotherImageIsRefused) {
  const auto image = Inspect(
      BootDisk(), DeclaredFormat::kGpt,
      Script(R"(echo '{"inspection":{"format":"raw","contentFormat":"raw","fileSize":1,)"
             R"("virtualSize":1,"clusterSize":0,"subformat":"","bootable":true,"facts":[],)"
             R"("reports":[],"predictions":[],"firmwareApplications":[],"predictionProblem":"",)"
             R"("bootBinaries":[]}}')"));
  ASSERT_FALSE(image.has_value());
  EXPECT_THAT(image.error().message(), HasSubstr("not about this image"));
}

TEST_F(Confined, MissingProgramIsNotFound) {
  const auto image = Inspect(BootDisk(), DeclaredFormat::kGpt, "/nonexistent/vallum-inspect");
  ASSERT_FALSE(image.has_value());
  EXPECT_EQ(image.error().code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace vallum::images

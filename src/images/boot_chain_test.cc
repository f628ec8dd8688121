// SPDX-License-Identifier: Apache-2.0
#include "images/boot_chain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/text.h"
#include "firmware/guid.h"
#include "firmware/test_keys.h"
#include "formats/gpt.h"
#include "formats/pe.h"
#include "formats/test_support.h"
#include "images/boot_binaries.h"
#include "images/installed_key_sets.h"
#include "images/test_disks.h"

namespace vallum::images {
namespace {

using firmware::KeySet;
using firmware::Signature;
using firmware::SignatureType;
using firmware::testing::Entry;
using firmware::testing::MakeProgram;
using firmware::testing::TestKeys;
using formats::MemoryReader;
using formats::testing::HasTool;
using formats::testing::MakeBzImage;
using formats::testing::MakePe;
using formats::testing::MustRun;
using formats::testing::ReadFile;
using formats::testing::WriteFile;
using ::testing::Contains;
using testing::DiskFiles;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeBootManager;
using testing::MakeDisk;
using testing::MakeGrub;
using testing::MakeShim;
using testing::MakeVendorCert;
using ::testing::Not;
using ::testing::StartsWith;

constexpr const char* kLoader = "/EFI/BOOT/BOOTX64.EFI";
constexpr const char* kSecondStage = "/EFI/BOOT/grubx64.efi";

Signature DigestOf(const Bytes& program) {
  const auto pe = formats::PeImage::Parse(program);
  return firmware::MakeSignature(SignatureType::kSha256, firmware::kGlobalVariableGuid,
                                 *pe->AuthenticodeDigest(HashAlgorithm::kSha256));
}

// Keys under which exactly these programs start.
KeySet Allowing(const std::vector<Bytes>& programs) {
  KeySet keys;
  keys.name = "mine";
  keys.pk = {DigestOf(MakePe({}))};
  keys.kek = keys.pk;
  keys.dbx = keys.pk;  // of no program here
  for (const Bytes& program : programs) keys.db.push_back(DigestOf(program));
  if (keys.db.empty()) keys.db = {DigestOf(MakeProgram("sbat,1,v,p,1,u\nother,1,v,p,1,u\n"))};
  return keys;
}

BootChainReport InspectDisk(const Bytes& disk, const std::vector<KeySet>& key_sets) {
  const MemoryReader reader(disk);
  const auto table = formats::ParseGpt(reader, 512);
  EXPECT_TRUE(table.has_value());
  auto report = InspectBootChain(reader, *table, key_sets);
  EXPECT_TRUE(report.has_value()) << report.error().Describe();
  EXPECT_EQ(report->reports.size(), key_sets.size());
  return *std::move(report);
}

KeySetReport Judge(const DiskFiles& files, const KeySet& keys) {
  return InspectDisk(MakeDisk(files), {keys}).reports.front();
}

std::vector<std::string> Roles(const KeySetReport& report) {
  std::vector<std::string> roles;
  for (const LinkReport& link : report.chain) roles.emplace_back(LinkRoleName(link.role));
  return roles;
}

std::vector<std::string> Paths(const KeySetReport& report) {
  std::vector<std::string> paths;
  for (const LinkReport& link : report.chain) paths.push_back(ToLower(link.path));
  return paths;
}

Bytes Text(const std::string& text) { return ToBytes(AsBytes(text)); }

Bytes Utf16(const std::string& text) {
  ByteWriter out;
  out.U16Le(0xfeff);
  for (const char c : text) out.U16Le(static_cast<uint8_t>(c));
  return std::move(out).Take();
}

// A kernel is a chain of its own: nothing follows it.
TEST(BootChain, UnsignedLoaderIsRefusedWithReasonAndFix) {
  const KeySetReport report = Judge({{kLoader, MakeBzImage()}}, Allowing({}));
  EXPECT_EQ(report.bootable, Bootable::kNo);
  EXPECT_EQ(report.key_set, "mine");
  EXPECT_EQ(report.readiness, SecureBootReadiness::kReady);
  EXPECT_THAT(Roles(report), ElementsAre("kernel"));
  EXPECT_FALSE(report.chain.front().allowed);
  EXPECT_EQ(report.chain.front().verified_by, "firmware");
  EXPECT_THAT(report.reasons, Contains(StartsWith("\\EFI\\BOOT\\BOOTX64.EFI: ")));
  EXPECT_THAT(report.fixes, Contains(HasSubstr(report.chain.front().authenticode_sha256)));
  EXPECT_THAT(Summarize(report), HasSubstr("no, because"));
}

TEST(BootChain, LoaderSignedByAKeyOfDbStartsByThatKey) {
  if (!HasTool("sbsign")) GTEST_SKIP() << "no sbsign";
  TestKeys keys;
  const Bytes root = keys.MakeAuthority("root");
  keys.MakeSigner("signer", "root");
  const Bytes loader = keys.Sign(MakePe({{".linux", Bytes(16)}}), "signer");
  KeySet mine = Allowing({});
  mine.db = {Entry(root)};
  const KeySetReport report = Judge({{kLoader, loader}}, mine);
  EXPECT_EQ(report.bootable, Bootable::kYes) << Summarize(report);
  EXPECT_THAT(Roles(report), ElementsAre("unified_kernel"));
  EXPECT_THAT(report.chain.front().authority, StartsWith("db: "));
  EXPECT_THAT(report.chain.front().authority, HasSubstr("root"));
  EXPECT_THAT(report.chain.front().signer, HasSubstr("CN=signer"));
  EXPECT_THAT(report.reasons, IsEmpty());
  EXPECT_THAT(report.fixes, IsEmpty());
}

TEST(BootChain, DigestInDbxIsRefused) {
  const Bytes loader = MakeBzImage();
  KeySet keys = Allowing({loader});
  EXPECT_EQ(Judge({{kLoader, loader}}, keys).bootable, Bootable::kYes);
  keys.dbx = {DigestOf(loader)};
  const KeySetReport report = Judge({{kLoader, loader}}, keys);
  EXPECT_EQ(report.bootable, Bootable::kNo);
  EXPECT_THAT(report.chain.front().authority, StartsWith("dbx: "));
}

TEST(BootChain, EveryProgramStartsWithSecureBootOff) {
  KeySet keys = Allowing({});
  keys.secure_boot = false;
  const KeySetReport report = Judge({{kLoader, MakeBzImage()}}, keys);
  EXPECT_EQ(report.bootable, Bootable::kYes);
  EXPECT_TRUE(report.chain.front().allowed);
  EXPECT_EQ(report.readiness, SecureBootReadiness::kDisabled);
}

TEST(BootChain, ReadinessIsThatOfTheKeySet) {
  const Bytes loader = MakeBzImage();
  const Bytes disk = MakeDisk({{kLoader, loader}});
  KeySet setup = Allowing({loader});
  setup.pk.clear();
  KeySet incomplete = Allowing({loader});
  incomplete.kek.clear();
  KeySet no_dbx = Allowing({loader});
  no_dbx.dbx.clear();
  const BootChainReport report = InspectDisk(disk, {setup, incomplete, no_dbx});
  EXPECT_EQ(report.reports[0].readiness, SecureBootReadiness::kSetupMode);
  EXPECT_EQ(report.reports[1].readiness, SecureBootReadiness::kCertsIncomplete);
  EXPECT_EQ(report.reports[2].readiness, SecureBootReadiness::kReadyNoDbx);
}

TEST(BootChain, DiskWithoutEfiSystemPartitionIsNotSupported) {
  const Bytes disk = formats::testing::MakeGptDisk(512, 20480, {{2048, 4095}});
  const BootChainReport report = InspectDisk(disk, {Allowing({})});
  EXPECT_EQ(report.reports.front().bootable, Bootable::kNo);
  EXPECT_EQ(report.reports.front().readiness, SecureBootReadiness::kNotSupported);
  EXPECT_THAT(report.reports.front().reasons, Contains(HasSubstr("no EFI system partition")));
  EXPECT_THAT(report.reports.front().fixes, Not(IsEmpty()));
}

TEST(BootChain, DiskWithoutDefaultLoaderIsNotSupported) {
  const KeySetReport report = Judge({{"/EFI/debian/grubx64.efi", MakeProgram()}}, Allowing({}));
  EXPECT_EQ(report.bootable, Bootable::kNo);
  EXPECT_EQ(report.readiness, SecureBootReadiness::kNotSupported);
  EXPECT_THAT(report.reasons, ElementsAre(HasSubstr("BOOTX64.EFI does not exist")));
  EXPECT_THAT(report.fixes, Not(IsEmpty()));
}

TEST(BootChain, DamagedLoaderIsRefusedWithReason) {
  const KeySetReport report = Judge({{kLoader, Bytes(600, std::byte{7})}}, Allowing({}));
  EXPECT_EQ(report.bootable, Bootable::kNo);
  EXPECT_THAT(report.reasons, ElementsAre(HasSubstr("is no program that starts")));
}

class ShimChain : public ::testing::Test {
 protected:
  const Bytes shim_ = MakeShim(MakeVendorCert({}));
  const Bytes grub_ = MakeGrub("linux /vmlinuz quiet\nboot\n");
  const Bytes kernel_ = MakeBzImage();
  const DiskFiles files_ = {{kLoader, shim_}, {kSecondStage, grub_}, {"/vmlinuz", kernel_}};
};

TEST_F(ShimChain, IsFollowedThroughGrubToItsKernel) {
  const KeySetReport report = Judge(files_, Allowing({shim_, grub_, kernel_}));
  EXPECT_EQ(report.bootable, Bootable::kYes) << Summarize(report);
  EXPECT_THAT(Roles(report), ElementsAre("shim", "grub", "kernel"));
  EXPECT_EQ(report.chain[0].verified_by, "firmware");
  EXPECT_EQ(report.chain[1].verified_by, "shim");
  EXPECT_EQ(report.chain[2].verified_by, "shim");
}

TEST_F(ShimChain, RefusedLinkIsNamedAndTheOthersStayAllowed) {
  const KeySetReport report = Judge(files_, Allowing({shim_, grub_}));
  EXPECT_EQ(report.bootable, Bootable::kNo);
  EXPECT_THAT(report.reasons, Each(StartsWith("\\vmlinuz: ")));
  EXPECT_TRUE(report.chain[1].allowed);
}

TEST_F(ShimChain, ShimWithoutSecondStageIsRefused) {
  const KeySetReport report = Judge({{kLoader, shim_}}, Allowing({shim_}));
  EXPECT_EQ(report.bootable, Bootable::kNo);
  EXPECT_EQ(report.readiness, SecureBootReadiness::kReady);
  EXPECT_THAT(report.reasons, ElementsAre(HasSubstr("grubx64.efi does not exist")));
}

TEST_F(ShimChain, DamagedSecondStageIsRefusedByName) {
  const KeySetReport report =
      Judge({{kLoader, shim_}, {kSecondStage, Bytes(600, std::byte{7})}}, Allowing({shim_}));
  EXPECT_EQ(report.bootable, Bootable::kNo);
  EXPECT_THAT(report.reasons, ElementsAre(HasSubstr("grubx64.efi is no program that starts")));
}

// Who would judge the second stage is not known then: certainly not the firmware.
TEST_F(ShimChain, ShimWhoseTrustCannotBeReadIsNotFollowed) {
  const Bytes shim = MakeShim(Bytes(20, std::byte{0xff}));
  const KeySetReport report = Judge({{kLoader, shim}, {kSecondStage, grub_}}, Allowing({shim}));
  EXPECT_EQ(report.bootable, Bootable::kAsFarAsKnown);
  EXPECT_THAT(Roles(report), ElementsAre("shim"));
  EXPECT_THAT(report.reasons, ElementsAre(HasSubstr("what this shim trusts cannot be read")));
}

TEST_F(ShimChain, GrubThatCannotBeFollowedIsKnownOnlySoFarAndSaysWhy) {
  const Bytes grub = MakeGrub("nosuchcommand\nlinux /vmlinuz\nboot\n");
  const KeySetReport report = Judge({{kLoader, shim_}, {kSecondStage, grub}, {"/vmlinuz", kernel_}},
                                    Allowing({shim_, grub}));
  EXPECT_EQ(report.bootable, Bootable::kAsFarAsKnown) << Summarize(report);
  EXPECT_THAT(report.reasons, Contains(HasSubstr("nosuchcommand")));
}

TEST_F(ShimChain, KernelThatIsSeenBeforeTheScriptCannotBeFollowedIsNotCertain) {
  const Bytes grub = MakeGrub("linux /vmlinuz\nnosuchcommand\nlinux /other\nboot\n");
  const KeySetReport report = Judge({{kLoader, shim_}, {kSecondStage, grub}, {"/vmlinuz", kernel_}},
                                    Allowing({shim_, grub, kernel_}));
  EXPECT_EQ(report.bootable, Bootable::kAsFarAsKnown) << Summarize(report);
  EXPECT_THAT(report.reasons, Contains(HasSubstr("nosuchcommand")));
}

TEST_F(ShimChain, FallbackStartsTheRegisteredLoader) {
  const Bytes fallback = MakeProgram("sbat,1,v,p,1,u\nfallback,1,v,p,1,u\n");
  const DiskFiles files = {
      {kLoader, shim_},
      {"/EFI/BOOT/fbx64.efi", fallback},
      {"/EFI/debian/shimx64.efi", shim_},
      {"/EFI/debian/grubx64.efi", grub_},
      {"/EFI/debian/BOOTX64.CSV", Utf16("shimx64.efi,debian,,This is the entry\n")},
      {"/vmlinuz", kernel_}};
  const KeySetReport report = Judge(files, Allowing({shim_, fallback, grub_, kernel_}));
  EXPECT_EQ(report.bootable, Bootable::kYes) << Summarize(report);
  EXPECT_THAT(Roles(report), ElementsAre("shim", "fallback", "shim", "grub", "kernel"));
  EXPECT_EQ(Paths(report)[2], "\\efi\\debian\\shimx64.efi");
  EXPECT_EQ(Paths(report)[3], "\\efi\\debian\\grubx64.efi");
  EXPECT_EQ(report.chain[2].verified_by, "firmware");
}

TEST_F(ShimChain, OneOfSeveralRegisteredLoadersNeedNotStart) {
  const Bytes fallback = MakeProgram();
  const Bytes other = MakePe({{".linux", Bytes(16)}});
  const DiskFiles files = {{kLoader, shim_},
                           {"/EFI/BOOT/fbx64.efi", fallback},
                           {"/EFI/debian/a.efi", kernel_},
                           {"/EFI/debian/b.efi", other},
                           {"/EFI/debian/BOOTX64.CSV", Utf16("a.efi,a,,\nb.efi,b,,\n")}};
  const KeySetReport report = Judge(files, Allowing({shim_, fallback, kernel_}));
  EXPECT_EQ(report.bootable, Bootable::kAsFarAsKnown) << Summarize(report);
  EXPECT_EQ(report.chain.size(), 4U);
}

TEST_F(ShimChain, FallbackWithoutRegistrationIsRefused) {
  const Bytes fallback = MakeProgram();
  const KeySetReport report =
      Judge({{kLoader, shim_}, {"/EFI/BOOT/fbx64.efi", fallback}}, Allowing({shim_, fallback}));
  EXPECT_EQ(report.bootable, Bootable::kNo);
  EXPECT_THAT(report.reasons, ElementsAre(HasSubstr("no BOOTX64.CSV")));
}

TEST_F(ShimChain, LoopEnds) {
  const Bytes fallback = MakeProgram();
  const DiskFiles files = {{kLoader, shim_},
                           {"/EFI/BOOT/fbx64.efi", fallback},
                           {"/EFI/BOOT/BOOTX64.CSV", Utf16("BOOTX64.EFI,again,,\n")}};
  const KeySetReport report = Judge(files, Allowing({shim_, fallback}));
  EXPECT_EQ(report.chain.size(), 2U);
}

TEST(BootChain, BootManagerWithOneEntryIsFollowed) {
  const Bytes manager = MakeBootManager();
  const Bytes kernel = MakeBzImage();
  const DiskFiles files = {{kLoader, manager},
                           {"/linux", kernel},
                           {"/loader/entries/one.conf", Text("title One\nlinux /linux\n")}};
  const KeySetReport report = Judge(files, Allowing({manager, kernel}));
  EXPECT_EQ(report.bootable, Bootable::kYes) << Summarize(report);
  EXPECT_THAT(Roles(report), ElementsAre("boot_manager", "kernel"));
  EXPECT_EQ(Judge(files, Allowing({manager})).bootable, Bootable::kNo);
}

class TwoEntries : public ::testing::Test {
 protected:
  static KeySetReport JudgeWith(const Bytes& second, const std::vector<Bytes>& allowed) {
    DiskFiles files = {{kLoader, MakeBootManager()},
                       {"/linux", MakeBzImage()},
                       {"/EFI/Linux/second.efi", second},
                       {"/loader/entries/one.conf", Text("linux /linux\n")}};
    std::vector<Bytes> all = allowed;
    all.push_back(MakeBootManager());
    return Judge(files, Allowing(all));
  }
};

TEST_F(TwoEntries, AreKnownOnlySoFar) {
  const Bytes second = MakePe({{".linux", Bytes(16)}});
  const KeySetReport report = JudgeWith(second, {MakeBzImage(), second});
  EXPECT_EQ(report.bootable, Bootable::kAsFarAsKnown);
  EXPECT_THAT(report.reasons, ElementsAre(HasSubstr("which entry systemd-boot starts")));
  EXPECT_EQ(report.chain.size(), 3U);
}

TEST_F(TwoEntries, RefusedOneDoesNotMakeTheOtherNo) {
  const KeySetReport report = JudgeWith(MakePe({{".linux", Bytes(16)}}), {MakeBzImage()});
  EXPECT_EQ(report.bootable, Bootable::kAsFarAsKnown);
  EXPECT_THAT(report.reasons, Contains(StartsWith("\\EFI\\Linux\\second.efi: ")));
}

TEST_F(TwoEntries, DamagedOneDoesNotMakeTheOtherNo) {
  const KeySetReport report = JudgeWith(Bytes(600, std::byte{7}), {MakeBzImage()});
  EXPECT_EQ(report.bootable, Bootable::kAsFarAsKnown);
  EXPECT_THAT(report.reasons, Contains(HasSubstr("is no program that starts")));
}

// What follows one of several entries is as uncertain as that entry.
TEST_F(TwoEntries, RefusedKernelBehindOneDoesNotMakeTheOtherNo) {
  const Bytes grub = MakeGrub("linux /linux\nboot\n");
  const KeySetReport report = Judge({{kLoader, MakeBootManager()},
                                     {"/grub.efi", grub},
                                     {"/linux", MakePe({{".linux", Bytes(16)}})},
                                     {"/EFI/Linux/good.efi", MakeBzImage()},
                                     {"/loader/entries/one.conf", Text("efi /grub.efi\n")}},
                                    Allowing({MakeBootManager(), grub, MakeBzImage()}));
  EXPECT_EQ(report.bootable, Bootable::kAsFarAsKnown) << Summarize(report);
}

TEST(BootChain, ProgramOfNoKnownKindIsKnownOnlySoFar) {
  const Bytes loader = MakeProgram();
  const KeySetReport report = Judge({{kLoader, loader}}, Allowing({loader}));
  EXPECT_EQ(report.bootable, Bootable::kAsFarAsKnown);
  EXPECT_THAT(report.reasons, ElementsAre(HasSubstr("no known kind")));
}

TEST(BootChain, FollowsABoundedNumberOfProgramsAndListsTheChainFirst) {
  DiskFiles files = {{kLoader, MakeBootManager()}};
  for (size_t i = 0; i < kMaxBootBinaries + 8; ++i) {
    files.push_back({"/EFI/Linux/k" + std::to_string(i) + ".efi", MakePe({{".linux", Bytes(16)}})});
  }
  const BootChainReport report = InspectDisk(MakeDisk(files), {Allowing({MakeBootManager()})});
  EXPECT_EQ(report.reports.front().chain.size(), kMaxChainLinks);
  EXPECT_THAT(report.reports.front().reasons, Contains(HasSubstr("only the first 16 programs")));
  EXPECT_EQ(report.binaries.size(), kMaxBootBinaries);
  EXPECT_EQ(report.binaries.front().path, "\\EFI\\BOOT\\BOOTX64.EFI");
  EXPECT_THAT(report.facts, Contains(HasSubstr("more programs than are read")));
}

class DebianDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string guest = formats::testing::GuestDir();
    if (guest.empty()) GTEST_SKIP() << "build/guest is missing: run scripts/make-debian-guest";
    const InstalledKeySets installed = FindInstalledKeySets();
    const auto found = std::ranges::find(installed.sets, "microsoft", &KeySet::name);
    if (found == installed.sets.end()) GTEST_SKIP() << "no key set microsoft: package ovmf";
    microsoft_ = *found;
    disk_ = ReadFile(guest + "/debian.raw");
  }
  KeySet microsoft_;
  Bytes disk_;
};

TEST_F(DebianDisk, StartsUnderMicrosoftFromShimToKernel) {
  const KeySetReport report = InspectDisk(disk_, {microsoft_}).reports.front();
  EXPECT_EQ(report.bootable, Bootable::kYes) << Summarize(report);
  EXPECT_EQ(report.readiness, SecureBootReadiness::kReady);
  EXPECT_THAT(Roles(report), ElementsAre("shim", "grub", "kernel"));
  EXPECT_THAT(report.chain.front().authority, HasSubstr("Microsoft"));
}

TEST_F(DebianDisk, OneByteOfGrubChangedIsRefusedByItsName) {
  const formats::testing::TempDir dir;
  const std::string esp = dir.File("disk") + "@@1048576 ";
  WriteFile(dir.File("disk"), disk_);
  MustRun("mcopy -n -i " + esp + "::/EFI/BOOT/grubx64.efi " + dir.File("grub"));
  Bytes grub = ReadFile(dir.File("grub"));
  grub[grub.size() / 2] ^= std::byte{1};
  WriteFile(dir.File("grub"), grub);
  MustRun("mcopy -o -i " + esp + dir.File("grub") + " ::/EFI/BOOT/grubx64.efi");
  const KeySetReport report = InspectDisk(ReadFile(dir.File("disk")), {microsoft_}).reports.front();
  EXPECT_EQ(report.bootable, Bootable::kNo);
  EXPECT_TRUE(report.chain.front().allowed);
  EXPECT_THAT(report.reasons, Each(StartsWith("\\EFI\\BOOT\\grubx64.efi: ")));
  EXPECT_THAT(report.fixes, Not(IsEmpty()));
}

}  // namespace
}  // namespace vallum::images

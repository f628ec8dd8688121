// SPDX-License-Identifier: Apache-2.0
#include "measure/predict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "firmware/shim.h"
#include "firmware/variable_store_editor.h"
#include "measure/authorities.h"
#include "measure/event_digest.h"

namespace vallum::measure {
namespace {

using firmware::Variable;
using firmware::VariableStore;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// A real boot: see testdata/README.md.
const std::string kBoot = std::string(VALLUM_TESTDATA) + "/debian12-secure/";
constexpr size_t kImageSize = 540672;
constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;

std::string ReadText(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}
Bytes ReadFile(const std::string& path) { return ToBytes(AsBytes(ReadText(path))); }

Bytes DigestOf(std::string_view text) { return Digest(kBank, AsBytes(text)); }
BankDigests DigestsOf(std::string_view text) { return {{kBank, DigestOf(text)}}; }

// The chain of the captured boot; the programs' digests are made up, their signers and shim's
// sections are real. Whatever db or shim lists as a certificate has signed itself here.
struct Boot {
  std::vector<Variable> variables;
  BootInput input;

  ChainBinary& Shim() { return input.chain[0]; }
  ChainBinary& Grub() { return input.chain[1]; }
  void Erase(const std::u16string& name) {
    std::erase_if(variables, [&](const Variable& variable) { return variable.name == name; });
  }
  void SwitchOff() {
    for (const char16_t* name : {u"PK", u"KEK", u"db", u"dbx", u"SbatLevel"}) {
      Erase(name);
    }
  }
  void Set(const std::u16string& name, Bytes data) {
    Variable variable;
    variable.name = name;
    variable.vendor = firmware::kShimLockGuid;
    variable.attributes = 3;
    variable.data = std::move(data);
    Erase(name);
    variables.push_back(variable);
  }
  VariableStore Store() const {
    return *VariableStore::Parse(*firmware::MakeVariableStoreImage(variables));
  }
  Prediction Predict() const {
    auto prediction = PredictBoot(kBank, Store(), input);
    EXPECT_TRUE(prediction.has_value());
    return *prediction;
  }
};

ChainBinary MakeBinary(BootStage stage, const std::string& path, const std::string& version) {
  ChainBinary binary;
  binary.stage = stage;
  binary.binary.path = path;
  binary.authenticode = DigestsOf(path);
  binary.version = version;
  return binary;
}

GrubInput MakeGrub() {
  GrubInput grub;
  grub.device = "hd0,gpt1";
  grub.directory = "/EFI/BOOT";
  grub.prefix = "/EFI/debian";
  grub.embedded_script = "linux /vmlinuz quiet\ninitrd /initrd.img\nboot\n";
  GrubVolume& volume = grub.volumes.emplace_back();
  volume.device = grub.device;
  volume.files = {{"/vmlinuz", DigestsOf("vmlinuz"), {}}, {"/initrd.img", DigestsOf("initrd"), {}}};
  grub.kernels = {MakeBinary(BootStage::kKernel, "/vmlinuz", "6.1.0-1")};
  return grub;
}

Boot MakeValidBoot() {
  Boot boot;
  Bytes image = ReadFile(kBoot + "vars-used.bin");
  image.resize(kImageSize, std::byte{0xff});
  const auto store = VariableStore::Parse(image);
  for (const Variable* variable : store->Variables()) {
    boot.variables.push_back(*variable);
  }
  ChainBinary shim =
      MakeBinary(BootStage::kShim, "shim", "shim.debian,1,Debian,shim,16.1,https://x\n");
  shim.binary.vendor_cert_section = ReadFile(kBoot + "shim.vendor_cert");
  shim.binary.sbat_level_section = ReadFile(kBoot + "shim.sbatlevel");
  const auto* db = store->Find("db", firmware::kSecurityDatabaseGuid);
  shim.binary.signer_certificates = {firmware::ParseSignatureLists(db->data)->back().data};
  ChainBinary grub = MakeBinary(BootStage::kGrub, "grub",
                                "grub.debian,5,Debian,grub2,2.06-13+deb12u2,https://x\n");
  const auto vendor = firmware::ParseVendorCertSection(shim.binary.vendor_cert_section);
  grub.binary.signer_certificates = {VendorEntries(*vendor).front().data};
  boot.input.grub = MakeGrub();
  boot.input.grub->kernels[0].binary.signer_certificates = grub.binary.signer_certificates;
  boot.input.chain = {shim, grub};
  return boot;
}

Boot MakeUnifiedBoot() {
  Boot boot = MakeValidBoot();
  boot.SwitchOff();
  boot.input.grub.reset();
  boot.input.chain = {
      MakeBinary(BootStage::kStub, "uki", "#### LoaderInfo: systemd-stub 252.39-1 ####"),
      MakeBinary(BootStage::kKernel, "kernel inside", "6.1.0-1")};
  boot.input.stub_sections = {{".text", AsBytes("code")},     {".cmdline", AsBytes(" a\tb \n")},
                              {".initrd", AsBytes("initrd")}, {".linux", AsBytes("linux")},
                              {".uname", AsBytes("6.1")},     {".splash", {}}};
  return boot;
}

std::vector<Bytes> EventsOf(const Prediction& prediction, PcrIndex pcr) {
  std::vector<Bytes> digests;
  for (const PredictedEvent& event : prediction.Find(pcr)->events) {
    digests.push_back(event.digest);
  }
  return digests;
}
constexpr PcrIndex kPcr4 = PcrIndex::Of<4>();
constexpr PcrIndex kPcr5 = PcrIndex::Of<5>();
constexpr PcrIndex kPcr7 = PcrIndex::Of<7>();
constexpr PcrIndex kPcr8 = PcrIndex::Of<8>();
constexpr PcrIndex kPcr9 = PcrIndex::Of<9>();
constexpr PcrIndex kPcr11 = PcrIndex::Of<11>();
constexpr PcrIndex kPcr14 = PcrIndex::Of<14>();

void ExpectStopped(const Boot& boot, PcrIndex pcr, const char* words) {
  const Prediction prediction = boot.Predict();
  EXPECT_NE(prediction.Find(pcr)->state, PcrKnowledge::kExact) << pcr.value();
  EXPECT_THAT(prediction.Find(pcr)->reason, HasSubstr(words));
}

TEST(Predict, Pcr7OfTheCapturedBootIsPredicted) {
  std::vector<Bytes> measured;
  std::istringstream lines(ReadText(kBoot + "pcr7-extends.txt"));
  for (std::string line; std::getline(lines, line);) {
    measured.push_back(*FromHex(line));
  }
  const Prediction prediction = MakeValidBoot().Predict();
  EXPECT_EQ(EventsOf(prediction, kPcr7), measured);
  EXPECT_EQ(ToHex(prediction.Find(kPcr7)->value) + "\n",
            ReadText(kBoot + "pcr7-read-by-guest.txt"));
}

TEST(Predict, KernelIsVerifiedTwiceUnderSecureBootAndNotAtAllWithout) {
  Boot boot = MakeValidBoot();
  const Bytes action = DigestOf("Calling EFI Application from Boot Option");
  const Bytes separator = SeparatorDigest(kBank);
  EXPECT_THAT(EventsOf(boot.Predict(), kPcr4),
              ElementsAre(action, separator, DigestOf("shim"), DigestOf("grub"),
                          DigestOf("/vmlinuz"), DigestOf("/vmlinuz")));
  boot.SwitchOff();
  EXPECT_THAT(EventsOf(boot.Predict(), kPcr4),
              ElementsAre(action, separator, DigestOf("shim"), DigestOf("grub")));
}

TEST(Predict, FailedBootOptionAddsTwoActions) {
  Boot boot = MakeValidBoot();
  boot.input.failed_boot_options = 1;
  const auto events = EventsOf(boot.Predict(), kPcr4);
  ASSERT_THAT(events, SizeIs(8));
  EXPECT_EQ(events[2], DigestOf("Returning from EFI Application from Boot Option"));
  EXPECT_EQ(events[3], events[0]);
}

TEST(Predict, GrubsCommandsAndFilesAreInPcr8And9) {
  const Prediction prediction = MakeValidBoot().Predict();
  EXPECT_THAT(EventsOf(prediction, kPcr8),
              ElementsAre(DigestOf("linux /vmlinuz quiet"), DigestOf("/vmlinuz quiet"),
                          DigestOf("initrd /initrd.img"), DigestOf("boot")));
  EXPECT_THAT(EventsOf(prediction, kPcr9), ElementsAre(DigestOf("vmlinuz"), DigestOf("initrd")));
}

TEST(Predict, ScriptThatIsNotFollowedLeavesTheBeginning) {
  Boot boot = MakeValidBoot();
  boot.input.grub->embedded_script = "echo a\nload_env\n" + boot.input.grub->embedded_script;
  for (const PcrIndex pcr : {kPcr4, kPcr7, kPcr8, kPcr9}) {
    ExpectStopped(boot, pcr, "line 2: the command load_env is not followed");
  }
  EXPECT_EQ(boot.Predict().Find(kPcr8)->events.size(), 2U);
  EXPECT_EQ(boot.Predict().Find(kPcr14)->state, PcrKnowledge::kExact);
}

TEST(Predict, OnlyEntriesInUseOfTheGptAreMeasured) {
  Boot boot = MakeValidBoot();
  ByteWriter header;
  header.Zeros(80).U32Le(4).U32Le(128).Zeros(420);
  boot.input.gpt_header = header.bytes();
  boot.input.gpt_entries = Bytes(size_t{4} * 128);
  boot.input.gpt_entries[128] = std::byte{7};
  ByteWriter data;
  data.Raw(ByteView(header.bytes()).first(92)).U64Le(1);
  data.Raw(ByteView(boot.input.gpt_entries).subspan(128, 128));
  EXPECT_THAT(EventsOf(boot.Predict(), kPcr5),
              ElementsAre(SeparatorDigest(kBank), Digest(kBank, data.bytes()),
                          DigestOf("Exit Boot Services Invocation"),
                          DigestOf("Exit Boot Services Returned with Success")));
  boot.input.gpt_entries.pop_back();
  ExpectStopped(boot, kPcr5, "do not fit");
}

TEST(Predict, UnknownVersionsOfProgramsAreNotGuessed) {
  Boot shim = MakeValidBoot();
  shim.Shim().version = "shim.debian,1,Debian,shim,15.8,https://x\n";
  ExpectStopped(shim, kPcr14, "shim 15.8");
  ExpectStopped(shim, kPcr7, "shim 15.8");
  Boot grub = MakeValidBoot();
  grub.Grub().version = "grub.fedora,1,Fedora,grub2,2.06,https://x\n";
  ExpectStopped(grub, kPcr8, "GRUB of an unknown version");
  Boot stub = MakeUnifiedBoot();
  stub.input.chain[0].version = "#### LoaderInfo: systemd-stub 257 ####";
  ExpectStopped(stub, kPcr11, "257");
  Boot kernel = MakeUnifiedBoot();
  kernel.input.chain[1].version = "6.12.1";
  ExpectStopped(kernel, kPcr9, "Linux 6.12.1");
}

TEST(Predict, DigestThatIsMissingInTheBankMakesItPartial) {
  const Boot boot = MakeValidBoot();
  const auto prediction = PredictBoot(HashAlgorithm::kSha384, boot.Store(), boot.input);
  EXPECT_EQ(prediction->Find(kPcr4)->state, PcrKnowledge::kPartial);
  EXPECT_THAT(prediction->Find(kPcr4)->reason, HasSubstr("no sha384 digest of shim"));
  EXPECT_EQ(prediction->Find(kPcr7)->value.size(), 48U);
}

TEST(Predict, ProgramThatNothingAdmitsEndsPcr4And7) {
  Boot shim = MakeValidBoot();
  shim.Shim().binary.signer_certificates.clear();
  ExpectStopped(shim, kPcr7, "db does not admit shim");
  Boot grub = MakeValidBoot();
  grub.Grub().binary.signer_certificates.clear();
  ExpectStopped(grub, kPcr4, "neither db nor shim admits grub");
  Boot kernel = MakeValidBoot();
  kernel.input.grub->kernels[0].binary.signer_certificates.clear();
  ExpectStopped(kernel, kPcr4, "neither db nor shim admits /vmlinuz");
}

TEST(Predict, KernelOfAnotherSignerAddsItsAuthority) {
  Boot boot = MakeValidBoot();
  const size_t before = boot.Predict().Find(kPcr7)->events.size();
  boot.input.grub->kernels[0].binary.signer_certificates = boot.Shim().binary.signer_certificates;
  EXPECT_EQ(boot.Predict().Find(kPcr7)->events.size(), before + 1);
}

TEST(Predict, SbatLevelIsTheNewerOfTheVariableAndShim) {
  Boot boot = MakeValidBoot();
  const auto level = [&] {
    return std::string(AsText(SbatLevelAuthority(boot.Store(), boot.Shim().binary)->data));
  };
  boot.Set(u"SbatLevel", ToBytes(AsBytes("sbat,1,2030010100\n")));
  EXPECT_EQ(level(), "sbat,1,2030010100\n");
  boot.Set(u"SbatLevel", ToBytes(AsBytes("sbat,1,2020010100\n")));
  EXPECT_THAT(level(), HasSubstr("sbat,1,2025021800\n"));
  boot.Set(u"SbatPolicy", {std::byte{1}});
  ExpectStopped(boot, kPcr7, "SbatPolicy");
}

TEST(Predict, MokVariablesOfTheStoreAreInPcr14) {
  Boot boot = MakeValidBoot();
  const auto before = EventsOf(boot.Predict(), kPcr14);
  ASSERT_THAT(before, SizeIs(3));
  boot.Set(u"MokListTrusted", {std::byte{1}});
  EXPECT_THAT(EventsOf(boot.Predict(), kPcr14), ElementsAre(before[0], before[1]));
  boot.Set(u"MokListX", {std::byte{1}});
  EXPECT_NE(EventsOf(boot.Predict(), kPcr14)[1], before[1]);
  boot.variables.back().attributes = 7;  // shim deletes it
  EXPECT_EQ(EventsOf(boot.Predict(), kPcr14)[1], before[1]);
  boot.Set(u"MokSBState", {std::byte{1}});
  ExpectStopped(boot, kPcr14, "MokSBState");
  ExpectStopped(boot, kPcr4, "MokSBState");
}

TEST(Predict, SectionsOfAUnifiedImageAreInPcr11InTheirOwnOrder) {
  const Prediction prediction = MakeUnifiedBoot().Predict();
  const auto name = [](std::string_view text) { return DigestOf(std::string(text) + '\0'); };
  EXPECT_THAT(EventsOf(prediction, kPcr11),
              ElementsAre(name(".linux"), DigestOf("linux"), name(".cmdline"), DigestOf(" a\tb \n"),
                          name(".initrd"), DigestOf("initrd")));
  const std::string options(" \0a\0 \0b\0\0\0", 10);
  EXPECT_THAT(EventsOf(prediction, kPcr9), ElementsAre(DigestOf(options), DigestOf("initrd")));
}

TEST(Predict, KernelInsideIsInPcr4OnlyWithoutSecureBoot) {
  EXPECT_EQ(EventsOf(MakeUnifiedBoot().Predict(), kPcr4).back(), DigestOf("kernel inside"));
  Boot secure = MakeUnifiedBoot();
  const Boot valid = MakeValidBoot();
  secure.variables = valid.variables;
  secure.input.chain[0].binary.signer_certificates =
      valid.input.chain[0].binary.signer_certificates;
  EXPECT_EQ(EventsOf(secure.Predict(), kPcr4).back(), DigestOf("uki"));
}

TEST(Predict, WhatComesFromOutsideAUnifiedImageIsNotGuessed) {
  Boot extras = MakeUnifiedBoot();
  extras.input.stub_extras = {"/loader/credentials/a.cred"};
  ExpectStopped(extras, PcrIndex::Of<12>(), "a.cred");
  ExpectStopped(extras, kPcr9, "a.cred");
  Boot options = MakeUnifiedBoot();
  options.input.load_options = "init=/bin/sh";
  ExpectStopped(options, PcrIndex::Of<12>(), "from outside");
  Boot signature = MakeUnifiedBoot();
  signature.input.stub_sections.push_back({".pcrsig", AsBytes("{}")});
  ExpectStopped(signature, kPcr9, ".pcrsig");
  EXPECT_EQ(signature.Predict().Find(kPcr11)->state, PcrKnowledge::kExact);
}

TEST(Predict, KernelAloneMeasuresItsOptionsOnly) {
  Boot boot = MakeUnifiedBoot();
  boot.input.chain.erase(boot.input.chain.begin());
  EXPECT_THAT(EventsOf(boot.Predict(), kPcr9), SizeIs(0));
  boot.input.load_options = "a";
  EXPECT_THAT(EventsOf(boot.Predict(), kPcr9), ElementsAre(DigestOf(std::string("a\0\0\0", 4))));
}

TEST(Predict, BootWithoutAProgramIsRefused) {
  EXPECT_EQ(PredictBoot(kBank, MakeValidBoot().Store(), {}).error().code(),
            ErrorCode::kInvalidInput);
}

}  // namespace
}  // namespace vallum::measure

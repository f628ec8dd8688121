// SPDX-License-Identifier: Apache-2.0
#include "vm/command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <sstream>

namespace vallum::vm {
namespace {

using testing::HasSubstr;

VmSpec MakeSecureSpec() {
  VmSpec spec;
  spec.uid = "0f8fad5b-d9cb-469f-a165-70867728950e";
  spec.name = "web1";
  spec.vcpus = 2;
  spec.memory = ByteCount::MiB(1024);
  spec.firmware = UefiFirmware{.code_path = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
                               .vars_path = "/var/lib/vallum/instances/u/vars.fd",
                               .protection = VariableProtection::kSmm};
  spec.disks = {
      {.id = "root",
       .path = "/var/lib/vallum/instances/u/root.qcow2",
       .format = DiskFormat::kQcow2,
       .base = BaseImage{.path = "/var/lib/vallum/blobs/ab,cd", .format = DiskFormat::kQcow2},
       .cache = CacheMode::kWriteback,
       .serial = "root-0",
       .boot_index = uint8_t{0}}};
  spec.nics = {{.id = "lan", .mac = "52:54:00:00:00:01", .network = UserNetwork{}},
               {.id = "dmz", .mac = "52:54:00:00:00:02", .network = BridgeNetwork{"br0"}}};
  spec.seed_iso = "/var/lib/vallum/instances/u/seed.iso";
  spec.vtpm = Vtpm{.model = TpmModel::kCrb,
                   .vtpm_program = "/usr/bin/vallum-vtpm",
                   .swtpm_program = "/usr/bin/swtpm",
                   .state_dir = "/var/lib/vallum/instances/u/tpm",
                   .record_path = "/var/lib/vallum/instances/u/extends"};
  spec.run_dir = "/run/vallum/instances/u";
  spec.log_dir = "/var/lib/vallum/instances/u";
  return spec;
}

VmSpec MakeBiosSpec() {
  VmSpec spec = MakeSecureSpec();
  spec.name = "old1";
  spec.vcpus = 1;
  spec.machine = Machine::kPc;
  spec.firmware = BiosFirmware{};
  spec.accelerator = Accelerator::kKvm;
  spec.disks[0].base->format = DiskFormat::kRaw;
  spec.disks.push_back({.id = "data",
                        .path = "/dev/vg/data",
                        .format = DiskFormat::kRaw,
                        .base = {},
                        .cache = CacheMode::kDirect,
                        .serial = "",
                        .boot_index = {}});
  spec.nics.clear();
  spec.seed_iso.clear();
  spec.vtpm.reset();
  return spec;
}

// Compares with testdata/<name>.argv, one argument a line. With VALLUM_UPDATE_GOLDEN set the file
// is written instead, to be reviewed as a change.
void ExpectGolden(const Command& command, const std::string& name) {
  const std::string path = std::string(VALLUM_TESTDATA) + "/" + name + ".argv";
  std::string actual;
  for (const std::string& argument : command.argv) {
    actual += argument + "\n";
  }
  if (std::getenv("VALLUM_UPDATE_GOLDEN") != nullptr) {
    std::ofstream(path) << actual;
  }
  std::stringstream expected;
  expected << std::ifstream(path).rdbuf();
  EXPECT_EQ(actual, expected.str());
}

TEST(CommandTest, SecureBootInstanceWithEverything) {
  ExpectGolden(MakeQemuCommand(MakeSecureSpec()), "qemu_secure");
}

TEST(CommandTest, BiosInstanceUnderKvm) {
  ExpectGolden(MakeQemuCommand(MakeBiosSpec()), "qemu_bios_kvm");
}

TEST(CommandTest, SwtpmGetsItsControlChannelAsADescriptor) {
  ExpectGolden(MakeSwtpmCommand(MakeSecureSpec()), "swtpm");
}

TEST(CommandTest, VtpmCarriesTheSwtpmCommandBehindTheDashes) {
  ExpectGolden(MakeVtpmCommand(MakeSecureSpec()), "vtpm");
}

TEST(CommandTest, LegacyUefiHasNoSmm) {
  VmSpec spec = MakeSecureSpec();
  std::get<UefiFirmware>(spec.firmware).protection = VariableProtection::kNone;
  const Command command = MakeQemuCommand(spec);
  EXPECT_THAT(command.argv, testing::Contains(HasSubstr("q35,smm=off,")));
  EXPECT_THAT(command.argv, testing::Not(testing::Contains(HasSubstr("property=secure"))));
}

TEST(VmSpecTest, ValidSpecsPass) {
  EXPECT_TRUE(ValidateVmSpec(MakeSecureSpec()).has_value());
  EXPECT_TRUE(ValidateVmSpec(MakeBiosSpec()).has_value());
}

struct Fault {
  const char* words;  // in the message
  std::function<void(VmSpec&)> apply;
};

TEST(VmSpecTest, EachFaultIsRefusedByName) {
  const std::vector<Fault> faults = {
      {"instance", [](VmSpec& s) { s.name = "a,process=b"; }},
      {"uid", [](VmSpec& s) { s.uid = "1"; }},
      {"vcpus=0", [](VmSpec& s) { s.vcpus = 0; }},
      {"memory", [](VmSpec& s) { s.memory = ByteCount::KiB(1025); }},
      {"run_dir", [](VmSpec& s) { s.run_dir = "run"; }},
      {"too long", [](VmSpec& s) { s.run_dir = "/" + std::string(100, 'r'); }},
      {"firmware.vars_path",
       [](VmSpec& s) { std::get<UefiFirmware>(s.firmware).vars_path = "vars.fd"; }},
      {"machine=pc", [](VmSpec& s) { s.machine = Machine::kPc; }},
      {"disk id", [](VmSpec& s) { s.disks[0].id = "a,b"; }},
      {"disk id", [](VmSpec& s) { s.disks[0].id = "seed"; }},
      {"disks[root].path", [](VmSpec& s) { s.disks[0].path = "/a\nb"; }},
      {"disks[root].serial", [](VmSpec& s) { s.disks[0].serial = "a,b"; }},
      {"base image", [](VmSpec& s) { s.disks[0].format = DiskFormat::kRaw; }},
      {"two disks", [](VmSpec& s) { s.disks.push_back(s.disks[0]); }},
      {"more than 8", [](VmSpec& s) { s.disks.resize(9, s.disks[0]); }},
      {"mac", [](VmSpec& s) { s.nics[0].mac = "53:54:00:00:00:01"; }},
      {"mac", [](VmSpec& s) { s.nics[0].mac = "52:54:00:00:00:0"; }},
      {"bridge", [](VmSpec& s) { s.nics[1].network = BridgeNetwork{"../x"}; }},
      {"comma", [](VmSpec& s) { s.vtpm->state_dir = "/tpm,mode=0777"; }},
      {"swtpm_program", [](VmSpec& s) { s.vtpm->swtpm_program = ""; }},
  };
  for (const Fault& fault : faults) {
    VmSpec spec = MakeSecureSpec();
    fault.apply(spec);
    const auto checked = ValidateVmSpec(spec);
    ASSERT_FALSE(checked.has_value()) << fault.words;
    EXPECT_EQ(checked.error().code(), ErrorCode::kInvalidInput);
    EXPECT_THAT(checked.error().Describe(), HasSubstr(fault.words));
  }
}

}  // namespace
}  // namespace vallum::vm

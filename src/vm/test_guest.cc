// SPDX-License-Identifier: Apache-2.0
#include "vm/test_guest.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/check.h"
#include "base/ids.h"

namespace vallum::vm {
namespace {

// cli; PM1_EN (0x602) = power button; serial '!'; then for ever: power button in PM1_STS (0x600) or
// 'p' -> S5 through PM1_CNT (0x604); 'r' -> reset through 0xcf9; 'x' -> pvpanic (0x505); any other
// letter -> '!'.
constexpr std::array<uint8_t, 81> kBootSector = {
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, 0xba, 0xf8,
    0x03, 0xb0, 0x21, 0xee, 0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01, 0x75, 0x1d, 0xba,
    0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xef, 0xba, 0xf8, 0x03, 0xec, 0x3c, 0x70, 0x74,
    0x0d, 0x3c, 0x72, 0x74, 0x12, 0x3c, 0x78, 0x74, 0x16, 0xb0, 0x21, 0xee, 0xeb, 0xda,
    0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xeb, 0xd1, 0xba, 0xf9, 0x0c, 0xb0, 0x06,
    0xee, 0xeb, 0xc9, 0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xeb, 0xc1};

}  // namespace

TestDir::TestDir() : path_("/tmp/vallum-vm-test-XXXXXX") {
  CHECK(mkdtemp(path_.data()) != nullptr);
}

TestDir::~TestDir() { std::filesystem::remove_all(path_); }

VmSpec MakeTestSpec(const TestDir& dir) {
  const std::string base = dir.path() + "/base.raw";
  {
    std::ofstream out(base, std::ios::binary);
    std::string sector(512, '\0');
    std::ranges::copy(kBootSector, sector.begin());
    sector[510] = '\x55';
    sector[511] = '\xaa';
    out << sector << std::string((size_t{1} << 20U) - sector.size(), '\0');
  }
  const std::string overlay = dir.path() + "/root.qcow2";
  CHECK(system(("qemu-img create -q -f qcow2 " + overlay + " 1M").c_str()) == 0);
  VmSpec spec;
  spec.uid = NewUid();
  spec.name = "tiny";
  spec.memory = ByteCount::MiB(16);
  spec.machine = Machine::kPc;
  spec.disks = {{.id = "root",
                 .path = overlay,
                 .format = DiskFormat::kQcow2,
                 .base = BaseImage{.path = base, .format = DiskFormat::kRaw},
                 .cache = CacheMode::kWriteback,
                 .serial = "",
                 .boot_index = uint8_t{0}}};
  spec.run_dir = dir.path() + "/run";
  spec.log_dir = dir.path();
  return spec;
}

}  // namespace vallum::vm

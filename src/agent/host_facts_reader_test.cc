// SPDX-License-Identifier: Apache-2.0
#include "agent/host_facts_reader.h"

#include <gtest/gtest.h>

#include <fstream>

#include "agent/test_support.h"

namespace vallum::agent {
namespace {

class HostFactsTest : public testing::Test {
 protected:
  void Write(const std::string& path, const std::string& content) const {
    std::filesystem::create_directories((dir_.path() / path).parent_path());
    std::ofstream(dir_.path() / path, std::ios::binary) << content;
  }
  void Swaps(const std::string& devices) const {
    Write("proc/swaps", "Filename\t\t\tType\t\tSize\tUsed\tPriority\n" + devices);
  }
  v1::HostFacts Read() const { return ReadHostFacts(dir_.path()); }
  const TempDir dir_;
};

TEST_F(HostFactsTest, WhatIsNotThereIsNotInvented) {
  const v1::HostFacts facts = Read();
  EXPECT_EQ(facts.kernel_release(), "");
  EXPECT_EQ(facts.lockdown(), "");
  EXPECT_EQ(facts.iommu(), "off");
  EXPECT_EQ(facts.swap(), "none");
  EXPECT_EQ(facts.kdump(), "none");
  EXPECT_EQ(facts.secure_boot(), "unknown");
  EXPECT_FALSE(facts.architecture().empty());
}

TEST_F(HostFactsTest, KernelAndCommandLineAreRead) {
  Write("proc/sys/kernel/osrelease", "6.1.0-28-amd64\n");
  Write("proc/cmdline", "root=/dev/sda1 ro lockdown=integrity\n");
  EXPECT_EQ(Read().kernel_release(), "6.1.0-28-amd64");
  EXPECT_EQ(Read().command_line(), "root=/dev/sda1 ro lockdown=integrity");
}

TEST_F(HostFactsTest, LockdownIsTheOneInBrackets) {
  Write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
  EXPECT_EQ(Read().lockdown(), "integrity");
}

TEST_F(HostFactsTest, IommuIsOnWithADevice) {
  Write("sys/class/iommu/dmar0/uevent", "");
  EXPECT_EQ(Read().iommu(), "on");
}

TEST_F(HostFactsTest, IommuIsOnWithGroups) {
  Write("sys/kernel/iommu_groups/0/type", "DMA");
  EXPECT_EQ(Read().iommu(), "on");
}

TEST_F(HostFactsTest, LoadedCrashKernelIsTold) {
  Write("sys/kernel/kexec_crash_loaded", "1\n");
  EXPECT_EQ(Read().kdump(), "loaded");
}

TEST_F(HostFactsTest, SwapOnAPlainDeviceIsPlain) {
  Swaps("/dev/sda2                               partition\t8388604\t0\t-2\n");
  EXPECT_EQ(Read().swap(), "plain");
}

TEST_F(HostFactsTest, SwapOnDmCryptIsEncrypted) {
  Swaps("/dev/dm-1 partition\t8388604\t0\t-2\n");
  Write("sys/class/block/dm-1/dm/uuid", "CRYPT-PLAIN-swap\n");
  EXPECT_EQ(Read().swap(), "encrypted");
}

TEST_F(HostFactsTest, SwapOnAVolumeOnDmCryptIsEncrypted) {
  Swaps("/dev/dm-2 partition\t8388604\t0\t-2\n");
  Write("sys/class/block/dm-2/dm/uuid", "LVM-abc\n");
  Write("sys/class/block/dm-2/slaves/dm-0/x", "");
  Write("sys/class/block/dm-0/dm/uuid", "CRYPT-LUKS2-abc\n");
  EXPECT_EQ(Read().swap(), "encrypted");
}

TEST_F(HostFactsTest, SwapOnAVolumeHalfOnDmCryptIsPlain) {
  Swaps("/dev/dm-2 partition\t8388604\t0\t-2\n");
  Write("sys/class/block/dm-2/slaves/dm-0/x", "");
  Write("sys/class/block/dm-0/dm/uuid", "CRYPT-LUKS2-abc\n");
  Write("sys/class/block/dm-2/slaves/sda3/x", "");
  EXPECT_EQ(Read().swap(), "plain");
}

TEST_F(HostFactsTest, OneEncryptedSwapDoesNotHideAPlainOne) {
  Swaps("/dev/dm-1 partition\t1\t0\t-2\n/swapfile file\t1\t0\t-3\n");
  Write("sys/class/block/dm-1/dm/uuid", "CRYPT-PLAIN-swap\n");
  EXPECT_EQ(Read().swap(), "plain");
}

TEST_F(HostFactsTest, CompressedMemoryIsNoSwap) {
  Swaps("/dev/zram0 partition\t8388604\t0\t100\n");
  Write("sys/class/block/zram0/backing_dev", "none\n");
  EXPECT_EQ(Read().swap(), "none");
}

TEST_F(HostFactsTest, CompressedMemoryThatIsWrittenToADeviceIsPlainSwap) {
  Swaps("/dev/zram0 partition\t8388604\t0\t100\n");
  Write("sys/class/block/zram0/backing_dev", "/dev/sda2\n");
  EXPECT_EQ(Read().swap(), "plain");
}

TEST_F(HostFactsTest, ProcessorIsTheFirstOne) {
  Write("proc/cpuinfo",
        "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmicrocode\t: 0x2b000571\n"
        "flags\t\t: fpu sev smep\n\nprocessor\t: 1\nmodel name\t: Other\n");
  const v1::HostFacts facts = Read();
  EXPECT_EQ(facts.cpu_model(), "Some CPU @ 2 GHz");
  EXPECT_EQ(facts.microcode(), "0x2b000571");
  ASSERT_EQ(facts.cpu_features_size(), 3);
  EXPECT_EQ(facts.cpu_features(1), "sev");
}

TEST_F(HostFactsTest, SecureBootIsWhatTheVariableSays) {
  const std::string path =
      "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
  Write(path, std::string("\x06\0\0\0\x01", 5));
  EXPECT_EQ(Read().secure_boot(), "on");
  Write(path, std::string("\x06\0\0\0\0", 5));
  EXPECT_EQ(Read().secure_boot(), "off");
}

}  // namespace
}  // namespace vallum::agent

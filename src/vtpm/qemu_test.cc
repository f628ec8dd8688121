// SPDX-License-Identifier: Apache-2.0
// vallum-vtpm between a real QEMU with real firmware and a real swtpm.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>

#include "measure/extend_log.h"
#include "vtpm/test_support.h"

namespace vallum::vtpm {
namespace {

using testing::TempDir;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr const char* kCode = "/usr/share/OVMF/OVMF_CODE_4M.fd";
constexpr const char* kVariables = "/usr/share/OVMF/OVMF_VARS_4M.fd";
constexpr const char* kQemu = "/usr/bin/qemu-system-x86_64";

std::vector<std::string> QemuArgv(const TempDir& dir, const std::string& tpm_socket) {
  return {kQemu,
          "-nodefaults",
          "-no-user-config",
          "-machine",
          "q35",
          "-accel",
          "tcg",
          "-m",
          "256",
          "-display",
          "none",
          "-chardev",
          "socket,id=tpm,path=" + tpm_socket,
          "-tpmdev",
          "emulator,id=tpm0,chardev=tpm",
          "-device",
          "tpm-crb,tpmdev=tpm0",
          "-drive",
          std::string("if=pflash,unit=0,format=raw,readonly=on,file=") + kCode,
          "-drive",
          "if=pflash,unit=1,format=raw,file=" + (dir / "vars.fd")};
}

TEST(VtpmWithQemu, WhatFirmwareMeasuredIsRecordedAndIsWhatTheTpmHolds) {
  for (const char* file : {kCode, kVariables, kQemu}) {
    if (access(file, R_OK) != 0) {
      GTEST_SKIP() << file << " is not installed";
    }
  }
  const TempDir dir;
  std::filesystem::copy_file(kVariables, dir / "vars.fd");
  testing::VtpmUnderTest vtpm(dir);
  testing::Process qemu(QemuArgv(dir, vtpm.qemu_socket()), dir / "qemu.log", {});
  ControlClient client = vtpm.Client();
  measure::ExtendLog log;
  while (measure::ExtendsOfLastBoot(log, kBank).size() <= 10) {
    const auto batch =
        client.WaitForRecords(log.last_sequence(), std::chrono::milliseconds(60'000));
    ASSERT_TRUE(batch.has_value()) << batch.error().Describe();
    ASSERT_FALSE(batch->records.empty()) << testing::ReadFile(dir / "qemu.log");
    for (const measure::ExtendRecord& record : batch->records) {
      log.Append(record.time, record.body);
    }
  }
  // Firmware may go on measuring: PCRs and records are of one moment when nothing came in between.
  for (;;) {
    const auto pcrs = client.ReadPcrs(kBank, testing::AllPcrs());
    ASSERT_TRUE(pcrs.has_value()) << pcrs.error().Describe();
    const auto batch = client.RecordsSince(log.last_sequence());
    ASSERT_TRUE(batch.has_value()) << batch.error().Describe();
    for (const measure::ExtendRecord& record : batch->records) {
      log.Append(record.time, record.body);
    }
    if (!batch->records.empty()) {
      continue;
    }
    const measure::PcrReplay replay = log.Replay(kBank);
    EXPECT_TRUE(replay.gaps.empty());
    for (const auto& [pcr, value] : *pcrs) {
      EXPECT_EQ(ToHex(replay.values[pcr.value()]), ToHex(value)) << "PCR " << pcr.value();
    }
    break;
  }
  // Not SIGTERM: QEMU 7.2 hangs at it when the firmware writes a variable just then.
  kill(qemu.pid(), SIGKILL);
  EXPECT_EQ(qemu.Wait(), "signal 9 (Killed)");
  EXPECT_EQ(vtpm.process().Wait(), "exit status 0") << vtpm.output();
}

}  // namespace
}  // namespace vallum::vtpm

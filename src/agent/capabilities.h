// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "agent/config.h"
#include "base/result.h"
#include "firmware/descriptor.h"
#include "vallum/v1/resources.pb.h"
#include "vm/probe.h"

namespace vallum::agent {

inline constexpr const char* kTraitSecureBoot = "COMPUTE_SECURITY_UEFI_SECURE_BOOT";
inline constexpr const char* kTraitTpm20 = "COMPUTE_SECURITY_TPM_2_0";
inline constexpr const char* kTraitTpmTis = "COMPUTE_SECURITY_TPM_TIS";
inline constexpr const char* kTraitTpmCrb = "COMPUTE_SECURITY_TPM_CRB";
inline constexpr const char* kTraitKvm = "VALLUM_ACCEL_KVM";
inline constexpr const char* kTraitTcg = "VALLUM_ACCEL_TCG";
inline constexpr const char* kTraitSmm = "VALLUM_SMM";
inline constexpr const char* kTraitUefi = "VALLUM_FIRMWARE_UEFI";
inline constexpr const char* kTraitBios = "VALLUM_FIRMWARE_BIOS";
inline constexpr const char* kTraitNetUser = "VALLUM_NET_USER";
inline constexpr const char* kTraitNetBridge = "VALLUM_NET_BRIDGE";

// A descriptor whose files exist, with the digest of its executable ("" for the BIOS inside QEMU).
struct HostFirmware {
  firmware::FirmwareDescriptor descriptor;
  std::string executable_sha256;
};

// What was found on this host; a value.
struct HostFacts {
  vm::HostProbes probes;
  std::vector<HostFirmware> firmware;  // most important first
  std::vector<std::string> problems;   // descriptors left out, and why
  std::vector<std::string> bridges;
  bool may_make_taps = false;  // CAP_NET_ADMIN and /dev/net/tun
  std::string swtpm_version;
  std::string kernel_version;
  int cpus = 0;
  uint64_t memory_bytes = 0;
  uint64_t disk_free_bytes = 0;
};

// Probes QEMU and the rest of the host; a probe of the same QEMU and kernel that was made before is
// taken from <state-dir>/probe-cache.json. Blocks for up to a minute the first time.
// Errors: kNotFound (no QEMU at --qemu).
Result<HostFacts> ProbeFacts(const AgentConfig& config);

// Says what the facts mean for placement: traits, and for each missing one a probe with the reason.
// Pure; thread-safe.
v1::HostCapabilities MakeCapabilities(const HostFacts& facts);

// The versioned machine name behind "q35": "pc-q35-7.2".
std::string Q35MachineName(const vm::HostProbes& probes);

// The descriptors alone, for firmware::SelectFirmware.
std::vector<firmware::FirmwareDescriptor> Descriptors(const HostFacts& facts);
// Digest of the firmware with this source; "" when there is none.
std::string FirmwareDigest(const HostFacts& facts, const std::string& source);

// Bytes that the state directory's file system has left; 0 when it cannot be asked.
uint64_t DiskFree(const std::filesystem::path& directory);

}  // namespace vallum::agent

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::attest {

// What a host says of itself: its own word, proof of nothing but where a measured event confirms it
// (the command line; see rules_command_line.h). Empty: the host did not say. A value.
struct HostFacts {
  std::string kernel_release;  // uname -r
  std::string command_line;    // /proc/cmdline
  std::string lockdown;        // "none", "integrity", "confidentiality"
  std::string iommu;           // "on", "off"
  std::string swap;            // "none", "plain", "encrypted"
  std::string kdump;           // "loaded", "none"
  std::string secure_boot;     // "on", "off", "unknown": by the firmware's variable
  std::string microcode;       // revision, hexadecimal
  std::string cpu_model;
  std::string architecture;
  std::string boot_id;                    // /proc/sys/kernel/random/boot_id
  std::vector<std::string> cpu_features;  // flags of /proc/cpuinfo
  bool operator==(const HostFacts&) const = default;
};

inline constexpr size_t kMaxFactsSize = size_t{256} << 10U;
inline constexpr size_t kMaxCpuFeatures = 1024;
inline constexpr size_t kMaxFactText = 16384;

// Parses the JSON object that FormatHostFacts makes: {"kernelRelease", "commandLine", "lockdown",
// "iommu", "swap", "kdump", "secureBoot", "microcode", "cpuModel", "architecture", "bootId"}, which
// are texts, and "cpuFeatures", a list of texts; each may be absent.
//   text: untrusted.
// Errors: kInvalidInput (not JSON, another name, a value of another kind, past a limit above).
Result<HostFacts> ParseHostFacts(std::string_view text);
// One line; equal facts give equal text.
std::string FormatHostFacts(const HostFacts& facts);

// The revision as a number; nothing when the host did not say or it is none.
std::optional<uint64_t> MicrocodeRevision(const HostFacts& facts);

}  // namespace vallum::attest

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "vm/vm_spec.h"

namespace vallum::vm {

// One fact about what this host can run.
struct Probe {
  std::string name;  // one of the kProbe... names, or "object:<type>", "machine:<name>"
  bool ok = false;
  std::string detail;  // in words: what was found, or why not
  bool operator==(const Probe&) const = default;
};

inline constexpr std::string_view kProbeQemu = "qemu";      // detail: its version
inline constexpr std::string_view kProbeKvm = "accel:kvm";  // a tiny guest ran under it
inline constexpr std::string_view kProbeTcg = "accel:tcg";
inline constexpr std::string_view kProbeKvmSmm = "smm:kvm";
inline constexpr std::string_view kProbeTcgSmm = "smm:tcg";
inline constexpr std::string_view kProbeCgroupV2 = "cgroup-v2";
inline constexpr std::string_view kProbeSwtpm = "swtpm";  // detail: its version

struct ProbeOptions {
  std::string qemu_program = "/usr/bin/qemu-system-x86_64";
  std::string swtpm_program = "/usr/bin/swtpm";
  std::string cache_path;     // empty: no cache
  std::string cgroup_parent;  // the cgroup v2 directory that is to hold instances; may be empty
  std::chrono::milliseconds guest_limit{10000};  // for each tiny guest
};

struct HostProbes {
  std::string qemu_version;  // "7.2.22"
  std::vector<Probe> probes;

  const Probe* Find(std::string_view name) const;
  bool Has(std::string_view name) const;
  // KVM where a guest ran under it, else TCG, else nothing. With kSmm only one with SMM.
  std::optional<Accelerator> BestAccelerator(VariableProtection protection) const;
};

// Finds out what QEMU can do here: asks one QMP session for objects, devices and machines, and runs
// a tiny guest of our own bytes under each accelerator, with and without SMM. Blocking: up to a
// second, or up to four guest_limits when an accelerator hangs. A usable cache (same QEMU file,
// same kernel) answers at once.
// Errors: kNotFound (no QEMU). An accelerator that does not work is a probe that is not ok, no
// error. A cache that cannot be read or written is ignored, and said in the probe "cache".
Result<HostProbes> ProbeHost(const ProbeOptions& options);

}  // namespace vallum::vm

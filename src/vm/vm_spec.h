// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace vallum::vm {

enum class Accelerator { kKvm, kTcg };
enum class Machine { kQ35, kPc };
enum class DiskFormat { kRaw, kQcow2 };
enum class TpmModel { kCrb, kTis };
// Who may write the firmware's variables: anybody in the guest, or only code in System Management
// Mode (what Secure Boot needs to be more than advice).
enum class VariableProtection { kNone, kSmm };
// Host page cache semantics: write-back honours the guest's flushes; direct bypasses the host's
// cache (O_DIRECT); unsafe ignores flushes, for throw-away guests only.
enum class CacheMode { kWriteback, kDirect, kUnsafe };
// Of every network device of an instance: with its link down nothing passes, whatever the guest
// does.
enum class LinkState { kUp, kDown };

struct BiosFirmware {};  // QEMU's built-in SeaBIOS

struct UefiFirmware {
  std::string code_path;  // shared, read only, raw
  std::string vars_path;  // this instance's own, written by the guest, raw
  VariableProtection protection = VariableProtection::kNone;
};
using Firmware = std::variant<BiosFirmware, UefiFirmware>;

// A read-only image, shared by instances; never written and never probed for its format.
struct BaseImage {
  std::string path;
  DiskFormat format = DiskFormat::kQcow2;
};

struct Disk {
  std::string id;    // letters, digits, '-': node and device names are made from it
  std::string path;  // written by the guest
  DiskFormat format = DiskFormat::kQcow2;
  std::optional<BaseImage> base;  // backing node; needs format == kQcow2
  CacheMode cache = CacheMode::kWriteback;
  std::string serial;                 // what the guest sees; may be empty
  std::optional<uint8_t> boot_index;  // 0 boots first; absent: never booted
};

struct UserNetwork {};  // QEMU's own NAT; needs no privilege
struct BridgeNetwork {
  std::string bridge;  // the runner makes a tap device in it (needs CAP_NET_ADMIN)
};
struct Nic {
  std::string id;
  std::string mac;  // "52:54:00:xx:xx:xx"
  std::variant<UserNetwork, BridgeNetwork> network;
};

struct Vtpm {
  TpmModel model = TpmModel::kCrb;
  std::string vtpm_program;   // vallum-vtpm
  std::string swtpm_program;  // swtpm
  std::string state_dir;      // swtpm's NVRAM; 0700, belongs to run_as
  std::string record_path;    // what vallum-vtpm recorded: PCR extends and resets
  // How long the machine's start waits for the EK certificate of a vTPM that has none.
  std::chrono::milliseconds certificate_wait{0};
};

struct RunAs {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // supplementary: such as the group of /dev/kvm
};

struct ResourceLimits {
  std::optional<ByteCount> memory_max;  // of the whole process tree, QEMU's overhead included
  std::optional<uint32_t> cpu_weight;   // 1..10000, 100 is the default
  std::optional<uint32_t> cpu_percent;  // 100 = one CPU
  std::optional<uint32_t> pids_max;
  std::string cgroup_parent;  // delegated cgroup v2 directory; empty: limits are not applied
};

// Everything that is needed to start one instance; a value. The same spec gives the same commands.
// All paths are absolute. Files that the guest writes belong to run_as, when that is set.
struct VmSpec {
  std::string uid;
  std::string name;
  uint32_t vcpus = 1;
  ByteCount memory = ByteCount::MiB(512);
  Machine machine = Machine::kQ35;
  Firmware firmware = BiosFirmware{};
  Accelerator accelerator = Accelerator::kTcg;
  std::vector<Disk> disks;
  std::vector<Nic> nics;
  LinkState links = LinkState::kUp;  // when the guest begins to run
  std::string seed_iso;              // NoCloud seed, attached read only; empty: none
  std::optional<Vtpm> vtpm;
  std::string run_dir;  // sockets: made 0700 by the runner, belongs to run_as
  // Process identities and logs: exists, and only the caller may write to it, since what an
  // identity names is signalled.
  std::string log_dir;
  std::string qemu_program = "/usr/bin/qemu-system-x86_64";
  std::optional<RunAs> run_as;  // absent: the caller's own user
  ResourceLimits limits;
};

// Where an instance's files are; all follow from run_dir and log_dir.
struct VmPaths {
  std::string qmp_socket;
  std::string serial_socket;
  std::string vtpm_qemu_socket;     // QEMU connects here
  std::string vtpm_control_socket;  // vtpm::ControlClient connects here
  std::string qemu_identity;
  std::string vtpm_identity;
  std::string serial_log;    // what the guest and its firmware wrote to the serial port
  std::string firmware_log;  // port 0x402; empty with firmware built without debugging
  std::string qemu_log;      // QEMU's stderr
  std::string vtpm_log;      // vallum-vtpm's stderr
  std::string swtpm_log;
};
VmPaths MakeVmPaths(const VmSpec& spec);

// Checks what QEMU would refuse late or accept silently.
// Errors: kInvalidInput (a path that is not absolute or too long for a socket, an unusable id or
// MAC, no vCPU, secure variables without q35, a base under a raw disk), with the setting's name.
// Pure; thread-safe.
Result<void> ValidateVmSpec(const VmSpec& spec);

}  // namespace vallum::vm

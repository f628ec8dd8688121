// SPDX-License-Identifier: Apache-2.0
#include "vm/vm_spec.h"

#include <sys/un.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "base/ids.h"
#include "base/text.h"

namespace vallum::vm {
namespace {

constexpr size_t kMaxPathLength = 1024;
constexpr size_t kMaxSocketPath = sizeof(sockaddr_un::sun_path) - 1;
constexpr size_t kMaxDisks = 8;  // fixed PCI slots, see command.cc
constexpr size_t kMaxNics = 8;
constexpr uint32_t kMaxVcpus = 255;  // more needs interrupt remapping
constexpr uint64_t kMinMemoryMib = 1;
constexpr uint64_t kMaxMemoryMib = 4UL << 20U;

Result<void> CheckPath(std::string_view setting, std::string_view path) {
  const std::string what = std::string(setting) + "=\"" + Printable(path) + "\"";
  if (path.empty() || path.front() != '/') {
    return InvalidInput(what + " is not an absolute path").WithFix("give a path from /");
  }
  if (path.size() > kMaxPathLength || Printable(path, kMaxPathLength) != path) {
    return InvalidInput(what + " is too long or has characters that do not belong in a path")
        .WithFix("use a path of at most 1024 printable characters");
  }
  return Ok();
}

// swtpm's options have no way to write a comma.
Result<void> CheckPathWithoutComma(std::string_view setting, std::string_view path) {
  RETURN_IF_ERROR(CheckPath(setting, path));
  if (path.find(',') != std::string_view::npos) {
    return InvalidInput(std::string(setting) + "=\"" + std::string(path) + "\" has a comma")
        .WithFix("swtpm cannot take a path with a comma: rename the directory");
  }
  return Ok();
}

bool IsDeviceId(std::string_view id) {
  // The letter in front keeps ids apart from QEMU's generated node names (#block...).
  return !id.empty() && id.size() <= 24 && id.front() >= 'a' && id.front() <= 'z' &&
         std::ranges::all_of(id, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
         });
}

bool IsSerial(std::string_view serial) {
  return serial.size() <= 20 && std::ranges::all_of(serial, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_';
         });
}

// A unicast address, six two-digit groups.
bool IsMac(std::string_view mac) {
  if (mac.size() != 17) {
    return false;
  }
  for (size_t i = 0; i < mac.size(); ++i) {
    const char c = mac[i];
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (i % 3 == 2 ? c != ':' : !hex) {
      return false;
    }
  }
  const char low = mac[1];
  const int digit = low <= '9' ? low - '0' : (low | 0x20) - 'a' + 10;
  return (digit & 1) == 0;
}

Result<void> CheckDisk(const Disk& disk) {
  if (!IsDeviceId(disk.id) || disk.id == "seed" || disk.id.starts_with("firmware")) {
    return InvalidInput("disk id \"" + Printable(disk.id) + "\" cannot be used")
        .WithFix("use up to 24 of a-z, 0-9, '-', beginning with a letter; not seed or firmware");
  }
  RETURN_IF_ERROR(CheckPath("disks[" + disk.id + "].path", disk.path));
  if (!IsSerial(disk.serial)) {
    return InvalidInput("disks[" + disk.id + "].serial \"" + Printable(disk.serial) +
                        "\" is not up to 20 of a-z, A-Z, 0-9, '-', '_'");
  }
  if (!disk.base.has_value()) {
    return Ok();
  }
  RETURN_IF_ERROR(CheckPath("disks[" + disk.id + "].base.path", disk.base->path));
  if (disk.format != DiskFormat::kQcow2) {
    return InvalidInput("disks[" + disk.id + "].format=raw conflicts with a base image")
        .WithFix("use a qcow2 overlay, or no base");
  }
  return Ok();
}

Result<void> CheckNic(const Nic& nic) {
  if (!IsDeviceId(nic.id)) {
    return InvalidInput("nic id \"" + Printable(nic.id) + "\" cannot be used")
        .WithFix("use up to 24 of a-z, 0-9, '-', beginning with a letter");
  }
  if (!IsMac(nic.mac)) {
    return InvalidInput("nics[" + nic.id + "].mac \"" + Printable(nic.mac) +
                        "\" is not a unicast MAC address")
        .WithFix("use one such as 52:54:00:12:34:56");
  }
  const auto* bridged = std::get_if<BridgeNetwork>(&nic.network);
  if (bridged != nullptr &&
      (bridged->bridge.empty() || bridged->bridge.size() > 15 || bridged->bridge.front() == '.' ||
       bridged->bridge.find_first_of("/, \t\n") != std::string::npos)) {
    return InvalidInput("nics[" + nic.id + "].bridge \"" + Printable(bridged->bridge) +
                        "\" is not a network interface's name");
  }
  return Ok();
}

template <typename Items>
Result<void> CheckUnique(std::string_view kind, const Items& items) {
  std::set<std::string_view> seen;
  for (const auto& item : items) {
    if (!seen.insert(item.id).second) {
      return InvalidInput("two " + std::string(kind) + " have the id \"" + item.id + "\"")
          .WithFix("give each its own id");
    }
  }
  return Ok();
}

Result<void> CheckDevices(const VmSpec& spec) {
  if (spec.disks.size() > kMaxDisks || spec.nics.size() > kMaxNics) {
    return InvalidInput(std::to_string(spec.disks.size()) + " disks and " +
                        std::to_string(spec.nics.size()) + " nics are more than 8 of each");
  }
  RETURN_IF_ERROR(CheckUnique("disks", spec.disks));
  RETURN_IF_ERROR(CheckUnique("nics", spec.nics));
  for (const Disk& disk : spec.disks) {
    RETURN_IF_ERROR(CheckDisk(disk));
  }
  for (const Nic& nic : spec.nics) {
    RETURN_IF_ERROR(CheckNic(nic));
  }
  if (!spec.seed_iso.empty()) {
    RETURN_IF_ERROR(CheckPath("seed_iso", spec.seed_iso));
  }
  return Ok();
}

Result<void> CheckFirmware(const VmSpec& spec) {
  const auto* uefi = std::get_if<UefiFirmware>(&spec.firmware);
  if (uefi == nullptr) {
    return Ok();
  }
  RETURN_IF_ERROR(CheckPath("firmware.code_path", uefi->code_path));
  RETURN_IF_ERROR(CheckPath("firmware.vars_path", uefi->vars_path));
  if (uefi->protection == VariableProtection::kSmm && spec.machine != Machine::kQ35) {
    return InvalidInput("firmware.protection=smm conflicts with machine=pc")
        .WithFix("use machine=q35: only it has System Management Mode that protects flash");
  }
  return Ok();
}

Result<void> CheckVtpm(const VmSpec& spec) {
  if (!spec.vtpm.has_value()) {
    return Ok();
  }
  RETURN_IF_ERROR(CheckPath("vtpm.vtpm_program", spec.vtpm->vtpm_program));
  RETURN_IF_ERROR(CheckPath("vtpm.swtpm_program", spec.vtpm->swtpm_program));
  RETURN_IF_ERROR(CheckPathWithoutComma("vtpm.state_dir", spec.vtpm->state_dir));
  RETURN_IF_ERROR(CheckPath("vtpm.record_path", spec.vtpm->record_path));
  return CheckPathWithoutComma("log_dir", spec.log_dir);
}

Result<void> CheckDirectories(const VmSpec& spec) {
  RETURN_IF_ERROR(CheckPath("qemu_program", spec.qemu_program));
  RETURN_IF_ERROR(CheckPath("log_dir", spec.log_dir));
  RETURN_IF_ERROR(CheckPath("run_dir", spec.run_dir));
  const VmPaths paths = MakeVmPaths(spec);
  if (paths.vtpm_control_socket.size() > kMaxSocketPath) {
    return InvalidInput("run_dir \"" + Printable(spec.run_dir) +
                        "\" is too long: the sockets in it exceed " +
                        std::to_string(kMaxSocketPath) + " characters")
        .WithFix("use a shorter run directory, such as /run/vallum");
  }
  return Ok();
}

}  // namespace

VmPaths MakeVmPaths(const VmSpec& spec) {
  VmPaths paths;
  paths.qmp_socket = spec.run_dir + "/qmp.sock";
  paths.serial_socket = spec.run_dir + "/serial.sock";
  paths.vtpm_qemu_socket = spec.run_dir + "/vtpm.sock";
  paths.vtpm_control_socket = spec.run_dir + "/vtpm-control.sock";
  paths.qemu_identity = spec.log_dir + "/qemu.process";
  paths.vtpm_identity = spec.log_dir + "/vtpm.process";
  paths.serial_log = spec.log_dir + "/serial.log";
  paths.firmware_log = spec.log_dir + "/firmware.log";
  paths.qemu_log = spec.log_dir + "/qemu.log";
  paths.vtpm_log = spec.log_dir + "/vtpm.log";
  paths.swtpm_log = spec.log_dir + "/swtpm.log";
  return paths;
}

Result<void> ValidateVmSpec(const VmSpec& spec) {
  RETURN_IF_ERROR(ValidateName("instance", spec.name));
  if (!IsUid(spec.uid)) {
    return InvalidInput("instance uid \"" + Printable(spec.uid) + "\" is not a UUID");
  }
  if (spec.vcpus == 0 || spec.vcpus > kMaxVcpus) {
    return InvalidInput("vcpus=" + std::to_string(spec.vcpus) + " is not from 1 to 255");
  }
  if (spec.memory.mib() < kMinMemoryMib || spec.memory.mib() > kMaxMemoryMib ||
      spec.memory != ByteCount::MiB(spec.memory.mib())) {
    return InvalidInput("memory=" + FormatByteCount(spec.memory) +
                        " is not a whole number of MiB from 1 MiB to 4 TiB");
  }
  RETURN_IF_ERROR(CheckDirectories(spec));
  RETURN_IF_ERROR(CheckFirmware(spec));
  RETURN_IF_ERROR(CheckDevices(spec));
  return CheckVtpm(spec);
}

}  // namespace vallum::vm

// SPDX-License-Identifier: Apache-2.0
#include "vm/command.h"

#include <nlohmann/json.hpp>

namespace vallum::vm {
namespace {

using Json = nlohmann::ordered_json;

// Fixed PCI slots: a guest sees the same hardware whatever else the instance has. Slot 0 is the
// host bridge, 1 the PIIX3 of "pc", 31 the ICH9 of "q35".
constexpr unsigned kRngSlot = 0x02;
constexpr unsigned kSeedSlot = 0x03;
constexpr unsigned kFirstDiskSlot = 0x04;
constexpr unsigned kFirstNicSlot = 0x10;

// QEMU's option syntax: a comma inside a value is written twice.
std::string Escape(std::string_view value) {
  std::string out;
  for (const char c : value) {
    out += c;
    if (c == ',') {
      out += ',';
    }
  }
  return out;
}

std::string Slot(unsigned slot) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  return std::string("addr=0x") + kDigits[slot >> 4U] + kDigits[slot & 15U];
}

class ArgvBuilder {
 public:
  explicit ArgvBuilder(std::string program) { argv_.push_back(std::move(program)); }
  ArgvBuilder& Add(std::string option, std::string value) {
    argv_.push_back(std::move(option));
    argv_.push_back(std::move(value));
    return *this;
  }
  ArgvBuilder& Add(std::string option) {
    argv_.push_back(std::move(option));
    return *this;
  }
  ArgvBuilder& Blockdev(const Json& node) { return Add("-blockdev", node.dump()); }
  std::vector<std::string> Take() && { return std::move(argv_); }

 private:
  std::vector<std::string> argv_;
};

std::string_view FormatName(DiskFormat format) {
  switch (format) {
    case DiskFormat::kRaw:
      return "raw";
    case DiskFormat::kQcow2:
      return "qcow2";
  }
  return "";
}

Json CacheOptions(CacheMode mode) {
  switch (mode) {
    case CacheMode::kWriteback:
      return {{"direct", false}, {"no-flush", false}};
    case CacheMode::kDirect:
      return {{"direct", true}, {"no-flush", false}};
    case CacheMode::kUnsafe:
      return {{"direct", false}, {"no-flush", true}};
  }
  return {};
}

// A file that QEMU can only read, whatever a device or a job asks for later.
void AddReadOnly(ArgvBuilder& argv, const std::string& node, const std::string& path,
                 DiskFormat format) {
  argv.Blockdev({{"driver", "file"},
                 {"node-name", node + "-file"},
                 {"filename", path},
                 {"read-only", true},
                 {"auto-read-only", false},
                 {"locking", "on"}});
  Json layer = {{"driver", FormatName(format)},
                {"node-name", node},
                {"file", node + "-file"},
                {"read-only", true},
                {"auto-read-only", false}};
  if (format == DiskFormat::kQcow2) {
    layer["backing"] = nullptr;  // a name in the header must never be followed
  }
  argv.Blockdev(layer);
}

void AddDisk(ArgvBuilder& argv, const Disk& disk, unsigned slot) {
  if (disk.base.has_value()) {
    AddReadOnly(argv, disk.id + "-base", disk.base->path, disk.base->format);
  }
  argv.Blockdev({{"driver", "file"},
                 {"node-name", disk.id + "-file"},
                 {"filename", disk.path},
                 {"read-only", false},
                 {"auto-read-only", false},
                 {"locking", "on"},
                 {"discard", "unmap"},
                 {"cache", CacheOptions(disk.cache)}});
  Json layer = {{"driver", FormatName(disk.format)}, {"node-name", disk.id},
                {"file", disk.id + "-file"},         {"read-only", false},
                {"auto-read-only", false},           {"discard", "unmap"},
                {"detect-zeroes", "unmap"},          {"cache", CacheOptions(disk.cache)}};
  if (disk.format == DiskFormat::kQcow2) {
    layer["backing"] = disk.base.has_value() ? Json(disk.id + "-base") : Json(nullptr);
  }
  argv.Blockdev(layer);
  std::string device = "virtio-blk-pci,id=disk-" + disk.id + ",drive=" + disk.id + "," + Slot(slot);
  if (disk.boot_index.has_value()) {
    device += ",bootindex=" + std::to_string(*disk.boot_index);
  }
  if (!disk.serial.empty()) {
    device += ",serial=" + disk.serial;
  }
  argv.Add("-device", device);
}

}  // namespace

std::string NicDeviceId(const Nic& nic) { return "nic-" + nic.id; }

namespace {

void AddNic(ArgvBuilder& argv, const Nic& nic, unsigned slot, int& next_tap_fd) {
  const std::string netdev = "net-" + nic.id;
  if (std::holds_alternative<UserNetwork>(nic.network)) {
    argv.Add("-netdev", "user,id=" + netdev);
  } else {
    argv.Add("-netdev", "tap,id=" + netdev + ",fd=" + std::to_string(next_tap_fd));
    ++next_tap_fd;
  }
  // No option ROM: network boot is not offered, and the ROM is one more thing that is measured.
  argv.Add("-device", "virtio-net-pci,id=" + NicDeviceId(nic) + ",netdev=" + netdev +
                          ",mac=" + nic.mac + "," + Slot(slot) + ",romfile=");
}

bool HasSmm(const VmSpec& spec) {
  const auto* uefi = std::get_if<UefiFirmware>(&spec.firmware);
  return uefi != nullptr && uefi->protection == VariableProtection::kSmm;
}

void AddMachine(ArgvBuilder& argv, const VmSpec& spec) {
  const bool q35 = spec.machine == Machine::kQ35;
  // graphics=off also makes SeaBIOS use the serial port as its console.
  std::string machine = q35 ? "q35" : "pc";
  machine += std::string(",smm=") + (HasSmm(spec) ? "on" : "off");
  machine += ",graphics=off,vmport=off,dump-guest-core=off";
  if (std::holds_alternative<UefiFirmware>(spec.firmware)) {
    machine += ",pflash0=firmware-code,pflash1=firmware-vars";
  }
  argv.Add("-machine", machine);
  const bool kvm = spec.accelerator == Accelerator::kKvm;
  argv.Add("-accel", kvm ? "kvm" : "tcg,thread=multi,tb-size=256");
  argv.Add("-cpu", kvm ? "host" : "max");
  const std::string vcpus = std::to_string(spec.vcpus);
  argv.Add("-smp", "cpus=" + vcpus + ",sockets=1,cores=" + vcpus + ",threads=1");
  argv.Add("-m", "size=" + std::to_string(spec.memory.mib()) + "M");
  // Sleeping to memory would hand the resume path, which runs before Secure Boot, to the guest.
  argv.Add("-global", q35 ? "ICH9-LPC.disable_s3=1" : "PIIX4_PM.disable_s3=1");
  if (HasSmm(spec)) {
    argv.Add("-global", "driver=cfi.pflash01,property=secure,value=on");
  }
}

void AddFirmware(ArgvBuilder& argv, const VmSpec& spec) {
  const auto* uefi = std::get_if<UefiFirmware>(&spec.firmware);
  if (uefi == nullptr) {
    return;
  }
  AddReadOnly(argv, "firmware-code", uefi->code_path, DiskFormat::kRaw);
  argv.Blockdev({{"driver", "file"},
                 {"node-name", "firmware-vars-file"},
                 {"filename", uefi->vars_path},
                 {"read-only", false},
                 {"auto-read-only", false},
                 {"locking", "on"}});
  argv.Blockdev({{"driver", "raw"},
                 {"node-name", "firmware-vars"},
                 {"file", "firmware-vars-file"},
                 {"read-only", false},
                 {"auto-read-only", false}});
}

void AddChannels(ArgvBuilder& argv, const VmSpec& spec) {
  const VmPaths paths = MakeVmPaths(spec);
  argv.Add("-chardev", "socket,id=qmp,fd=" + std::to_string(kQemuQmpFd) + ",server=on,wait=off");
  argv.Add("-mon", "chardev=qmp,mode=control");
  argv.Add("-chardev", "socket,id=serial0,fd=" + std::to_string(kQemuSerialFd) +
                           ",server=on,wait=off,logfile=" + Escape(paths.serial_log) +
                           ",logappend=on");
  argv.Add("-device", "isa-serial,chardev=serial0");
  argv.Add("-chardev", "file,id=firmware-log,path=" + Escape(paths.firmware_log) + ",append=on");
  argv.Add("-device", "isa-debugcon,iobase=0x402,chardev=firmware-log");
}

void AddVtpm(ArgvBuilder& argv, const VmSpec& spec) {
  if (!spec.vtpm.has_value()) {
    return;
  }
  argv.Add("-chardev", "socket,id=vtpm,path=" + Escape(MakeVmPaths(spec).vtpm_qemu_socket));
  argv.Add("-tpmdev", "emulator,id=tpm0,chardev=vtpm");
  argv.Add("-device", std::string(spec.vtpm->model == TpmModel::kCrb ? "tpm-crb" : "tpm-tis") +
                          ",tpmdev=tpm0");
}

void AddGeneral(ArgvBuilder& argv, const VmSpec& spec) {
  argv.Add("-name", "guest=" + spec.name + ",process=vallum:" + spec.name + ",debug-threads=on")
      .Add("-uuid", spec.uid)
      .Add("-nodefaults")
      .Add("-no-user-config")
      .Add("-S")
      .Add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
      .Add("-msg", "timestamp=on")
      .Add("-display", "none")
      .Add("-rtc", "base=utc")
      .Add("-boot", "strict=on,menu=off")
      .Add("-action", "reboot=reset,shutdown=pause,panic=pause");
}

}  // namespace

Command MakeQemuCommand(const VmSpec& spec) {
  ArgvBuilder argv(spec.qemu_program);
  AddGeneral(argv, spec);
  AddMachine(argv, spec);
  AddFirmware(argv, spec);
  AddChannels(argv, spec);
  AddVtpm(argv, spec);
  argv.Add("-object", "rng-builtin,id=rng0");
  argv.Add("-device", "virtio-rng-pci,rng=rng0," + Slot(kRngSlot));
  argv.Add("-device", "pvpanic");
  unsigned slot = kFirstDiskSlot;
  for (const Disk& disk : spec.disks) {
    AddDisk(argv, disk, slot);
    ++slot;
  }
  if (!spec.seed_iso.empty()) {
    AddReadOnly(argv, "seed", spec.seed_iso, DiskFormat::kRaw);
    argv.Add("-device", "virtio-blk-pci,id=disk-seed,drive=seed," + Slot(kSeedSlot));
  }
  slot = kFirstNicSlot;
  int next_tap_fd = kQemuFirstTapFd;
  for (const Nic& nic : spec.nics) {
    AddNic(argv, nic, slot, next_tap_fd);
    ++slot;
  }
  return Command{.argv = std::move(argv).Take()};
}

Command MakeSwtpmCommand(const VmSpec& spec) {
  ArgvBuilder argv(spec.vtpm->swtpm_program);
  argv.Add("socket")
      .Add("--tpm2")
      .Add("--tpmstate", "dir=" + spec.vtpm->state_dir + ",mode=0600")
      .Add("--ctrl", "type=unixio,clientfd=" + std::to_string(kSwtpmControlFd))
      .Add("--seccomp", "action=kill")
      .Add("--log", "file=" + MakeVmPaths(spec).swtpm_log + ",level=1");
  return Command{.argv = std::move(argv).Take()};
}

Command MakeVtpmCommand(const VmSpec& spec) {
  ArgvBuilder argv(spec.vtpm->vtpm_program);
  argv.Add("--listen-fd", std::to_string(kVtpmListenFd))
      .Add("--control-fd", std::to_string(kVtpmControlFd))
      .Add("--record", spec.vtpm->record_path);
  if (spec.vtpm->certificate_wait.count() > 0) {
    argv.Add("--await-certificate", std::to_string(spec.vtpm->certificate_wait.count()));
  }
  argv.Add("--");
  for (std::string& argument : MakeSwtpmCommand(spec).argv) {
    argv.Add(std::move(argument));
  }
  return Command{.argv = std::move(argv).Take()};
}

}  // namespace vallum::vm

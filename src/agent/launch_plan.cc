// SPDX-License-Identifier: Apache-2.0
#include "agent/launch_plan.h"

#include <algorithm>
#include <utility>

#include "agent/boot_keys.h"
#include "agent/vtpm_keeper.h"
#include "base/digest.h"
#include "base/text.h"

namespace vallum::agent {
namespace {

constexpr int kDefaultStopSeconds = 60;
constexpr uint32_t kPidsMax = 512;
// What QEMU needs beside the guest's memory; TCG keeps up to 1 GiB of translated code.
constexpr ByteCount kOverheadKvm = ByteCount::MiB(512);
constexpr ByteCount kOverheadTcg = ByteCount::MiB(1536);

Result<std::string> ChooseTpm(const v1::DesiredInstance& desired, const HostFacts& facts) {
  const std::string asked = ToLower(desired.spec().tpm_model());
  const std::string model = asked.empty() ? "tpm-crb" : asked;
  if (model == "none") {
    if (desired.boot().mode() == v1::BOOT_MODE_SECURE) {
      return InvalidInput(
                 "tpm_model=none conflicts with boot mode SECURE: nothing would measure it")
          .WithFix("use tpm_model=tpm-crb, or boot mode LEGACY");
    }
    return model;
  }
  if (model != "tpm-crb" && model != "tpm-tis") {
    return InvalidInput("tpm_model '" + Printable(model, 40) + "' is not known")
        .WithFix("use tpm-crb, tpm-tis or none");
  }
  if (!facts.probes.Has(vm::kProbeSwtpm)) {
    const vm::Probe* probe = facts.probes.Find(vm::kProbeSwtpm);
    return NotFound("this host cannot give the instance a TPM (" + model +
                    "): " + (probe != nullptr ? probe->detail : "swtpm was not found"))
        .WithFix("install swtpm on the host, or ask for tpm_model=none with boot mode LEGACY");
  }
  return model;
}

Result<firmware::FirmwareQuery> MakeQuery(const v1::DesiredInstance& desired,
                                          const HostFacts& facts) {
  firmware::FirmwareQuery query;
  query.machine = Q35MachineName(facts.probes);
  switch (desired.boot().type()) {
    case v1::BOOT_TYPE_BIOS:
      query.type = firmware::FirmwareType::kBios;
      break;
    case v1::BOOT_TYPE_UEFI:
      query.type = firmware::FirmwareType::kUefi;
      break;
    default:
      return InvalidInput("the boot type of the instance is not resolved")
          .WithFix("the controller must set it to BIOS or UEFI");
  }
  if (query.type == firmware::FirmwareType::kUefi && !desired.has_key_set() &&
      !desired.key_set_name().empty()) {
    return NotFound("the controller has no keys for " +
                    KeySetLabel(desired.key_set_name(), desired.key_set_version()))
        .WithFix("give the instance a key set that exists");
  }
  if (desired.boot().mode() == v1::BOOT_MODE_SECURE) {
    if (query.type == firmware::FirmwareType::kBios) {
      return InvalidInput("boot type BIOS conflicts with boot mode SECURE")
          .WithFix("use boot type UEFI with mode SECURE, or mode LEGACY");
    }
    query.secure_boot = firmware::SecureBootSupport::kRequired;
    // Keys that the controller sent are enrolled here; the template gives the layout alone.
    query.keys =
        desired.has_key_set() ? firmware::KeyEnrolment::kAny : firmware::KeyEnrolment::kEnrolled;
  }
  return query;
}

Result<vm::Accelerator> ChooseAccelerator(const firmware::FirmwareQuery& query,
                                          const HostFacts& facts) {
  const bool secure = query.secure_boot == firmware::SecureBootSupport::kRequired;
  const auto best = facts.probes.BestAccelerator(secure ? vm::VariableProtection::kSmm
                                                        : vm::VariableProtection::kNone);
  if (best) {
    return *best;
  }
  if (secure) {
    return NotFound(
               "boot mode SECURE needs System Management Mode, and no accelerator of this host has "
               "it")
        .WithFix("run the instance on a host with the trait VALLUM_SMM");
  }
  return NotFound("no accelerator of this host could run a guest")
      .WithFix("look at the host's probes for the reason");
}

}  // namespace

Result<LaunchPlan> PlanLaunch(const v1::DesiredInstance& desired, const HostFacts& facts) {
  ASSIGN_OR_RETURN(const firmware::FirmwareQuery query, MakeQuery(desired, facts));
  ASSIGN_OR_RETURN(const vm::Accelerator accelerator, ChooseAccelerator(query, facts));
  ASSIGN_OR_RETURN(const std::string tpm, ChooseTpm(desired, facts));
  auto chosen = firmware::SelectFirmware(Descriptors(facts), query);
  if (!chosen) {
    return std::move(chosen).error().Context("choosing firmware for the instance");
  }
  const bool uefi = query.type == firmware::FirmwareType::kUefi;
  const bool secure = query.secure_boot == firmware::SecureBootSupport::kRequired;
  LaunchPlan plan;
  v1::BootEffective& effective = plan.effective;
  effective.set_type(desired.boot().type());
  effective.set_mode(secure ? v1::BOOT_MODE_SECURE : v1::BOOT_MODE_LEGACY);
  effective.set_firmware(uefi ? chosen->mapping.executable.path : "SeaBIOS of QEMU");
  effective.set_firmware_sha256(FirmwareDigest(facts, chosen->source));
  effective.set_descriptor_path(chosen->source);
  // A build that needs SMM does not run without it, whatever the mode is.
  effective.set_smm(secure || chosen->HasFeature("requires-smm"));
  if (uefi && desired.has_key_set()) {
    effective.set_key_set(desired.key_set_name());
    effective.set_key_set_version(desired.key_set_version());
    ASSIGN_OR_RETURN(firmware::KeySet keys, ToKeySet(desired));
    effective.set_key_set_sha256(KeySetDigest(std::move(keys)));
  } else {
    effective.set_key_set(chosen->HasFeature("enrolled-keys") ? "microsoft" : "none");
  }
  effective.set_machine(query.machine);
  effective.set_tpm_model(tpm);
  effective.set_accelerator(accelerator == vm::Accelerator::kKvm ? "kvm" : "tcg");
  if (uefi) {
    plan.variable_template = chosen->mapping.nvram_template.path;
  }
  return plan;
}

std::string VariableOrigin(const LaunchPlan& plan) {
  const v1::BootEffective& effective = plan.effective;
  const std::string mode = effective.mode() == v1::BOOT_MODE_SECURE ? "SECURE" : "LEGACY";
  if (effective.key_set_sha256().empty()) {
    return mode + " " + effective.key_set() + " " + plan.variable_template;
  }
  return mode + " " + KeySetLabel(effective.key_set(), effective.key_set_version()) + " " +
         effective.key_set_sha256();
}

bool VariablesOutdated(const v1::DesiredInstance& desired, const v1::BootEffective& effective) {
  if (effective.type() != v1::BOOT_TYPE_UEFI || !desired.has_key_set()) {
    return false;
  }
  // One that does not parse is refused at the next start; a guest that runs is not ended for it.
  auto keys = ToKeySet(desired);
  return keys && (desired.key_set_name() != effective.key_set() ||
                  desired.key_set_version() != effective.key_set_version() ||
                  KeySetDigest(*std::move(keys)) != effective.key_set_sha256());
}

std::string DeriveMac(const std::string& uid, int index) {
  const Sha256Digest digest = Sha256(AsBytes("vallum-mac " + uid + " " + std::to_string(index)));
  std::string mac = "52:54:00";
  for (size_t i = 0; i < 3; ++i) {
    mac += ":" + ToHex(ByteView(digest).subspan(i, 1));
  }
  return mac;
}

std::chrono::milliseconds StopGrace(const v1::InstanceSpec& spec) {
  const int seconds =
      spec.stop_timeout_seconds() > 0 ? spec.stop_timeout_seconds() : kDefaultStopSeconds;
  return std::chrono::seconds(seconds);
}

Result<ByteCount> RootDiskSize(const v1::DesiredInstance& desired) {
  const int64_t image = desired.image_virtual_size_bytes();
  const int64_t asked = desired.spec().disk_bytes();
  if (image <= 0) {
    return InvalidInput("the size of the image's disk is not known")
        .WithFix("import the image again");
  }
  if (asked != 0 && asked < image) {
    return InvalidInput("the flavor's disk of " +
                        FormatByteCount(
                            ByteCount::Bytes(static_cast<uint64_t>(std::max<int64_t>(asked, 0)))) +
                        " is smaller than the image's disk of " +
                        FormatByteCount(ByteCount::Bytes(static_cast<uint64_t>(image))))
        .WithFix("use a flavor with a disk at least as large as the image's");
  }
  return ByteCount::Bytes(static_cast<uint64_t>(asked == 0 ? image : asked));
}

namespace {

Result<std::vector<vm::Nic>> MakeNics(const v1::DesiredInstance& desired) {
  std::vector<vm::Nic> nics;
  int index = 0;
  for (const v1::Network& network : desired.spec().networks()) {
    const int number = index++;
    if (network.type() == "none") {
      continue;
    }
    vm::Nic nic;
    nic.id = "net" + std::to_string(number);
    nic.mac = network.mac().empty() ? DeriveMac(desired.uid(), number) : network.mac();
    if (network.type() == "bridge") {
      nic.network = vm::BridgeNetwork{network.bridge()};
    } else if (network.type() == "user") {
      nic.network = vm::UserNetwork{};
    } else {
      return InvalidInput("network type '" + Printable(network.type(), 40) + "' is not known")
          .WithFix("use none, user or bridge");
    }
    nics.push_back(std::move(nic));
  }
  return nics;
}

Result<vm::Disk> MakeRootDisk(const InstancePaths& paths, const v1::DesiredInstance& desired,
                              const LaunchFiles& files) {
  vm::BaseImage base;
  base.path = files.image_path;
  if (desired.image_format() == "qcow2") {
    base.format = vm::DiskFormat::kQcow2;
  } else if (desired.image_format() == "raw" || desired.image_format() == "gpt" ||
             desired.image_format() == "mbr") {
    base.format = vm::DiskFormat::kRaw;
  } else {
    return InvalidInput("image format '" + Printable(desired.image_format(), 40) +
                        "' cannot be started from")
        .WithFix("import the image as qcow2 or gpt");
  }
  vm::Disk disk;
  disk.id = "root";
  disk.path = paths.root_disk.string();
  disk.format = vm::DiskFormat::kQcow2;
  disk.base = base;
  disk.serial = "vallum-root";
  disk.boot_index = 0;
  return disk;
}

constexpr uint32_t kCpuWeight = 100;  // of one CPU; cgroup v2's default
constexpr uint32_t kMaxCpuWeight = 10000;

vm::ResourceLimits MakeLimits(const AgentConfig& config, const vm::VmSpec& spec) {
  vm::ResourceLimits limits;
  limits.cgroup_parent = config.cgroup_parent;
  const ByteCount overhead =
      spec.accelerator == vm::Accelerator::kKvm ? kOverheadKvm : kOverheadTcg;
  limits.memory_max = ByteCount::Bytes(spec.memory.bytes() + overhead.bytes());
  limits.pids_max = kPidsMax;
  // A share by its CPUs, and no more than these and one for the devices.
  limits.cpu_weight = std::clamp(kCpuWeight * spec.vcpus, 1U, kMaxCpuWeight);
  limits.cpu_percent = 100 * (spec.vcpus + 1);
  return limits;
}

}  // namespace

Result<vm::VmSpec> MakeVmSpec(const AgentConfig& config, const v1::DesiredInstance& desired,
                              const v1::BootEffective& effective, const LaunchFiles& files) {
  const InstancePaths paths = MakeInstancePaths(config, desired.uid());
  vm::VmSpec spec;
  spec.uid = desired.uid();
  spec.name = desired.name();
  if (desired.spec().vcpus() < 1 || desired.spec().memory_bytes() < 1) {
    return InvalidInput("the instance has no vCPU or no memory")
        .WithFix("give its flavor at least one vCPU and some memory");
  }
  spec.vcpus = static_cast<uint32_t>(desired.spec().vcpus());
  spec.memory = ByteCount::Bytes(static_cast<uint64_t>(desired.spec().memory_bytes()));
  spec.machine = vm::Machine::kQ35;
  spec.accelerator =
      effective.accelerator() == "kvm" ? vm::Accelerator::kKvm : vm::Accelerator::kTcg;
  if (effective.type() == v1::BOOT_TYPE_UEFI) {
    spec.firmware = vm::UefiFirmware{
        effective.firmware(), paths.variables.string(),
        effective.smm() ? vm::VariableProtection::kSmm : vm::VariableProtection::kNone};
  }
  ASSIGN_OR_RETURN(vm::Disk root, MakeRootDisk(paths, desired, files));
  spec.disks.push_back(std::move(root));
  ASSIGN_OR_RETURN(spec.nics, MakeNics(desired));
  spec.links = desired.isolate() ? vm::LinkState::kDown : vm::LinkState::kUp;
  spec.seed_iso = paths.seed.string();
  if (effective.tpm_model() != "none") {
    spec.vtpm = vm::Vtpm{
        .model = effective.tpm_model() == "tpm-tis" ? vm::TpmModel::kTis : vm::TpmModel::kCrb,
        .vtpm_program = config.vtpm_program,
        .swtpm_program = config.swtpm_program,
        .state_dir = paths.tpm_dir.string(),
        .record_path = (paths.tpm_dir / "record").string(),
        .certificate_wait = kCertificateWait};
  }
  spec.run_dir = paths.run_dir.string();
  spec.log_dir = paths.log_dir.string();
  spec.qemu_program = config.qemu_program;
  spec.run_as = files.user;
  spec.limits = MakeLimits(config, spec);
  return spec;
}

}  // namespace vallum::agent

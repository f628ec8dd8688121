// SPDX-License-Identifier: Apache-2.0
#include "agent/capabilities.h"

#include <algorithm>
#include <set>
#include <utility>

#include "agent/session.h"

namespace vallum::agent {
namespace {

void AddProbe(v1::HostCapabilities& out, const std::string& name, bool ok, std::string detail) {
  v1::Probe& probe = *out.add_probes();
  probe.set_name(name);
  probe.set_ok(ok);
  probe.set_detail(std::move(detail));
}

std::string InterfaceName(firmware::FirmwareInterface interface) {
  switch (interface) {
    case firmware::FirmwareInterface::kBios:
      return "bios";
    case firmware::FirmwareInterface::kOpenfirmware:
      return "openfirmware";
    case firmware::FirmwareInterface::kUboot:
      return "uboot";
    case firmware::FirmwareInterface::kUefi:
      return "uefi";
  }
  return "?";
}

v1::Firmware ToProto(const HostFirmware& firmware) {
  const firmware::FirmwareDescriptor& descriptor = firmware.descriptor;
  v1::Firmware out;
  out.set_descriptor_path(descriptor.source);
  out.set_description(descriptor.description);
  out.set_executable(descriptor.mapping.executable.path);
  out.set_executable_sha256(firmware.executable_sha256);
  out.set_nvram_template(descriptor.mapping.nvram_template.path);
  for (const auto interface : descriptor.interfaces) {
    out.add_interface_types(InterfaceName(interface));
  }
  for (const std::string& feature : descriptor.features) {
    out.add_features(feature);
  }
  for (const auto& target : descriptor.targets) {
    for (const std::string& machine : target.machines) {
      out.add_machines(machine);
    }
  }
  return out;
}

// Adds the trait when the firmware for it is here; a probe says which, or what is missing.
bool TryFirmware(const HostFacts& facts, const firmware::FirmwareQuery& query,
                 const std::string& probe, v1::HostCapabilities& out) {
  const auto chosen = firmware::SelectFirmware(Descriptors(facts), query);
  AddProbe(out, probe, chosen.has_value(), chosen ? chosen->source : chosen.error().Describe());
  return chosen.has_value();
}

void AddTpmTraits(const HostFacts& facts, std::set<std::string>& traits) {
  if (!facts.probes.Has(vm::kProbeSwtpm)) {
    return;
  }
  const bool crb = facts.probes.Has("device:tpm-crb");
  const bool tis = facts.probes.Has("device:tpm-tis");
  if (crb) {
    traits.insert(kTraitTpmCrb);
  }
  if (tis) {
    traits.insert(kTraitTpmTis);
  }
  if (crb || tis) {
    traits.insert(kTraitTpm20);
  }
}

void AddFirmwareTraits(const HostFacts& facts, std::set<std::string>& traits,
                       v1::HostCapabilities& out) {
  firmware::FirmwareQuery query;
  query.machine = Q35MachineName(facts.probes);
  query.type = firmware::FirmwareType::kBios;
  if (TryFirmware(facts, query, "firmware-bios", out)) {
    traits.insert(kTraitBios);
  }
  query.type = firmware::FirmwareType::kUefi;
  if (TryFirmware(facts, query, "firmware-uefi", out)) {
    traits.insert(kTraitUefi);
  }
  query.secure_boot = firmware::SecureBootSupport::kRequired;
  const bool secure_firmware = TryFirmware(facts, query, "firmware-secure-boot", out);
  const bool smm = facts.probes.BestAccelerator(vm::VariableProtection::kSmm).has_value();
  if (smm) {
    traits.insert(kTraitSmm);
  }
  if (secure_firmware && smm) {
    traits.insert(kTraitSecureBoot);
  }
}

}  // namespace

std::string Q35MachineName(const vm::HostProbes& probes) {
  const std::string& version = probes.qemu_version;
  const size_t second_dot = version.find('.', version.find('.') + 1);
  return "pc-q35-" + version.substr(0, second_dot);
}

std::vector<firmware::FirmwareDescriptor> Descriptors(const HostFacts& facts) {
  std::vector<firmware::FirmwareDescriptor> descriptors;
  descriptors.reserve(facts.firmware.size());
  for (const HostFirmware& firmware : facts.firmware) {
    descriptors.push_back(firmware.descriptor);
  }
  return descriptors;
}

std::string FirmwareDigest(const HostFacts& facts, const std::string& source) {
  for (const HostFirmware& firmware : facts.firmware) {
    if (firmware.descriptor.source == source) {
      return firmware.executable_sha256;
    }
  }
  return "";
}

v1::HostCapabilities MakeCapabilities(const HostFacts& facts) {
  v1::HostCapabilities out;
  out.set_hypervisor_type("QEMU");
  out.set_hypervisor_version(facts.probes.qemu_version);
  out.set_agent_version(AgentVersion());
  out.set_kernel_version(facts.kernel_version);
  out.set_cpus(facts.cpus);
  out.set_memory_bytes(static_cast<int64_t>(facts.memory_bytes));
  out.set_disk_free_bytes(static_cast<int64_t>(facts.disk_free_bytes));
  out.set_swtpm_version(facts.swtpm_version);
  for (const std::string& bridge : facts.bridges) {
    out.add_bridges(bridge);
  }
  for (const vm::Probe& probe : facts.probes.probes) {
    AddProbe(out, probe.name, probe.ok, probe.detail);
  }
  for (const std::string& problem : facts.problems) {
    AddProbe(out, "firmware-descriptor", false, problem);
  }
  std::set<std::string> traits;
  if (facts.probes.Has(vm::kProbeKvm)) {
    traits.insert(kTraitKvm);
  }
  if (facts.probes.Has(vm::kProbeTcg)) {
    traits.insert(kTraitTcg);
  }
  if (const auto best = facts.probes.BestAccelerator(vm::VariableProtection::kNone); best) {
    out.set_accelerator(*best == vm::Accelerator::kKvm ? "kvm" : "tcg");
  }
  AddTpmTraits(facts, traits);
  AddFirmwareTraits(facts, traits, out);
  traits.insert(kTraitNetUser);
  if (facts.may_make_taps && !facts.bridges.empty()) {
    traits.insert(kTraitNetBridge);
  }
  for (const HostFirmware& firmware : facts.firmware) {
    *out.add_firmware() = ToProto(firmware);
  }
  for (const std::string& trait : traits) {
    out.add_traits(trait);
  }
  return out;
}

}  // namespace vallum::agent

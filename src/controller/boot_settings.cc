// SPDX-License-Identifier: Apache-2.0
#include "controller/boot_settings.h"

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "controller/loader_signature.h"

namespace vallum::controller {
namespace {

// One setting of one owner that is being read.
struct Reading {
  Owner owner;
  std::string owner_words;
  std::string key;
  std::string value;  // as given
  std::string lower;
  BootStatements* out;

  std::string Setting() const { return key + "=" + Printable(value); }
  template <typename T>
  Said<T> Say(T what) const {
    return {.value = std::move(what), .setting = Setting(), .owner = owner_words};
  }
  void Type(v1::BootType type) const { out->types.push_back(Say(type)); }
  void Level(SecureLevel level) const { out->levels.push_back(Say(level)); }
  void Machine(const char* machine) const { out->machines.push_back(Say(std::string(machine))); }
  void Tpm(const char* model) const { out->tpm_models.push_back(Say(std::string(model))); }
  Error Refuse(const std::string& allowed) const {
    return InvalidInput(Setting() + " (" + owner_words + ") is not a value of " + key)
        .WithFix("use " + allowed + ", or leave " + key + " out");
  }
  Error Unsupported(const std::string& what) const {
    return InvalidInput(Setting() + " (" + owner_words + ") asks for " + what +
                        ", which this version of Vallum cannot give")
        .WithFix("leave " + key + " out");
  }
};

Result<void> ReadFirmwareType(const Reading& in) {
  if (in.lower == "bios") {
    in.Type(v1::BOOT_TYPE_BIOS);
  } else if (in.lower == "uefi") {
    in.Type(v1::BOOT_TYPE_UEFI);
  } else {
    return in.Refuse("BIOS or UEFI");
  }
  return Ok();
}

Result<void> ReadLxdBootMode(const Reading& in) {
  if (in.lower == "bios") {
    in.Type(v1::BOOT_TYPE_BIOS);
  } else if (in.lower == "uefi-secureboot") {
    in.Type(v1::BOOT_TYPE_UEFI);
    in.Level(SecureLevel::kRequired);
  } else if (in.lower == "uefi-nosecureboot") {
    in.Type(v1::BOOT_TYPE_UEFI);
    in.Level(SecureLevel::kDisabled);
  } else {
    return in.Refuse("uefi-secureboot, uefi-nosecureboot or bios");
  }
  return Ok();
}

Result<void> ReadOvirtBiosType(const Reading& in) {
  if (in.lower == "i440fx_sea_bios" || in.lower == "q35_sea_bios") {
    in.Type(v1::BOOT_TYPE_BIOS);
    in.Machine(in.lower[0] == 'q' ? "q35" : "pc");
  } else if (in.lower == "q35_ovmf" || in.lower == "q35_secure_boot") {
    in.Type(v1::BOOT_TYPE_UEFI);
    in.Machine("q35");
    in.Level(in.lower == "q35_ovmf" ? SecureLevel::kDisabled : SecureLevel::kRequired);
  } else {
    return in.Refuse("i440fx_sea_bios, q35_sea_bios, q35_ovmf or q35_secure_boot");
  }
  return Ok();
}

Result<void> ReadCloudStackMode(const Reading& in) {
  if (in.lower == "secure") {
    in.Level(SecureLevel::kRequired);
  } else if (in.lower == "legacy") {
    in.Level(SecureLevel::kDisabled);
  } else {
    return in.Refuse("SECURE or LEGACY");
  }
  return Ok();
}

Result<void> ReadOsSecureBoot(const Reading& in) {
  if (in.lower == "required") {
    in.Level(SecureLevel::kRequired);
  } else if (in.lower == "optional") {
    in.Level(SecureLevel::kOptional);
  } else if (in.lower == "disabled") {
    in.Level(SecureLevel::kDisabled);
  } else {
    return in.Refuse("required, optional or disabled");
  }
  return Ok();
}

Result<void> ReadIncusSecureBoot(const Reading& in) {
  if (in.lower == "true") {
    in.Level(SecureLevel::kRequired);
  } else if (in.lower == "false") {
    in.Level(SecureLevel::kDisabled);
  } else {
    return in.Refuse("true or false");
  }
  return Ok();
}

Result<void> ReadFlavorSecureBoot(const Reading& in) {
  if (in.owner != Owner::kFlavor) {
    return InvalidInput(in.Setting() + " (" + in.owner_words +
                        ") is an extra spec of flavors and means nothing here")
        .WithFix("use os_secure_boot instead");
  }
  if (in.lower == "required") {
    in.Level(SecureLevel::kRequired);
  } else {
    in.out->warnings.push_back(in.Setting() + " (" + in.owner_words +
                               ") is ignored: on a flavor only os:secure_boot=required counts");
  }
  return Ok();
}

Result<void> ReadMachine(const Reading& in) {
  if (in.lower == "hyperv-gen2") {
    in.Type(v1::BOOT_TYPE_UEFI);
    in.Machine("q35");
  } else if (in.lower.find("q35") != std::string::npos) {
    in.Machine("q35");
  } else if (in.lower == "pc" || in.lower.starts_with("pc-i440fx")) {
    in.Machine("pc");
  } else {
    return in.Refuse("q35, pc or hyperv-gen2");
  }
  return Ok();
}

Result<void> ReadTpmVersion(const Reading& in) {
  if (in.lower == "1.2") {
    return InvalidInput("TPM 1.2 is not supported: " + in.Setting() + " (" + in.owner_words + ")")
        .WithFix("use " + in.key + "=2.0");
  }
  if (in.lower != "2.0") {
    return in.Refuse("2.0");
  }
  in.Tpm("any");
  return Ok();
}

Result<void> ReadTpmModel(const Reading& in) {
  if (in.lower == "tpm-crb") {
    in.Tpm("tpm-crb");
  } else if (in.lower == "tpm-tis") {
    in.Tpm("tpm-tis");
  } else {
    return in.Refuse("tpm-crb or tpm-tis");
  }
  return Ok();
}

Result<void> ReadTpmEnabled(const Reading& in) {
  if (in.lower == "true") {
    in.Tpm("any");
  } else if (in.lower == "false") {
    in.Tpm("none");
  } else {
    return in.Refuse("true or false");
  }
  return Ok();
}

Result<void> ReadUnsupportedFlag(const Reading& in) {
  if (in.lower == "true") {
    return in.Unsupported(in.key == "hw_mem_encryption" ? "memory encryption"
                                                        : "firmware without variables");
  }
  if (in.lower != "false") {
    return in.Refuse("true or false");
  }
  return Ok();
}

Result<void> ReadMemoryEncryptionModel(const Reading& in) {
  return in.Unsupported("memory encryption");
}

Result<void> ReadDirectBoot(const Reading& in) {
  if (in.lower == "nokernel" || in.lower.empty()) {
    return Ok();
  }
  return in.Unsupported("a kernel outside the disk");
}

Result<void> ReadSignature(const Reading& in) {
  if (in.owner == Owner::kFlavor) {
    return InvalidInput(in.Setting() + " (" + in.owner_words + ") means nothing on a flavor")
        .WithFix("set it on the image or in the request");
  }
  const std::string value(Trim(in.value));
  if (const auto parsed = ParseLoaderSignature(value); !parsed.has_value()) {
    return InvalidInput(in.Setting() + " (" + in.owner_words + "): " + parsed.error().message())
        .WithFix(parsed.error().fix());
  }
  in.out->signatures.push_back(in.Say(value));
  return Ok();
}

struct Setting {
  std::string_view key;
  Result<void> (*read)(const Reading&);
  // Decides type or mode: on a flavor only os:secure_boot may.
  bool decides_boot;
};

constexpr std::array kSettings = {
    Setting{"boottype", ReadFirmwareType, true},
    Setting{"hw_firmware_type", ReadFirmwareType, true},
    Setting{"boot.mode", ReadLxdBootMode, true},
    Setting{"bios.type", ReadOvirtBiosType, true},
    Setting{"bootmode", ReadCloudStackMode, true},
    Setting{"os_secure_boot", ReadOsSecureBoot, true},
    Setting{"security.secureboot", ReadIncusSecureBoot, true},
    Setting{"os:secure_boot", ReadFlavorSecureBoot, false},
    Setting{"hw_machine_type", ReadMachine, false},
    Setting{"hw_tpm_version", ReadTpmVersion, false},
    Setting{"hw_tpm_model", ReadTpmModel, false},
    Setting{"virtual.tpm.model", ReadTpmModel, false},
    Setting{"tpm_enabled", ReadTpmEnabled, false},
    Setting{"hw_mem_encryption", ReadUnsupportedFlag, false},
    Setting{"hw_mem_encryption_model", ReadMemoryEncryptionModel, false},
    Setting{"hw_firmware_stateless", ReadUnsupportedFlag, false},
    Setting{"kernel_id", ReadDirectBoot, false},
    Setting{"ramdisk_id", ReadDirectBoot, false},
    Setting{"os_command_line", ReadDirectBoot, false},
    Setting{"os_secure_boot_signature", ReadSignature, false},
};

const Setting* FindSetting(std::string_view key) {
  for (const Setting& setting : kSettings) {
    if (setting.key == key) {
      return &setting;
    }
  }
  return nullptr;
}

std::string OwnerWords(Owner owner, const std::string& name) {
  switch (owner) {
    case Owner::kRequest:
      return "request";
    case Owner::kImage:
      return "image " + name;
    case Owner::kFlavor:
      return "flavor " + name;
  }
  return name;
}

}  // namespace

bool DecidesBoot(std::string_view key) {
  const Setting* setting = FindSetting(ToLower(key));
  return setting != nullptr && setting->decides_boot;
}

Result<BootStatements> ReadBootSettings(Owner owner, const std::string& owner_name,
                                        const Properties& properties) {
  BootStatements statements;
  bool cloudstack_uefi = false;
  for (const auto& [key, value] : properties) {
    const std::string name = ToLower(key);
    const Setting* setting = FindSetting(name);
    if (setting == nullptr) {
      continue;
    }
    const Reading reading{.owner = owner,
                          .owner_words = OwnerWords(owner, owner_name),
                          .key = name,
                          .value = value,
                          .lower = ToLower(Trim(value)),
                          .out = &statements};
    if (owner == Owner::kFlavor && setting->decides_boot) {
      statements.warnings.push_back(
          reading.Setting() + " (" + reading.owner_words +
          ") is ignored: on a flavor only os:secure_boot=required counts");
      continue;
    }
    RETURN_IF_ERROR(setting->read(reading));
    cloudstack_uefi = cloudstack_uefi || (name == "boottype" && reading.lower == "uefi");
  }
  statements.type_without_mode = cloudstack_uefi && statements.levels.empty();
  return statements;
}

}  // namespace vallum::controller

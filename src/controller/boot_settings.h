// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "controller/boot_policy.h"

namespace vallum::controller {

// Who makes a setting; decides its weight.
enum class Owner { kRequest, kImage, kFlavor };

enum class SecureLevel { kRequired, kOptional, kDisabled };

// A value together with the setting that says so, as users know it.
template <typename T>
struct Said {
  T value;
  std::string setting;  // "os_secure_boot=required"
  std::string owner;    // "image debian12", "request", "flavor small"
  std::string Words() const { return setting + " (" + owner + ")"; }
};

// What one owner says about booting, each statement in its own spelling.
struct BootStatements {
  std::vector<Said<v1::BootType>> types;
  std::vector<Said<SecureLevel>> levels;
  std::vector<Said<std::string>> machines;    // "q35", "pc"
  std::vector<Said<std::string>> tpm_models;  // "tpm-crb", "tpm-tis", "none"; "any": some TPM
  std::vector<Said<std::string>> signatures;  // values of os_secure_boot_signature
  std::vector<std::string> warnings;
  bool type_without_mode = false;  // boottype=UEFI and no setting that gives a mode
};

// Reads the settings of one owner; ignores those that are not about booting.
// Errors: kInvalidInput (a value that the setting does not have, or that cannot be honoured yet).
// Pure; thread-safe.
Result<BootStatements> ReadBootSettings(Owner owner, const std::string& owner_name,
                                        const Properties& properties);

// Whether a property, in whatever case, says with which type or mode to boot.
bool DecidesBoot(std::string_view key);

}  // namespace vallum::controller

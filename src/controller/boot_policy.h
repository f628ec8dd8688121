// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

using Properties = std::map<std::string, std::string>;

// Whether any host that is UP in the pool can start Secure Boot; decides `os_secure_boot=optional`.
enum class SecureHosts { kNone, kSome };

// Everything that has a say in how an instance boots. Spellings: docs/boot-mode.md.
struct BootInputs {
  v1::BootRequest request;
  Properties request_properties;
  std::string request_tpm_model;  // InstanceSpec.tpm_model
  std::string image_name;
  Properties image_properties;
  std::string flavor_name;
  Properties flavor_extra_specs;
  SecureHosts secure_hosts = SecureHosts::kNone;
};

struct BootPolicy {
  v1::BootRequested requested;  // type and mode are always set
  std::string machine;          // "q35" or "pc"
  std::string tpm_model;        // "tpm-crb", "tpm-tis" or "none"
  std::vector<std::string> required_traits;
  std::string signature;  // os_secure_boot_signature, with SECURE; empty: none
};

// Resolves type, mode, machine and TPM by the precedence of docs/boot-mode.md: the flavor's
// requirement, then the image's, then the request, which may strengthen but not weaken either.
// Errors: kInvalidInput for a value that is none of a setting's values and for every conflict; the
// message names both settings with their values and owners, the fix says what to change.
// Pure; thread-safe.
Result<BootPolicy> ResolveBoot(const BootInputs& inputs);

// Checks the boot settings of one image or flavor alone, when it is created.
// Errors: kInvalidInput, as above.
Result<void> CheckImageProperties(const std::string& image_name, const Properties& properties);

}  // namespace vallum::controller

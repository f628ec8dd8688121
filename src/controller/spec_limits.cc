// SPDX-License-Identifier: Apache-2.0
#include "controller/spec_limits.h"

#include <string>

#include "base/error.h"
#include "base/text.h"
#include "controller/instance_keys.h"

namespace vallum::controller {
namespace {

// A seed is kept in memory and sent with every change: small, as other clouds have it.
constexpr size_t kMaxSeedBytes = size_t{64} * 1024;
constexpr int kMaxNetworks = 8;

Result<void> CheckNetworks(const v1::InstanceSpec& spec) {
  for (const v1::Network& network : spec.networks()) {
    if (network.type() != "none" && network.type() != "user" && network.type() != "bridge") {
      return InvalidInput("networks.type=" + Printable(network.type()) +
                          " (request) is not a value of type")
          .WithFix("use none, user or bridge");
    }
    if ((network.type() == "bridge") == network.bridge().empty()) {
      return InvalidInput("networks.type=" + network.type() + " conflicts with networks.bridge=\"" +
                          Printable(network.bridge()) + "\" (request)")
          .WithFix("name a bridge with type bridge, and with no other type");
    }
  }
  return Ok();
}

Result<void> CheckTenantMay(const v1::InstanceSpec& spec) {
  const auto refuse = [](const std::string& field) {
    return Denied("a tenant may not set " + field).WithFix("leave it out, or ask an operator");
  };
  if (!spec.host().empty()) {
    return refuse("spec.host");
  }
  if (spec.vcpus() != 0 || spec.memory_bytes() != 0 || spec.disk_bytes() != 0) {
    return refuse("spec.vcpus, spec.memoryBytes and spec.diskBytes");
  }
  for (const v1::Network& network : spec.networks()) {
    if (network.type() == "bridge") {
      return refuse("networks.type=bridge");
    }
  }
  return Ok();
}

Result<void> CheckBounds(const v1::InstanceSpec& spec) {
  if (spec.seed().ByteSizeLong() > kMaxSeedBytes) {
    return InvalidInput("seed has " + std::to_string(spec.seed().ByteSizeLong()) +
                        " bytes, at most " + std::to_string(kMaxSeedBytes) + " are taken")
        .WithFix("let the guest fetch the rest itself");
  }
  if (spec.networks_size() > kMaxNetworks) {
    return InvalidInput("networks has " + std::to_string(spec.networks_size()) +
                        " entries, at most " + std::to_string(kMaxNetworks) + " are taken");
  }
  return Ok();
}

void DropSizes(v1::InstanceSpec& spec) {
  spec.clear_vcpus();
  spec.clear_memory_bytes();
  spec.clear_disk_bytes();
}

}  // namespace

Result<void> CheckLimits(const v1::InstanceSpec& spec, const Principal& principal) {
  RETURN_IF_ERROR(CheckNetworks(spec));
  RETURN_IF_ERROR(CheckBounds(spec));
  return principal.role == v1::ROLE_TENANT ? CheckTenantMay(spec) : Ok();
}

Result<void> TakeFlavorSizes(v1::InstanceSpec& spec) {
  if (spec.flavor().empty()) {
    return InvalidInput("the snapshot names no flavor that there is, whose sizes a tenant gets")
        .WithFix("name one in spec.flavor (--flavor)");
  }
  DropSizes(spec);
  return Ok();
}

Result<void> CheckImported(const View& view, const std::string& tenant, const Principal& principal,
                           v1::InstanceSpec& spec) {
  if (principal.role == v1::ROLE_TENANT) DropSizes(spec);
  RETURN_IF_ERROR(CheckLimits(spec, principal));
  // It keeps that version of the key set from being dropped.
  return CheckKeySet(view, tenant, spec);
}

}  // namespace vallum::controller

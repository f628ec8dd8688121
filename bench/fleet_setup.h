// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"
#include "fleet_hosts.h"

namespace vallum::bench {

inline constexpr const char* kFleetPool = "fleet";
inline constexpr const char* kFleetPolicy = "fleet";

// Makes so many hosts in the state directory of a controller that does not run: as if each had
// joined and had its TPM approved, in a pool with a policy that its quotes satisfy. Threads that it
// starts have ended when it returns.
Result<std::vector<FleetSeed>> MakeFleet(const std::filesystem::path& state_dir, size_t hosts);

// "host-00042".
std::string FleetHostName(size_t number);

// The next version of the policy, with which every host is judged anew.
std::string NextPolicyDocument(const controller::SoftwareHost& tpm, int version);

}  // namespace vallum::bench

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/clock.h"
#include "tls/authority.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// Signs claims as a controller does; for tests.
v1::TrustLease SignLease(const tls::Credentials& signer, const v1::LeaseClaims& claims);

// Claims of a lease that begins now.
v1::LeaseClaims MakeClaims(const std::string& host, const std::string& boot_id,
                           const std::string& ak_name, WallTime now, std::chrono::seconds life);

}  // namespace vallum::agent

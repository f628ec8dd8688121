// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "attest/host_verification.h"
#include "attest/reason.h"
#include "base/clock.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

v1::TrustLevel LevelOf(attest::HostVerdictKind kind);
v1::TrustReason ToMessage(const attest::Reason& reason);

// Sets a level that no evidence says: STALE or UNKNOWN. What was found before is not its reason,
// and no lease goes with it.
//   detail: why, as its one reason.
// Pure; thread-safe.
void SetWithoutEvidence(v1::TrustLevel level, const std::string& detail, WallTime now,
                        v1::HostTrust& trust);

}  // namespace vallum::controller

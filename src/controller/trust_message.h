// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attest/host_verification.h"
#include "attest/reason.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

v1::TrustLevel LevelOf(attest::HostVerdictKind kind);
v1::TrustReason ToMessage(const attest::Reason& reason);

}  // namespace vallum::controller

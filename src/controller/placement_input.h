// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "controller/boot_policy.h"
#include "placement/placement.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// A host in placement's terms, without what is claimed on it.
//   pool: the host's; nullptr: there is none, the defaults hold, and nobody trusts the host.
//   policy: the pool's attestation policy; nullptr: there is none.
// Pure; thread-safe.
placement::HostView ToHostView(const v1::Host& host, const v1::Pool* pool,
                               const v1::AttestationPolicy* policy, WallTime now);

// What an instance whose spec was resolved by InstanceService asks of its host by itself: no more
// than its spec says, so neither its pool's trust nor where its neighbours are.
// Errors: kInvalidInput (a property that means nothing). Pure; thread-safe.
Result<placement::Request> ToPlacementRequest(const v1::Instance& instance,
                                              const BootPolicy& policy);

// What the instance claims of its host.
int64_t ClaimedVcpus(const v1::Instance& instance);
ByteCount ClaimedMemory(const v1::Instance& instance);

}  // namespace vallum::controller

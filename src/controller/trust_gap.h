// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "base/clock.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// Why a trusted pool does not take one of its hosts now.
struct TrustGap {
  enum class Ends { kWithEvidence, kByHand };
  std::string words;  // "UNTRUSTED: PCR 7 has ...", "its lease is over ..."
  Ends ends = Ends::kWithEvidence;
};

// Nothing: the pool takes the host. A verdict counts that is TRUSTED, by the version of the pool's
// policy that is active, and whose lease is not over.
//   pool: one with trusted_service.
//   policy: the one that the pool names; nullptr: there is none.
// Pure; thread-safe.
std::optional<TrustGap> FindTrustGap(const v1::Host& host, const v1::PoolSpec& pool,
                                     const v1::AttestationPolicy* policy, WallTime now);

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#include "controller/trust_gap.h"

#include <optional>
#include <string>
#include <utility>

#include "controller/resource_store.h"

namespace vallum::controller {
namespace {

std::string LevelWord(v1::TrustLevel level) {
  const std::string name = v1::TrustLevel_Name(level);
  return name.substr(name.find('_') + 1);
}

TrustGap WithEvidence(std::string words) {
  return {.words = std::move(words), .ends = TrustGap::Ends::kWithEvidence};
}

TrustGap ByHand(std::string words) {
  return {.words = std::move(words), .ends = TrustGap::Ends::kByHand};
}

}  // namespace

std::optional<TrustGap> FindTrustGap(const v1::Host& host, const v1::PoolSpec& pool,
                                     const v1::AttestationPolicy* policy, WallTime now) {
  const v1::HostTrust& trust = host.status().trust();
  if (trust.level() == v1::TRUST_LEVEL_UNSPECIFIED) return WithEvidence("not attested yet");
  if (trust.level() != v1::TRUST_TRUSTED) {
    const std::string words =
        LevelWord(trust.level()) + (trust.detail().empty() ? "" : ": " + trust.detail());
    return trust.level() == v1::TRUST_UNTRUSTED ? ByHand(words) : WithEvidence(words);
  }
  const std::string& name = pool.attestation_policy();
  if (name.empty()) return ByHand("its pool names no attestation policy");
  if (trust.policy() != name) {
    return WithEvidence("its verdict is by policy \"" + trust.policy() +
                        "\", and that of its pool is \"" + name + "\"");
  }
  if (policy == nullptr || policy->status().active_version() == 0) {
    return ByHand("no version of policy \"" + name + "\" is active");
  }
  if (trust.policy_version() != policy->status().active_version()) {
    return WithEvidence("its verdict is by version " + std::to_string(trust.policy_version()) +
                        " of policy \"" + name + "\", and version " +
                        std::to_string(policy->status().active_version()) + " is active");
  }
  if (FromTimestamp(trust.lease_expire_time()) <= now) {
    return WithEvidence("its lease is over: no evidence of it was accepted in time");
  }
  return std::nullopt;
}

}  // namespace vallum::controller

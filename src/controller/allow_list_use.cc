// SPDX-License-Identifier: Apache-2.0
#include "controller/allow_list_use.h"

#include <set>
#include <string>

#include "attest/policy.h"
#include "base/bytes.h"
#include "base/text.h"

namespace vallum::controller {

std::string AllowListOf(const v1::AttestationPolicyVersion& version) {
  // Most name none, and then nothing is to be parsed.
  if (version.document().find("allow-list") == std::string::npos) return {};
  const auto policy = attest::ParsePolicy(version.document());
  return policy.has_value() ? ToHex(policy->ima.allow_list_sha256) : std::string();
}

std::set<std::string> AllowListsInUse(const View& view) {
  std::set<std::string> used;
  for (const auto& list : view.All<v1::AllowList>()) used.insert(list->status().sha256());
  for (const auto& policy : view.All<v1::AttestationPolicy>()) {
    for (const v1::AttestationPolicyVersion& version : policy->status().versions()) {
      if (version.state() != v1::POLICY_RETIRED) used.insert(AllowListOf(version));
    }
  }
  return used;
}

std::string UserOfAllowList(const View& view, const std::string& digest) {
  if (digest.empty()) return {};
  for (const auto& policy : view.All<v1::AttestationPolicy>()) {
    for (const v1::AttestationPolicyVersion& version : policy->status().versions()) {
      if (version.state() != v1::POLICY_RETIRED && AllowListOf(version) == digest) {
        return "version " + std::to_string(version.version()) + " of attestation policy " +
               policy->metadata().name();
      }
    }
  }
  return {};
}

}  // namespace vallum::controller

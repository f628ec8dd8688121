// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "attest/facts.h"
#include "attest/policy.h"

namespace vallum::attest {

// A list of FactsRule with its key in a policy, the member of HostFacts, and the words that the
// member may have; without any, all.
struct FactRow {
  const char* key;
  std::vector<std::string> FactsRule::* accepted;
  std::string HostFacts::* fact;
  std::array<std::string_view, 3> words;
};
inline constexpr std::array kFactRows = {
    FactRow{"kernel-release", &FactsRule::kernel_release, &HostFacts::kernel_release, {}},
    FactRow{"lockdown",
            &FactsRule::lockdown,
            &HostFacts::lockdown,
            {"none", "integrity", "confidentiality"}},
    FactRow{"iommu", &FactsRule::iommu, &HostFacts::iommu, {"on", "off"}},
    FactRow{"swap", &FactsRule::swap, &HostFacts::swap, {"none", "plain", "encrypted"}},
    FactRow{"kdump", &FactsRule::kdump, &HostFacts::kdump, {"none", "loaded"}},
    FactRow{"secure-boot", &FactsRule::secure_boot, &HostFacts::secure_boot, {"on", "off"}},
    FactRow{"architecture", &FactsRule::architecture, &HostFacts::architecture, {}},
};

}  // namespace vallum::attest

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "attest/policy.h"
#include "base/result.h"

namespace vallum::attest {

// An entry of OpenAttestation's whitelist: `pcrName`, `pcrDigest`, and the MLE that it is of.
struct WhitelistEntry {
  std::string pcr_name;  // "0" to "23", also as "PCR 0" or "pcr_0"
  std::string digest;    // hexadecimal, of the size of one bank
  std::string mle;       // for people: name and version
};

// The golden values of a whitelist, by PCR: any of those that are listed for one.
// Errors: kInvalidInput (no PCR, a digest of no bank's size), naming the entry.
Result<std::map<uint32_t, GoldenRule>> GoldenFromWhitelist(std::span<const WhitelistEntry> entries);

// Puts the rules into a policy, in the place of those that the PCRs have.
// Errors: kInvalidInput (a PCR without a value of each of the policy's banks).
Result<AttestationPolicy> WithGoldenRules(AttestationPolicy policy,
                                          const std::map<uint32_t, GoldenRule>& rules);

}  // namespace vallum::attest

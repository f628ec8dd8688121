// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "attest/pcrlock.h"
#include "attest/policy.h"
#include "base/result.h"

namespace vallum::attest {

// A draft for somebody to read, change and approve.
struct PcrlockPolicy {
  AttestationPolicy policy;
  std::string document;  // TOML of it, with remarks
};

// Makes a policy of components: the rule "reference" for each PCR, in the strongest usual bank
// that every record of them knows (SHA-256, else SHA-384, else SHA-512).
//   pcrs: those that are to have a rule; records of others are left out. Empty: all that the
//   components measure.
// Errors: kInvalidInput (the name; no component measures a PCR; no such bank), naming what to do.
Result<PcrlockPolicy> PolicyFromPcrlock(const std::string& name,
                                        std::vector<ReferenceComponent> components,
                                        const std::set<uint32_t>& pcrs);

}  // namespace vallum::attest

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "attest/host_verification.h"
#include "attest/policy.h"
#include "base/bytes.h"
#include "base/result.h"

namespace vallum::attest {

// A draft for somebody to read, change and approve.
struct LearnedPolicy {
  AttestationPolicy policy;
  std::string document;  // TOML of it, with remarks that say why each rule is what it is
  // The files that IMA measured, as sha256sum prints them: the allow list that the policy names by
  // its SHA-256. Empty without IMA's list.
  std::string ima_list;
};

// Writes a policy that the host meets. Rules outlive ordinary change where they can: what boots is
// accepted by digest or signer in PCRs 4, 5, 8 and 9, golden values are for firmware.
//   name: of the policy. evidence: whole, from the host's boot on.
//   nonce: that the quote answers.
// Errors: kDenied (the quote is not believed, or a log does not explain it: nothing is learned from
// evidence that proves nothing), naming the first reason; kInvalidInput (no PCR is quoted, a list
// of IMA that cannot be read).
Result<LearnedPolicy> LearnPolicy(const std::string& name, const BoundTpm& tpm,
                                  const HostEvidence& evidence, ByteView nonce);

}  // namespace vallum::attest

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "attest/policy.h"
#include "base/digest.h"
#include "base/result.h"

// Keylime's verification of evidence on demand: docs/attestation-clients.md.
namespace vallum::attest {

inline constexpr size_t kMaxKeylimeBody = size_t{16} << 20U;
inline constexpr size_t kMaxTpmPolicyValues = 1024;

// A tpm_policy: {"22": ["hex", ...], "mask": "0x408000"}.
struct KeylimeTpmPolicy {
  std::map<uint32_t, GoldenRule> golden;
  uint32_t mask = 0;  // PCRs that are to be quoted, whatever they hold
};

// Parses a tpm_policy, whose values are digests of the bank.
//   text: JSON; untrusted.
// Errors: kInvalidInput (not JSON, a PCR or a digest that is none, a mask of other PCRs);
// kExhausted (above kMaxTpmPolicyValues).
// Source: Keylime docs/user_guide/user_selected_pcr_monitoring.rst. Pure; thread-safe.
Result<KeylimeTpmPolicy> ParseKeylimeTpmPolicy(std::string_view text, HashAlgorithm bank);

// An HTTP answer.
struct KeylimeReply {
  int status = 200;
  std::string body;  // {"code", "status", "results"}
};

// Answers POST /v2.5/verify/evidence: judges evidence of a TPM by the policies that come with it.
// What the evidence says is answered with 200, valid or not, and the failures by Keylime's names; a
// question that cannot be decided with 400, in words.
//   body: untrusted, at most kMaxKeylimeBody.
// Source: Keylime docs/rest_apis.rst, version 2.5. Pure; thread-safe.
KeylimeReply VerifyKeylimeEvidence(std::string_view body);

// Answers GET /version.
KeylimeReply KeylimeVersion();

}  // namespace vallum::attest

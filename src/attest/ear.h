// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attest/reason.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"

// Attestation results as relying parties read them: EAR, and its claims by AR4SI.
// docs/formats/ear.md.
namespace vallum::attest {

inline constexpr std::string_view kEarProfile = "tag:github.com,2023:veraison/ear";
inline constexpr size_t kMaxEar = size_t{256} << 10U;
inline constexpr size_t kMaxEarSubmods = 64;

// The tier of a result, and that of a claim's value.
enum class EarStatus { kNone, kAffirming, kWarning, kContraindicated };
std::string_view EarStatusName(EarStatus status);  // "none", "affirming", ...
// AR4SI, section 2.3.2: -1 to 1 none, up to 31 affirming, up to 95 warning, the rest
// contraindicated; below -1 alike.
EarStatus TierOf(int8_t value);

// AR4SI, section 2.3.4, in that order.
enum class EarClaim {
  kInstanceIdentity,
  kConfiguration,
  kExecutables,
  kFileSystem,
  kHardware,
  kRuntimeOpaque,
  kStorageOpaque,
  kSourcedData,
};
inline constexpr size_t kEarClaimCount = static_cast<size_t>(EarClaim::kSourcedData) + 1;
std::string_view EarClaimName(EarClaim claim);  // "instance-identity", ...

// Values of claims; nothing: no claim is made.
struct TrustVector {
  std::array<std::optional<int8_t>, kEarClaimCount> values{};
  std::optional<int8_t>& operator[](EarClaim claim) { return values[static_cast<size_t>(claim)]; }
  std::optional<int8_t> operator[](EarClaim claim) const {
    return values[static_cast<size_t>(claim)];
  }
  // The worst of the values' tiers.
  EarStatus Tier() const;
  bool operator==(const TrustVector&) const = default;
};

struct EarAppraisal {
  EarStatus status = EarStatus::kNone;
  TrustVector vector;
  std::string policy_id;             // empty: none
  std::vector<std::string> reasons;  // for people; empty: none
  bool operator==(const EarAppraisal&) const = default;
};

struct Ear {
  int64_t issued_at = 0;       // seconds since 1970
  std::string developer = {};  // of the verifier
  std::string build = {};
  std::string nonce = {};  // of who asked; empty: none
  std::map<std::string, EarAppraisal> submods = {};
  bool operator==(const Ear&) const = default;
};

// What is known of a host.
struct HostStanding {
  HostVerdictKind kind = HostVerdictKind::kUnknown;
  std::vector<Reason> reasons = {};
  std::string policy = {};
  uint64_t policy_version = 0;
  bool hardware_tpm = false;
  bool files_judged = false;  // by IMA's list, since boot
};

// TRUSTED is affirming, STALE a warning, UNTRUSTED contraindicated, UNKNOWN none. Of a trusted host
// each claim is affirmed that its policy and its TPM give ground for; of another one, each claim
// that a reason contradicts is contraindicated and of the others nothing is claimed. Pure.
EarAppraisal AppraiseHost(const HostStanding& host);

// The claims as JSON, without white space. Pure.
std::string FormatEar(const Ear& ear);

// Parses such claims; of members that are not known nothing is taken.
//   text: untrusted.
// Errors: kInvalidInput (not JSON, another profile, a member missing or of another kind, a status
// or a claim that does not exist); kExhausted (a limit above).
// Source: draft-ietf-rats-ear; draft-ietf-rats-ar4si. Pure; thread-safe.
Result<Ear> ParseEar(std::string_view text);
// The appraisals alone, as "submods" has them.
Result<std::map<std::string, EarAppraisal>> ParseEarSubmods(std::string_view text);

// What of a JWT is signed: BASE64URL(header) "." BASE64URL(claims), with the algorithm ES256.
//   chain: certificates (DER), the signer's first; they become x5c (RFC 7515, section 4.1.6).
std::string EarSigningInput(const Ear& ear, const std::vector<Bytes>& chain);

}  // namespace vallum::attest

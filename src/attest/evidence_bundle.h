// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "attest/facts.h"
#include "attest/host_verification.h"
#include "attest/quote.h"
#include "base/bytes.h"
#include "base/result.h"
#include "measure/ima_replay.h"

// docs/formats/evidence_bundle.md mirrors these constants.
namespace vallum::attest {

inline constexpr std::string_view kBundleMagic = "VALLUMEV";
inline constexpr uint32_t kBundleVersion = 1;
inline constexpr size_t kMaxBundleSize = size_t{96} << 20U;
inline constexpr size_t kMaxBundleSmallPart = size_t{64} << 10U;

// What a verdict was reached by, whole: with the policy it can be reached again anywhere, at any
// time. A value.
struct EvidenceBundle {
  Bytes ak_public;       // TPMT_PUBLIC
  Bytes ek_certificate;  // DER; may be empty
  TpmKind tpm = TpmKind::kUnknown;
  Bytes nonce;
  Bytes quote;
  Bytes signature;
  SignatureFormat format = SignatureFormat::kTpmt;
  PcrBanks pcrs;
  Bytes event_log;  // whole, even where the host sent it earlier; may be empty
  Bytes ima_log;    // from entry ima_before.entries on; may be empty
  measure::ImaReplayState ima_before;
  HostFacts facts;
  std::string policy;  // by which the host was judged then
  uint64_t policy_version = 0;
  uint64_t taken_at = 0;  // seconds since 1970
  bool operator==(const EvidenceBundle&) const = default;
};

// The bundle as one file, parts compressed with zstd where that is smaller. Its SHA-256 is its
// address: it never changes once written.
// Errors: kExhausted (a part larger than a reader accepts); kInternal (no memory).
Result<Bytes> FormatBundle(const EvidenceBundle& bundle);

// Errors: kInvalidInput (no bundle, another version); kCorrupt (parts missing, twice, out of order
// or not what their sizes say; bytes left over), kExhausted (a limit).
//   file: untrusted. Memory is bounded by the limits of the logs, whatever sizes the file names.
Result<EvidenceBundle> ParseBundle(ByteView file);

// What of a bundle a host sent. The views are into the bundle.
HostEvidence EvidenceOf(const EvidenceBundle& bundle);

// Judges a bundle's evidence by a policy as if the host had never been seen before: with the key
// that the bundle names. Of a bundle with part of IMA's list, where nothing but signatures of files
// is wrong, the verdict is UNKNOWN: keys that earlier entries loaded are not in it. Errors:
// kInvalidInput, kDenied (the key cannot be read, or is unfit for quotes).
Result<Verdict> VerifyBundle(const EvidenceBundle& bundle, const PreparedPolicy& policy);

// A host of the past, to try a policy on.
struct StoredHost {
  std::string name;
  const EvidenceBundle* bundle = nullptr;
};
struct TrialOutcome {
  std::string host;
  Verdict verdict;
};
// What each host's evidence is worth under a policy: who would fall out, and why. In the order of
// the hosts; evidence that cannot be judged is UNKNOWN with the reason. Pure.
std::vector<TrialOutcome> TryPolicy(const PreparedPolicy& policy,
                                    const std::vector<StoredHost>& hosts);

}  // namespace vallum::attest

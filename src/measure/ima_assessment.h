// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "measure/ima_allow_list.h"
#include "measure/ima_log.h"

namespace vallum::measure {

inline constexpr size_t kMaxImaFindings = 64;
inline constexpr size_t kMaxLoadedImaKeys = 32;
inline constexpr uint32_t kBootAggregatePcrs = 10;

// Why an entry is not accepted.
enum class ImaReason {
  kImaUnknownFile,      // the list does not know the path
  kImaDigestMismatch,   // the list has other digests for it
  kImaBadSignature,     // not listed, and its signature is not of what was measured
  kImaUnknownKey,       // not listed, and signed by a key that is not
  kImaViolation,        // the kernel could not vouch for what was measured
  kImaKeyNotListed,     // a certificate was loaded on a keyring, and the list does not have it
  kImaUnknownBuffer,    // a buffer of a name or content that is not listed
  kImaBufferMismatch,   // the buffer is not what its digest says
  kImaBootAggregate,    // boot_aggregate is not of the quoted PCRs
  kImaOtherPcr,         // extends another PCR than 10, whose value nobody follows
  kImaNothingMeasured,  // the template has no digest or no name to judge
};

// "ima_unknown_file", ...: ids of reasons, for protocols.
std::string_view ImaReasonName(ImaReason reason);

struct ImaFinding {
  uint64_t entry = 0;  // since boot, from 0
  ImaReason reason = ImaReason::kImaUnknownFile;
  std::string path;    // printable, bounded
  std::string digest;  // "sha256:0123..."
  std::string detail;  // what was expected, in words; may be empty
};

// What the first entry of each list is of.
inline constexpr std::string_view kBootAggregate = "boot_aggregate";

// What judging goes on with, host by host.
struct ImaAssessmentState {
  // Listed certificates (DER) that the kernel loaded on .ima since boot: they sign files too.
  std::vector<Bytes> loaded_keys;

  bool operator==(const ImaAssessmentState&) const = default;
};

// PCRs 0 to 9 in a bank, quoted or replayed from an event log that agrees with the quote.
struct ImaBootPcrs {
  HashAlgorithm bank = HashAlgorithm::kSha256;
  std::vector<Bytes> values;  // kBootAggregatePcrs of them
};

// What to do about violations: busy hosts have some of log files. Their paths are not proven, so
// that excludes do not count.
enum class ImaViolationRule { kRefuse, kAccept };

struct ImaAssessmentInput {
  const ImaLog& log;
  size_t proven = 0;         // entries to judge: ImaReplay::proven
  uint64_t first_entry = 0;  // number of the log's first entry since boot
  const ImaAllowList& list;
  // For the boot_aggregate; where none is of its bank, the list must have the digest.
  std::span<const ImaBootPcrs> boot_pcrs = {};
  ImaViolationRule violations = ImaViolationRule::kRefuse;
};

struct ImaAssessment {
  size_t by_digest = 0;
  size_t by_signature = 0;
  size_t excluded = 0;
  size_t ignored = 0;  // keys on ignored keyrings, violations under kAccept
  size_t boot_aggregates = 0;
  // The first kMaxImaFindings, in order, and how many there are in all.
  std::vector<ImaFinding> findings;
  size_t finding_count = 0;
  ImaAssessmentState state;

  bool Accepted() const { return finding_count == 0; }
};

// Judges each proven entry: accepted if its digest is listed for its path, if a listed key signed
// it, or if an exclude matches the path. Pure; thread-safe.
ImaAssessment AssessImaEntries(const ImaAssessmentInput& input, const ImaAssessmentState& from);

// The digest over PCRs 0 to 7, or 0 to 9 (in banks other than SHA-1, since Linux 5.8).
//   values: at least `count` of the bank's size (checked).
// Source: Linux security/integrity/ima/ima_crypto.c, ima_calc_boot_aggregate_tfm.
Bytes ImaBootAggregate(const ImaBootPcrs& pcrs, uint32_t count);

}  // namespace vallum::measure

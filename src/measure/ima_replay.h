// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "measure/ima_log.h"

namespace vallum::measure {

// PCR 10 in one bank.
struct ImaPcrValue {
  HashAlgorithm bank = HashAlgorithm::kSha256;
  Bytes value;

  bool operator==(const ImaPcrValue&) const = default;
};

// How far a host's log is proven: what the next log goes on from. A value; kept for each host, and
// forgotten when the host's reset count changes.
struct ImaReplayState {
  uint64_t entries = 0;  // since the host's boot
  std::vector<ImaPcrValue> pcrs;

  bool operator==(const ImaReplayState&) const = default;
};

// Before the first entry: zeros in each bank.
ImaReplayState StartOfImaReplay(std::span<const HashAlgorithm> banks);

struct ImaReplay {
  // Entries of the given log, from its first, that the quoted values prove; and those after, made
  // between the quote and the reading of the log. Only the first may be judged.
  size_t proven = 0;
  size_t unproven = 0;
  // After the proven ones; as it was when the log was refused.
  ImaReplayState state;
  // Empty when the log reaches the quoted values; else both values and what would explain them.
  std::string refusal;

  bool Reached() const { return refusal.empty(); }
};

// Extends PCR 10 by a log until it is what a quote says: by H(template data) in each bank, never by
// the logged template hash, and by 0xFF..FF for a violation. Entries of other PCRs extend nothing
// here.
//   log: the entries from number `from.entries` on; may be empty.
//   quoted: a value for each bank of the state, no others.
// Errors: kInvalidInput (banks that differ, no bank, a value of another size).
// Source: Linux security/integrity/ima/ima_queue.c, ima_add_template_entry. Pure; thread-safe.
Result<ImaReplay> ReplayImaLog(const ImaLog& log, const ImaReplayState& from,
                               std::span<const ImaPcrValue> quoted);

}  // namespace vallum::measure

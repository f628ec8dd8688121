// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "base/result.h"
#include "base/units.h"

namespace vallum::measure {

// PCRs of one bank, as a quote is asked for.
struct BankSelection {
  HashAlgorithm bank = HashAlgorithm::kSha256;
  std::vector<PcrIndex> pcrs;  // ascending, no duplicates
  bool operator==(const BankSelection&) const = default;
};

// Parses "sha256:0,1,7+sha1:10", as tpm2-tools write it.
// Errors: kInvalidInput (bank unknown or twice, no PCR, one over 23 or twice).
Result<std::vector<BankSelection>> ParsePcrSelections(std::string_view text);
// The same text again.
std::string FormatPcrSelections(const std::vector<BankSelection>& selections);

}  // namespace vallum::measure

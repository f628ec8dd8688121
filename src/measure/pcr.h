// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"

namespace vallum::measure {

// The value of a PCR that starts as zeros (0 to 16 and 23) after TPM2_PCR_Extend with each digest
// in order: value = H(value || digest). Errors: kInvalidInput (a digest whose size is not the
// bank's, with its position).
Result<Bytes> ReplayPcr(HashAlgorithm bank, std::span<const Bytes> digests);

}  // namespace vallum::measure

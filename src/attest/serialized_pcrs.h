// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "attest/quote.h"
#include "base/bytes.h"
#include "base/result.h"
#include "measure/pcr_selection.h"

namespace vallum::attest {

// 16 banks of 24 PCRs, 8 to a list.
inline constexpr size_t kMaxSerializedPcrs = size_t{64} << 10U;

// Parses PCR values as tpm2_quote --pcrs_format=serialized and tpm2_pcrread write them: a
// TPML_PCR_SELECTION and TPML_DIGESTs as they lie in a little-endian machine's memory. Values of
// banks that Vallum does not compute are read over; what lies in unused places is not looked at.
//   bytes: exactly that; untrusted.
// Errors: kInvalidInput (counts that contradict each other, a digest that is not of its bank's
// size, a PCR twice, bytes missing or left over); kExhausted (above kMaxSerializedPcrs).
// Source: tpm2-tools 5, lib/pcr.c; docs/formats/tpm_quote.md. Pure; thread-safe.
Result<PcrBanks> ParseSerializedPcrs(ByteView bytes);

// Parses PCR values one behind the other, as tpm2_quote --pcrs_format=values writes them.
//   selections: in the order in which the quote was asked for.
// Errors: kInvalidInput (not exactly as many bytes as these PCRs have).
Result<PcrBanks> ParsePcrValues(ByteView bytes,
                                const std::vector<measure::BankSelection>& selections);

}  // namespace vallum::attest

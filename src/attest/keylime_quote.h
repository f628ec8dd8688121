// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::attest {

inline constexpr size_t kMaxKeylimeQuote = size_t{128} << 10U;

// A quote as Keylime's agent sends it.
struct KeylimeQuote {
  Bytes message;    // TPMS_ATTEST
  Bytes signature;  // TPMT_SIGNATURE
  Bytes pcrs;       // for ParseSerializedPcrs
};

// Parses "r", base64, ":", base64, ":", base64: the envelope alone.
// Errors: kInvalidInput; kExhausted (above kMaxKeylimeQuote).
// Source: docs/formats/tpm_quote.md. Pure; thread-safe.
Result<KeylimeQuote> ParseKeylimeQuote(std::string_view text);

}  // namespace vallum::attest

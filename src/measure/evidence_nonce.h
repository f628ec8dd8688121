// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::measure {

// Sizes of a controller's nonce, and how many of them one quote answers.
inline constexpr size_t kMinEvidenceNonce = 20;
inline constexpr size_t kMaxEvidenceNonce = 32;
inline constexpr size_t kMaxEvidenceNonces = 64;

// The qualifying data of a quote that answers these nonces: one as it is; of several
// SHA-256("vallum evidence nonces v1" || u32be count || (u16be length || nonce)...). The lengths
// make it injective, and the text keeps it apart from every other use of a hash.
// Errors: kInvalidInput (none, too many, or one of another size).
// Source: docs/attestation.md, "Evidence". Pure; thread-safe.
Result<Bytes> EvidenceNonce(std::span<const Bytes> nonces);

}  // namespace vallum::measure

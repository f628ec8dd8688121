// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "base/bytes.h"

namespace vallum::measure {

// SHA-1 and SHA-256 by the processor's own instructions, without OpenSSL's context around them and
// with two inputs under way at a time: one alone waits for each of its rounds. Internal to
// BankHasher, which falls back to OpenSSL. Pure; thread-safe.
// Source: FIPS 180-4; Intel SDM, "Intel SHA Extensions".

// Whether there are such instructions. What is below must not be called where there are none.
bool HasShaInstructions();

// The digests of the inputs, in their order.
//   out: 20 or 32 bytes for each input.
void Sha1Each(std::span<const ByteView> inputs, std::byte* out);
void Sha256Each(std::span<const ByteView> inputs, std::byte* out);

}  // namespace vallum::measure

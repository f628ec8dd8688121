// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/luks.h"

// What both versions of LUKS ask of names, costs and text. `where` names the field in errors.
namespace vallum::formats {

Error LuksRefused(std::string message);

// Errors: kInvalidInput (no encryption at all, unknown, key size that the cipher does not have).
//   cipher: "aes-xts-plain64".
Result<void> CheckLuksCipher(std::string_view cipher, uint64_t key_bytes, std::string_view where);
Result<void> CheckLuksHash(std::string_view hash, std::string_view where);
// Errors: kInvalidInput (outside the KDF budget, unknown hash).
Result<void> CheckLuksCost(const LuksKdfCost& cost, std::string_view where);
// The digest of the volume key is one PBKDF2 more; old ones have few iterations.
Result<void> CheckLuksDigestIterations(uint64_t iterations, std::string_view where);
// Errors: kInvalidInput (not in the form 8-4-4-4-12).
Result<void> CheckLuksUuid(std::string_view uuid);

// The text of a field of fixed size. Errors: kInvalidInput (no NUL inside the field).
Result<std::string> LuksText(ByteView header, size_t offset, size_t size, std::string_view where);

// The version itself: docs in luks.h.
Result<LuksHeader> ParseLuks1(const RandomAccessReader& image);
Result<LuksHeader> ParseLuks2(const RandomAccessReader& image);
// Appends sentences on cipher, payload and slots.
void DescribeLuks(LuksHeader& header);

}  // namespace vallum::formats

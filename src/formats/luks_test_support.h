// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

// For the tests of LUKS only.
namespace vallum::formats::testing {

// The places of a small LUKS2: two headers, key slots, data.
inline constexpr uint64_t kLuks2Copy = 0x4000;
inline constexpr uint64_t kLuks2Areas = 0x40000;
inline constexpr uint64_t kLuks2Segment = 2 * kLuks2Copy + kLuks2Areas;
inline constexpr uint64_t kLuks2ImageSize = kLuks2Segment + 0x10000;

// Valid metadata for it: slot 0 with PBKDF2 and slot 1 with Argon2id open segment 0.
nlohmann::json ValidLuks2Metadata();

}  // namespace vallum::formats::testing

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::firmware {

// An EFI_GUID as it is stored: the first three fields little-endian, the rest as written.
struct Guid {
  std::array<std::byte, 16> bytes{};

  // "8be4df61-93ca-11d2-aa0d-00e098032b8c".
  std::string ToString() const;
  // Reads 16 bytes. Errors: kInvalidInput (truncated).
  static Result<Guid> Read(ByteCursor& cursor);
  // Reads the text form, either case. Errors: kInvalidInput.
  static Result<Guid> Parse(std::string_view text);

  auto operator<=>(const Guid&) const = default;
};

// Makes a Guid from the four groups of its C initialiser.
constexpr Guid MakeGuid(uint32_t a, uint16_t b, uint16_t c, const std::array<uint8_t, 8>& d) {
  Guid guid;
  for (size_t i = 0; i < 4; ++i) {
    guid.bytes[i] = static_cast<std::byte>((a >> (8U * i)) & 0xffU);
  }
  for (size_t i = 0; i < 2; ++i) {
    guid.bytes[4 + i] = static_cast<std::byte>((unsigned{b} >> (8U * i)) & 0xffU);
    guid.bytes[6 + i] = static_cast<std::byte>((unsigned{c} >> (8U * i)) & 0xffU);
  }
  for (size_t i = 0; i < 8; ++i) {
    guid.bytes[8 + i] = static_cast<std::byte>(d[i]);
  }
  return guid;
}

// EFI_GLOBAL_VARIABLE: PK, KEK, SecureBoot, SetupMode, Boot####.
inline constexpr Guid kGlobalVariableGuid =
    MakeGuid(0x8be4df61, 0x93ca, 0x11d2, {0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c});
// EFI_IMAGE_SECURITY_DATABASE: db, dbx, dbt, dbr.
inline constexpr Guid kSecurityDatabaseGuid =
    MakeGuid(0xd719b2cb, 0x3d3a, 0x4596, {0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f});
// SHIM_LOCK: MokList, MokSBState, SbatLevel, and the authority that shim calls "Shim".
inline constexpr Guid kShimLockGuid =
    MakeGuid(0x605dab50, 0xe046, 0x4300, {0xab, 0xb6, 0x3d, 0xd8, 0x10, 0xdd, 0x8b, 0x23});
// The variable SecureBootEnable of EDK II: the switch in the firmware's setup pages.
inline constexpr Guid kSecureBootEnableGuid =
    MakeGuid(0xf0a30bc7, 0xaf08, 0x4556, {0x99, 0xc4, 0x00, 0x10, 0x09, 0xc9, 0x3a, 0x44});

}  // namespace vallum::firmware

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "firmware/guid.h"
#include "firmware/key_set.h"
#include "firmware/pkcs7.h"
#include "firmware/signature_list.h"
#include "firmware/variable_store.h"

// Updates of PK, KEK, db and dbx as they are published: docs/formats/auth_file.md.
namespace vallum::firmware {

inline constexpr size_t kMaxAuthFileBytes = size_t{4} << 20U;

// EFI_VARIABLE_* of an authenticated update.
inline constexpr uint32_t kKeyVariableAttributes = 0x27;  // non-volatile, boot, run time, signed
inline constexpr uint32_t kAppendWrite = 0x40;            // adds to the value

// An EFI_VARIABLE_AUTHENTICATION_2 and the value that follows it. Movable.
struct AuthFile {
  VariableTime time;
  Bytes time_bytes;  // the EFI_TIME as it is signed
  SignedMessage signature;
  Bytes payload;                      // the value as it is signed
  std::vector<Signature> signatures;  // the payload's lists
};

// Nothing is verified.
//   file: untrusted.
// Errors: kInvalidInput (truncated; another certificate type or GUID; a time with parts that must
// be zero; no PKCS#7); kCorrupt (the payload's lists contradict themselves); kExhausted (limits).
// Source: UEFI 2.10 section 8.2.2; EDK II AuthService.c, VerifyTimeBasedPayload.
Result<AuthFile> ParseAuthFile(ByteView file);

// What an update is written to.
struct AuthTarget {
  std::string_view name;  // "PK", "KEK", "db", "dbx", ...; ASCII
  Guid vendor;
  uint32_t attributes = kKeyVariableAttributes;  // as passed to SetVariable, which is signed
};
// Verifies an update as firmware in user mode does: one of PK and KEK must be signed by the
// platform key itself, any other by a key that leads to an entry of KEK. Returns the entry of
// keys.pk or keys.kek that signed it. Errors: kDenied (none of them did; says who signed and what
// would accept it). Source: EDK II AuthService.c, VerifyTimeBasedPayload (AuthVarTypePk,
// AuthVarTypeKek). Whether the time is later than that of the variable's last update is not judged.
Result<Signature> VerifyAuthFile(const AuthFile& file, const AuthTarget& target,
                                 const KeySet& keys);

}  // namespace vallum::firmware

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "firmware/guid.h"
#include "firmware/shim.h"
#include "firmware/signature_list.h"
#include "firmware/variable_store.h"
#include "measure/secure_boot_pcr.h"

namespace vallum::measure {

// Something that firmware or shim may measure into PCR 7 after the separator: UEFI_VARIABLE_DATA of
// this name, vendor and data.
struct Authority {
  Pcr7EventKind kind = Pcr7EventKind::kDbAuthority;
  std::string variable;
  firmware::Guid vendor;
  Bytes data;
  std::string explanation;

  Bytes DigestIn(HashAlgorithm bank) const;
};

struct Authorities {
  std::vector<Authority> admissible;
  std::vector<std::string> notes;  // artefacts that could not be read, and why
};

// Computes every authority that the store and the binaries admit.
//   With Secure Boot off nothing is verified, so that only shim's revocation level is left.
// Errors: kCorrupt (db does not parse).
Result<Authorities> FindAuthorities(const firmware::VariableStore& store,
                                    std::span<const BootBinary> binaries);

// The entry of db by which firmware lets a binary start: for each of the binary's signatures the
// first certificate of db that its chain leads to, then its digest (EDK2,
// DxeImageVerificationLib). Nothing when db does not admit it.
// Revocation (dbx) is not looked at. Errors: kCorrupt (db does not parse).
Result<std::optional<Authority>> FirmwareAuthority(const firmware::VariableStore& store,
                                                   const BootBinary& binary);

// What shim measures when it lets a binary start: an entry of db, else of MokListRT (what is built
// into shim, then MokList), as of shim 15.3. Nothing when neither admits it.
// Errors: kCorrupt (db or MokList does not parse); those of the section .vendor_cert.
Result<std::optional<Authority>> ShimAuthority(const firmware::VariableStore& store,
                                               const BootBinary& shim, const BootBinary& binary);

// shim's revocation level of this boot: the variable SbatLevel unless the level built into shim is
// newer; with Secure Boot off always the original one (shim 16, sbat.c).
// Errors: kInvalidInput (a level without a date, a SbatPolicy that asks for another level; those of
// the section .sbatlevel).
Result<Authority> SbatLevelAuthority(const firmware::VariableStore& store, const BootBinary& shim);

}  // namespace vallum::measure

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "firmware/key_set.h"
#include "firmware/sbat.h"
#include "firmware/shim.h"
#include "firmware/signature_list.h"
#include "formats/pe.h"

// Whether firmware and shim start a program under a key set. The order of the checks decides which
// entry PCR 7 records: docs/secure-boot-verification.md.
namespace vallum::firmware {

// An entry that decided, and where it stands: "db", "dbx", "MokListRT", "MokListX", "vendor_db",
// "vendor_dbx". MokListRT is MokList and shim's own certificate, as shim mirrors and measures them.
struct DecidingEntry {
  std::string database;
  Signature entry;
  bool operator==(const DecidingEntry&) const = default;
};

// A value: that a program is refused is not an error.
struct ImageVerdict {
  bool allowed = false;
  // What let it start, in the order in which PCR 7 records it; empty with Secure Boot off.
  std::vector<DecidingEntry> authorities;
  std::optional<DecidingEntry> forbidden_by;  // why it may not start, when an entry says so
  std::vector<std::string> reasons;           // how it came to this, for people
  std::vector<std::string> fixes;             // each of them would make it yes; empty when allowed
};

// What the firmware does with a program that it is to start from a disk (not from flash).
//   image: untrusted.
// Source: EDK II DxeImageVerificationLib.c, DxeImageVerificationHandler (OVMF 2022.11). Where later
// versions refuse more (the digest of an unsigned program in dbx by SHA-384 or SHA-512), this
// refuses too.
ImageVerdict VerifyByFirmware(const formats::PeImage& image, const KeySet& keys);

// What shim does with a program that it loads, or that GRUB hands it to verify.
//   shim: of the shim that runs; its revocation level is AppliedSbatLevel by kAutomatic.
//   need: kRequired for what shim itself loads.
// Source: shim 15.x and 16.x shim.c, verify_buffer_authenticode, check_denylist, check_allowlist;
// pe.c, verify_buffer_sbat.
ImageVerdict VerifyByShim(const formats::PeImage& image, const KeySet& keys, const ShimTrust& shim,
                          SbatNeed need);

}  // namespace vallum::firmware

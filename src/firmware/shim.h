// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "firmware/signature_list.h"
#include "formats/pe.h"

namespace vallum::firmware {

// What shim carries in its PE section .vendor_cert: four 32-bit numbers (size of the allowed part,
// size of the forbidden part, offset of each from the section's start), then both parts.
struct VendorCertificates {
  Bytes allowed;    // one DER certificate, or signature lists (vendor_db); may be empty
  Bytes forbidden;  // signature lists; may be empty
};
//   section: untrusted. Errors: kInvalidInput (truncated); kCorrupt (a part outside the section).
Result<VendorCertificates> ParseVendorCertSection(ByteView section);

// The allowed part as entries: vendor_db's, or the one certificate with shim's GUID as owner, which
// is how shim mirrors it into MokListRT and measures it.
std::vector<Signature> VendorEntries(const VendorCertificates& vendor);

// The revocation levels that shim carries in its PE section .sbatlevel, each without its closing
// zero: what it may write to the variable SbatLevel. The older one is first.
//   section: untrusted. Errors: kInvalidInput (truncated, unknown version); kCorrupt (a level
// outside the section or without an end).
Result<std::vector<Bytes>> ParseSbatLevelSection(ByteView section);

// What a shim brings with it to judge the programs that it starts.
struct ShimTrust {
  bool has_vendor_db = false;         // signature lists in place of one certificate
  std::vector<Signature> vendor;      // VendorEntries
  std::vector<Signature> vendor_dbx;  // the forbidden part
  std::vector<Bytes> sbat_levels;     // automatic, then latest; empty for shims before 15.7
};
//   shim: untrusted. Errors: kNotFound (no section .vendor_cert: no shim); those of the parsers.
Result<ShimTrust> ReadShimTrust(const formats::PeImage& shim);

}  // namespace vallum::firmware

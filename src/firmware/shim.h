// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::firmware {

// What shim carries in its PE section .vendor_cert: four 32-bit numbers (size of the allowed part,
// size of the forbidden part, offset of each from the section's start), then both parts.
struct VendorCertificates {
  Bytes allowed;    // one DER certificate, or signature lists (vendor_db); may be empty
  Bytes forbidden;  // signature lists; may be empty
};
//   section: untrusted. Errors: kInvalidInput (truncated); kCorrupt (a part outside the section).
Result<VendorCertificates> ParseVendorCertSection(ByteView section);

// The revocation levels that shim carries in its PE section .sbatlevel, each without its closing
// zero: what it may write to the variable SbatLevel. The older one is first.
//   section: untrusted. Errors: kInvalidInput (truncated, unknown version); kCorrupt (a level
// outside the section or without an end).
Result<std::vector<Bytes>> ParseSbatLevelSection(ByteView section);

}  // namespace vallum::firmware

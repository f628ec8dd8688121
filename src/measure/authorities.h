// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "firmware/variable_store.h"
#include "measure/secure_boot_pcr.h"

namespace vallum::measure {

// Something that firmware or shim may measure into PCR 7 after the separator.
struct Authority {
  Pcr7EventKind kind = Pcr7EventKind::kDbAuthority;
  Bytes digest;  // SHA-256 of its UEFI_VARIABLE_DATA
  std::string explanation;
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

}  // namespace vallum::measure

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "firmware/key_set.h"

namespace vallum::images {

// The key sets that this machine's packages bring: "microsoft" out of the variable template of the
// firmware that comes with enrolled keys, "debian" out of an installed shim.
struct InstalledKeySets {
  std::vector<firmware::KeySet> sets;
  std::vector<std::string> missing;  // which could not be had, and what to install
};
// Reads files; blocks.
InstalledKeySets FindInstalledKeySets();

// A key set of an operator: a variable store (OVMF_VARS*.fd, an instance's vars.fd), what
// firmware::ToJson wrote, or certificates in PEM or DER, which then are PK, KEK and db.
//   path: its name becomes the set's, unless the file says one. Reads at most 16 MiB; blocks.
// Errors: as ErrnoError; kInvalidInput (none of these).
Result<firmware::KeySet> ReadKeySetFile(const std::string& path);

}  // namespace vallum::images

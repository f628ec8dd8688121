// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "cli/tool.h"
#include "firmware/key_set.h"

namespace vallum::cli {

// "prod" or "prod@3"; version 0: the newest.
struct KeySetName {
  std::string name;
  int32_t version = 0;
};
// Errors: kInvalidInput.
Result<KeySetName> ParseKeySetName(const std::string& word);

// The keys of a version of a key set, from the server.
Result<firmware::KeySet> FetchKeys(Tool* tool, const std::string& word);
// The same, or of a file when the word has a '/': a variable store, a key set in JSON,
// certificates.
Result<firmware::KeySet> ReadKeys(Tool* tool, const std::string& word);

}  // namespace vallum::cli

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "firmware/auth_file.h"
#include "firmware/key_set.h"
#include "firmware/signature_list.h"

namespace vallum::firmware {

// An update that takes trust away, as it is published: entries for dbx, or an SBAT level.
struct KeyUpdate {
  std::string description;  // "dbx update of 2010-03-06T19:17:21Z with 186 entries"
  std::vector<Signature> dbx;
  std::string sbat_level;        // "" unless it is one
  std::optional<AuthFile> auth;  // when it is a signed file
};

// Recognises a signed dbx update (.auth), bare signature lists, or an SBAT level in CSV.
//   file: untrusted.
// Errors: kInvalidInput (none of these; no entries), those of the parsers.
Result<KeyUpdate> ParseKeyUpdate(ByteView file);

// The key set as it is once the update was taken over. Entries that it has already are not added
// again; an SBAT level that is older than the set's changes nothing.
KeySet ApplyKeyUpdate(const KeySet& keys, const KeyUpdate& update);

// Whether firmware with these keys would take the update over, in words: who signed it, or why it
// would be refused. Empty for what is not signed.
std::string DescribeUpdateSigner(const KeySet& keys, const KeyUpdate& update);

}  // namespace vallum::firmware

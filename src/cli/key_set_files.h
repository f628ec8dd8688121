// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cli/output.h"
#include "firmware/key_set.h"

namespace vallum::cli {

// A variable of a key set under the names that people and the API have for it.
struct KeyVariable {
  const char* option;  // "db": also the member of the API's content
  const char* title;   // "db", "MokList"
  std::vector<firmware::Signature> firmware::KeySet::* list;
};
const std::vector<KeyVariable>& KeyVariables();

// What goes into a key set from files; each list is added to what is there.
struct KeySetFiles {
  std::string pk;                                         // replaces
  std::vector<std::string> kek, db, dbx, dbt, mok, mokx;  // PEM, DER, signature lists or .auth
  std::vector<std::string> db_hashes, dbx_hashes;         // SHA-256 of programs, hexadecimal
  std::vector<std::string> clear;                         // variables that are emptied first
  std::string sbat_level;                                 // a file; replaces
};
// Errors: kInvalidInput (a file that is none of these, a digest or variable that is none), those of
// the files.
Result<void> AddFiles(const KeySetFiles& files, firmware::KeySet& keys);

// Entries of one file: certificates in PEM or DER, EFI_SIGNATURE_LISTs, or a signed update (.auth),
// whose signature is not looked at. Errors: kInvalidInput, those of the file.
Result<std::vector<firmware::Signature>> ReadEntries(const std::string& path);

// The API's KeySetContent, and back. Errors: kCorrupt (a server that sends what is none).
Json ContentOf(const firmware::KeySet& keys);
Result<firmware::KeySet> KeysOfContent(const Json& content, const std::string& name);

// Each entry on a line of its own, under its variable.
std::string DescribeKeys(const firmware::KeySet& keys);

}  // namespace vallum::cli

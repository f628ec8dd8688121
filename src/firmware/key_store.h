// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "firmware/key_set.h"
#include "firmware/variable_store.h"

// Key sets as the variables that OVMF and shim read: docs/formats/variable_store.md, "Keys".
namespace vallum::firmware {

// The variables that enrol a key set, with the vendors and attributes that EDK II's AuthVariableLib
// and shim ask for. Without a platform key the firmware is in setup mode, so that the switch
// SecureBootEnable is left out.
//   time: stored with the key variables; a later signed update must be newer.
std::vector<Variable> KeyVariables(const KeySet& keys, const VariableTime& time);

// An empty store of the build with the set's variables.
// Errors: kExhausted (they do not fit: which, how many bytes).
Result<Bytes> MakeKeyStore(const KeySet& keys, OvmfBuild build, const VariableTime& time);

struct KeyReplacement {
  Bytes image;
  // In words, a line each: "BootOrder", "dbx: the set's already".
  std::vector<std::string> kept;
  // "db: 2 entries replaced by 3", "dbt: removed".
  std::vector<std::string> rebuilt;
};
// What becomes of the trust that a guest's shim enrolled itself: MokList, MokListX, its switches.
enum class GuestTrust {
  kKept,     // what the set says nothing of
  kDropped,  // of a store from outside; only the SBAT level stays
};
// Gives an existing store another key set and keeps everything else. An SBAT level never goes back.
//   image: a store that no machine uses; untrusted.
// Errors: those of VariableStoreEditor.
Result<KeyReplacement> ReplaceKeys(ByteView image, const KeySet& keys, const VariableTime& time,
                                   GuestTrust trust = GuestTrust::kKept);

}  // namespace vallum::firmware

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "firmware/key_set.h"
#include "firmware/variable_store.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// The key set that an instance was started with; empty lists: it has none of these.
struct AssignedKeys {
  std::string label;  // "key set prod version 2"
  firmware::KeySet keys;
};

// The key set that a controller sent with an instance.
//   secure_boot: whether Secure Boot is on in the boot mode.
// Errors: kInvalidInput (a list that does not parse, with its name).
Result<firmware::KeySet> ToKeySet(const v1::DesiredInstance& desired);

// "key set prod version 2".
std::string KeySetLabel(const std::string& name, int version);

// SHA-256 of what is in a key set, hex, as the controller computes it for a version: neither the
// name nor the boot mode counts.
std::string KeySetDigest(firmware::KeySet keys);

// The key variables of a store, as firmware measures them.
v1::KeySetContent ToContent(const firmware::VariableStore& store);

// How the keys in a store are not those that were assigned.
struct KeyComparison {
  // What lets more start than the key set does: entries that PK, KEK or db have and the set has
  // not, entries of dbx that are missing.
  std::vector<std::string> contradictions;
  // What lets less start, such as a guest's own dbx update, and what is shim's own or decides
  // nothing: MokList, MokListX, MokSBState, SbatLevel, dbt, dbr.
  std::vector<std::string> notes;
  // The first contradiction as firmware measures it: the extends of PCR 7 begin with SecureBoot,
  // PK, KEK, db and dbx.
  struct Difference {
    std::string variable;  // "db"
    int event = 0;         // from 1
    Bytes expected;        // SHA-256 bank
    Bytes measured;
  };
  std::optional<Difference> first;
};
// Errors: kCorrupt (a key variable of the store does not parse).
Result<KeyComparison> CompareKeys(const firmware::VariableStore& store,
                                  const AssignedKeys& assigned);

}  // namespace vallum::agent

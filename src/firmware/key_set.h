// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "firmware/signature_list.h"
#include "firmware/variable_store.h"

namespace vallum::firmware {

inline constexpr size_t kMaxKeySetJson = size_t{2} << 20U;
inline constexpr size_t kMaxKeySetName = 64;
// Over all lists of a key set. Each is tried on each signature of each image.
inline constexpr size_t kMaxKeySetCertificates = 128;

// The keys that decide what firmware and shim start. A value.
struct KeySet {
  std::string name;  // "microsoft", "debian", or as its owner calls it
  bool secure_boot = true;
  std::vector<Signature> pk;
  std::vector<Signature> kek;
  std::vector<Signature> db;    // may start
  std::vector<Signature> dbx;   // may not
  std::vector<Signature> dbt;   // whose timestamps count
  std::vector<Signature> dbr;   // recovery; does not decide
  std::vector<Signature> mok;   // MokList: what shim may start besides
  std::vector<Signature> mokx;  // MokListX: what shim may not
  std::string sbat_level;       // the variable SbatLevel; "" when there is none

  bool operator==(const KeySet&) const = default;
};

// One of its lists and the variable that holds it.
struct KeyList {
  const char* variable;  // "PK", "db", "MokList"; also the member of the JSON
  std::vector<Signature> KeySet::* entries;
  const Guid& vendor;
};
std::span<const KeyList> KeyLists();

// The key set of a variable store; its name is SummarizeKeySet's.
// Errors: kCorrupt (a key variable does not parse); kExhausted (more than kMaxKeySetCertificates
// certificates).
Result<KeySet> KeySetFromStore(const VariableStore& store);

// Certificates from a PEM file (several) or one in DER.
//   owner: who put them there, as lists say it.
// Errors: kInvalidInput (neither); kExhausted (more than kMaxKeySetCertificates).
Result<std::vector<Signature>> CertificatesFromFile(ByteView pem_or_der, const Guid& owner);

// Debian's own key set: its Secure Boot CA and nothing else, so that Debian's GRUB and kernels
// start without Microsoft's keys.
//   shim: a shim of Debian (package shim-signed), which carries the CA; untrusted: the CA is
//   known by kDebianSecureBootCaSha256.
// Errors: kInvalidInput (not a PE program; it carries another certificate or none).
Result<KeySet> DebianKeySet(ByteView shim);

// The set as one JSON object, to hand it to another process.
std::string ToJson(const KeySet& keys);
// The inverse. Errors: kInvalidInput (not what ToJson writes: a member too many, missing or of
// another kind; a list that does not parse); kExhausted (limits above).
Result<KeySet> ParseKeySet(std::string_view json);

}  // namespace vallum::firmware

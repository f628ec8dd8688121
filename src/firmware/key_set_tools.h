// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/result.h"
#include "firmware/key_set.h"

// What operators do with key sets: put them together, compare them, look for what is wrong.
namespace vallum::firmware {

// Entries from a file as operators have them: certificates in PEM or DER, signature lists (.esl),
// the payload of a signed update (.auth, whose signature is not verified: it is the operator's
// file).
//   file: untrusted. owner: who put them there, for entries that say nothing of it.
// Errors: kInvalidInput (none of these, no entries); kExhausted (limits of the parsers).
Result<std::vector<Signature>> SignaturesFromFile(ByteView file, const Guid& owner);

// The Authenticode SHA-256 of a program as an entry of db or dbx.
//   hex: 64 hexadecimal digits. Errors: kInvalidInput.
Result<Signature> SignatureFromDigest(std::string_view hex, const Guid& owner);

// SHA-256 over everything that decides (all lists, the SBAT level, whether Secure Boot is on), but
// not the name: two sets with the same digest are the same keys.
Sha256Digest DigestOf(const KeySet& keys);

// What one list has more or less in `after` than in `before`.
struct KeyListDifference {
  std::string list;  // "PK", "db", "MokListX", "SbatLevel", "Secure Boot"
  std::vector<std::string> added;
  std::vector<std::string> removed;
};
// Empty when the sets decide alike; owners and order of entries do not count.
std::vector<KeyListDifference> DiffKeySets(const KeySet& before, const KeySet& after);

enum class FindingSeverity { kNote, kWarning, kError };
std::string_view FindingSeverityName(FindingSeverity severity);  // "note", "warning", "error"
struct KeyFinding {
  FindingSeverity severity = FindingSeverity::kNote;
  std::string text;  // where, what and what follows from it
};
// What is missing, weak or contradictory in a set: no platform key, no KEK or db, keys that the
// world knows (test keys, Debian's snakeoil), certificates that are not valid at the time, weak
// keys and signatures, entries twice, in db and dbx at once, or of a kind that firmware ignores.
// Firmware itself looks at no validity dates.
std::vector<KeyFinding> VerifyKeySet(const KeySet& keys, WallTime now);

// A certificate that boots hang on and that gives way to others.
struct AgingCertificate {
  std::string name;
  std::string list;                  // of the set: "KEK", "db"
  std::string expires;               // "2026-06-27"
  bool expired = false;              // at the time asked for
  std::vector<std::string> missing;  // its successors that the set lacks
};
// Those of Microsoft's certificates of 2011 that the set holds, known by their digests.
std::vector<AgingCertificate> FindAgingCertificates(const KeySet& keys, WallTime now);

}  // namespace vallum::firmware

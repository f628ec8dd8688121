// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "firmware/key_set.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// Of one version, over all variables: what fits into the variable store beside what the guest
// writes there.
inline constexpr size_t kMaxKeySetContentBytes = size_t{128} << 10U;

// The keys of a stored or sent key set.
//   name: what reports call the set.
//   content: untrusted.
// Errors: kInvalidInput (a variable that does not parse, naming its field; a certificate that is
// none; an SBAT level that is none), kExhausted (more than kMaxKeySetContentBytes, or more
// certificates than firmware::kMaxKeySetCertificates). Pure; thread-safe.
Result<firmware::KeySet> ParseContent(std::string name, const v1::KeySetContent& content);
// The inverse, but that entries are not in lists together. Pure.
v1::KeySetContent EncodeContent(const firmware::KeySet& keys);

// SHA-256 of the keys, hexadecimal; the same for the same entries whatever lists they are in.
std::string ContentSha256(const firmware::KeySet& keys);

// The content of a version that a key set has; nullptr for others. The set owns it.
//   version: 0: the newest.
const v1::KeySetContent* FindContent(const v1::KeySet& key_set, int32_t version);
// "prod version 2": for messages.
std::string VersionWords(const std::string& name, int32_t version);

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "attest/policy.h"
#include "base/result.h"

// OpenAttestation's whitelist: who makes firmware (OEM) and systems (OS), what of theirs is
// measured (MLE), and which values PCRs have then. docs/attestation-clients.md.
namespace vallum::attest {

inline constexpr size_t kMaxOatEntries = 512;  // of each collection
inline constexpr size_t kMaxOatValues = 2048;  // of all MLEs
inline constexpr size_t kMaxOatText = 200;

// The collections: /WLMService/resources/{oem, os, mles, mles/whitelist/pcr}.
enum class OatCollection { kOem, kOs, kMle, kPcr };
enum class OatEdit { kAdd, kReplace };

struct OatSystemName {
  std::string name;
  std::string version;
  auto operator<=>(const OatSystemName&) const = default;
};
// An MLE of an OEM is a BIOS, one of an OS a VMM: the other name is empty.
struct OatMleName {
  std::string name;
  std::string version;
  std::string oem;
  OatSystemName os;
  auto operator<=>(const OatMleName&) const = default;
};
struct OatMle {
  std::string description;
  // By PCR, then by the digest's size: lower-case hexadecimal.
  std::map<std::pair<uint32_t, size_t>, std::string> values;
  bool operator==(const OatMle&) const = default;
};

// A value.
struct OatWhitelist {
  std::map<std::string, std::string> oems;       // description
  std::map<OatSystemName, std::string> systems;  // description
  std::map<OatMleName, OatMle> mles;
  bool operator==(const OatWhitelist&) const = default;
};

// Adds or replaces what a body describes; names of members are compared without case, as releases
// differ in it. A PCR's value is added beside those of other banks and replaces all.
//   body: untrusted.
// Errors: kInvalidInput (not JSON, a member missing or wrong, a PCR or digest that is none);
// kNotFound (what is to be replaced, or what it belongs to); kConflict (what is to be added is
// there); kExhausted (a limit above).
Result<OatWhitelist> ChangeOat(OatWhitelist list, OatCollection collection, OatEdit edit,
                               std::string_view body);

using OatQuery = std::map<std::string, std::string, std::less<>>;
// Removes what a query names: Name and Version; mleName, mleVersion and oemName or osName with
// osVersion; pcrName beside these.
// Errors: kInvalidInput (a name is missing), kNotFound, kConflict (MLEs are left of it).
Result<OatWhitelist> RemoveOat(OatWhitelist list, OatCollection collection, const OatQuery& query);

// {"oem": [...]}, {"os": [...]}, {"mleBean": [...]}, {"pcrBean": [...]}: what has the criteria in a
// name, without case; empty, or "?": all.
std::string ListOat(const OatWhitelist& list, OatCollection collection, std::string_view criteria);

// The golden rules: each PCR has one of the values that an MLE gives it. Of the banks those are
// quoted in which every PCR has a value; SHA-1 alone only where there is no other, and then the
// policy says that it is allowed.
// Errors: kInvalidInput (no bank has a value of every PCR).
Result<AttestationPolicy> PolicyOfOat(const OatWhitelist& list, const std::string& name);

// The same of what GET /WLMService/resources/mles/whitelist/pcr answers, of any OpenAttestation
// server: {"pcrBean": [{"pcrName", "pcrDigest", "mleName", "mleVersion"}]}.
//   text: untrusted.
// Errors: kInvalidInput (another form, naming the value; those above), kExhausted (a limit).
Result<AttestationPolicy> PolicyOfPcrBeans(std::string_view text, const std::string& name);

// A policy document with the rules, and with the list itself in a remark. Errors: of PolicyOfOat.
Result<std::string> FormatOatDocument(const OatWhitelist& list, const std::string& name);
// The list in a document's remark. Errors: kConflict (a document that was written otherwise, or
// whose rules are not those of its remark).
Result<OatWhitelist> ParseOatDocument(std::string_view document, const std::string& name);

}  // namespace vallum::attest

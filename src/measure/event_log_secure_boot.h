// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "firmware/guid.h"
#include "firmware/signature_list.h"
#include "measure/event_log.h"

namespace vallum::measure {

// What the log says of Secure Boot. Only kOn means on.
enum class LoggedSecureBoot {
  kOn,
  kOff,
  kEmptyVariable,  // SecureBoot was measured without a value: firmware without Secure Boot
  kNotMeasured,
  kUnreadable,  // its event contradicts itself: not of its digest, no 0 or 1, or twice
};
// "on", "off", "empty variable", "not measured", "unreadable".
std::string_view LoggedSecureBootName(LoggedSecureBoot state);

// A key or digest that let something start, or shim's level: EV_EFI_VARIABLE_AUTHORITY. So is, as
// the type proves nothing, every other variable that is not the firmware's policy: of an unknown
// name, measured after the separator, or not what was hashed.
struct LoggedAuthority {
  size_t event = 0;
  std::string variable;  // where it was found: "db", "MokListRT", "Shim", "SbatLevel"
  firmware::Guid vendor;
  bool before_separator = false;  // a driver or option ROM, before the firmware chose a loader
  bool covered = false;           // the digest is of this very data
  std::string description;        // "X.509 CN=Microsoft Corporation UEFI CA 2011 (...)"
};

// The policy that the firmware measured, and what it was used for.
struct LoggedSecureBootPolicy {
  LoggedSecureBoot state = LoggedSecureBoot::kNotMeasured;
  std::vector<firmware::Signature> pk;
  std::vector<firmware::Signature> kek;
  std::vector<firmware::Signature> db;
  std::vector<firmware::Signature> dbx;
  std::vector<LoggedAuthority> authorities;
  bool separator = false;  // the configuration part was ended
  // What a verifier must not pass over, each in words: a variable that is missing, twice, out of
  // order, after the separator, unreadable or not what was hashed; a second separator; a debugger;
  // Secure Boot on without keys or without a use of them. At most kMaxPolicyProblems.
  std::vector<std::string> problems;
};
inline constexpr size_t kMaxPolicyProblems = 64;

// Reads PCR 7 (RTMR0 of a confidential computing log, which holds more) as one bank proves it. What
// comes back is true only if the log replays to that register's known value.
// In RTMR0 further separators are those of other PCRs that the register stands for, so that a
// second one is a problem there too: nothing tells them from a forged one.
// Source: PC Client Platform Firmware Profile 1.06, section 3.3.4.8; UEFI 2.10, section 32.
LoggedSecureBootPolicy ReadSecureBootPolicy(const EventLog& log, HashAlgorithm bank);

}  // namespace vallum::measure

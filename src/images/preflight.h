// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "firmware/key_set.h"

// What an image's boot chain is worth under a key set, said before anything starts.
namespace vallum::images {

// What a program of a boot chain does for the next one.
enum class LinkRole { kShim, kFallback, kGrub, kBootManager, kUnifiedKernel, kKernel, kOther };
std::string_view LinkRoleName(LinkRole role);  // "shim", "fallback", "grub", ...

// One program that would be started, and the decision on it.
struct LinkReport {
  std::string path;  // "\EFI\BOOT\BOOTX64.EFI"
  LinkRole role = LinkRole::kOther;
  std::string authenticode_sha256;   // hexadecimal
  std::string signer;                // subject of the first signer; empty if unsigned
  std::vector<std::string> sbat;     // "shim,4": component and generation
  std::string verified_by;           // "firmware", or "shim" for what a shim judges
  bool allowed = false;              // always, when Secure Boot is off
  std::string authority;             // the entry that decided: "db: X.509 CN=..."
  std::vector<std::string> reasons;  // how it came to this
  std::vector<std::string> fixes;    // each of them would make it yes; empty when allowed
};

// Whether firmware with these keys starts the image.
enum class Bootable {
  kYes,
  kAsFarAsKnown,  // every program that could be read is allowed; `reasons` says what could not
  kNo,
};
std::string_view BootableName(Bootable bootable);  // "yes", "as_far_as_known", "no"

// XAPI's states of readiness for Secure Boot.
enum class SecureBootReadiness {
  kNotSupported,     // the image has nothing for UEFI to start
  kDisabled,         // the key set has Secure Boot off
  kFirstBoot,        // an instance whose variables are made when it first starts
  kReady,            // PK, KEK, db and dbx
  kReadyNoDbx,       // the same without dbx
  kSetupMode,        // no platform key: nothing is verified
  kCertsIncomplete,  // no KEK or no db
};
std::string_view ReadinessName(SecureBootReadiness readiness);  // "ready_no_dbx"
// Of a key set, for an image that UEFI can start.
SecureBootReadiness ReadinessOf(const firmware::KeySet& keys);

struct KeySetReport {
  std::string key_set;
  SecureBootReadiness readiness = SecureBootReadiness::kNotSupported;
  Bootable bootable = Bootable::kNo;
  std::vector<LinkReport> chain;     // in the order in which they start each other
  std::vector<std::string> reasons;  // for "no" and "as far as known"
  std::vector<std::string> fixes;
};

// The report for an image that has no boot chain for UEFI at all.
//   reason: what it lacks.
KeySetReport ReportWithoutChain(const firmware::KeySet& keys, std::string reason);

// One line: "bootable under key set microsoft: no, because ...".
std::string Summarize(const KeySetReport& report);

}  // namespace vallum::images

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/digest.h"
#include "measure/bank_hasher.h"
#include "measure/event_log.h"

namespace vallum::measure {

// Whether an event's digest is the digest of its data. A replay proves digests; only this proves
// what an event says.
enum class ContentCheck {
  kNotCovered,  // the digest is of something else (a program, a file): the data is a remark
  kMatches,
  kDiffers,  // the digest must be of the data and is not
};

// Whether the type's digest must be of its data: EV_SEPARATOR, EV_ACTION, EV_EFI_ACTION,
// EV_S_CRTM_VERSION, variables and GPT events (PC Client Platform Firmware Profile 1.06, section
// 10.4.1).
bool DigestCoversData(EventType type);

// Judges one event in the hasher's bank; kNotCovered when it has no digest there.
// EV_EFI_VARIABLE_BOOT may cover the variable's value alone (as EDK II measures it), GRUB's
// commands are covered without their prefix. Data of other types is kMatches if it happens to be
// what was hashed.
ContentCheck CheckContent(const EventLog& log, const LoggedEvent& event, BankHasher& hasher);

// The same of many events, quicker than one by one.
//   events: their numbers (checked).
//   Result: a verdict for each, in their order.
std::vector<ContentCheck> CheckContent(const EventLog& log, std::span<const size_t> events,
                                       BankHasher& hasher);

struct ContentMismatch {
  size_t event = 0;  // its number
  HashAlgorithm bank = HashAlgorithm::kSha256;
  bool operator==(const ContentMismatch&) const = default;
};

struct ContentReport {
  size_t checked = 0;  // digests that must be of their data, over all banks
  std::vector<ContentMismatch> mismatches;
};

// Judges every event of a type that DigestCoversData, and GRUB's commands, in each bank that Vallum
// computes.
ContentReport CheckContents(const EventLog& log);

// A mismatch in words, with the known firmware or loader that logs so, if it is one.
std::string DescribeMismatch(const EventLog& log, const ContentMismatch& mismatch);

}  // namespace vallum::measure

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/units.h"

namespace vallum::measure {

// One extend of the SHA-256 bank, with what its host knew of it.
struct BootEvent {
  PcrIndex pcr;
  Bytes digest;
  std::string what;  // in words: "file /vmlinuz"; empty when nobody knows
};

// A program on the instance's disk as the boot found it.
struct DiskProgram {
  std::string path;  // "EFI/BOOT/BOOTX64.EFI", "\vmlinuz"
  Bytes authenticode_sha256;
  std::string signer;            // for people
  bool signer_accepted = false;  // by the instance's key set, or by what that let start
};

// The extends of a boot that are its own: up to the firmware's word that the operating system has
// taken over (TCG PC Client Platform Firmware Profile, "Exit Boot Services Returned with Success").
// What comes later is of programs that the boot has already started.
// Returns how many of the first events these are; nothing when that word is missing: the boot is
// not over. Pure.
std::optional<size_t> CountBootEvents(std::span<const BootEvent> events);

enum class BootExtent { kWhole, kUnderWay };

struct BaselineInput {
  std::span<const BootEvent> baseline;  // of whole boots, in the order of the record
  std::span<const BootEvent> measured;
  std::span<const DiskProgram> programs;
  // PCR 0, 2, 3, 6 and 7 to compare as well: those without an exact prediction, on the platform
  // that the baseline was learned on.
  std::set<PcrIndex> platform_pcrs;
  // A program that was replaced by one whose signer is accepted is no divergence. Only when the
  // firmware verified signatures in this boot.
  bool accept_signed_updates = false;
  bool pinned = false;  // nothing is accepted
  BootExtent extent = BootExtent::kWhole;
  // Programs inside the firmware itself, which it starts when nothing else could be started: its
  // shell, its menu. A boot under way is not judged by them.
  std::set<Bytes> firmware_programs;
  // What a digest of that PCR is, by everything else that is known; empty text: not known.
  std::function<std::string(PcrIndex, const Bytes&)> describe;
};

struct BaselineDifference {
  PcrIndex pcr;
  size_t event = 0;  // which extend of that PCR since power-on, from 1
  Bytes expected;    // empty: nothing more was expected here
  Bytes measured;    // empty: it was not measured
  std::string expected_what;
  std::string measured_what;
  bool early = false;     // of the firmware and the loaders, not of the kernel and what follows it
  bool accepted = false;  // by policy or by rule
  std::string words;      // all of it in one line
};

// Whether a boot is what the instance is meant to boot; see docs/boot-verdict.md for the rules.
struct BaselineJudgement {
  std::vector<BaselineDifference> differences;  // in the order of the boot
  // The first that is not accepted; nullptr: the boot is as it is meant to be.
  const BaselineDifference* First() const;
};

// Compares a boot with its baseline, each of PCR 4, 5, 8, 9 and 11 to 14 in its own order: between
// PCRs the order is no one's promise. A boot option that failed changes nothing (PCR 4: the actions
// "Returning ..." and "Calling ..." one after the other), nor does a kernel that asked the firmware
// to leave with an old memory map and had to ask again (PCR 5). PCR 10 and PCR 1 are never
// compared. Of a boot that is not over all events are taken.
// Of a boot under way only that is a difference which nothing that follows can mend: within a PCR
// the order is fixed, so what differs or came too much is one, and what has not come yet is none.
// Not judged yet are a boot option that has just returned, a program of the firmware (whether the
// boot goes on past it decides), and a file whose program may still turn out to be an accepted
// update.
// Bounded: what differs by more than 1,024 extends of a PCR is compared place by place.
// Pure; thread-safe.
BaselineJudgement JudgeByBaseline(const BaselineInput& input);

}  // namespace vallum::measure

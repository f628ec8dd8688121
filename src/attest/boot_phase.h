// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "attest/pcrlock.h"
#include "base/bytes.h"
#include "base/digest.h"

// What systemd extends PCR 11 by after the firmware's log has ended, if systemd-stub started the
// kernel: the phases of the boot. No log of the firmware has them.
namespace vallum::attest {

inline constexpr uint32_t kBootPhasePcr = 11;

// The phases that lead from what the log replays to, to the PCR's value: "enter-initrd,
// leave-initrd, sysinit", from the first on, each once and in systemd's order; a host without an
// initrd begins at sysinit. Empty: none was reached yet. nullopt: the value is any other.
//   replayed, value: of the bank's size.
// Source: systemd-pcrphase.service(8): each word is measured without a closing zero.
std::optional<std::string> ReachedPhases(HashAlgorithm bank, const Bytes& replayed,
                                         const Bytes& value);

// Components without those whose every measurement into PCR 11 is a phase, such as
// 750-enter-initrd: how far the phases have come is judged by the PCR's value.
std::vector<ReferenceComponent> WithoutPhases(const std::vector<ReferenceComponent>& components,
                                              HashAlgorithm bank);

}  // namespace vallum::attest

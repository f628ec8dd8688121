// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "attest/reason.h"
#include "base/clock.h"
#include "base/result.h"

// OpenAttestation's questions after hosts, and its answers: docs/attestation-clients.md.
namespace vallum::attest {

inline constexpr size_t kMaxPolledHosts = 10000;
inline constexpr size_t kMaxPolledName = 255;

// What is told of one host.
struct OatHost {
  std::string name;
  HostVerdictKind kind = HostVerdictKind::kUnknown;
  std::optional<WallTime> verified = std::nullopt;  // nothing: never
};

// "trusted", "untrusted" or "unknown". A verdict that is too old says nothing of the host now, and
// the protocol has no word for it: it is unknown.
std::string_view OatTrustLevel(HostVerdictKind kind);

// "2016-01-14T12:20:50.679+0000".
std::string FormatOatTime(WallTime time);

// Reads the names out of {"hosts": ["a", "b"]} or {"hosts": "a"}; other members are not looked at.
//   body: untrusted.
// Errors: kInvalidInput (not JSON, no hosts, a name that is no text, is empty or is too long);
// kExhausted (above kMaxPolledHosts).
// Source: OpenAttestation 1.x, PollHosts. Pure; thread-safe.
Result<std::vector<std::string>> ParsePollHosts(std::string_view body);

// {"hosts": [{"host_name", "trust_lvl", "vtime"}]}, in the order given. Clients read vtime as a
// time: of a host that was never verified it is 1970, which no cache takes for fresh.
std::string FormatPollHosts(std::span<const OatHost> hosts);

// {"hostname", "trust": {"bios", "vmm", "location"}}. Firmware and system are judged together;
// where a host stands is nothing that its TPM could say, so location is always false.
std::string FormatOatHostTrust(const OatHost& host);

}  // namespace vallum::attest

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "controller/software_host.h"
#include "fleet_board.h"

namespace vallum::bench {

// A host that has joined: its certificate, its key, and its TPM in software.
struct FleetSeed {
  std::string name;
  std::string key_pem;
  std::string certificate_pem;
  controller::SoftwareHost tpm;
};

// Where hosts dial.
struct FleetTarget {
  std::string endpoint;
  std::string ca_pem;
};

// Is these hosts until the process is killed: each with the channel, the session, the heartbeats
// and the pauses between attempts of a real agent. Dials from when the board says so, spread over
// `spread_ms`. Uses gRPC, so that the calling process must not fork any more.
[[noreturn]] void RunFleet(std::vector<FleetSeed> seeds, const FleetTarget& target,
                           FleetBoard& board, int spread_ms);

}  // namespace vallum::bench

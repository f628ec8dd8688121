// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

#include "fleet_hosts.h"

namespace vallum::bench {

// What nobody who verifies a fleet can do without, by OpenSSL alone, in milliseconds of one core.
struct FleetReference {
  double verify_ms = 0;     // one signature of a quote, EC P-256 with SHA-256
  double sign_ms = 0;       // one lease, likewise
  double handshake_ms = 0;  // the server's part of TLS 1.3 with certificates on both sides
};

// Takes about a second. The state directory's CA certifies the server.
FleetReference MeasureReference(const std::filesystem::path& state_dir, const FleetSeed& seed);

}  // namespace vallum::bench

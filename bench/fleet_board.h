// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

namespace vallum::bench {

// What the processes of a fleet and the benchmark tell each other, in memory that they share.
struct FleetBoard {
  std::atomic<bool> go{false};
  std::atomic<int64_t> sessions{0};    // welcomed and open
  std::atomic<int64_t> dials_lost{0};  // sessions that ended before their welcome
  std::atomic<int64_t> answers{0};     // evidence that the controller took
  std::atomic<int64_t> answers_lost{0};
  // A lease counts for the round if it was issued after this time, by this policy version or a
  // later.
  std::atomic<int64_t> round_begin_ns{0};
  std::atomic<int32_t> round_version{1};
  std::atomic<uint32_t> round{1};
  std::atomic<int64_t> leased{0};  // hosts that hold a lease of the round

  // Leases that are on their way from an earlier round do not count.
  void BeginRound(int64_t now_ns, int32_t version) {
    round_begin_ns = now_ns;
    round_version = version;
    leased = 0;
    ++round;
  }
};

}  // namespace vallum::bench

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

namespace vallum::controller {

// Counted by the controller's parts, exported by the REST layer. Counters only grow; gauges are
// set.
struct Metrics {
  std::atomic<uint64_t> placements_total{0};
  std::atomic<uint64_t> placement_refusals_total{0};
  std::atomic<uint64_t> claim_conflicts_total{0};
  std::atomic<uint64_t> reconciles_total{0};
  std::atomic<uint64_t> reconcile_errors_total{0};
  std::atomic<uint64_t> agent_reports_total{0};
  std::atomic<uint64_t> enrolments_total{0};
  std::atomic<uint64_t> enrolments_refused_total{0};
  std::atomic<uint64_t> blob_bytes_sent_total{0};
  std::atomic<uint64_t> authentication_failures_total{0};
  std::atomic<uint64_t> evidence_requests_total{0};
  std::atomic<uint64_t> evidence_missing_total{0};
  std::atomic<uint64_t> attestations_total{0};
  std::atomic<int64_t> agent_sessions{0};
  std::atomic<int64_t> consoles{0};
  std::atomic<int64_t> reconcile_queue{0};
};

}  // namespace vallum::controller

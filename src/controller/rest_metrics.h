// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "controller/metrics.h"
#include "controller/view.h"
#include "http/server.h"

namespace vallum::controller {

// Counts requests and writes everything that is counted in Prometheus' text format. Thread-safe.
class RestMetrics {
 public:
  RestMetrics();
  ~RestMetrics();
  RestMetrics(const RestMetrics&) = delete;
  RestMetrics& operator=(const RestMetrics&) = delete;

  void Count(const http::AccessRecord& record);
  // The text of /metrics: requests, the controller's counters, resources by state, connections.
  std::string Render(const Metrics& metrics, const View& view,
                     const http::ServerCounters& counters) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vallum::controller

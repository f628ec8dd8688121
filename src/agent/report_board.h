// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// The latest report of each instance, and which of them the controller has not been told yet. Holds
// one report per instance however long the controller is away. Thread-safe.
class ReportBoard {
 public:
  // Replaces the instance's report; a report that equals the last one is not sent again.
  void Put(v1::InstanceReport report);

  // Every report, for Hello; nothing is pending afterwards. Reports of instances that are gone are
  // included once.
  std::vector<v1::InstanceReport> TakeAll();

  // Waits for a report that has not been sent, until the deadline, Wake() or Close().
  std::optional<v1::InstanceReport> TakeNext(std::chrono::steady_clock::time_point deadline);

  // Ends one wait early, the current one or the next.
  void Wake();

 private:
  // By value: the caller may name the element of pending_ that is erased.
  v1::InstanceReport TakeLocked(std::string uid);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, v1::InstanceReport> reports_;
  std::set<std::string> pending_;
  bool woken_ = false;
};

}  // namespace vallum::agent

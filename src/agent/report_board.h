// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// The latest report of each instance and the evidence of its boot, and which of them the controller
// has not been told yet. Holds one of each per instance however long the controller is away.
// Thread-safe.
class ReportBoard {
 public:
  // Replaces the instance's report; a report that equals the last one is not sent again.
  void Put(v1::InstanceReport report);

  // Replaces what is known of the instance's current boot; the same again is not sent again.
  void PutEvidence(const std::string& uid, v1::BootEvidence evidence);

  // Every report, for Hello; no report is pending afterwards, but all evidence is. Reports of
  // instances that are gone are included once.
  std::vector<v1::InstanceReport> TakeAll();

  // Waits for a report or for evidence that has not been sent, until the deadline or Wake(). Of one
  // instance there is evidence once in kEvidenceInterval at most.
  std::optional<v1::AgentMessage> TakeNext(std::chrono::steady_clock::time_point deadline);
  static constexpr std::chrono::seconds kEvidenceInterval{1};

  // Tells the controller that an instance waits for a live lease; the latest reason alone.
  void WantLease(const std::string& reason);

  // Ends one wait early, the current one or the next.
  void Wake();

 private:
  // By value: the caller may name the element of pending_ that is erased.
  v1::InstanceReport TakeLocked(std::string uid);

  struct Evidence {
    v1::BootEvidence latest;
    bool pending = true;
    std::chrono::steady_clock::time_point due;  // not before
  };
  // The pending one that is due first, or nullptr.
  std::pair<const std::string, Evidence>* FirstPending();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, v1::InstanceReport> reports_;
  std::set<std::string> pending_;
  std::map<std::string, Evidence> evidence_;
  std::optional<std::string> lease_wanted_;
  bool woken_ = false;
};

}  // namespace vallum::agent

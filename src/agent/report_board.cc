// SPDX-License-Identifier: Apache-2.0
#include "agent/report_board.h"

#include <utility>

#include "agent/messages.h"

namespace vallum::agent {

void ReportBoard::Put(v1::InstanceReport report) {
  const std::lock_guard lock(mutex_);
  const std::string uid = report.uid();
  const auto found = reports_.find(uid);
  if (found != reports_.end() && SameMessage(found->second, report)) {
    return;
  }
  reports_.insert_or_assign(uid, std::move(report));
  pending_.insert(uid);
  changed_.notify_all();
}

v1::InstanceReport ReportBoard::TakeLocked(std::string uid) {
  pending_.erase(uid);
  const auto found = reports_.find(uid);
  v1::InstanceReport report = found->second;
  if (report.gone()) {
    // Nothing is left to remember: if the word gets lost, the controller asks again for the removal
    // and gets the same answer.
    reports_.erase(found);
  }
  return report;
}

std::vector<v1::InstanceReport> ReportBoard::TakeAll() {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> uids;
  uids.reserve(reports_.size());
  for (const auto& [uid, report] : reports_) {
    uids.push_back(uid);
  }
  std::vector<v1::InstanceReport> all;
  all.reserve(uids.size());
  for (const std::string& uid : uids) {
    all.push_back(TakeLocked(uid));
  }
  return all;
}

std::optional<v1::InstanceReport> ReportBoard::TakeNext(
    std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline, [this] { return woken_ || !pending_.empty(); });
  if (std::exchange(woken_, false) || pending_.empty()) {
    return std::nullopt;
  }
  return TakeLocked(*pending_.begin());
}

void ReportBoard::Wake() {
  const std::lock_guard lock(mutex_);
  woken_ = true;
  changed_.notify_all();
}

}  // namespace vallum::agent

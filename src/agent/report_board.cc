// SPDX-License-Identifier: Apache-2.0
#include "agent/report_board.h"

#include <algorithm>
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

void ReportBoard::PutEvidence(const std::string& uid, v1::BootEvidence evidence) {
  const std::lock_guard lock(mutex_);
  const auto [entry, added] = evidence_.try_emplace(uid);
  if (!added && SameMessage(entry->second.latest, evidence)) {
    return;
  }
  entry->second.latest = std::move(evidence);
  entry->second.pending = true;
  changed_.notify_all();
}

std::pair<const std::string, ReportBoard::Evidence>* ReportBoard::FirstPending() {
  std::pair<const std::string, Evidence>* first = nullptr;
  for (auto& entry : evidence_) {
    if (entry.second.pending && (first == nullptr || entry.second.due < first->second.due)) {
      first = &entry;
    }
  }
  return first;
}

v1::InstanceReport ReportBoard::TakeLocked(std::string uid) {
  pending_.erase(uid);
  const auto found = reports_.find(uid);
  v1::InstanceReport report = found->second;
  if (report.gone()) {
    // Nothing is left to remember: if the word gets lost, the controller asks again for the removal
    // and gets the same answer.
    reports_.erase(found);
    evidence_.erase(uid);
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
  for (auto& [uid, evidence] : evidence_) {
    evidence.pending = true;
  }
  return all;
}

std::optional<v1::AgentMessage> ReportBoard::TakeNext(
    std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  v1::AgentMessage message;
  while (!std::exchange(woken_, false)) {
    const auto now = std::chrono::steady_clock::now();
    auto* const evidence = FirstPending();
    if (lease_wanted_) {
      message.mutable_lease_wanted()->set_reason(*std::exchange(lease_wanted_, std::nullopt));
      return message;
    }
    if (!pending_.empty()) {
      *message.mutable_report() = TakeLocked(*pending_.begin());
      return message;
    }
    if (evidence != nullptr && evidence->second.due <= now) {
      evidence->second.pending = false;
      evidence->second.due = now + kEvidenceInterval;
      message.mutable_evidence()->set_uid(evidence->first);
      *message.mutable_evidence()->mutable_evidence() = evidence->second.latest;
      return message;
    }
    if (now >= deadline) {
      break;
    }
    changed_.wait_until(lock,
                        evidence == nullptr ? deadline : std::min(deadline, evidence->second.due));
  }
  return std::nullopt;
}

void ReportBoard::WantLease(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  lease_wanted_ = reason;
  changed_.notify_all();
}

void ReportBoard::Wake() {
  const std::lock_guard lock(mutex_);
  woken_ = true;
  changed_.notify_all();
}

}  // namespace vallum::agent

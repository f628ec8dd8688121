// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "controller/reconciler.h"
#include "controller/rollouts.h"

// The inside of reconciler*.cc; nobody else includes it.
namespace vallum::controller {

// Whether instances have to leave a host with this trust now.
//   silent_for: how long it has left requests for evidence without an answer; nothing: it has not.
//     A host that is STALE because nobody asked it is not to blame.
bool MustLeave(const v1::PoolSpec& pool, const v1::HostTrust& trust, WallTime now,
               std::optional<std::chrono::nanoseconds> silent_for);

class Reconciler::Impl {
 public:
  Impl(const Options& options, const Parts& parts);
  ~Impl();

  Result<void> Start(Gateway& gateway);
  void Stop();

  // What is to be looked at; written by any thread, taken by the worker.
  struct Notes {
    std::map<std::string, v1::Hello> hellos;                                    // by host
    std::map<std::pair<std::string, std::string>, v1::InstanceReport> reports;  // host, uid: latest
    std::map<std::pair<std::string, std::string>, v1::BootEvidenceReport> evidence;  // as reports
    std::map<std::string, v1::HostCapabilities> capabilities;
    std::map<std::string, int64_t> heartbeats;  // disk_free_bytes
    std::set<std::string> instances;
    std::set<std::string> hosts;
    std::set<std::string> pools;               // whose policy may be another one
    std::set<std::string> rejudge;             // instances whose baseline may be another one
    std::vector<std::promise<void>> rejudged;  // told when that is done
    std::set<std::string> gone;                // uids of instances that were deleted
    bool rollouts = false;                     // one of them changed
    bool tick = false;
    bool empty() const {
      return hellos.empty() && reports.empty() && capabilities.empty() && heartbeats.empty() &&
             instances.empty() && hosts.empty() && evidence.empty() && pools.empty() &&
             rejudge.empty() && gone.empty() && !rollouts && !tick;
    }
  };
  // Whether there is, or before the start may be, an instance with this uid. mutex_ is held.
  bool Knows(const std::string& uid) const { return !uids_known_ || name_of_uid_.contains(uid); }
  // Changes the notes and wakes the worker.
  template <typename F>
  void Note(F change) {
    {
      const std::lock_guard lock(mutex_);
      change(notes_);
    }
    wake_.notify_one();
  }

 private:
  using Write = ResourceStore::Change;
  struct Seen {
    MonotonicTime last;
    bool greeted = false;
    std::string boot_id;  // by its last Hello
  };

  void Run();
  void OnChange(const Change& change);
  void Work(Notes notes);
  // Counts and reports a failure; true if the step should be tried again.
  bool Failed(const Result<void>& result);
  void Tell(std::string_view kind, std::string_view severity, const std::string& object,
            const std::string& message, const std::string& tenant = {});

  // reconciler_hosts.cc
  Result<void> Greet(const std::string& host, const v1::Hello& hello);
  Result<void> StoreCapabilities(const std::string& host, const v1::HostCapabilities& capabilities);
  Result<void> StoreHeartbeat(const std::string& host, int64_t disk_free_bytes);
  Result<void> ReconcileHost(const std::string& name);
  Result<void> SetHostState(const v1::Host& host, v1::HostState state, const std::string& reason);
  Result<void> MarkUnknown(const v1::Host& host);
  Result<void> SettleUnreported(const std::string& host, const v1::Hello& hello);
  void Saw(const std::string& host);
  // Since when there is no word of a host that has not said Hello since the start.
  MonotonicTime AwaitedSince() const;
  void CheckClock();
  void KeepHouse();

  // reconciler_instances.cc
  Result<void> ReconcileInstance(const std::string& name);
  Result<void> Place(const v1::Instance& instance);
  Result<void> Refused(const v1::Instance& instance, const Error& error);
  Result<void> ApplyReport(const std::string& host, const v1::InstanceReport& report);
  Result<void> ApplyGone(const v1::Instance& instance, const v1::InstanceReport& report);
  Result<void> Unhost(const v1::Instance& instance);
  void TellTransition(const v1::Instance& before, const v1::Instance& after);
  Result<void> CloseOperations(const v1::Instance& instance);
  Result<void> CloseOrphans(const std::string& name, const std::string& uid);
  Result<void> CloseOperation(const v1::Instance& instance, const v1::Operation& operation);
  v1::DesiredInstance Desired(const v1::Instance& instance) const;
  std::shared_ptr<const v1::Instance> FindByUid(const std::string& uid);

  // reconciler_boots.cc
  void WorkOnBoots(Notes& notes);
  void JudgeBoot(v1::Instance& instance);
  Result<void> ApplyEvidence(const std::string& host, const v1::BootEvidenceReport& report);
  Result<void> Rejudge(const std::string& name);
  void RejudgePool(const std::string& pool);
  Result<void> StopDiverged(const std::string& name);
  bool MustStop(const v1::Instance& instance) const;
  void TellVerdict(const v1::Instance& before, const v1::Instance& after);
  Result<void> SweepEvidence();

  // reconciler_trust.cc
  struct Standing {
    v1::HostState state = v1::HOST_JOINING;
    std::string reason;
  };
  // What a connected host is, by its pool and its trust.
  Standing StandingOf(const v1::Host& host) const;
  bool NeedsLease(const v1::Instance& instance) const;
  // Has instances leave a host that lost its trust, as its pool says.
  using Hosts = std::vector<std::shared_ptr<const v1::Host>>;
  Result<void> SettleTrust(const Hosts& hosts);
  // reconciler_move.cc
  bool MovesFrom(const v1::Instance& instance, const v1::Host& host) const;
  bool IsLeft(const v1::PoolSpec& pool, const v1::Host& host) const;  // MustLeave, now
  // Takes the next step of a move, if the instance is to leave its host by one. False: it is not.
  Result<bool> MoveAway(const v1::Instance& instance);
  Result<void> TakeForMove(const v1::Instance& instance, const std::string& name);
  Result<void> PlaceAnew(const v1::Instance& instance, const v1::Snapshot& snapshot);
  Result<void> SayStuck(const v1::Instance& instance, const v1::Host& host, const std::string& why);
  Result<void> NextOfMove(const v1::Instance& instance, const v1::Host& host);
  bool HasElsewhere(const v1::Host& left) const;
  Result<void> Revive(const v1::Instance& instance);
  // A host that the instance was moved from has removed its copy, or is gone.
  Result<void> NoteRemoved(const v1::Instance& instance, const std::string& host);
  Result<void> RemoveLeftBehind(const v1::Instance& instance);

  Result<void> StopForTrust(const std::string& name, const v1::Host& host);
  void ReconcilePool(const std::string& pool);
  // What an agent reports of an instance that was stopped for its host's trust does not say why.
  static void KeepTrustReason(const v1::Instance& before, v1::Instance& after);

  // reconciler_rollouts.cc
  void ReconcileRollouts();
  Result<void> ReconcileRollout(const v1::Rollout& rollout);
  Result<void> ApplyKeySet(const KeySetChange& change);
  void TellRollout(const v1::Rollout& before, const v1::Rollout& after);

  const Options options_;
  Parts parts_;
  Scheduler scheduler_;
  Gateway* gateway_ = nullptr;
  View::SubscriptionId subscription_ = 0;
  std::thread thread_;

  std::mutex mutex_;  // guards the members up to the next comment
  std::condition_variable wake_;
  Notes notes_;
  std::map<std::string, std::string> name_of_uid_;
  bool uids_known_ = false;  // agents can connect before the start
  bool stopping_ = false;

  // Of the worker alone.
  MonotonicTime started_;
  // When the notes that are worked on were taken: what an agent said after that is not known yet,
  // however long the work takes.
  MonotonicTime taken_;
  MonotonicTime last_return_;  // when a host said Hello for the first time since the start
  MonotonicTime last_housekeeping_;
  std::map<std::string, Seen> seen_;
  std::set<std::string> pending_;  // instances that no host could take
  std::set<std::string> retry_instances_;
  std::set<std::string> retry_hosts_;
  std::map<std::pair<std::string, std::string>, v1::InstanceReport> retry_reports_;  // as Notes
  std::map<std::pair<std::string, std::string>, v1::BootEvidenceReport> retry_evidence_;
  std::set<std::string> retry_rejudge_;
};

// True when the instance's disk and state once were on its host and are no longer.
bool IsLost(const v1::Instance& instance);

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "agent/boot_monitor.h"
#include "agent/capabilities.h"
#include "agent/config.h"
#include "agent/image_cache.h"
#include "agent/instance_files.h"
#include "agent/launch_plan.h"
#include "agent/lease_keeper.h"
#include "agent/quote_desk.h"
#include "agent/reconcile.h"
#include "agent/report_board.h"
#include "agent/serial_hub.h"
#include "agent/snapshot_taker.h"
#include "agent/user_allocator.h"
#include "agent/vtpm_keeper.h"
#include "base/clock.h"
#include "images/confined_inspector.h"
#include "vm/instance_runner.h"

namespace vallum::agent {

// What all instances of a host share; everything outlives the workers.
struct InstanceServices {
  const AgentConfig& config;
  const HostFacts& facts;
  ImageCache& images;
  UserAllocator* users;  // nullptr: the agent is not root, instances run as its own user
  ReportBoard& board;
  const Clock& clock;
  const ChannelSlot& channel;  // to the controller
  const images::ConfinedInspector& inspector;
  const SnapshotTaker& snapshots;
  const LeaseKeeper& leases;
};

// Makes one instance what it shall be, step by step, and reports what it is. Owns the thread that
// does it; destroying it leaves the guest running. Public methods return at once and may be called
// from any thread.
class InstanceWorker {
 public:
  // Adopts what runs of the instance.
  //   stored: what an earlier agent left, or nothing for a new instance.
  InstanceWorker(std::string uid, StoredInstance stored, const InstanceServices& services);
  ~InstanceWorker();
  InstanceWorker(const InstanceWorker&) = delete;
  InstanceWorker& operator=(const InstanceWorker&) = delete;

  void SetDesired(const v1::DesiredInstance& desired);
  // Has a snapshot taken and sent before anything else is done with the instance.
  void TakeSnapshot(const v1::TakeSnapshot& request);
  // Looks again whether it may begin to run.
  void LeaseChanged();
  // The serial line of the running guest; empty when none runs.
  std::shared_ptr<SerialHub> serial() const;
  // The vTPM of the running guest. Errors: kConflict (none runs, or it has no vTPM).
  Result<RunningVtpm> vtpm() const;
  // Waits until it is known what runs of the instance; false when that takes longer.
  bool WaitUntilAdopted(std::chrono::steady_clock::time_point deadline);
  // True once every trace is removed.
  bool gone() const { return gone_; }

 private:
  using Change = std::function<void(v1::InstanceStatus&)>;
  enum class Durability { kReportOnly, kStored };

  void Run(const std::stop_token& stop);
  void AdoptRunning();
  Result<vm::VmSpec> SpecOfRunning(const v1::DesiredInstance& desired,
                                   const v1::BootEffective& effective);
  // Takes the guest over, or accounts for its end. After an error it is not known which.
  Result<void> TryAdopt(const v1::DesiredInstance& desired, const v1::InstanceStatus& before);
  void AdoptLater(const Error& error);
  // Ends by force what could not be adopted; false when that failed too.
  bool EndUnadopted(const v1::DesiredInstance& desired);
  // Does one step; false when there was nothing to do.
  bool Advance(const std::stop_token& stop);
  void DoStep(Step step, const v1::DesiredInstance& desired, const std::stop_token& stop);
  // A guest that was reset ran already, and goes on.
  enum class Beginning { kStart, kAfterReset };
  Result<void> Start(const v1::DesiredInstance& desired, Beginning beginning,
                     const std::stop_token& stop);
  Result<LaunchFiles> FetchImage(const v1::DesiredInstance& desired, const std::stop_token& stop);
  Result<std::optional<vm::RunAs>> User(const v1::BootEffective& effective);
  void StartFailed(const v1::DesiredInstance& desired, const Error& error);
  //   forecast: of the first boot; invalid when the guest runs already.
  void Attach(std::unique_ptr<vm::InstanceRunner> runner, const v1::DesiredInstance& desired,
              std::future<BootForecast> forecast);
  ForecastSource MakeForecastSource(const v1::DesiredInstance& desired,
                                    const std::string& image_path) const;
  void Publish(const v1::BootMeasured& measured);
  // Ends the guest by force and starts it again, with what it shall have from now on.
  void Restart(const v1::DesiredInstance& desired, const std::stop_token& stop);
  // Whether a boot that begins now needs other keys than the guest was started with.
  // What DecideStep says, or the step that a lease was refused for once there is one.
  Step NextStep(const v1::DesiredInstance& desired) const;
  // Whether the step may be done now as far as trust of the host is concerned. False: the guest
  // would begin to run, and there is no live lease; this waits for one, then refuses in words.
  bool LeaseAllows(Step step, const v1::DesiredInstance& desired);
  // Errors: kDenied (none is live).
  Result<void> CheckLease(const v1::DesiredInstance& desired, Beginning beginning) const;
  void NoteLeaseRefusal(std::optional<int64_t> generation);
  void RefuseForLease(Step step, const v1::DesiredInstance& desired, const Error& error);
  bool NeedsNewVariables(const v1::DesiredInstance& desired) const;
  Result<void> SetIsolation(const v1::DesiredInstance& desired);
  void Detach();
  void KeepVtpm(const vm::VmSpec& spec);
  void Stop(const v1::DesiredInstance& desired, Step step, const std::stop_token& stop);
  enum class EndedBy { kItself, kHostRestart };
  void Ended(const vm::ExitReport& exit, EndedBy by = EndedBy::kItself);
  void Remove(const v1::DesiredInstance& desired);
  void Settle(const v1::DesiredInstance& desired);
  void HandleEvent(const vm::InstanceEvent& event);
  void TakeEvents();
  // True when one was asked for, whatever became of it.
  bool DoSnapshot(const std::stop_token& stop);
  Result<void> SendSnapshot(const v1::TakeSnapshot& request, const std::stop_token& stop);
  Presence CurrentPresence() const;
  // Says what failed and tries again later.
  void SetRetry(const Error& error);
  vm::EventCallback MakeCallback();
  void Wait(const std::stop_token& stop);
  void Update(Durability durability, const Change& change);
  v1::InstanceStatus status() const;
  std::optional<v1::DesiredInstance> desired() const;
  // Waits for the guest to follow its power button; ends it by force if that is what is wanted
  // meanwhile, and leaves it when this worker is to stop.
  Result<vm::ExitReport> StopInterruptibly(std::chrono::milliseconds grace,
                                           const std::stop_token& stop);

  const std::string uid_;
  const InstanceServices services_;
  const InstancePaths paths_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<v1::DesiredInstance> desired_;  // guarded by mutex_, as the next seven
  v1::InstanceStatus status_;
  std::deque<vm::InstanceEvent> events_;
  std::optional<v1::TakeSnapshot> snapshot_;  // asked for, or under way
  std::shared_ptr<SerialHub> serial_;
  std::string vtpm_socket_;  // empty: no guest with a vTPM runs
  bool dirty_ = true;
  bool adopted_ = false;
  bool desired_is_stored_ = false;
  std::mutex report_mutex_;  // keeps stored and reported status in the order of the changes

  // The worker's thread only.
  std::unique_ptr<vm::InstanceRunner> runner_;
  std::unique_ptr<BootMonitor> monitor_;
  std::unique_ptr<VtpmKeeper> keeper_;
  std::chrono::steady_clock::time_point retry_at_ = std::chrono::steady_clock::time_point::max();
  int failures_ = 0;
  std::optional<bool> isolated_;  // what the network links were last set to; empty: not known
  bool restart_ = false;          // the guest was reset, and its new boot needs other keys
  bool adopt_again_ = false;      // something may run that could not be taken over yet
  std::optional<std::chrono::steady_clock::time_point> lease_deadline_;  // of waiting for a lease
  // Generation for which a start or resume was refused for want of a lease, also by an earlier
  // agent: done as soon as there is one.
  std::optional<int64_t> refused_generation_;
  std::string damage_;  // of the state files, kept from the start

  std::atomic<bool> gone_ = false;
  std::jthread thread_;
};

}  // namespace vallum::agent

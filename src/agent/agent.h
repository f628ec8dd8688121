// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "agent/capabilities.h"
#include "agent/config.h"
#include "agent/console_relay.h"
#include "agent/evidence_desk.h"
#include "agent/gateway.h"
#include "agent/identity.h"
#include "agent/image_cache.h"
#include "agent/instance_manager.h"
#include "agent/lease_keeper.h"
#include "agent/quote_desk.h"
#include "agent/report_board.h"
#include "agent/session.h"
#include "agent/snapshot_taker.h"
#include "agent/trust_link.h"
#include "agent/user_allocator.h"
#include "base/clock.h"
#include "base/result.h"
#include "images/confined_inspector.h"
#include "store/blob_store.h"
#include "store/file.h"

namespace vallum::agent {

enum class LogLevel { kInfo, kWarning, kError };
// Where the daemon's log lines go. Thread-safe.
using LogSink = std::function<void(LogLevel, const std::string&)>;

// One host's agent: opens its state, adopts what runs, and serves its controller until stopped.
class Agent final : public SessionHandler {
 public:
  // Takes the state directory, joins if that is still to be done, and adopts running instances.
  //   clock: outlives the agent.
  // Errors: kConflict (another agent has the state directory), kNotFound (not joined, and no join
  // token), kDenied (certificate expired), kCorrupt, those of Enrol, ProbeFacts and the file
  // system.
  static Result<std::unique_ptr<Agent>> Open(const AgentConfig& config, const Clock& clock,
                                             LogSink log);
  ~Agent() override;
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  // Serves until Stop(). Guests keep running afterwards.
  void Run();
  // May be called from any thread.
  void Stop();

 private:
  Agent(AgentConfig config, const Clock& clock, LogSink log);
  Result<void> OpenState();
  Result<void> Join();
  Result<void> StartServices();
  Result<void> OpenLeases();
  void StartEvidence();
  IdentityHealth Health() const;
  // Looks at the certificate at each session's start and twice a day, on a thread of its own.
  void KeepRenewed(const std::stop_token& stop);
  void RenewIfDue();

  v1::HostCapabilities Capabilities() override;
  v1::Heartbeat MakeHeartbeat() override;
  void OnDesiredState(const v1::DesiredState& desired) override;
  void OnDesiredInstance(const v1::DesiredInstance& desired) override;
  void OnOpenConsole(const v1::OpenConsole& request) override;
  void OnMakeQuote(const v1::MakeQuote& request) override;
  void OnTakeSnapshot(const v1::TakeSnapshot& request) override;
  void OnRequestEvidence(const v1::RequestEvidence& request) override;
  void OnTrust(const v1::TrustNotice& notice) override;
  void OnConnected(const v1::Welcome& welcome) override;
  void OnDisconnected(const Error& reason) override;

  const AgentConfig config_;
  const Clock& clock_;
  const LogSink log_;
  std::unique_ptr<store::FileLock> lock_;
  mutable std::mutex identity_mutex_;
  Identity identity_;  // written by Join, then only by the renewer, with identity_mutex_ held
  std::unique_ptr<ChannelSlot> channel_;
  HostFacts facts_;
  ReportBoard board_;
  std::unique_ptr<store::BlobStore> blobs_;
  std::unique_ptr<UserAllocator> users_;
  std::unique_ptr<ImageCache> images_;
  std::optional<images::ConfinedInspector> inspector_;  // of the disks of instances
  std::unique_ptr<SnapshotTaker> snapshots_;
  std::unique_ptr<LeaseKeeper> leases_;
  std::unique_ptr<InstanceManager> instances_;
  std::unique_ptr<ConsoleRelay> consoles_;
  std::unique_ptr<QuoteDesk> quotes_;
  std::unique_ptr<GatewayTrustLink> trust_link_;
  std::unique_ptr<EvidenceDesk> evidence_;
  std::unique_ptr<Session> session_;
  std::mutex renewal_mutex_;
  std::condition_variable_any renewal_wanted_;
  bool check_renewal_ = false;  // guarded by renewal_mutex_
  std::jthread renewer_;        // last: it uses all of the above
};

}  // namespace vallum::agent

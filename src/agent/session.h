// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "agent/gateway.h"
#include "agent/report_board.h"
#include "base/result.h"
#include "vallum/v1/agent.grpc.pb.h"

namespace vallum::agent {

// What a session asks of the rest of the agent. Called on the session's threads; must not block.
class SessionHandler {
 public:
  virtual ~SessionHandler() = default;
  virtual v1::HostCapabilities Capabilities() = 0;
  virtual v1::Heartbeat MakeHeartbeat() = 0;
  // Everything this host shall have.
  virtual void OnDesiredState(const v1::DesiredState& desired) = 0;
  virtual void OnDesiredInstance(const v1::DesiredInstance& desired) = 0;
  virtual void OnOpenConsole(const v1::OpenConsole& request) = 0;
  virtual void OnMakeQuote(const v1::MakeQuote& request) = 0;
  virtual void OnTakeSnapshot(const v1::TakeSnapshot& request) = 0;
  virtual void OnRequestEvidence(const v1::RequestEvidence& request) = 0;
  virtual void OnTrust(const v1::TrustNotice& notice) = 0;
  // The stream stands, or ended for this reason; for the log.
  virtual void OnConnected(const v1::Welcome& welcome) = 0;
  virtual void OnDisconnected(const Error& reason) = 0;
};

// The agent's stream to its controller: dials, says Hello with all that is known, then sends each
// change and a heartbeat, and hands on what the controller asks for. Dials again, with growing
// jittered pauses, for as long as it runs; while the controller is away only the latest report of
// each instance is kept. Run() is called by one thread, Stop() by any.
class Session {
 public:
  // All references must outlive the session.
  Session(const ChannelSlot& channel, ReportBoard& board, SessionHandler& handler);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Returns after Stop().
  void Run();
  void Stop();
  // Sends the host's capabilities again.
  void CapabilitiesChanged();

 private:
  struct Attempt;
  // One stream from dial to end. Returns whether the controller welcomed us, and why it ended.
  bool RunStream(Error& reason);
  void ReadLoop(Attempt& attempt);
  void HandleMessage(Attempt& attempt, const v1::ControllerMessage& message);
  void WriteLoop(Attempt& attempt);
  void Pause(int failures);

  const ChannelSlot& channel_;
  ReportBoard& board_;
  SessionHandler& handler_;
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;                       // guarded by mutex_
  grpc::ClientContext* current_ = nullptr;  // guarded by mutex_
  std::atomic<bool> capabilities_changed_ = false;
};

// What the agent calls itself in Hello.
std::string AgentVersion();

}  // namespace vallum::agent

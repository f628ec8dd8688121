// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "controller/console_hub.h"
#include "controller/event_log.h"
#include "controller/metrics.h"
#include "controller/resource_store.h"
#include "controller/snapshot_receiver.h"
#include "controller/tokens.h"
#include "controller/trust_receiver.h"
#include "controller/view.h"
#include "store/blob_store.h"
#include "tls/authority.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::controller {

// What the gateway tells the reconciler. Called on gRPC's threads: must not block.
class AgentListener {
 public:
  virtual ~AgentListener() = default;
  // The agent said Hello; desired state is expected by Gateway::SendDesired.
  virtual void OnHello(const std::string& host, v1::Hello hello) = 0;
  virtual void OnReport(const std::string& host, v1::InstanceReport report) = 0;
  virtual void OnEvidence(const std::string& host, v1::BootEvidenceReport report) = 0;
  virtual void OnHeartbeat(const std::string& host, const v1::Heartbeat& heartbeat) = 0;
  virtual void OnCapabilities(const std::string& host, v1::HostCapabilities capabilities) = 0;
  virtual void OnGone(const std::string& host) = 0;  // the session ended
};

// Serves AgentGateway: enrolment, one session a host, image content, consoles. Thread-safe; owns
// the gRPC server and its threads.
class Gateway {
 public:
  struct Options {
    std::string listen = "0.0.0.0:7444";  // port 0: any
    tls::ServerNames names;
    std::chrono::seconds heartbeat{10};
    std::chrono::seconds console_timeout{10};  // for an agent to open a console
    std::chrono::seconds quote_timeout{10};    // for an agent to answer with a quote
  };
  struct Parts {
    ResourceStore& resources;
    const View& view;
    Tokens& tokens;
    EventLog& events;
    store::BlobStore& blobs;
    tls::CertificateAuthority& authority;
    AgentListener& listener;
    SnapshotReceiver& snapshots;
    TrustReceiver& trust;
    Metrics& metrics;
    const Clock& clock;
  };
  // Starts to listen. Errors: kUnavailable (address in use), those of the authority.
  static Result<std::unique_ptr<Gateway>> Start(const Options& options, const Parts& parts);
  // Ends every session and stops the server.
  ~Gateway();
  Gateway(const Gateway&) = delete;
  Gateway& operator=(const Gateway&) = delete;

  int port() const;
  bool Connected(std::string_view host) const;

  // Sends all that a host shall have, after its Hello. Does nothing when the host is not connected.
  void SendDesired(std::string_view host, const v1::DesiredState& desired);
  // Sends one instance, unless exactly this was the last thing sent about it in this session.
  void SendInstance(std::string_view host, const v1::DesiredInstance& desired);
  // Asks a host for a snapshot. False: it is not connected.
  bool SendTakeSnapshot(std::string_view host, const v1::TakeSnapshot& request);
  // Sends a message of no other kind above. False: the host is not connected.
  bool Send(std::string_view host, v1::ControllerMessage message);
  // Ends the stream of evidence that nobody waits for any more, if there is one.
  void CancelEvidence(const std::string& host);
  // Ends a host's session, such as when it is deleted.
  void Disconnect(std::string_view host);

  // Opens the console of an instance that is placed and whose agent is connected.
  // Returns at once; the first Read fails if the agent does not open its end in time.
  // Errors: kNotFound (no such instance), kConflict (not placed), kUnavailable (agent away).
  Result<std::shared_ptr<ConsolePipe>> OpenConsole(std::string_view instance);

  // Has the vTPM of an instance sign PCR values. Blocks until its agent has answered.
  //   pcrs: such as "sha256:0,1,7"; the agent parses it.
  // Errors: kNotFound, kConflict (not placed), kUnavailable (agent away, or too slow), kExhausted
  // (one of this instance or two in all are being made); those of the agent, such as kConflict (it
  // does not run, has no vTPM).
  Result<v1::InstanceQuote> Quote(std::string_view instance, ByteView nonce, std::string_view pcrs);

  class Impl;

 private:
  explicit Gateway(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vallum::controller

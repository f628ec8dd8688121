// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "controller/attestor.h"
#include "controller/boot_book.h"
#include "controller/boot_verdicts.h"
#include "controller/event_log.h"
#include "controller/evidence_book.h"
#include "controller/gateway.h"
#include "controller/metrics.h"
#include "controller/operations.h"
#include "controller/resource_store.h"
#include "controller/scheduler.h"
#include "controller/snapshots.h"
#include "controller/view.h"

namespace vallum::controller {

// Brings what is in line with what is asked for. Level-triggered: a change only says where to look;
// what to do follows from the stored resources, so that each step may run twice or after a restart.
// Owns one thread, which does all the work; the listener calls only leave a note for it.
class Reconciler final : public AgentListener {
 public:
  struct Options {
    std::chrono::seconds host_grace{30};  // without a word: the host is down
    // After a start, how long hosts that have not come back, or are silent over an open session,
    // are waited for while others still come: ten thousand of them take longer than the grace time
    // to shake hands with one core, and heartbeats wait meanwhile.
    std::chrono::seconds return_limit{600};
    std::chrono::seconds schedule_grace{10};     // then the operation fails, the instance waits on
    std::chrono::seconds seen_interval{60};      // how often last_seen is stored
    std::chrono::seconds operation_age{86'400};  // ended operations are deleted after this
    std::chrono::seconds housekeeping{600};      // compaction and garbage collection
    int64_t keep_revisions = 20'000;
    // Told of every step that failed and will be tried again; may be empty.
    std::function<void(const Error&)> on_error;
  };
  struct Parts {
    ResourceStore& resources;
    View& view;
    Operations& operations;
    EventLog& events;
    BootBook& book;
    EvidenceBook& evidence;
    BootVerdicts& verdicts;
    Attestor& attestor;
    Snapshots& snapshots;
    Metrics& metrics;
    const Clock& clock;
  };
  Reconciler(const Options& options, const Parts& parts);
  ~Reconciler() override;

  // Starts the thread. The gateway must outlive Stop(). Errors: the view's.
  Result<void> Start(Gateway& gateway);
  void Stop();
  // Looks at the clock now instead of at the next tick.
  void Tick();
  // The instance's baseline changed: its verdict may be another one. Returns when it has been
  // judged again and the view has seen it; after two seconds, or when the store refused, that is
  // still to come.
  void Rejudge(const std::string& instance);

  void OnHello(const std::string& host, v1::Hello hello) override;
  void OnReport(const std::string& host, v1::InstanceReport report) override;
  void OnEvidence(const std::string& host, v1::BootEvidenceReport report) override;
  void OnHeartbeat(const std::string& host, const v1::Heartbeat& heartbeat) override;
  void OnCapabilities(const std::string& host, v1::HostCapabilities capabilities) override;
  void OnGone(const std::string& host) override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "controller/attestation_policies.h"
#include "controller/event_log.h"
#include "controller/evidence_book.h"
#include "controller/gateway.h"
#include "controller/lease_signer.h"
#include "controller/metrics.h"
#include "controller/resource_store.h"
#include "controller/tpm_bindings.h"
#include "controller/trust_receiver.h"
#include "controller/view.h"

namespace vallum::controller {

// Keeps the verdict on each host of a trusted pool fresh: asks for evidence when a host joins or
// reboots, when a policy was activated, when an agent wants a lease, and from time to time; judges
// what comes; writes HostTrust; sends leases. A verdict follows from evidence alone: a host that
// does not answer becomes STALE, never UNTRUSTED, and one that is UNTRUSTED stays so until evidence
// says otherwise. Owns its threads. Thread-safe.
class Attestor final : public TrustReceiver {
 public:
  struct Options {
    // Requests under way at once: in the first stage after a start, and then.
    size_t first_stage_size = 10;
    size_t stage_size = 20;
    double requests_per_second = 0;  // at most; 0: as many as the stages let
    std::chrono::seconds answer_timeout{60};
    std::chrono::seconds lease{600};     // of pools that say nothing
    std::chrono::seconds interval{240};  // likewise
    std::chrono::milliseconds tick{500};
    unsigned threads = 0;  // that judge; 0: as many as the machine has CPUs
    // Told of every step that failed and will be tried again; may be empty.
    std::function<void(const Error&)> on_error;
  };
  struct Parts {
    ResourceStore& resources;
    View& view;
    EventLog& events;
    AttestationPolicies& policies;
    TpmBindings& bindings;
    EvidenceBook& evidence;
    LeaseSigner& leases;
    Metrics& metrics;
    const Clock& clock;
  };
  Attestor(const Options& options, const Parts& parts);
  ~Attestor() override;
  Attestor(const Attestor&) = delete;
  Attestor& operator=(const Attestor&) = delete;

  // Starts the threads. The gateway must outlive Stop(). Errors: the view's.
  Result<void> Start(Gateway& gateway);
  void Stop();

  // The agent has connected, on this boot of its kernel.
  void OnConnected(const std::string& host, const std::string& boot_id);
  void OnGone(const std::string& host);
  // Asks for evidence as soon as it can, for all of it. Does nothing for a host of a pool without
  // trust.
  void AttestNow(const std::string& host);

  // Since when the host, connected, has brought no evidence when it was asked: no answer, that it
  // has none, or that of another boot. Nothing: it brought some last time, or was not asked yet.
  std::optional<MonotonicTime> SilentSince(const std::string& host);

  // TrustReceiver
  bool Attests(const std::string& host) override;
  Result<v1::TpmChallenge> BeginBinding(const std::string& host,
                                        const v1::TpmIdentity& identity) override;
  Result<v1::TpmBinding> FinishBinding(const std::string& host, const v1::TpmProof& proof) override;
  bool Expects(const std::string& host, const std::string& request_id) override;
  Result<void> OnSubmitted(const std::string& host, SubmittedEvidence evidence) override;
  void OnLeaseWanted(const std::string& host) override;

 private:
  class Impl;
  // Errors: kDenied (the host's pool asks for no trust).
  Result<void> CheckBinds(const std::string& host) const;
  std::unique_ptr<Impl> impl_;
  TpmBindings& bindings_;
};

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "measure/event_log.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::controller {

// An answer to RequestEvidence, whole. Untrusted.
struct SubmittedEvidence {
  v1::EvidenceHeader header;
  Bytes event_log;
  Bytes ima_list;
  v1::Problem problem;  // in place of all others, if it has a code
};
inline constexpr size_t kMaxEventLogBytes = measure::kMaxEventLogSize;
// About 400,000 entries.
inline constexpr size_t kMaxImaListBytes = size_t{64} << 20U;

// Where the gateway brings what agents say about the trust of their hosts. Called on gRPC's
// threads, with names of hosts that the connection proved: must not block for long.
class TrustReceiver {
 public:
  virtual ~TrustReceiver() = default;
  // Whether the host's pool asks for trust, so that its agent binds its TPM. Called once, when its
  // agent connects, and told to it.
  virtual bool Attests(const std::string& host) = 0;
  // See the protocol's BeginTpmBinding and FinishTpmBinding.
  virtual Result<v1::TpmChallenge> BeginBinding(const std::string& host,
                                                const v1::TpmIdentity& identity) = 0;
  virtual Result<v1::TpmBinding> FinishBinding(const std::string& host,
                                               const v1::TpmProof& proof) = 0;
  // Whether somebody waits for this host's answer: nothing else is read into memory.
  virtual bool Expects(const std::string& host, const std::string& request_id) = 0;
  // Errors: kNotFound (nobody waits for it).
  virtual Result<void> OnSubmitted(const std::string& host, SubmittedEvidence evidence) = 0;
  virtual void OnLeaseWanted(const std::string& host) = 0;
};

}  // namespace vallum::controller

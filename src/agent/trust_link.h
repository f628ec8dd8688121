// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <stop_token>

#include "agent/gateway.h"
#include "base/result.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// What the agent says to the controller about its TPM. Calls block until they are answered, for a
// minute at most, or until the token says stop.
class TrustLink {
 public:
  // Sends one part; false: nobody listens any more.
  using Send = std::function<bool(const v1::EvidenceChunk&)>;
  // Makes the parts of an answer, in order. After an error nothing more is sent.
  using Produce = std::function<Result<void>(const Send&)>;

  virtual ~TrustLink() = default;
  // Errors: kDenied, kInvalidInput, kUnavailable, as the controller says.
  virtual Result<v1::TpmChallenge> BeginBinding(const v1::TpmIdentity& identity,
                                                const std::stop_token& stop) = 0;
  virtual Result<v1::TpmBinding> FinishBinding(const v1::TpmProof& proof,
                                               const std::stop_token& stop) = 0;
  // Errors: also those of `produce`; kNotFound (nobody waits for it).
  virtual Result<void> Submit(const Produce& produce, const std::stop_token& stop) = 0;
};

// Over the agent's channel, which must outlive it.
class GatewayTrustLink final : public TrustLink {
 public:
  explicit GatewayTrustLink(const ChannelSlot& channel) : channel_(channel) {}
  Result<v1::TpmChallenge> BeginBinding(const v1::TpmIdentity& identity,
                                        const std::stop_token& stop) override;
  Result<v1::TpmBinding> FinishBinding(const v1::TpmProof& proof,
                                       const std::stop_token& stop) override;
  Result<void> Submit(const Produce& produce, const std::stop_token& stop) override;

 private:
  const ChannelSlot& channel_;
};

}  // namespace vallum::agent

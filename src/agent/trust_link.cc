// SPDX-License-Identifier: Apache-2.0
#include "agent/trust_link.h"

#include <grpcpp/grpcpp.h>

#include <chrono>

namespace vallum::agent {
namespace {

constexpr std::chrono::seconds kCallTimeout{30};
constexpr std::chrono::seconds kSubmitTimeout{60};

std::chrono::system_clock::time_point Deadline(std::chrono::seconds timeout) {
  return std::chrono::system_clock::now() + timeout;
}

}  // namespace

Result<v1::TpmChallenge> GatewayTrustLink::BeginBinding(const v1::TpmIdentity& identity,
                                                        const std::stop_token& stop) {
  grpc::ClientContext context;
  context.set_deadline(Deadline(kCallTimeout));
  const std::stop_callback cancel(stop, [&context] { context.TryCancel(); });
  v1::TpmChallenge reply;
  const grpc::Status status =
      v1::AgentGateway::NewStub(channel_.Get())->BeginTpmBinding(&context, identity, &reply);
  return status.ok() ? Result<v1::TpmChallenge>(std::move(reply))
                     : FromStatus(status, "telling the controller who this host's TPM is");
}

Result<v1::TpmBinding> GatewayTrustLink::FinishBinding(const v1::TpmProof& proof,
                                                       const std::stop_token& stop) {
  grpc::ClientContext context;
  context.set_deadline(Deadline(kCallTimeout));
  const std::stop_callback cancel(stop, [&context] { context.TryCancel(); });
  v1::TpmBinding reply;
  const grpc::Status status =
      v1::AgentGateway::NewStub(channel_.Get())->FinishTpmBinding(&context, proof, &reply);
  return status.ok() ? Result<v1::TpmBinding>(std::move(reply))
                     : FromStatus(status, "proving which TPM this host has");
}

Result<void> GatewayTrustLink::Submit(const Produce& produce, const std::stop_token& stop) {
  grpc::ClientContext context;
  context.set_deadline(Deadline(kSubmitTimeout));
  const std::stop_callback cancel(stop, [&context] { context.TryCancel(); });
  v1::SubmitEvidenceReply reply;
  const auto writer = v1::AgentGateway::NewStub(channel_.Get())->SubmitEvidence(&context, &reply);
  auto produced =
      produce([&writer](const v1::EvidenceChunk& chunk) { return writer->Write(chunk); });
  if (!produced) {
    // What was sent is not whole, and must not look as if it were.
    context.TryCancel();
  } else {
    writer->WritesDone();
  }
  const grpc::Status status = writer->Finish();
  if (!produced) {
    return produced;
  }
  return status.ok() ? Ok() : Result<void>(FromStatus(status, "sending evidence"));
}

}  // namespace vallum::agent

// SPDX-License-Identifier: Apache-2.0
// The part of the gateway about the trust of hosts: binding of their TPMs, and evidence.
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "controller/boot_verdicts.h"
#include "controller/gateway_impl.h"
#include "controller/trust_gap.h"
#include "controller/trust_receiver.h"

namespace vallum::controller {
namespace {

Result<void> AppendBounded(Bytes& to, const std::string& part, size_t limit, const char* what) {
  if (part.size() > limit - to.size()) {
    return Exhausted(std::string(what) + " of more than " + std::to_string(limit) + " bytes");
  }
  const ByteView bytes = AsBytes(part);
  to.insert(to.end(), bytes.begin(), bytes.end());
  return Ok();
}

}  // namespace

// Receives one answer. Deletes itself.
class EvidenceReactor final : public grpc::ServerReadReactor<v1::EvidenceChunk> {
 public:
  EvidenceReactor(Gateway::Impl& gateway, grpc::CallbackServerContext& context, std::string host)
      : gateway_(gateway), context_(context), host_(std::move(host)) {
    gateway_.live().Add();
  }
  void Begin() {
    gateway_.BeginEvidence(host_, this);
    StartRead(&chunk_);
  }
  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    const Result<void> taken = ok ? Take() : End();
    if (ok && taken.has_value()) {
      StartRead(&chunk_);
      return;
    }
    whole_ = taken.has_value();
    Finish(whole_ ? grpc::Status::OK : ToGrpcStatus(taken.error()));
  }

  void OnDone() override {
    LiveCalls& live = gateway_.live();
    // Only now is it known whether the agent ended the stream or the line did: half of a log
    // would make its host untrusted. What nobody waits for any more is dropped.
    if (whole_ && !context_.IsCancelled()) {
      static_cast<void>(gateway_.parts().trust.OnSubmitted(host_, std::move(evidence_)));
    }
    gateway_.EndEvidence(host_, this);
    delete this;
    live.Remove();
  }

 private:
  Result<void> Take() {
    if (!begun_) {
      if (!chunk_.has_header()) return InvalidInput("the first message must be the header");
      begun_ = true;
      evidence_.header = std::move(*chunk_.mutable_header());
      if (!gateway_.parts().trust.Expects(host_, evidence_.header.request_id())) {
        return NotFound("nobody waits for this evidence");
      }
      return Ok();
    }
    switch (chunk_.content_case()) {
      case v1::EvidenceChunk::kEventLog:
        return AppendBounded(evidence_.event_log, chunk_.event_log(), kMaxEventLogBytes,
                             "an event log");
      case v1::EvidenceChunk::kImaList:
        return AppendBounded(evidence_.ima_list, chunk_.ima_list(), kMaxImaListBytes,
                             "a list of IMA");
      case v1::EvidenceChunk::kProblem:
        evidence_.problem = chunk_.problem();
        return Ok();
      case v1::EvidenceChunk::kHeader:
      case v1::EvidenceChunk::CONTENT_NOT_SET:
        break;
    }
    return InvalidInput("a message of the evidence has no content that belongs there");
  }

  Result<void> End() {
    if (!begun_) return InvalidInput("the evidence ended before its header");
    const int64_t announced = evidence_.header.event_log_size();
    if (evidence_.problem.code().empty() &&
        announced != static_cast<int64_t>(evidence_.event_log.size())) {
      return InvalidInput("an event log of " + std::to_string(evidence_.event_log.size()) +
                          " bytes came, and " + std::to_string(announced) + " were announced");
    }
    return Ok();
  }

  Gateway::Impl& gateway_;
  grpc::CallbackServerContext& context_;
  const std::string host_;
  v1::EvidenceChunk chunk_;
  SubmittedEvidence evidence_;
  bool begun_ = false;
  bool whole_ = false;
};

Result<void> Gateway::Impl::CheckTrusted(const std::string& host,
                                         const v1::Instance& instance) const {
  const v1::PoolSpec pool = PoolOf(instance, parts_.view);
  const auto known = parts_.view.Get<v1::Host>(host);
  if (!pool.trusted_service() || known == nullptr) return Ok();
  const std::string& name = instance.metadata().name();
  const std::string in = instance.spec().pool().empty() ? "default" : instance.spec().pool();
  if (known->spec().pool() != in) {
    return Denied("instance " + name + " is of trusted pool " + in + ", and host " + host +
                  " is in pool " + known->spec().pool())
        .WithFix("`vallum host move " + host + " --pool " + in + "`, or delete the instance");
  }
  const auto policy = parts_.view.Get<v1::AttestationPolicy>(pool.attestation_policy());
  const std::string who = "instance " + name + " is of trusted pool " + in + ", and host " + host;
  const std::string fix = "`vallum host show " + host + " --explain` says more";
  const auto gap = FindTrustGap(*known, pool, policy.get(), parts_.clock.Now());
  if (!gap.has_value()) {
    // A host that has rebooted since may run anything.
    if (BootOf(host) == known->status().trust().boot_id()) return Ok();
    return Unavailable(who + " has no session of the boot that its verdict is of").WithFix(fix);
  }
  const std::string words =
      who + " is " +
      (known->status().trust().level() == v1::TRUST_TRUSTED ? "not trusted now: " : "") +
      gap->words;
  return gap->ends == TrustGap::Ends::kByHand ? Denied(words).WithFix(fix)
                                              : Unavailable(words).WithFix(fix);
}

std::optional<std::string> Gateway::Impl::BootOf(const std::string& host) const {
  const std::lock_guard lock(mutex_);
  const auto found = sessions_.find(host);
  if (found == sessions_.end()) return std::nullopt;
  return found->second->boot_id();
}

Result<void> Gateway::Impl::CheckTrusted(const std::string& host, std::string_view uid) const {
  for (const auto& instance : parts_.view.All<v1::Instance>()) {
    if (instance->metadata().uid() == uid && instance->status().host() == host) {
      return CheckTrusted(host, *instance);
    }
  }
  return Ok();
}

// A host has one stream of evidence: what it holds in memory is bounded by that.
void Gateway::Impl::BeginEvidence(const std::string& host, EvidenceReactor* stream) {
  const std::lock_guard lock(mutex_);
  EvidenceReactor*& current = evidence_[host];
  if (current != nullptr) current->Cancel();
  current = stream;
}

void Gateway::Impl::EndEvidence(const std::string& host, const EvidenceReactor* stream) {
  const std::lock_guard lock(mutex_);
  const auto found = evidence_.find(host);
  if (found != evidence_.end() && found->second == stream) evidence_.erase(found);
}

void Gateway::Impl::CancelEvidence(const std::string& host) {
  const std::lock_guard lock(mutex_);
  const auto found = evidence_.find(host);
  if (found != evidence_.end()) found->second->Cancel();
}

grpc::ServerUnaryReactor* Gateway::Impl::BeginTpmBinding(grpc::CallbackServerContext* context,
                                                         const v1::TpmIdentity* request,
                                                         v1::TpmChallenge* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto challenge = [&]() -> Result<v1::TpmChallenge> {
    ASSIGN_OR_RETURN(const std::string host, IdentifyHost(*context));
    return parts_.trust.BeginBinding(host, *request);
  }();
  if (challenge.has_value()) *reply = *std::move(challenge);
  reactor->Finish(challenge.has_value() ? grpc::Status::OK : ToGrpcStatus(challenge.error()));
  return reactor;
}

grpc::ServerUnaryReactor* Gateway::Impl::FinishTpmBinding(grpc::CallbackServerContext* context,
                                                          const v1::TpmProof* request,
                                                          v1::TpmBinding* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto binding = [&]() -> Result<v1::TpmBinding> {
    ASSIGN_OR_RETURN(const std::string host, IdentifyHost(*context));
    return parts_.trust.FinishBinding(host, *request);
  }();
  if (binding.has_value()) *reply = *std::move(binding);
  reactor->Finish(binding.has_value() ? grpc::Status::OK : ToGrpcStatus(binding.error()));
  return reactor;
}

grpc::ServerReadReactor<v1::EvidenceChunk>* Gateway::Impl::SubmitEvidence(
    grpc::CallbackServerContext* context, v1::SubmitEvidenceReply* /*reply*/) {
  Result<std::string> host = IdentifyHost(*context);
  if (!host.has_value()) {
    return new Refusal<grpc::ServerReadReactor<v1::EvidenceChunk>>(live_,
                                                                   ToGrpcStatus(host.error()));
  }
  auto* reactor = new EvidenceReactor(*this, *context, *std::move(host));
  reactor->Begin();
  return reactor;
}

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#include "agent/evidence_desk.h"

#include <algorithm>
#include <utility>

#include "agent/backoff.h"
#include "agent/state_files.h"
#include "base/text.h"
#include "measure/evidence_nonce.h"

namespace vallum::agent {
namespace {

constexpr ByteCount kMaxKeyFile = ByteCount::KiB(8);

std::filesystem::path PublicPath(const std::filesystem::path& state_dir) {
  return state_dir / "identity/ak.pub";
}
std::filesystem::path PrivatePath(const std::filesystem::path& state_dir) {
  return state_dir / "identity/ak.priv";
}

v1::TpmIdentity ToMessage(const tpm::TpmIdentity& identity) {
  const auto text = [](const Bytes& bytes) { return std::string(AsText(bytes)); };
  v1::TpmIdentity message;
  message.set_ek_public(text(identity.ek_public));
  message.set_ek_certificate(text(identity.ek_certificate));
  for (const Bytes& certificate : identity.ek_certificate_chain) {
    message.add_ek_certificate_chain(text(certificate));
  }
  message.set_ak_public(text(identity.ak_public));
  return message;
}

Result<void> CheckNonce(const v1::RequestEvidence& request) {
  RETURN_IF_ERROR(measure::EvidenceNonce(std::vector<Bytes>(1, ToBytes(AsBytes(request.nonce())))));
  return Ok();
}

}  // namespace

Result<std::optional<tpm::KeyBlobs>> LoadKeyBlobs(const std::filesystem::path& state_dir) {
  auto area = ReadWholeFile(PublicPath(state_dir), kMaxKeyFile);
  auto secret = ReadWholeFile(PrivatePath(state_dir), kMaxKeyFile);
  for (const auto* part : {&area, &secret}) {
    if (!*part && part->error().code() == ErrorCode::kNotFound) {
      return std::optional<tpm::KeyBlobs>();
    }
  }
  if (!area || !secret) {
    return area ? std::move(secret).error() : std::move(area).error();
  }
  return std::optional(tpm::KeyBlobs{*std::move(area), *std::move(secret)});
}

Result<void> StoreKeyBlobs(const std::filesystem::path& state_dir, const tpm::KeyBlobs& key) {
  RETURN_IF_ERROR(WriteFileAtomically(PrivatePath(state_dir), key.private_area, 0600));
  return WriteFileAtomically(PublicPath(state_dir), key.public_area, 0600);
}

EvidenceDesk::EvidenceDesk(EvidenceDeskOptions options, TrustLink& link)
    : options_(std::move(options)),
      link_(link),
      thread_([this](const std::stop_token& stop) { Run(stop); }) {}

EvidenceDesk::~EvidenceDesk() {
  thread_.request_stop();
  thread_.join();
}

void EvidenceDesk::Ask(const v1::RequestEvidence& request) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() < kMaxWaiting) {
      waiting_.push_back(request);
      changed_.notify_all();
      return;
    }
  }
  options_.warn("a request for evidence was dropped: " + std::to_string(kMaxWaiting) +
                " wait for the TPM");
}

void EvidenceDesk::Bind() {
  const std::lock_guard lock(mutex_);
  if (!bound_) {
    bind_at_ = std::chrono::steady_clock::now();
    changed_.notify_all();
  }
}

void EvidenceDesk::ForgetBinding() {
  const std::lock_guard lock(mutex_);
  bound_ = false;
}

EvidenceDesk::Work EvidenceDesk::NextWork(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  const auto due = [this] {
    return !waiting_.empty() || (bind_at_ && std::chrono::steady_clock::now() >= *bind_at_);
  };
  while (!stop.stop_requested() && !due()) {
    if (bind_at_) {
      changed_.wait_until(lock, stop, SteadyTime(*bind_at_), due);
    } else {
      changed_.wait(lock, stop, [this] { return !waiting_.empty() || bind_at_; });
    }
  }
  Work work;
  if (stop.stop_requested()) {
    return work;
  }
  // First who the TPM is: what it signs means nothing to a controller that does not know it.
  if (bind_at_ && std::chrono::steady_clock::now() >= *bind_at_) {
    bind_at_.reset();
    work.bind = true;
    return work;
  }
  const std::string pcrs = waiting_.front().pcrs();
  const auto others = std::stable_partition(
      waiting_.begin(), waiting_.end(),
      [&pcrs](const v1::RequestEvidence& request) { return request.pcrs() == pcrs; });
  work.requests.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(others));
  waiting_.erase(waiting_.begin(), others);
  return work;
}

void EvidenceDesk::Run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    const Work work = NextWork(stop);
    if (work.bind) {
      TryBinding(stop);
    }
    if (!work.requests.empty()) {
      Answer(work.requests, stop);
    }
  }
  tpm_.reset();
}

Result<tpm::HostTpm*> EvidenceDesk::OpenTpm(const std::stop_token& stop) {
  if (tpm_ != nullptr) {
    return tpm_.get();
  }
  if (!key_) {
    ASSIGN_OR_RETURN(key_, LoadKeyBlobs(options_.state_dir));
  }
  ASSIGN_OR_RETURN(tpm::OpenedTpm opened, options_.open(key_, stop));
  if (opened.origin != tpm::KeyOrigin::kKept) {
    RETURN_IF_ERROR(StoreKeyBlobs(options_.state_dir, opened.key));
    ForgetBinding();
  }
  key_ = std::move(opened.key);
  tpm_ = std::move(opened.tpm);
  options_.on_key(tpm_->identity().ak_name);
  switch (opened.origin) {
    case tpm::KeyOrigin::kKept:
      break;
    case tpm::KeyOrigin::kFirst:
      options_.inform("the TPM made an attestation key");
      break;
    case tpm::KeyOrigin::kRemade:
      options_.warn(
          "the attestation key of this host does not load under its TPM's endorsement key (the TPM "
          "was cleared or replaced, or an earlier version of vallum-agent made the key under the "
          "storage key): there is a new one, which is bound at the controller again");
      Bind();
      break;
  }
  return tpm_.get();
}

Result<v1::TpmBinding> EvidenceDesk::BindOnce(const std::stop_token& stop) {
  ASSIGN_OR_RETURN(tpm::HostTpm* const tpm, OpenTpm(stop));
  ASSIGN_OR_RETURN(const v1::TpmChallenge challenge,
                   link_.BeginBinding(ToMessage(tpm->identity()), stop));
  auto secret = tpm->ActivateCredential(AsBytes(challenge.credential_blob()),
                                        AsBytes(challenge.encrypted_secret()));
  if (!secret) {
    if (secret.error().code() == ErrorCode::kUnavailable) {
      tpm_.reset();
    }
    return std::move(secret).error();
  }
  v1::TpmProof proof;
  proof.set_challenge_id(challenge.challenge_id());
  proof.set_secret(
      std::string(AsText(secret->Reveal(SecretAccess("proving that the credential was opened")))));
  auto binding = link_.FinishBinding(proof, stop);
  Wipe(std::as_writable_bytes(std::span<char>(*proof.mutable_secret())));
  return binding;
}

void EvidenceDesk::TryBinding(const std::stop_token& stop) {
  {
    const std::lock_guard lock(mutex_);
    if (bound_) {
      return;
    }
  }
  const auto binding = BindOnce(stop);
  if (stop.stop_requested()) {
    return;
  }
  if (binding && binding->accepted()) {
    failures_ = 0;
    options_.inform("this host is known to the controller by its TPM");
    const std::lock_guard lock(mutex_);
    bound_ = true;
    bind_at_.reset();
    return;
  }
  // Said once for each time that it is asked for, and when it has failed for a while.
  if (++failures_ == 1 || failures_ % 20 == 0) {
    options_.warn(binding
                      ? "the controller does not take this host's TPM: " +
                            Printable(binding->detail(), 500)
                      : "this host cannot be known by its TPM: " + binding.error().Describe() +
                            (binding.error().fix().empty() ? "" : "; " + binding.error().fix()));
  }
  const std::lock_guard lock(mutex_);
  bind_at_ = std::chrono::steady_clock::now() + ReconnectDelay(failures_, 0);
}

bool EvidenceDesk::IsToBind() {
  const std::lock_guard lock(mutex_);
  return bind_at_.has_value();
}

Result<QuotedState> EvidenceDesk::MakeState(tpm::HostTpm& tpm,
                                            const std::vector<v1::RequestEvidence>& requests) {
  QuotedState state;
  ASSIGN_OR_RETURN(state.selections, measure::ParsePcrSelections(requests.front().pcrs()));
  for (const v1::RequestEvidence& request : requests) {
    state.nonces.push_back(ToBytes(AsBytes(request.nonce())));
  }
  ASSIGN_OR_RETURN(const Bytes qualifying, measure::EvidenceNonce(state.nonces));
  auto quote = tpm.MakeQuote(qualifying, state.selections);
  if (!quote) {
    if (quote.error().code() == ErrorCode::kUnavailable ||
        quote.error().code() == ErrorCode::kInternal) {
      tpm_.reset();
    }
    return std::move(quote).error();
  }
  state.quote = *std::move(quote);
  return state;
}

Result<QuotedState> EvidenceDesk::Quote(const std::vector<v1::RequestEvidence>& requests,
                                        const std::stop_token& stop) {
  auto tpm = OpenTpm(stop);
  // What a key signs that the controller does not know yet would count against this host. Being
  // asked is a reason to try at once.
  if (tpm && IsToBind()) {
    TryBinding(stop);
    tpm = OpenTpm(stop);
  }
  if (!tpm) {
    return Error(tpm.error()).Context("this host can give no evidence");
  }
  if (IsToBind()) {
    return Unavailable(
        "the controller has not taken this host's attestation key yet, so that it could not check "
        "what that signs; binding it is tried again");
  }
  return MakeState(**tpm, requests);
}

void EvidenceDesk::Answer(const std::vector<v1::RequestEvidence>& requests,
                          const std::stop_token& stop) {
  // One whose nonce is none must not spoil the quote of the others.
  std::vector<v1::RequestEvidence> good;
  for (const v1::RequestEvidence& request : requests) {
    if (const auto nonce = CheckNonce(request); nonce) {
      good.push_back(request);
    } else {
      Send(request, nonce.error(), stop);
    }
  }
  if (good.empty()) {
    return;
  }
  const Result<QuotedState> state = Quote(good, stop);
  for (const v1::RequestEvidence& request : good) {
    if (!stop.stop_requested()) {
      Send(request, state, stop);
    }
  }
}

void EvidenceDesk::Send(const v1::RequestEvidence& request, const Result<QuotedState>& state,
                        const std::stop_token& stop) {
  const auto problem = [this, &stop, &request](const Error& error) {
    options_.warn("no evidence for the controller: " + error.Describe());
    return link_.Submit(
        [&](const TrustLink::Send& send) {
          v1::EvidenceChunk chunk = MakeProblem(error);
          // The header says which request it answers; the problem alone could not.
          v1::EvidenceChunk header;
          header.mutable_header()->set_request_id(request.request_id());
          return send(header) && send(chunk)
                     ? Ok()
                     : Result<void>(Unavailable("the controller stopped listening"));
        },
        stop);
  };
  Result<void> sent;
  if (!state) {
    sent = problem(state.error());
  } else {
    Result<void> made;
    sent = link_.Submit(
        [&](const TrustLink::Send& send) {
          made = SendEvidence(request, *state, options_.root, options_.boot_id, send);
          return made;
        },
        stop);
    // What this host cannot read is told; what the controller did not hear, it asks for again.
    if (!made && made.error().code() != ErrorCode::kUnavailable) {
      sent = problem(made.error());
    }
  }
  if (!sent && sent.error().code() == ErrorCode::kDenied) {
    ForgetBinding();
    Bind();
  }
}

}  // namespace vallum::agent

// SPDX-License-Identifier: Apache-2.0
#include "controller/attestor.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "base/ids.h"
#include "controller/attestor_impl.h"
#include "controller/host_standing.h"

namespace vallum::controller {
namespace {

constexpr size_t kNonceBytes = 32;

std::shared_ptr<const v1::Pool> TrustedPoolOf(const View& view, const v1::Host& host) {
  auto pool = view.Get<v1::Pool>(host.spec().pool());
  return pool != nullptr && pool->spec().trusted_service() ? pool : nullptr;
}

// Asks for what a policy may be learned from, and judges nothing.
attest::SharedPolicy ObservingPolicy(HashAlgorithm bank) {
  constexpr uint32_t kStaticPcrs = 16;
  attest::AttestationPolicy policy;
  policy.name = "none";
  policy.banks = {bank};
  policy.emulated_tpm = attest::EmulatedTpm::kAllowed;
  for (uint32_t pcr = 0; pcr < kStaticPcrs; ++pcr) {
    policy.pcrs[pcr] = attest::IgnoredRule{.because = "there is no policy yet"};
  }
  return attest::PreparePolicy(std::move(policy), nullptr);
}

std::map<HashAlgorithm, attest::SharedPolicy> ObservingPolicies() {
  std::map<HashAlgorithm, attest::SharedPolicy> policies;
  for (const HashAlgorithm bank : {HashAlgorithm::kSha256, HashAlgorithm::kSha384}) {
    policies.emplace(bank, ObservingPolicy(bank));
  }
  return policies;
}

// What the store remembers of the TPM's time, so that it never goes back over a restart either.
attest::HostState StateOf(const v1::HostTrust& trust) {
  attest::HostState state;
  if (!trust.has_verify_time() || trust.clock_ms() == 0) return state;
  attest::ClockState clock;
  clock.clock = static_cast<uint64_t>(trust.clock_ms());
  clock.reset_count = static_cast<uint32_t>(trust.reset_count());
  clock.restart_count = static_cast<uint32_t>(trust.restart_count());
  clock.safe = true;
  clock.firmware_version = std::strtoull(trust.tpm_firmware_version().c_str(), nullptr, 16);
  state.clock = clock;
  return state;
}

}  // namespace

Attestor::Impl::Impl(const Options& options, const Parts& parts)
    : options_(options), parts_(parts), observing_(ObservingPolicies()) {}

Result<void> Attestor::Impl::Start(Gateway& gateway) {
  gateway_ = &gateway;
  ASSIGN_OR_RETURN(subscription_, parts_.view.Subscribe(
                                      0, [this](const Change& change) { OnViewChange(change); }));
  planner_ = std::thread([this] { Plan(); });
  const unsigned threads =
      options_.threads != 0 ? options_.threads : std::max(1U, std::thread::hardware_concurrency());
  for (unsigned i = 0; i < threads; ++i) judges_.emplace_back([this] { JudgeAll(); });
  return Ok();
}

void Attestor::Impl::Stop() {
  if (!planner_.joinable()) return;
  parts_.view.Unsubscribe(subscription_);
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  work_.notify_all();
  planner_.join();
  for (std::thread& judge : judges_) judge.join();
  judges_.clear();
}

bool Attestor::Impl::Attests(const std::string& host) const {
  const auto known = parts_.view.Get<v1::Host>(host);
  return known != nullptr && TrustedPoolOf(parts_.view, *known) != nullptr;
}

// What is said here is what the agent acts on, whatever its pool becomes before OnConnected.
bool Attestor::Impl::Greet(const std::string& host) {
  const auto known = parts_.view.Get<v1::Host>(host);
  const bool attests = known != nullptr && TrustedPoolOf(parts_.view, *known) != nullptr;
  const std::lock_guard lock(mutex_);
  Record& record = records_[host];
  record.told = attests;
  record.pool = known == nullptr ? "" : known->spec().pool();
  return attests;
}

void Attestor::Impl::OnConnected(const std::string& host, const std::string& boot_id) {
  const auto known = parts_.view.Get<v1::Host>(host);
  {
    const std::lock_guard lock(mutex_);
    Record& record = records_[host];
    // What was asked over another connection is answered by nobody; that it ended may not have been
    // heard of.
    if (record.pending.has_value() && !record.pending->request_id.empty()) ++record.silences;
    GiveUp(record);
    record.connected = true;
    record.boot_id = boot_id;
  }
  Want(host, Urgency::kNew);
  if (known != nullptr) RepeatNotice(*known);
}

// What the controller found while the agent was away. Leases are not repeated: evidence renews
// them.
void Attestor::Impl::RepeatNotice(const v1::Host& host) {
  const v1::HostTrust& trust = host.status().trust();
  if (trust.level() == v1::TRUST_TRUSTED || trust.level() == v1::TRUST_LEVEL_UNSPECIFIED) return;
  v1::TrustNotice notice;
  notice.set_level(trust.level());
  notice.set_detail(trust.detail());
  SendNotice(host.metadata().name(), std::move(notice));
}

void Attestor::Impl::GiveUp(Record& record) {
  if (!record.pending.has_value()) return;
  LeavePlace(*record.pending);
  record.pending.reset();
  --in_flight_;
}

void Attestor::Impl::LeavePlace(const Pending& pending) {
  --asked_[static_cast<size_t>(pending.urgency)];
}

void Attestor::Impl::OnGone(const std::string& host) {
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(host);
  if (found == records_.end()) return;
  found->second.connected = false;
  found->second.silent_since.reset();
  // Going away is no answer: one that comes back has the place of a silent host.
  if (found->second.pending.has_value()) ++found->second.silences;
  Unschedule(host, found->second);
  GiveUp(found->second);
}

void Attestor::Impl::OnBound(const std::string& host) { Want(host, Urgency::kNew); }

void Attestor::Impl::Want(const std::string& host, Urgency urgency) {
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(host);
  if (found == records_.end() || !found->second.connected) return;
  // Connecting again gives a silent host no place before its turn; an operator does.
  if (urgency == Urgency::kNew && found->second.silences > 0) urgency = Urgency::kSilent;
  Schedule(host, found->second, urgency, parts_.clock.Monotonic());
  urgent_ = true;
  wake_.notify_one();
}

void Attestor::Impl::WantAll(const std::string& host) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(host);
    if (found != records_.end()) found->second.whole_wanted = true;
  }
  Want(host, Urgency::kWaitedFor);
}

std::optional<MonotonicTime> Attestor::Impl::SilentSince(const std::string& host) {
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(host);
  return found == records_.end() ? std::nullopt : found->second.silent_since;
}

void Attestor::Impl::WantLease(const std::string& host) {
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(host);
  if (found == records_.end() || !found->second.connected || found->second.silences > 0) return;
  const MonotonicTime now = parts_.clock.Monotonic();
  const MonotonicTime when = std::max(now, found->second.lease_wish_after);
  // A wish puts nothing off.
  const auto& due = found->second.due;
  if (due.has_value() && due->second <= when && now < when) return;
  Schedule(host, found->second, Urgency::kWished, when);
  urgent_ = true;
  wake_.notify_one();
}

// The most urgent and earliest of what is wanted counts.
void Attestor::Impl::Schedule(const std::string& host, Record& record, Urgency urgency,
                              MonotonicTime when) {
  if (record.due.has_value() && record.due->first <= urgency && record.due->second <= when) return;
  Unschedule(host, record);
  record.due = {urgency, when};
  due_[static_cast<size_t>(urgency)].emplace(when, host);
}

void Attestor::Impl::Unschedule(const std::string& host, Record& record) {
  if (!record.due.has_value()) return;
  due_[static_cast<size_t>(record.due->first)].erase({record.due->second, host});
  record.due.reset();
}

void Attestor::Impl::OnViewChange(const Change& change) {
  // Called on the view's thread, which must not block: notes are left for the planner.
  if (change.kind == Kind::kHost && change.what == Change::What::kDelete) {
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(change.name);
    if (found == records_.end()) return;
    Unschedule(change.name, found->second);
    GiveUp(found->second);
    records_.erase(found);
    return;
  }
  const std::lock_guard lock(mutex_);
  if (change.kind == Kind::kHost) {
    const auto found = records_.find(change.name);
    const std::string& pool = static_cast<const v1::Host&>(*change.resource).spec().pool();
    if (found == records_.end() || found->second.pool == pool) return;
    found->second.pool = pool;
  } else if (change.kind != Kind::kPool && change.kind != Kind::kAttestationPolicy) {
    return;
  }
  changed_ = true;
  wake_.notify_one();
}

void Attestor::Impl::Plan() {
  MonotonicTime look_at = parts_.clock.Monotonic();
  while (true) {
    std::vector<std::string> due;
    std::vector<std::string> unanswered;
    bool changed = false;
    bool look = false;
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, options_.tick, [&] { return stopping_ || changed_ || urgent_; });
      if (stopping_) return;
      urgent_ = false;
      changed = std::exchange(changed_, false);
      const MonotonicTime now = parts_.clock.Monotonic();
      // All hosts are looked at once a second, not after each answer.
      look = now >= look_at;
      if (look) unanswered = TakeUnanswered(now);
      due = TakeDue(now);
    }
    if (changed) Review();
    for (const std::string& host : unanswered) {
      gateway_->CancelEvidence(host);
      Unanswered(host, "its agent did not answer within " +
                           std::to_string(options_.answer_timeout.count()) + " s");
    }
    for (const std::string& host : due) Ask(host);
    if (look) {
      Expire();
      look_at = parts_.clock.Monotonic() + std::chrono::seconds(1);
    }
  }
}

std::vector<std::string> Attestor::Impl::TakeUnanswered(MonotonicTime now) {
  std::vector<std::string> hosts;
  for (auto& [host, record] : records_) {
    if (!record.pending.has_value() || record.pending->deadline > now) continue;
    GiveUp(record);
    hosts.push_back(host);
  }
  return hosts;
}

// Of the places of a stage: those that hosts can take by themselves are not all of them.
size_t Attestor::Impl::Share(Urgency urgency, size_t stage) const {
  switch (urgency) {
    case Urgency::kWished:
      return std::max<size_t>(stage / 2, 1);
    case Urgency::kSilent:
      return std::max<size_t>(stage / 4, 1);
    default:
      return stage;
  }
}

bool Attestor::Impl::MayAskNow(MonotonicTime now) {
  if (options_.requests_per_second <= 0) return true;
  if (next_request_ > now) return false;
  // What was not used is not saved up, but for what a tick takes.
  const auto gap = std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::duration<double>(1 / options_.requests_per_second));
  next_request_ = std::max(next_request_, now - options_.tick) + gap;
  return true;
}

std::vector<std::string> Attestor::Impl::TakeDue(MonotonicTime now) {
  const size_t stage =
      answered_ < options_.first_stage_size ? options_.first_stage_size : options_.stage_size;
  std::vector<std::string> hosts;
  for (size_t i = 0; i < kUrgencies; ++i) {
    auto& queue = due_[i];
    const size_t share = Share(static_cast<Urgency>(i), stage);
    for (auto next = queue.begin(); next != queue.end() && in_flight_ < stage;) {
      if (asked_[i] >= share) break;
      const auto& [when, host] = *next;
      if (when > now) break;
      Record& record = records_.at(host);
      if (record.pending.has_value() || record.judging) {
        // Asked already: looked at again when that has ended.
        ++next;
        continue;
      }
      if (!MayAskNow(now)) return hosts;
      // A place for the answer, so that the stage is not overrun; Ask fills it or gives it back.
      record.pending = Pending{.request_id = {},
                               .nonce = {},
                               .policy = {},
                               .unjudged = {},
                               .whole = false,
                               .deadline = now + options_.answer_timeout,
                               .urgency = static_cast<Urgency>(i)};
      ++in_flight_;
      ++asked_[i];
      hosts.push_back(host);
      record.due.reset();
      next = queue.erase(next);
    }
  }
  return hosts;
}

void Attestor::Impl::Ask(const std::string& host) {
  const auto known = parts_.view.Get<v1::Host>(host);
  const auto pool = known == nullptr ? nullptr : TrustedPoolOf(parts_.view, *known);
  Result<v1::RequestEvidence> request =
      pool == nullptr ? Result<v1::RequestEvidence>(NotFound("its pool asks for no trust"))
                      : Prepare(*known, *pool);
  bool sent = false;
  if (request.has_value()) {
    v1::ControllerMessage message;
    *message.mutable_request_evidence() = *request;
    sent = gateway_->Send(host, std::move(message));
  }
  if (sent) {
    parts_.metrics.evidence_requests_total.fetch_add(1);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(host);
    // It went away meanwhile, which says nothing of it.
    if (found == records_.end() || !found->second.pending.has_value()) return;
    GiveUp(found->second);
  }
  if (pool == nullptr || request.has_value()) return;
  if (request.error().code() == ErrorCode::kNotFound) {
    // Nobody to judge: it waits for what changes that.
    SetUnknown(host, request.error().message());
  } else {
    RetryLater(host, request.error());
  }
}

Result<attest::BoundTpm> Attestor::Impl::TpmOf(const v1::Host& host) const {
  const v1::HostIdentity& identity = host.status().identity();
  ASSIGN_OR_RETURN(const attest::TpmPublic ak,
                   attest::ParseTpmtPublic(AsBytes(identity.ak_public())));
  ASSIGN_OR_RETURN(attest::QuoteKey key, attest::QuoteKey::Create(ak));
  return attest::BoundTpm{.key = std::move(key), .kind = TpmKindOf(identity)};
}

Result<v1::RequestEvidence> Attestor::Impl::Prepare(const v1::Host& host, const v1::Pool& pool) {
  const v1::HostStatus& status = host.status();
  if (status.identity().ak_public().empty()) {
    return NotFound(status.has_pending_identity()
                        ? "its TPM is not accepted yet: " + status.pending_identity().detail()
                        : "its agent has not proven to have a TPM yet");
  }
  Result<attest::SharedPolicy> policy = parts_.policies.ForPool(pool);
  if (!policy.has_value() && policy.error().code() != ErrorCode::kNotFound) return policy.error();
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(host.metadata().name());
  if (found == records_.end() || !found->second.pending.has_value()) {
    return Unavailable("its agent is away");
  }
  Record& record = found->second;
  if (!record.tpm.has_value() || record.ak_name != status.identity().ak_name()) {
    ASSIGN_OR_RETURN(record.tpm, TpmOf(host));
    record.ak_name = status.identity().ak_name();
    record.observed_bank = HashAlgorithm::kSha256;
    record.state = StateOf(status.trust());
  }
  Pending& pending = *record.pending;
  pending.request_id = NewUid();
  pending.nonce = RandomBytes(kNonceBytes);
  pending.policy = policy.has_value() ? *policy : observing_.at(record.observed_bank);
  pending.unjudged = policy.has_value() ? "" : policy.error().message();
  pending.whole = record.whole_wanted;
  attest::WantedEvidence wanted = attest::WantedEvidence{.known_reset_count = {}, .ima_from = 0};
  if (policy.has_value()) {
    attest::HostState known = record.state;
    if (record.whole_wanted) {
      known.boot.reset();
      known.ima.reset();
    }
    wanted = attest::EvidenceFor(**policy, known);
  }
  v1::RequestEvidence request;
  request.set_request_id(pending.request_id);
  request.set_nonce(pending.nonce.data(), pending.nonce.size());
  request.set_pcrs(measure::FormatPcrSelections(pending.policy->selections));
  request.set_event_log(!wanted.known_reset_count.has_value());
  request.set_known_reset_count(wanted.known_reset_count.value_or(0));
  request.set_ima_from(wanted.ima_from.has_value() ? static_cast<int64_t>(*wanted.ima_from) : -1);
  request.set_known_boot_id(status.trust().boot_id());
  return request;
}

void Attestor::Impl::Review() {
  std::vector<std::string> ask;
  std::vector<std::string> greet;
  std::vector<std::string> untrusted_pools;
  for (const auto& host : parts_.view.All<v1::Host>()) {
    const std::string& name = host->metadata().name();
    const auto pool = TrustedPoolOf(parts_.view, *host);
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(name);
    if (pool == nullptr) {
      if (found != records_.end()) Unschedule(name, found->second);
      if (host->status().has_trust()) untrusted_pools.push_back(name);
      continue;
    }
    if (found == records_.end() || !found->second.connected) continue;
    const v1::HostTrust& trust = host->status().trust();
    const auto policy = parts_.view.Get<v1::AttestationPolicy>(pool->spec().attestation_policy());
    const int32_t version = policy == nullptr ? 0 : policy->status().active_version();
    if (!found->second.told) {
      greet.push_back(name);
    } else if (trust.level() == v1::TRUST_LEVEL_UNSPECIFIED ||
               trust.policy() != pool->spec().attestation_policy() ||
               trust.policy_version() != version) {
      ask.push_back(name);
    }
  }
  // An agent learns when it connects that it is to bind its TPM.
  for (const std::string& host : greet) gateway_->Disconnect(host);
  for (const std::string& host : ask) Want(host, Urgency::kNew);
  for (const std::string& host : untrusted_pools) {
    const Result<void> done =
        SetLevel(host, [](const v1::HostTrust&) { return v1::TRUST_LEVEL_UNSPECIFIED; }, "");
    if (!done.has_value()) Failed(done.error());
  }
}

// A lease that ended without another is trust that is too old. Some at a time: others are to be
// asked meanwhile.
void Attestor::Impl::Expire() {
  constexpr size_t kAtOnce = 500;
  const WallTime now = parts_.clock.Now();
  const MonotonicTime monotonic = parts_.clock.Monotonic();
  std::set<std::string> over;  // by the clock that nobody sets
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [host, record] : records_) {
      if (record.lease_end.has_value() && *record.lease_end <= monotonic) over.insert(host);
    }
  }
  size_t expired = 0;
  for (const auto& host : parts_.view.All<v1::Host>()) {
    const v1::HostTrust& trust = host->status().trust();
    const WallTime end = FromTimestamp(trust.lease_expire_time());
    const bool ended = over.contains(host->metadata().name());
    const auto stale = [=](const v1::HostTrust& current) -> std::optional<v1::TrustLevel> {
      // It may have another lease by now.
      const bool same = FromTimestamp(current.lease_expire_time()) == end;
      if (current.level() != v1::TRUST_TRUSTED || !same || (!ended && end > now)) {
        return std::nullopt;
      }
      return v1::TRUST_STALE;
    };
    if (!stale(trust).has_value()) continue;
    if (++expired > kAtOnce) return;
    std::string why = "its lease ended at " + FormatTime(end);
    {
      const std::lock_guard lock(mutex_);
      const auto found = records_.find(host->metadata().name());
      if (found == records_.end() || !found->second.connected) {
        why += ", and its agent is away";
      } else if (!found->second.problem.empty()) {
        why += ", and " + found->second.problem;
      } else {
        Schedule(found->first, found->second, Urgency::kNew, parts_.clock.Monotonic());
      }
    }
    const Result<void> done = SetLevel(host->metadata().name(), stale, why);
    if (!done.has_value()) Failed(done.error());
  }
}

std::chrono::milliseconds Attestor::Impl::Spread(std::chrono::seconds interval) const {
  const Bytes random = RandomBytes(2);
  const int64_t value =
      (std::to_integer<int64_t>(random[0]) << 8) | std::to_integer<int64_t>(random[1]);
  const int64_t milliseconds = std::chrono::milliseconds(interval).count();
  return std::chrono::milliseconds(milliseconds - milliseconds / 10 +
                                   value * (milliseconds / 5) / 65536);
}

Attestor::Attestor(const Options& options, const Parts& parts)
    : impl_(std::make_unique<Impl>(options, parts)), bindings_(parts.bindings) {}
Attestor::~Attestor() = default;
Result<void> Attestor::Start(Gateway& gateway) { return impl_->Start(gateway); }
void Attestor::Stop() { impl_->Stop(); }
void Attestor::OnConnected(const std::string& host, const std::string& boot_id) {
  impl_->OnConnected(host, boot_id);
}
void Attestor::OnGone(const std::string& host) { impl_->OnGone(host); }
void Attestor::AttestNow(const std::string& host) { impl_->WantAll(host); }
std::optional<MonotonicTime> Attestor::SilentSince(const std::string& host) {
  return impl_->SilentSince(host);
}
bool Attestor::Attests(const std::string& host) { return impl_->Greet(host); }

Result<v1::TpmChallenge> Attestor::BeginBinding(const std::string& host,
                                                const v1::TpmIdentity& identity) {
  RETURN_IF_ERROR(CheckBinds(host));
  return bindings_.Begin(host, identity);
}

Result<void> Attestor::CheckBinds(const std::string& host) const {
  if (impl_->Attests(host)) return Ok();
  return Denied("the pool of host " + host + " is not trusted: its TPM is not asked for");
}

Result<v1::TpmBinding> Attestor::FinishBinding(const std::string& host, const v1::TpmProof& proof) {
  RETURN_IF_ERROR(CheckBinds(host));
  ASSIGN_OR_RETURN(v1::TpmBinding binding, bindings_.Finish(host, proof));
  impl_->OnBound(host);
  return binding;
}

bool Attestor::Expects(const std::string& host, const std::string& request_id) {
  return impl_->Expects(host, request_id);
}
Result<void> Attestor::OnSubmitted(const std::string& host, SubmittedEvidence evidence) {
  return impl_->OnSubmitted(host, std::move(evidence));
}
void Attestor::OnLeaseWanted(const std::string& host) { impl_->WantLease(host); }

}  // namespace vallum::controller

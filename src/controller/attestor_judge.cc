// SPDX-License-Identifier: Apache-2.0
// What follows from a host's answer: verdict, lease, events, and what is kept.
#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

#include "attest/evidence_bundle.h"
#include "base/ids.h"
#include "base/text.h"
#include "controller/attestor_impl.h"
#include "controller/host_standing.h"
#include "controller/problem.h"
#include "controller/trust_message.h"
#include "measure/evidence_nonce.h"
#include "measure/extend_log.h"

namespace vallum::controller {
namespace {

constexpr int kMaxStoredReasons = 32;
// After a first silence; twice as long after each other one.
constexpr std::chrono::seconds kAskAgain{15};
constexpr unsigned kMaxDoublings = 5;
// Of the controller's own troubles, which are no host's silence.
constexpr std::chrono::seconds kRetry{10};
constexpr std::chrono::seconds kLeaseWishPause{5};
// Of a host that is not trusted: an answer costs both sides, and says the same as the last one.
constexpr std::chrono::seconds kLeaseWishPauseUntrusted{60};

attest::PcrBanks BanksOf(const v1::EvidenceHeader& header) {
  attest::PcrBanks banks;
  for (const v1::QuotedBank& bank : header.banks()) {
    const Result<HashAlgorithm> algorithm = measure::ParseBankName(bank.bank());
    if (!algorithm.has_value() || bank.pcrs_size() != bank.values_size()) continue;
    for (int i = 0; i < bank.pcrs_size(); ++i) {
      const auto pcr = PcrIndex::Create(bank.pcrs(i));
      if (pcr.has_value()) banks[*algorithm][*pcr] = ToBytes(AsBytes(bank.values(i)));
    }
  }
  return banks;
}

attest::HostFacts FactsOf(const v1::EvidenceHeader& header) {
  const v1::HostFacts& sent = header.facts();
  attest::HostFacts facts;
  const auto bounded = [](const std::string& text) { return text.substr(0, attest::kMaxFactText); };
  facts.kernel_release = bounded(sent.kernel_release());
  facts.command_line = bounded(sent.command_line());
  facts.lockdown = bounded(sent.lockdown());
  facts.iommu = bounded(sent.iommu());
  facts.swap = bounded(sent.swap());
  facts.kdump = bounded(sent.kdump());
  facts.secure_boot = bounded(sent.secure_boot());
  facts.microcode = bounded(sent.microcode());
  facts.cpu_model = bounded(sent.cpu_model());
  facts.architecture = bounded(sent.architecture());
  facts.boot_id = bounded(header.boot_id());
  for (const std::string& feature : sent.cpu_features()) {
    if (facts.cpu_features.size() == attest::kMaxCpuFeatures) break;
    facts.cpu_features.push_back(bounded(feature));
  }
  return facts;
}

attest::HostEvidence EvidenceOf(const SubmittedEvidence& sent) {
  attest::HostEvidence evidence;
  evidence.quote = AsBytes(sent.header.quoted());
  evidence.signature = AsBytes(sent.header.signature());
  evidence.pcrs = BanksOf(sent.header);
  evidence.event_log = sent.event_log;
  evidence.ima_log = sent.ima_list;
  evidence.ima_first_entry = static_cast<uint64_t>(std::max<int64_t>(sent.header.ima_from(), 0));
  evidence.facts = FactsOf(sent.header);
  return evidence;
}

// What the quote must answer. One quote may answer several controllers; one that does not answer
// this controller's nonce is refused by the comparison with that nonce itself.
Bytes NonceOf(const v1::EvidenceHeader& header, const Bytes& own) {
  std::vector<Bytes> nonces;
  for (const std::string& nonce : header.nonces()) nonces.push_back(ToBytes(AsBytes(nonce)));
  if (std::ranges::find(nonces, own) == nonces.end()) return own;
  return measure::EvidenceNonce(nonces).value_or(own);
}

std::string DetailOf(const attest::Verdict& verdict) {
  const std::string policy =
      "policy " + verdict.policy + " version " + std::to_string(verdict.policy_version);
  if (verdict.reasons.empty()) return "what it measured is what " + policy + " accepts";
  const size_t more = verdict.reasons.size() - 1;
  return policy + " does not accept it: " + attest::DescribeReason(verdict.reasons.front()) +
         (more == 0 ? "" : " (and " + std::to_string(more) + " more)");
}

// Whether what the host says of itself is proven by its TPM, so that only rules speak against it.
bool IsBelieved(const attest::Verdict& verdict) {
  return std::ranges::none_of(verdict.reasons, [](const attest::Reason& reason) {
    return (reason.id < attest::ReasonId::kPcrWithoutRule &&
            reason.id != attest::ReasonId::kTpmEmulated) ||
           (reason.id >= attest::ReasonId::kImaLogAbsent &&
            reason.id <= attest::ReasonId::kImaEntryDamaged);
  });
}

void FillClock(const attest::HostState& state, v1::HostTrust& trust) {
  const auto* clock = std::get_if<attest::ClockState>(&state.clock);
  if (clock == nullptr) return;
  trust.set_reset_count(clock->reset_count);
  trust.set_restart_count(clock->restart_count);
  trust.set_clock_ms(static_cast<int64_t>(clock->clock));
  char text[17] = {};
  std::snprintf(text, sizeof text, "%016llx",
                static_cast<unsigned long long>(clock->firmware_version));
  trust.set_tpm_firmware_version(text);
}

}  // namespace

bool Attestor::Impl::Expects(const std::string& host, const std::string& request_id) {
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(host);
  return found != records_.end() && found->second.pending.has_value() && !request_id.empty() &&
         found->second.pending->request_id == request_id;
}

Result<void> Attestor::Impl::OnSubmitted(const std::string& host, SubmittedEvidence evidence) {
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(host);
  if (found == records_.end() || !found->second.pending.has_value() ||
      found->second.pending->request_id != evidence.header.request_id()) {
    return NotFound("nobody waits for this evidence");
  }
  LeavePlace(*found->second.pending);
  jobs_.push_back({.host = host,
                   .pending = *std::exchange(found->second.pending, std::nullopt),
                   .evidence = std::move(evidence)});
  found->second.judging = true;
  work_.notify_one();
  return Ok();
}

void Attestor::Impl::JudgeAll() {
  while (true) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      work_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
      if (stopping_) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    const std::string host = job.host;
    Judge(std::move(job));
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(host);
    if (found != records_.end()) found->second.judging = false;
    --in_flight_;
    ++answered_;
    urgent_ = true;
    wake_.notify_one();
  }
}

void Attestor::Impl::Judge(Job job) {
  const auto host = parts_.view.Get<v1::Host>(job.host);
  const auto pool = host == nullptr ? nullptr : parts_.view.Get<v1::Pool>(host->spec().pool());
  if (pool == nullptr || !pool->spec().trusted_service()) return;
  if (!IsAskedByPolicyOf(*pool, job)) return Want(job.host, Urgency::kNew);
  if (!job.evidence.problem.code().empty()) return Refused(job);
  if (!IsOfThisBoot(job)) {
    return Unanswered(job.host, "its evidence is of another boot than its agent's");
  }
  attest::HostState before;
  std::optional<attest::BoundTpm> tpm;
  {
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(job.host);
    // Another TPM was bound meanwhile: it is asked anew.
    if (found == records_.end() || !found->second.tpm.has_value() ||
        found->second.ak_name != host->status().identity().ak_name()) {
      return;
    }
    before = found->second.state;
    tpm = found->second.tpm;
  }
  const attest::HostJudgement judgement =
      attest::VerifyHost(*tpm, EvidenceOf(job.evidence), before, *job.pending.policy,
                         NonceOf(job.evidence.header, job.pending.nonce));
  parts_.metrics.attestations_total.fetch_add(1);
  Remember(job, *pool, judgement);
  // Nothing is decided yet: the event log that was not asked for has to come first.
  if (judgement.next == attest::NextRequest::kAtOnce) return;
  const Result<void> stored = Store(*host, *pool, job, before, judgement);
  if (!stored.has_value()) {
    RetryLater(job.host, Error(stored.error()).Context("storing the verdict on the host"));
  }
}

bool Attestor::Impl::IsAskedByPolicyOf(const v1::Pool& pool, const Job& job) const {
  const Result<attest::SharedPolicy> policy = parts_.policies.ForPool(pool);
  const attest::AttestationPolicy& asked = job.pending.policy->policy;
  if (!policy.has_value() || !job.pending.unjudged.empty()) {
    return policy.has_value() == job.pending.unjudged.empty();
  }
  return (*policy)->policy.name == asked.name && (*policy)->policy.version == asked.version;
}

bool Attestor::Impl::IsOfThisBoot(const Job& job) {
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(job.host);
  return found != records_.end() && job.evidence.header.boot_id() == found->second.boot_id;
}

void Attestor::Impl::Remember(const Job& job, const v1::Pool& pool,
                              const attest::HostJudgement& judgement) {
  const int32_t seconds = pool.spec().attest_interval_seconds();
  const auto interval = seconds > 0 ? std::chrono::seconds(seconds) : options_.interval;
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(job.host);
  if (found == records_.end()) return;
  Record& record = found->second;
  record.state = judgement.state;
  record.problem.clear();
  record.silences = 0;
  record.silent_since.reset();
  record.whole_wanted = false;
  record.log_decides = judgement.next == attest::NextRequest::kAtOnce;
  const MonotonicTime now = parts_.clock.Monotonic();
  const bool trusted = judgement.verdict.kind == attest::HostVerdictKind::kTrusted;
  record.lease_wish_after = now + (trusted ? kLeaseWishPause : kLeaseWishPauseUntrusted);
  if (record.log_decides) {
    Schedule(job.host, record, Urgency::kNew, now);
  } else {
    // In time for a lease that is shorter than the pool's interval.
    const auto half =
        std::chrono::duration_cast<std::chrono::seconds>(LeaseOf(pool, *job.pending.policy) / 2);
    Schedule(job.host, record, Urgency::kPeriodic, now + Spread(std::min(interval, half)));
  }
}

void Attestor::Impl::RetryLater(const std::string& host, const Error& problem) {
  Failed(problem);
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(host);
  if (found == records_.end() || !found->second.connected) return;
  found->second.problem = problem.message();
  Schedule(host, found->second, Urgency::kNew, parts_.clock.Monotonic() + Spread(kRetry));
}

void Attestor::Impl::Refused(const Job& job) {
  const v1::Problem& problem = job.evidence.problem;
  std::string words = "its agent has no evidence: " + Printable(problem.detail(), 500);
  // Without a policy nobody has said which bank its TPM keeps.
  if (!job.pending.unjudged.empty() && FromProblem(problem).code() == ErrorCode::kInvalidInput) {
    std::unique_lock lock(mutex_);
    const auto found = records_.find(job.host);
    if (found == records_.end()) return;
    Record& record = found->second;
    if (record.observed_bank == HashAlgorithm::kSha256) {
      record.observed_bank = HashAlgorithm::kSha384;
      record.problem = words;
      lock.unlock();
      return Want(job.host, job.pending.urgency);
    }
    record.observed_bank = HashAlgorithm::kSha256;
    if (!record.problem.empty()) words = record.problem + "; " + Printable(problem.detail(), 500);
  }
  Unanswered(job.host, words);
}

void Attestor::Impl::Unanswered(const std::string& host, const std::string& problem) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(host);
    if (found == records_.end()) return;
    Record& record = found->second;
    record.problem = problem;
    const unsigned doublings = std::min(record.silences++, kMaxDoublings);
    const MonotonicTime now = parts_.clock.Monotonic();
    if (record.connected) {
      if (!record.silent_since.has_value()) record.silent_since = now;
      Schedule(host, record, Urgency::kSilent, now + kAskAgain * (1U << doublings));
    }
  }
  parts_.metrics.evidence_missing_total.fetch_add(1);
  SetUnknown(host, problem);
}

bool Attestor::Impl::Holds(const std::string& host, const v1::HostTrust& trust) {
  const auto known = parts_.view.Get<v1::Host>(host);
  const auto pool = known == nullptr ? nullptr : parts_.view.Get<v1::Pool>(known->spec().pool());
  if (pool == nullptr) return true;
  const auto policy = parts_.view.Get<v1::AttestationPolicy>(pool->spec().attestation_policy());
  if (trust.policy() != pool->spec().attestation_policy() || policy == nullptr ||
      trust.policy_version() != policy->status().active_version()) {
    return false;
  }
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(host);
  return found == records_.end() || !found->second.log_decides;
}

void Attestor::Impl::SetUnknown(const std::string& host, const std::string& problem) {
  // Of a pool that asks for no trust any more: nothing is to be known.
  if (!Attests(host)) return;
  const Result<void> done = SetLevel(
      host,
      [&](const v1::HostTrust& trust) -> std::optional<v1::TrustLevel> {
        switch (trust.level()) {
          case v1::TRUST_TRUSTED:
            if (Holds(host, trust)) return std::nullopt;
            return v1::TRUST_STALE;
          case v1::TRUST_UNTRUSTED:
            return std::nullopt;
          case v1::TRUST_STALE:
            return v1::TRUST_STALE;
          default:
            return v1::TRUST_UNKNOWN;
        }
      },
      problem);
  if (!done.has_value()) Failed(done.error());
}

// No lease outlives what its policy lets evidence be worth.
std::chrono::seconds Attestor::Impl::LeaseOf(const v1::Pool& pool,
                                             const attest::PreparedPolicy& policy) const {
  const int32_t seconds = pool.spec().lease_seconds();
  const auto lease = seconds > 0 ? std::chrono::seconds(seconds) : options_.lease;
  const auto age = static_cast<int64_t>(
      std::min<uint64_t>(policy.policy.max_age_seconds, static_cast<uint64_t>(lease.count())));
  return std::chrono::seconds(age);
}

Result<void> Attestor::Impl::Store(const v1::Host& host, const v1::Pool& pool, const Job& job,
                                   const attest::HostState& before,
                                   const attest::HostJudgement& judgement) {
  const WallTime now = parts_.clock.Now();
  const std::string& name = host.metadata().name();
  v1::HostTrust trust;
  trust.set_level(LevelOf(judgement.verdict.kind));
  trust.set_detail(DetailOf(judgement.verdict));
  for (const attest::Reason& reason : judgement.verdict.reasons) {
    if (trust.reasons_size() == kMaxStoredReasons) break;
    *trust.add_reasons() = ToMessage(reason);
  }
  for (const attest::Reason& note : judgement.verdict.notes) {
    if (trust.notes_size() == kMaxStoredReasons) break;
    trust.add_notes(attest::DescribeReason(note));
  }
  trust.set_policy(judgement.verdict.policy);
  trust.set_policy_version(static_cast<int32_t>(judgement.verdict.policy_version));
  *trust.mutable_verify_time() = ToTimestamp(now);
  trust.set_boot_id(job.evidence.header.boot_id());
  FillClock(judgement.state, trust);
  if (judgement.state.ima.has_value()) {
    trust.set_ima_entries(static_cast<int64_t>(judgement.state.ima->replay.entries));
  }
  trust.set_evidence_sha256(Keep(host, job, before, judgement.verdict));
  if (trust.level() == v1::TRUST_TRUSTED && job.pending.unjudged.empty()) {
    const std::chrono::seconds lease = LeaseOf(pool, *job.pending.policy);
    *trust.mutable_lease_expire_time() = ToTimestamp(now + lease);
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(name);
    if (found != records_.end()) found->second.lease_end = parts_.clock.Monotonic() + lease;
  }
  if (!job.pending.unjudged.empty()) {
    trust.set_level(v1::TRUST_UNKNOWN);
    trust.set_detail(job.pending.unjudged);
    trust.clear_policy();
    trust.clear_policy_version();
  }
  v1::HostTrust last;
  ASSIGN_OR_RETURN(
      const v1::Host stored,
      parts_.resources.Modify<v1::Host>(name, [&](v1::Host& current) -> Result<Write> {
        // A verdict on a TPM that is no longer the host's, or for a pool that it has left.
        if (current.status().identity().ak_name() != host.status().identity().ak_name()) {
          return Conflict("another TPM was bound to the host while its evidence was judged");
        }
        if (current.metadata().uid() != host.metadata().uid() ||
            current.spec().pool() != host.spec().pool()) {
          return Conflict("the host was moved to another pool while its evidence was judged");
        }
        last = current.status().trust();
        *trust.mutable_change_time() =
            last.level() == trust.level() ? last.change_time() : ToTimestamp(now);
        *current.mutable_status()->mutable_trust() = trust;
        return Write::kWrite;
      }));
  TellChange(name, last, stored.status().trust());
  ASSIGN_OR_RETURN(v1::TrustNotice notice, NoticeOf(stored));
  SendNotice(name, std::move(notice));
  return Ok();
}

// What proves nothing new is not written again.
std::string Attestor::Impl::Keep(const v1::Host& host, const Job& job,
                                 const attest::HostState& before, const attest::Verdict& verdict) {
  const v1::EvidenceHeader& header = job.evidence.header;
  const std::string& uid = host.metadata().uid();
  const v1::HostTrust& last = host.status().trust();
  // With its log, or the word that it has none; that is nothing new the second time.
  const bool log = !job.evidence.event_log.empty() || header.event_log_size() != 0;
  const bool whole = log || !header.event_log_detail().empty();
  const bool first = whole && (job.pending.whole || last.boot_id() != header.boot_id());
  if (!log && !first && job.evidence.ima_list.empty() &&
      verdict.kind == attest::HostVerdictKind::kTrusted && !last.evidence_sha256().empty()) {
    return last.evidence_sha256();
  }
  const attest::HostEvidence evidence = EvidenceOf(job.evidence);
  attest::EvidenceBundle bundle;
  bundle.ak_public = ToBytes(AsBytes(host.status().identity().ak_public()));
  bundle.ek_certificate = ToBytes(AsBytes(host.status().identity().ek_certificate()));
  bundle.tpm = TpmKindOf(host.status().identity());
  bundle.nonce = NonceOf(header, job.pending.nonce);
  bundle.quote = ToBytes(AsBytes(header.quoted()));
  bundle.signature = ToBytes(AsBytes(header.signature()));
  bundle.pcrs = evidence.pcrs;
  bundle.event_log = job.evidence.event_log;
  bundle.ima_log = job.evidence.ima_list;
  if (before.ima.has_value() && header.ima_from() > 0) bundle.ima_before = before.ima->replay;
  bundle.facts = evidence.facts;
  bundle.policy = job.pending.policy->policy.name;
  bundle.policy_version = job.pending.policy->policy.version;
  bundle.taken_at = static_cast<uint64_t>(std::chrono::system_clock::to_time_t(parts_.clock.Now()));
  if (!whole) {
    const auto earlier = KeptBundle(uid, EvidenceKind::kWhole);
    if (earlier.has_value()) bundle.event_log = earlier->event_log;
  }
  const auto file = attest::FormatBundle(bundle);
  if (!file.has_value()) {
    Failed(file.error());
    return {};
  }
  Result<std::string> kept = std::string();
  if (verdict.kind == attest::HostVerdictKind::kUntrusted) {
    kept = parts_.evidence.Put(uid, EvidenceKind::kUntrusted, *file);
    if (!kept.has_value()) Failed(kept.error());
  }
  // Policies are learned from it and tried on it: it must be what the host was, accepted or not.
  if (IsBelieved(verdict)) {
    kept = parts_.evidence.Put(uid, whole ? EvidenceKind::kWhole : EvidenceKind::kLast, *file);
    if (!kept.has_value()) {
      Failed(kept.error());
      const std::lock_guard lock(mutex_);
      const auto found = records_.find(job.host);
      if (found != records_.end()) found->second.whole_wanted = true;
    }
  }
  return kept.value_or("");
}

Result<attest::EvidenceBundle> Attestor::Impl::KeptBundle(const std::string& host_uid,
                                                          EvidenceKind kind) const {
  ASSIGN_OR_RETURN(const Bytes file, parts_.evidence.Get(host_uid, kind));
  return attest::ParseBundle(file);
}

Result<void> Attestor::Impl::SetLevel(const std::string& host, const Step& step,
                                      const std::string& detail) {
  v1::HostTrust before;
  bool changed = false;
  ASSIGN_OR_RETURN(const v1::Host stored,
                   parts_.resources.Modify<v1::Host>(host, [&](v1::Host& current) -> Result<Write> {
                     before = current.status().trust();
                     const std::optional<v1::TrustLevel> next = step(before);
                     const v1::TrustLevel level = next.value_or(before.level());
                     changed =
                         next.has_value() && (before.level() != level || before.detail() != detail);
                     if (!changed) return Write::kKeep;
                     if (level == v1::TRUST_LEVEL_UNSPECIFIED) {
                       current.mutable_status()->clear_trust();
                       return Write::kWrite;
                     }
                     SetWithoutEvidence(level, detail, parts_.clock.Now(),
                                        *current.mutable_status()->mutable_trust());
                     return Write::kWrite;
                   }));
  if (!changed) return Ok();
  TellChange(host, before, stored.status().trust());
  ASSIGN_OR_RETURN(v1::TrustNotice notice, NoticeOf(stored));
  SendNotice(host, std::move(notice));
  return Ok();
}

Result<v1::TrustNotice> Attestor::Impl::NoticeOf(const v1::Host& host) {
  const v1::HostTrust& trust = host.status().trust();
  v1::TrustNotice notice;
  notice.set_level(trust.level());
  notice.set_detail(trust.detail());
  if (trust.level() != v1::TRUST_TRUSTED) return notice;
  v1::LeaseClaims claims;
  claims.set_host(host.metadata().name());
  claims.set_boot_id(trust.boot_id());
  ASSIGN_OR_RETURN(const Bytes ak_name, FromHex(host.status().identity().ak_name()));
  claims.set_ak_name(ak_name.data(), ak_name.size());
  claims.set_pool(host.spec().pool());
  claims.set_policy(trust.policy());
  claims.set_policy_version(trust.policy_version());
  *claims.mutable_issue_time() = trust.verify_time();
  *claims.mutable_expire_time() = trust.lease_expire_time();
  claims.set_serial(NewUid());
  ASSIGN_OR_RETURN(*notice.mutable_lease(), parts_.leases.Sign(claims));
  return notice;
}

void Attestor::Impl::SendNotice(const std::string& host, v1::TrustNotice notice) {
  v1::ControllerMessage message;
  *message.mutable_trust() = std::move(notice);
  // A host that is away hears of it when it connects: it is asked for evidence then.
  static_cast<void>(gateway_->Send(host, std::move(message)));
}

void Attestor::Impl::TellChange(const std::string& host, const v1::HostTrust& before,
                                const v1::HostTrust& after) {
  if (before.level() == after.level()) return;
  std::string kind = "host.trust-none";
  std::string severity = "info";
  switch (after.level()) {
    case v1::TRUST_TRUSTED:
      kind = "host.trusted";
      break;
    case v1::TRUST_UNTRUSTED:
      kind = "host.untrusted";
      severity = "error";
      break;
    case v1::TRUST_STALE:
      kind = "host.trust-stale";
      severity = "warning";
      break;
    default:
      if (after.level() == v1::TRUST_UNKNOWN) kind = "host.trust-unknown";
      break;
  }
  std::string message = after.detail();
  if (!after.evidence_sha256().empty() && after.has_verify_time() &&
      after.level() != v1::TRUST_STALE) {
    message += " (evidence " + after.evidence_sha256() + ")";
  }
  const Result<v1::Event> told = parts_.events.Append({.kind = kind,
                                                       .severity = severity,
                                                       .object = "hosts/" + host,
                                                       .user = {},
                                                       .message = message,
                                                       .tenant = {}});
  if (!told.has_value()) Failed(told.error());
}

void Attestor::Impl::Failed(const Error& error) const {
  // What does not exist any more needs nothing any more.
  if (error.code() == ErrorCode::kNotFound || !options_.on_error) return;
  options_.on_error(error);
}

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "attest/evidence_bundle.h"
#include "attest/host_verification.h"
#include "controller/attestor.h"

// The inside of attestor*.cc; nobody else includes it.
namespace vallum::controller {

class Attestor::Impl {
 public:
  Impl(const Options& options, const Parts& parts);
  ~Impl() { Stop(); }

  Result<void> Start(Gateway& gateway);
  void Stop();

  void OnConnected(const std::string& host, const std::string& boot_id);
  void OnGone(const std::string& host);
  bool Attests(const std::string& host) const;
  bool Greet(const std::string& host);
  bool Expects(const std::string& host, const std::string& request_id);
  Result<void> OnSubmitted(const std::string& host, SubmittedEvidence evidence);
  void OnBound(const std::string& host);

  // Who is asked first.
  enum class Urgency : uint8_t {
    kWaitedFor,  // an instance waits, or an operator
    kNew,        // joined, rebooted, or judged by another policy
    kPeriodic,
    kSilent,  // gave no evidence when it was last asked: few at once, so that they hold up nobody
  };
  void Want(const std::string& host, Urgency urgency);
  // An agent wants a lease: not as often as it likes, and not before a silent host's turn.
  void WantLease(const std::string& host);

 private:
  using Write = ResourceStore::Change;
  struct Pending {
    std::string request_id;
    Bytes nonce;
    attest::SharedPolicy policy;
    // Why there is no policy: evidence is kept, so that one can be learned from it, and says
    // nothing. Empty: it is judged.
    std::string unjudged;
    MonotonicTime deadline;
    bool silent = false;  // of a host that gave none before
  };
  using DueKey = std::tuple<MonotonicTime, std::string>;
  struct Record {
    bool connected = false;
    bool told = false;  // that its host is attested, when it connected
    std::string boot_id;
    std::string pool;
    // Of the attestation key with this name: another one starts anew.
    std::string ak_name;
    std::optional<attest::BoundTpm> tpm;
    attest::HostState state;
    std::optional<Pending> pending;
    bool judging = false;
    // When to ask, and in which queue; nothing: not by itself.
    std::optional<std::pair<Urgency, MonotonicTime>> due;
    std::string problem;    // why it gave no evidence when it was last asked
    unsigned silences = 0;  // requests in a row that brought none
    MonotonicTime lease_wish_after;
  };
  struct Job {
    std::string host;
    Pending pending;
    SubmittedEvidence evidence;
  };

  // attestor.cc: when to ask.
  void Plan();  // a thread
  void OnViewChange(const Change& change);
  // Finds who is to be asked because a pool or a policy changed.
  void Review();
  void Schedule(const std::string& host, Record& record, Urgency urgency, MonotonicTime when);
  void Unschedule(const std::string& host, Record& record);
  std::vector<std::string> TakeDue(MonotonicTime now);         // mutex_ is held
  std::vector<std::string> TakeUnanswered(MonotonicTime now);  // mutex_ is held
  void GiveUp(Record& record);                                 // mutex_ is held
  void Ask(const std::string& host);
  // Errors: why it cannot be judged at all, in words for the operator.
  Result<v1::RequestEvidence> Prepare(const v1::Host& host, const v1::Pool& pool);
  Result<attest::BoundTpm> TpmOf(const v1::Host& host) const;
  void Expire();
  std::chrono::milliseconds Spread(std::chrono::seconds interval) const;
  bool InFlight(const Record& record) const { return record.pending || record.judging; }

  // attestor_judge.cc: what follows from an answer.
  void JudgeAll();  // threads
  void Judge(Job job);
  // Takes the state that the next evidence goes on from, and says when it is wanted.
  void Remember(const Job& job, const v1::Pool& pool, const attest::HostJudgement& judgement);
  bool IsAskedByPolicyOf(const v1::Pool& pool, const Job& job) const;
  // The boot that its agent named when it connected. Also bounds what the store is given.
  bool IsOfThisBoot(const Job& job);
  void Unanswered(const std::string& host, const std::string& problem);
  // Says why nothing is known of a host of which nothing was found yet. What was found stays found:
  // a lease that lives lives on, and UNTRUSTED is not taken back.
  void SetUnknown(const std::string& host, const std::string& problem);
  Result<void> Store(const v1::Host& host, const v1::Pool& pool, const Job& job,
                     const attest::HostState& before, const attest::HostJudgement& judgement);
  std::chrono::seconds LeaseOf(const v1::Pool& pool, const attest::PreparedPolicy& policy) const;
  // The digest of the bundle that is kept; empty when it could not be.
  std::string Keep(const v1::Host& host, const Job& job, const attest::HostState& before,
                   const attest::Verdict& verdict);
  Result<attest::EvidenceBundle> KeptBundle(const std::string& host_uid, EvidenceKind kind) const;
  // Sets a level that follows from no evidence: UNKNOWN or STALE; UNSPECIFIED: none at all.
  //   from: what the host has; nothing: it stays so.
  using Step = std::function<std::optional<v1::TrustLevel>(const v1::HostTrust& from)>;
  Result<void> SetLevel(const std::string& host, const Step& step, const std::string& detail);
  Result<v1::TrustNotice> NoticeOf(const v1::Host& host);
  void RepeatNotice(const v1::Host& host);
  void SendNotice(const std::string& host, v1::TrustNotice notice);
  void TellChange(const std::string& host, const v1::HostTrust& before, const v1::HostTrust& after);
  void Failed(const Error& error) const;

  const Options options_;
  const Parts parts_;
  const attest::SharedPolicy observing_;
  Gateway* gateway_ = nullptr;
  View::SubscriptionId subscription_ = 0;

  std::mutex mutex_;  // guards the members below
  std::condition_variable wake_;
  std::condition_variable work_;
  std::map<std::string, Record> records_;
  std::set<DueKey> due_[4];  // by Urgency
  size_t in_flight_ = 0;
  size_t silent_in_flight_ = 0;
  size_t answered_ = 0;  // since the start: the first stage ends with its size
  std::deque<Job> jobs_;
  bool changed_ = false;  // a pool or a policy
  bool urgent_ = false;   // somebody is due now, or a place is free
  bool stopping_ = false;

  std::thread planner_;
  std::vector<std::thread> judges_;
};

}  // namespace vallum::controller

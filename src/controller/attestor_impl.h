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
    kWaitedFor,  // an operator waits, or one who starts an instance
    kWished,     // its agent wants a lease: some at once, as agents wish what they like
    kNew,        // joined, rebooted, or judged by another policy
    kPeriodic,
    kSilent,  // gave no evidence when it was last asked: few at once, so that they hold up nobody
  };
  static constexpr size_t kUrgencies = 5;
  void Want(const std::string& host, Urgency urgency);
  // As an operator wants it: with the event log and IMA's whole list.
  void WantAll(const std::string& host);
  // An agent wants a lease: not as often as it likes, and not before a silent host's turn.
  void WantLease(const std::string& host);
  std::optional<MonotonicTime> SilentSince(const std::string& host);

 private:
  using Write = ResourceStore::Change;
  struct Pending {
    std::string request_id;
    Bytes nonce;
    attest::SharedPolicy policy;
    // Why there is no policy: evidence is kept, so that one can be learned from it, and says
    // nothing. Empty: it is judged.
    std::string unjudged;
    // All of its evidence was asked for, whatever is known of the host.
    bool whole = false;
    MonotonicTime deadline;
    Urgency urgency = Urgency::kNew;
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
    std::string problem;                        // why it gave no evidence when it was last asked
    unsigned silences = 0;                      // requests in a row that brought none
    std::optional<MonotonicTime> silent_since;  // the first of these ended without an answer
    // Its PCRs were not those of the start that is known: the event log, which is asked for next,
    // decides.
    bool log_decides = false;
    // What is asked for while there is no policy.
    HashAlgorithm observed_bank = HashAlgorithm::kSha256;
    // What is kept of the host is not all there is: it is to send its log and list from their
    // start.
    bool whole_wanted = false;
    std::optional<MonotonicTime> lease_end;  // whatever the clock on the wall says
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
  void LeavePlace(const Pending& pending);                     // mutex_ is held
  size_t Share(Urgency urgency, size_t stage) const;
  bool MayAskNow(MonotonicTime now);  // by the rate; mutex_ is held
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
  // Its agent answered with a problem in place of evidence.
  void Refused(const Job& job);
  // What kept the controller from asking or judging says nothing of the host: soon again.
  void RetryLater(const std::string& host, const Error& problem);
  // Says why nothing is known of a host of which nothing was found yet. What was found stays found:
  // a lease by the policy in force lives on, and UNTRUSTED is not taken back.
  void SetUnknown(const std::string& host, const std::string& problem);
  Result<void> Store(const v1::Host& host, const v1::Pool& pool, const Job& job,
                     const attest::HostState& before, const attest::HostJudgement& judgement);
  std::chrono::seconds LeaseOf(const v1::Pool& pool, const attest::PreparedPolicy& policy) const;
  // The digest of the bundle that is kept; empty when it could not be: it is asked for again.
  std::string Keep(const v1::Host& host, const Job& job, const attest::HostState& before,
                   const attest::Verdict& verdict);
  Result<attest::EvidenceBundle> KeptBundle(const std::string& host_uid, EvidenceKind kind) const;
  // Sets a level that follows from no evidence: UNKNOWN or STALE; UNSPECIFIED: none at all.
  //   from: what the host has; nothing: it stays so.
  using Step = std::function<std::optional<v1::TrustLevel>(const v1::HostTrust& from)>;
  Result<void> SetLevel(const std::string& host, const Step& step, const std::string& detail);
  // Whether the level of a host that did not answer holds until its lease ends.
  bool Holds(const std::string& host, const v1::HostTrust& trust);
  Result<v1::TrustNotice> NoticeOf(const v1::Host& host);
  void RepeatNotice(const v1::Host& host);
  void SendNotice(const std::string& host, v1::TrustNotice notice);
  void TellChange(const std::string& host, const v1::HostTrust& before, const v1::HostTrust& after);
  void Failed(const Error& error) const;

  const Options options_;
  const Parts parts_;
  const std::map<HashAlgorithm, attest::SharedPolicy> observing_;
  Gateway* gateway_ = nullptr;
  View::SubscriptionId subscription_ = 0;

  std::mutex mutex_;  // guards the members below
  std::condition_variable wake_;
  std::condition_variable work_;
  std::map<std::string, Record> records_;
  std::set<DueKey> due_[kUrgencies];  // by Urgency
  size_t in_flight_ = 0;
  size_t asked_[kUrgencies] = {};  // by Urgency, and not answered yet
  MonotonicTime next_request_;     // by the rate
  size_t answered_ = 0;            // since the start: the first stage ends with its size
  std::deque<Job> jobs_;
  bool changed_ = false;  // a pool or a policy
  bool urgent_ = false;   // somebody is due now, or a place is free
  bool stopping_ = false;

  std::thread planner_;
  std::vector<std::thread> judges_;
};

}  // namespace vallum::controller

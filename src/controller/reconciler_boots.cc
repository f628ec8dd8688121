// SPDX-License-Identifier: Apache-2.0
// What follows from the verdict on a boot: status, events, and what the pool wants done.
#include <google/protobuf/util/message_differencer.h>

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "controller/reconciler_impl.h"
#include "controller/verdict_words.h"

namespace vallum::controller {
namespace {

constexpr size_t kShortDigest = 16;

std::string Object(const std::string& name) { return "instances/" + name; }

std::string Digest(const std::string& what, const std::string& digest) {
  const std::string brief = "sha256 " + digest.substr(0, kShortDigest) + "...";
  return what.empty() ? brief : what + " (" + brief + ")";
}

std::string Words(const v1::BootDifference& difference) {
  return "PCR " + std::to_string(difference.pcr()) + ", extend " +
         std::to_string(difference.event()) + ": expected " +
         (difference.expected().empty()
              ? "nothing more"
              : Digest(difference.expected_what(), difference.expected())) +
         " by " + difference.expected_from() + ", measured " +
         (difference.measured().empty()
              ? "nothing"
              : Digest(difference.measured_what(), difference.measured()));
}

// Whether its network is to be off: from a DIVERGED boot on until one is VERIFIED, through any
// number of boots that have no verdict yet.
bool WantsIsolation(const v1::PoolSpec& pool, const v1::InstanceStatus& status) {
  const v1::BootVerdict verdict = status.boot().measured().verdict();
  return pool.on_diverged() == v1::ON_DIVERGED_ISOLATE &&
         (verdict == v1::BOOT_DIVERGED || (status.isolated() && verdict != v1::BOOT_VERIFIED));
}

bool StoppedByPolicy(const v1::PoolSpec& pool, const v1::Instance& instance) {
  return pool.on_diverged() == v1::ON_DIVERGED_STOP &&
         instance.status().boot().measured().verdict() == v1::BOOT_DIVERGED &&
         instance.spec().power() == v1::POWER_STOPPED && instance.spec().force_stop();
}

// The verdict is of what runs now, and the agent has seen everything that was asked for.
bool RunsDiverged(const v1::Instance& instance) {
  const v1::InstanceStatus& status = instance.status();
  return status.boot().measured().verdict() == v1::BOOT_DIVERGED &&
         (status.phase() == v1::INSTANCE_RUNNING || status.phase() == v1::INSTANCE_PAUSED) &&
         instance.spec().power() != v1::POWER_STOPPED && !instance.metadata().has_delete_time() &&
         status.observed_generation() >= instance.metadata().generation() &&
         status.observed_reboot_count() >= instance.spec().reboot_count();
}

void SayStopped(v1::Instance& instance) {
  v1::InstanceStatus& status = *instance.mutable_status();
  const v1::BootMeasured& measured = status.boot().measured();
  status.set_reason("stopped, because its boot DIVERGED and pool " + instance.spec().pool() +
                    " has on_diverged=stop: " +
                    (measured.has_first_difference() ? Words(measured.first_difference())
                     : measured.reasons().empty()    ? "see the reasons of the verdict"
                                                     : measured.reasons(0)));
  const std::string& name = instance.metadata().name();
  status.set_fix("look at `vallum instance baseline diff " + name +
                 "`; if the change is meant, `vallum instance baseline accept " + name +
                 "` and start it");
}

}  // namespace

void Reconciler::Impl::WorkOnBoots(Notes& notes) {
  if (notes.tick) {
    // What came meanwhile is later than what is tried again.
    notes.evidence.merge(std::exchange(retry_evidence_, {}));
    notes.rejudge.merge(std::exchange(retry_rejudge_, {}));
  }
  for (const auto& [key, report] : notes.evidence) {
    retry_evidence_.erase(key);
    if (Failed(ApplyEvidence(key.first, report))) {
      retry_evidence_.insert_or_assign(key, report);
    }
  }
  for (const std::string& pool : notes.pools) {
    RejudgePool(pool);
    ReconcilePool(pool);
  }
  for (const std::string& name : notes.rejudge) {
    if (Failed(Rejudge(name))) {
      retry_rejudge_.insert(name);
    }
  }
  for (std::promise<void>& done : notes.rejudged) done.set_value();
  for (const std::string& uid : notes.gone) {
    // What could not be removed now goes with the next sweep.
    static_cast<void>(Failed(parts_.book.Remove(uid)));
  }
}

// With the agent's word known to the book: the verdict, and what follows from it for the status.
void Reconciler::Impl::JudgeBoot(v1::Instance& instance) {
  v1::InstanceStatus& status = *instance.mutable_status();
  if (status.boot().has_measured()) {
    BootVerdicts::Judged judged = parts_.verdicts.Judge(instance);
    if (judged.learned) {
      Tell("instance.baseline-learned", "info", Object(instance.metadata().name()),
           "this boot is what later ones are compared with", instance.metadata().tenant());
    }
    if (!judged.platform.empty()) {
      Tell("instance.baseline-platform-learned", "warning", Object(instance.metadata().name()),
           "the boot is as it is meant to be on another platform, whose measurements (PCR 0, 2, 3, "
           "6, 7) are what later ones are compared with: " +
               judged.platform,
           instance.metadata().tenant());
    }
    if (judged.again) {
      retry_rejudge_.insert(instance.metadata().name());
    }
    *status.mutable_boot()->mutable_measured() = std::move(judged.measured);
  }
  const v1::PoolSpec pool = PoolOf(instance, parts_.view);
  status.set_isolated(WantsIsolation(pool, status));
  const bool ended =
      status.phase() == v1::INSTANCE_STOPPED || status.phase() == v1::INSTANCE_STOPPING;
  if (ended && StoppedByPolicy(pool, instance)) {
    SayStopped(instance);
  }
}

Result<void> Reconciler::Impl::ApplyEvidence(const std::string& host,
                                             const v1::BootEvidenceReport& report) {
  Saw(host);
  const auto known = FindByUid(report.uid());
  if (known == nullptr || known->status().host() != host) {
    return Ok();
  }
  RETURN_IF_ERROR(parts_.verdicts.TakeEvidence(report.uid(), report.evidence()));
  return Rejudge(known->metadata().name());
}

Result<void> Reconciler::Impl::Rejudge(const std::string& name) {
  v1::Instance before;
  bool written = false;
  ASSIGN_OR_RETURN(
      const v1::Instance after,
      parts_.resources.Modify<v1::Instance>(name, [&](v1::Instance& current) -> Result<Write> {
        before = current;
        // What stopping by policy had said goes with its verdict.
        const bool was_stopped = StoppedByPolicy(PoolOf(current, parts_.view), current);
        JudgeBoot(current);
        if (was_stopped && !StoppedByPolicy(PoolOf(current, parts_.view), current)) {
          current.mutable_status()->clear_reason();
          current.mutable_status()->clear_fix();
        }
        written =
            !google::protobuf::util::MessageDifferencer::Equals(before.status(), current.status());
        return written ? Write::kWrite : Write::kKeep;
      }));
  if (written) {
    TellTransition(before, after);
  }
  return parts_.view.WaitFor(after.metadata().revision());
}

// The pool's policy changed: it decides on what differs, never on a boot that is as it should be.
void Reconciler::Impl::RejudgePool(const std::string& pool) {
  for (const auto& instance : parts_.view.All<v1::Instance>()) {
    const std::string& in = instance->spec().pool();
    const v1::InstanceStatus& status = instance->status();
    const v1::BootMeasured& measured = status.boot().measured();
    const bool concerned = measured.verdict() == v1::BOOT_DIVERGED || status.isolated() ||
                           !measured.accepted_changes().empty();
    if (!concerned || (in.empty() ? "default" : in) != pool) {
      continue;
    }
    const std::string& name = instance->metadata().name();
    if (Failed(Rejudge(name)) || Failed(ReconcileInstance(name))) {
      retry_rejudge_.insert(name);
    }
  }
}

Result<void> Reconciler::Impl::StopDiverged(const std::string& name) {
  bool stopped = false;
  ASSIGN_OR_RETURN(
      const v1::Instance after,
      parts_.resources.Modify<v1::Instance>(name, [&](v1::Instance& current) -> Result<Write> {
        stopped = PoolOf(current, parts_.view).on_diverged() == v1::ON_DIVERGED_STOP &&
                  RunsDiverged(current);
        if (!stopped) {
          return Write::kKeep;
        }
        current.mutable_spec()->set_power(v1::POWER_STOPPED);
        current.mutable_spec()->set_force_stop(true);
        SayStopped(current);
        return Write::kWrite;
      }));
  if (stopped) {
    Tell("instance.stopped-diverged", "error", Object(name), after.status().reason(),
         after.metadata().tenant());
  }
  return parts_.view.WaitFor(after.metadata().revision());
}

bool Reconciler::Impl::MustStop(const v1::Instance& instance) const {
  return RunsDiverged(instance) &&
         PoolOf(instance, parts_.view).on_diverged() == v1::ON_DIVERGED_STOP;
}

void Reconciler::Impl::TellVerdict(const v1::Instance& before, const v1::Instance& after) {
  const v1::BootMeasured& old = before.status().boot().measured();
  const v1::BootMeasured& now = after.status().boot().measured();
  const std::string object = Object(after.metadata().name());
  const std::string& tenant = after.metadata().tenant();
  const bool other =
      old.verdict() != now.verdict() ||
      old.first_difference().SerializeAsString() != now.first_difference().SerializeAsString();
  const bool silent =
      now.verdict() == v1::BOOT_PENDING || now.verdict() == v1::BOOT_VERDICT_UNSPECIFIED;
  if (other && !silent) {
    std::vector<std::string> words;
    if (now.has_first_difference()) words.push_back(Words(now.first_difference()));
    words.insert(words.end(), now.reasons().begin(), now.reasons().end());
    words.insert(words.end(), now.accepted_changes().begin(), now.accepted_changes().end());
    const bool bad = now.verdict() == v1::BOOT_DIVERGED || now.verdict() == v1::BOOT_REFUSED;
    Tell("instance.boot-" + ToLower(VerdictWord(now.verdict())), bad ? "error" : "info", object,
         Join(words, "; "), tenant);
  }
  if (before.status().isolated() != after.status().isolated()) {
    const bool isolated = after.status().isolated();
    Tell(isolated ? "instance.isolated" : "instance.connected", isolated ? "error" : "info", object,
         isolated ? "its network is off until a boot is VERIFIED: pool " + after.spec().pool() +
                        " has on_diverged=isolate"
                  : "its network is on again",
         tenant);
  }
}

Result<void> Reconciler::Impl::SweepEvidence() {
  std::set<std::string> uids;
  for (const auto& instance : parts_.view.All<v1::Instance>()) {
    uids.insert(instance->metadata().uid());
  }
  RETURN_IF_ERROR(parts_.book.RemoveAllBut(uids));
  std::set<std::string> hosts;
  for (const auto& host : parts_.view.All<v1::Host>()) hosts.insert(host->metadata().uid());
  return parts_.evidence.RemoveAllBut(hosts);
}

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
// How instances leave a host that lost its trust for one that has it: they are ended there, their
// disk, variables and vTPM are taken as one temporary snapshot, and they are placed anew with it,
// under the same uid. What they were wanted to do they are wanted to do all the time: the snapshot
// alone says that a move is under way, and status.left_on which hosts have yet to forget them.
#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "controller/instance_service.h"
#include "controller/principal.h"
#include "controller/reconciler_impl.h"

namespace vallum::controller {
namespace {

constexpr size_t kUidPart = 13;

std::string NameOf(const v1::Instance& instance) {
  return std::string(kMoveSnapshotPrefix) + instance.metadata().uid().substr(0, kUidPart) + "-";
}

// One for each time that the host lost its trust: an instance that has run there since is not what
// an older snapshot holds.
std::string SnapshotName(const v1::Instance& instance, const v1::Host& host) {
  const WallTime since = FromTimestamp(host.status().trust().change_time());
  return NameOf(instance) + std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(
                                               since.time_since_epoch())
                                               .count());
}

bool HasEnded(v1::InstancePhase phase) {
  return phase == v1::INSTANCE_STOPPED || phase == v1::INSTANCE_CRASHED;
}

}  // namespace

bool Reconciler::Impl::MovesFrom(const v1::Instance& instance, const v1::Host& host) const {
  const v1::PoolSpec& pool = PoolOf(instance, parts_.view);
  // Whoever named the host wants it there. What ended by itself waits for somebody to start it, and
  // what is lost is not made whole by a snapshot of nothing.
  return pool.trusted_service() && pool.on_untrusted() == v1::ON_UNTRUSTED_MOVE &&
         instance.spec().power() != v1::POWER_STOPPED && instance.spec().host().empty() &&
         !instance.metadata().has_delete_time() && !instance.status().ended_by_itself() &&
         instance.status().phase() != v1::INSTANCE_FAILED && IsLeft(pool, host);
}

Result<bool> Reconciler::Impl::MoveAway(const v1::Instance& instance) {
  const auto host = parts_.view.Get<v1::Host>(instance.status().host());
  if (host == nullptr) return false;
  // What is being taken is taken to its end, whatever the host has become.
  const std::string& taking = instance.status().taking_snapshot();
  if (!taking.starts_with(NameOf(instance)) && !MovesFrom(instance, *host)) return false;
  // Looked at with every tick: nothing else tells that another host can take it, or this one again.
  retry_instances_.insert(instance.metadata().name());
  const auto seen = seen_.find(host->metadata().name());
  if (seen == seen_.end() || !seen->second.greeted) return true;
  v1::DesiredInstance desired = Desired(instance);
  desired.mutable_spec()->set_power(v1::POWER_STOPPED);
  desired.mutable_spec()->set_force_stop(true);
  gateway_->SendInstance(host->metadata().name(), desired);
  if (!HasEnded(instance.status().phase()) || !taking.empty()) return true;
  const Result<void> next = NextOfMove(instance, *host);
  // Said, and tried again: others must not wait for this one.
  if (!next.has_value()) {
    RETURN_IF_ERROR(SayStuck(instance, *host, next.error().message()));
  }
  return true;
}

Result<void> Reconciler::Impl::NextOfMove(const v1::Instance& instance, const v1::Host& host) {
  if (!HasElsewhere(host)) {
    return Exhausted("no other host of pool " + host.spec().pool() +
                     " is trusted by the policy in force");
  }
  const std::string name = SnapshotName(instance, host);
  const auto snapshot = parts_.view.Get<v1::Snapshot>(name);
  if (snapshot == nullptr) return TakeForMove(instance, name);
  if (snapshot->status().instance_uid() != instance.metadata().uid()) {
    return Conflict("snapshot " + name + " is of another instance");
  }
  switch (snapshot->status().state()) {
    case v1::SNAPSHOT_READY:
      return PlaceAnew(instance, *snapshot);
    case v1::SNAPSHOT_FAILED:
      return Unavailable(snapshot->status().reason());
    default:
      return Ok();
  }
}

// By the policy that is active now: a host that was found good by the one before is the next to
// lose its trust.
bool Reconciler::Impl::HasElsewhere(const v1::Host& left) const {
  const auto pool = parts_.view.Get<v1::Pool>(left.spec().pool());
  if (pool == nullptr) return false;
  const auto policy = parts_.view.Get<v1::AttestationPolicy>(pool->spec().attestation_policy());
  const auto hosts = parts_.view.All<v1::Host>();
  return policy != nullptr && std::ranges::any_of(hosts, [&](const auto& host) {
           const v1::HostTrust& trust = host->status().trust();
           return host->metadata().name() != left.metadata().name() &&
                  host->spec().pool() == left.spec().pool() &&
                  host->status().state() == v1::HOST_UP && trust.level() == v1::TRUST_TRUSTED &&
                  trust.policy() == policy->metadata().name() &&
                  trust.policy_version() == policy->status().active_version();
         });
}

Result<void> Reconciler::Impl::TakeForMove(const v1::Instance& instance, const std::string& name) {
  v1::Snapshot snapshot;
  snapshot.mutable_metadata()->set_name(name);
  snapshot.mutable_spec()->set_instance(instance.metadata().name());
  snapshot.mutable_spec()->set_temporary(true);
  const Principal who{.name = "vallum", .role = v1::ROLE_ADMIN, .tenant = {}};
  RETURN_IF_ERROR(parts_.snapshots.Create(std::move(snapshot), who, Snapshots::Purpose::kMove));
  return Ok();
}

Result<void> Reconciler::Impl::PlaceAnew(const v1::Instance& instance,
                                         const v1::Snapshot& snapshot) {
  const std::string from = instance.status().host();
  const std::string& name = instance.metadata().name();
  const auto leave = [&](v1::Instance& current) {
    const v1::InstanceStatus& status = current.status();
    if (current.metadata().uid() != instance.metadata().uid() || status.host() != from ||
        current.metadata().has_delete_time() || !status.taking_snapshot().empty() ||
        current.spec().power() == v1::POWER_STOPPED || !HasEnded(status.phase())) {
      return false;
    }
    current.mutable_spec()->clear_image();
    current.mutable_spec()->set_snapshot(snapshot.metadata().name());
    if (!snapshot.status().tpm().sha256().empty()) {
      current.mutable_spec()->set_tpm_origin(v1::TPM_ORIGIN_COPY);
    }
    v1::InstanceStatus fresh;
    fresh.set_phase(v1::INSTANCE_PENDING);
    *fresh.mutable_boot()->mutable_requested() = status.boot().requested();
    fresh.set_isolated(status.isolated());
    *fresh.mutable_left_on() = status.left_on();
    fresh.add_left_on(from);
    *current.mutable_status() = std::move(fresh);
    return true;
  };
  ASSIGN_OR_RETURN(const bool moved, scheduler_.Unplace(name, snapshot, leave));
  if (!moved) return Ok();
  const std::string with = snapshot.metadata().name();
  Tell("instance.moved", "warning", "instances/" + name,
       "leaves host " + from + ", which lost its trust, with snapshot " + with,
       instance.metadata().tenant());
  return Ok();
}

Result<void> Reconciler::Impl::SayStuck(const v1::Instance& instance, const v1::Host& host,
                                        const std::string& why) {
  const std::string& name = host.metadata().name();
  const std::string reason =
      "ended, because host " + name + " lost its trust, and not moved: " + why;
  if (instance.status().reason() == reason) return Ok();
  ASSIGN_OR_RETURN(
      const v1::Instance after,
      parts_.resources.Modify<v1::Instance>(
          instance.metadata().name(), [&](v1::Instance& current) -> Result<Write> {
            if (current.metadata().uid() != instance.metadata().uid()) return Write::kKeep;
            current.mutable_status()->set_reason(reason);
            current.mutable_status()->set_fix(
                "it is moved as soon as that is possible, and starts where it is once the host is "
                "trusted: `vallum host show " +
                name + " --explain` says why it is not");
            return Write::kWrite;
          }));
  return parts_.view.WaitFor(after.metadata().revision());
}

// A move that was given up has left it stopped, though it is wanted to run and its host may.
Result<void> Reconciler::Impl::Revive(const v1::Instance& instance) {
  const v1::InstanceStatus& status = instance.status();
  const auto host = parts_.view.Get<v1::Host>(status.host());
  if (host == nullptr || !NeedsLease(instance) || instance.spec().power() == v1::POWER_STOPPED ||
      status.phase() != v1::INSTANCE_STOPPED || status.ended_by_itself() ||
      !status.taking_snapshot().empty() ||
      status.observed_generation() < instance.metadata().generation() ||
      instance.metadata().has_delete_time()) {
    return Ok();
  }
  if (host->status().state() != v1::HOST_UP) {
    retry_instances_.insert(instance.metadata().name());
    return Ok();
  }
  RETURN_IF_ERROR(parts_.resources.Modify<v1::Instance>(
      instance.metadata().name(), [&](v1::Instance& current) -> Result<Write> {
        if (current.metadata().revision() != instance.metadata().revision()) return Write::kKeep;
        // Asked for anew: no agent starts for less what it was told to stop.
        current.mutable_spec()->set_reboot_count(current.spec().reboot_count() + 1);
        return Write::kWrite;
      }));
  return Ok();
}

Result<void> Reconciler::Impl::NoteRemoved(const v1::Instance& instance, const std::string& host) {
  ASSIGN_OR_RETURN(
      const v1::Instance after,
      parts_.resources.Modify<v1::Instance>(
          instance.metadata().name(), [&](v1::Instance& current) -> Result<Write> {
            auto& left = *current.mutable_status()->mutable_left_on();
            const auto gone = std::remove(left.begin(), left.end(), host);
            if (current.metadata().uid() != instance.metadata().uid() || gone == left.end()) {
              return Write::kKeep;
            }
            left.erase(gone, left.end());
            return Write::kWrite;
          }));
  return parts_.view.WaitFor(after.metadata().revision());
}

// The snapshot has all of it, and is there as long as the instance names it.
Result<void> Reconciler::Impl::RemoveLeftBehind(const v1::Instance& instance) {
  for (const std::string& host : instance.status().left_on()) {
    if (parts_.view.Get<v1::Host>(host) == nullptr) return NoteRemoved(instance, host);
    v1::DesiredInstance desired = Desired(instance);
    desired.set_remove(true);
    gateway_->SendInstance(host, desired);
  }
  return Ok();
}

}  // namespace vallum::controller

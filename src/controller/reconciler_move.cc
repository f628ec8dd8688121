// SPDX-License-Identifier: Apache-2.0
// How instances leave a host that lost its trust for one that has it: they are ended there, their
// disk, variables and vTPM are taken as one temporary snapshot, and they are placed anew with it,
// under the same uid. What they were wanted to do they are wanted to do all the time, so nothing
// but the snapshot remembers that a move is under way.
#include <memory>
#include <string>
#include <utility>

#include "controller/instance_service.h"
#include "controller/principal.h"
#include "controller/reconciler_impl.h"

namespace vallum::controller {
namespace {

constexpr const char* kNamePrefix = "move-";
constexpr size_t kUidPart = 13;

std::string NameOf(const v1::Instance& instance) {
  return kNamePrefix + instance.metadata().uid().substr(0, kUidPart) + "-";
}

// One for each time that the host lost its trust: an instance that has run there since is not what
// an older snapshot holds.
std::string SnapshotName(const v1::Instance& instance, const v1::Host& host) {
  const WallTime since = FromTimestamp(host.status().trust().change_time());
  return NameOf(instance) + std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(
                                               since.time_since_epoch())
                                               .count());
}

bool IsMoved(const v1::Instance& instance) {
  return instance.spec().snapshot().starts_with(NameOf(instance));
}

bool HasEnded(v1::InstancePhase phase) {
  return phase == v1::INSTANCE_STOPPED || phase == v1::INSTANCE_CRASHED;
}

bool HasArrived(const v1::Instance& instance) {
  const v1::InstanceStatus& status = instance.status();
  return !status.host().empty() &&
         status.observed_generation() >= instance.metadata().generation() &&
         (status.phase() == v1::INSTANCE_RUNNING || status.phase() == v1::INSTANCE_PAUSED ||
          HasEnded(status.phase()));
}

}  // namespace

bool Reconciler::Impl::MovesFrom(const v1::Instance& instance, const v1::Host& host) const {
  const v1::PoolSpec& pool = PoolOf(instance, parts_.view);
  // Whoever named the host wants it there.
  return pool.trusted_service() && pool.on_untrusted() == v1::ON_UNTRUSTED_MOVE &&
         instance.spec().power() != v1::POWER_STOPPED && instance.spec().host().empty() &&
         !instance.metadata().has_delete_time() &&
         MustLeave(pool, host.status().trust(), parts_.clock.Now());
}

Result<bool> Reconciler::Impl::MoveAway(const v1::Instance& instance) {
  const auto host = parts_.view.Get<v1::Host>(instance.status().host());
  if (host == nullptr) return false;
  // What is being taken is taken to its end, whatever the host has become.
  const std::string& taking = instance.status().taking_snapshot();
  const bool under_way = taking.starts_with(NameOf(instance));
  if (!under_way && !MovesFrom(instance, *host)) return false;
  const std::string name = under_way ? taking : SnapshotName(instance, *host);
  const auto snapshot = parts_.view.Get<v1::Snapshot>(name);
  if (snapshot != nullptr && snapshot->status().instance_uid() != instance.metadata().uid()) {
    return Conflict("snapshot " + name + ", which instance " + instance.metadata().name() +
                    " would be moved with, is of another instance")
        .WithFix("`vallum snapshot delete " + name + "`");
  }
  v1::DesiredInstance desired = Desired(instance);
  desired.mutable_spec()->set_power(v1::POWER_STOPPED);
  desired.mutable_spec()->set_force_stop(true);
  gateway_->SendInstance(host->metadata().name(), desired);
  if (snapshot == nullptr) {
    if (HasEnded(instance.status().phase()) && taking.empty()) {
      RETURN_IF_ERROR(TakeForMove(instance, name));
    }
  } else if (snapshot->status().state() == v1::SNAPSHOT_READY && taking.empty()) {
    RETURN_IF_ERROR(PlaceAnew(instance, *snapshot));
  } else if (snapshot->status().state() == v1::SNAPSHOT_FAILED) {
    RETURN_IF_ERROR(SayStuck(instance, *host, snapshot->status().reason()));
  }
  return true;
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
  bool moved = false;
  ASSIGN_OR_RETURN(
      const v1::Instance after,
      parts_.resources.Modify<v1::Instance>(name, [&](v1::Instance& current) -> Result<Write> {
        moved = current.metadata().uid() == instance.metadata().uid() &&
                current.status().host() == from && !current.metadata().has_delete_time() &&
                current.status().taking_snapshot().empty() &&
                current.spec().power() != v1::POWER_STOPPED && HasEnded(current.status().phase());
        if (!moved) return Write::kKeep;
        current.mutable_spec()->clear_image();
        current.mutable_spec()->set_snapshot(snapshot.metadata().name());
        if (!snapshot.status().tpm().sha256().empty()) {
          current.mutable_spec()->set_tpm_origin(v1::TPM_ORIGIN_COPY);
        }
        v1::InstanceStatus status;
        status.set_phase(v1::INSTANCE_PENDING);
        *status.mutable_boot()->mutable_requested() = current.status().boot().requested();
        status.set_isolated(current.status().isolated());
        *current.mutable_status() = std::move(status);
        return Write::kWrite;
      }));
  RETURN_IF_ERROR(parts_.view.WaitFor(after.metadata().revision()));
  if (!moved) return Ok();
  moved_from_[after.metadata().uid()] = from;
  Tell(
      "instance.moved", "warning", "instances/" + name,
      "leaves host " + from + ", which lost its trust, with snapshot " + snapshot.metadata().name(),
      after.metadata().tenant());
  return Ok();
}

Result<void> Reconciler::Impl::SayStuck(const v1::Instance& instance, const v1::Host& host,
                                        const std::string& why) {
  const std::string reason = "ended, because host " + host.metadata().name() +
                             " lost its trust, and could not be moved: " + why;
  if (instance.status().reason() == reason) return Ok();
  ASSIGN_OR_RETURN(
      const v1::Instance after,
      parts_.resources.Modify<v1::Instance>(
          instance.metadata().name(), [&](v1::Instance& current) -> Result<Write> {
            if (current.metadata().uid() != instance.metadata().uid() ||
                current.status().reason() == reason) {
              return Write::kKeep;
            }
            current.mutable_status()->set_reason(reason);
            current.mutable_status()->set_fix(
                "`vallum host show " + host.metadata().name() +
                " --explain` says why the host is not trusted; the instance starts there once it "
                "is, and is tried to be moved again in an hour");
            return Write::kWrite;
          }));
  return parts_.view.WaitFor(after.metadata().revision());
}

void Reconciler::Impl::NoteLeftBehind(const v1::Instance& instance, const std::string& host,
                                      const v1::InstanceReport& report) {
  if (!IsMoved(instance)) return;
  const std::string& uid = instance.metadata().uid();
  if (report.gone()) {
    moved_from_.erase(uid);
  } else {
    moved_from_[uid] = host;
  }
}

// Only when it is elsewhere: until then the host that it left has the one copy beside the snapshot.
void Reconciler::Impl::RemoveLeftBehind() {
  for (auto it = moved_from_.begin(); it != moved_from_.end();) {
    const auto& [uid, host] = *it;
    const auto instance = FindByUid(uid);
    if (instance == nullptr || instance->status().host() == host) {
      it = moved_from_.erase(it);
      continue;
    }
    if (HasArrived(*instance)) {
      v1::DesiredInstance desired = Desired(*instance);
      desired.set_remove(true);
      gateway_->SendInstance(host, desired);
    }
    ++it;
  }
}

}  // namespace vallum::controller

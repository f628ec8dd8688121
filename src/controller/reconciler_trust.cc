// SPDX-License-Identifier: Apache-2.0
// What the trust of a host means for it and for what runs there.
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/text.h"
#include "controller/instance_service.h"
#include "controller/reconciler_impl.h"

namespace vallum::controller {
namespace {

std::string LevelWord(v1::TrustLevel level) {
  const std::string name = v1::TrustLevel_Name(level);
  return name.substr(name.find('_') + 1);
}

constexpr std::string_view kStopped = "stopped, because host ";

bool Runs(const v1::Instance& instance) {
  switch (instance.status().phase()) {
    case v1::INSTANCE_STARTING:
    case v1::INSTANCE_RUNNING:
    case v1::INSTANCE_PAUSED:
      return instance.spec().power() != v1::POWER_STOPPED && !instance.metadata().has_delete_time();
    default:
      return false;
  }
}

}  // namespace

bool MustLeave(const v1::PoolSpec& pool, const v1::HostTrust& trust, WallTime now,
               std::optional<std::chrono::nanoseconds> silent_for) {
  const std::chrono::seconds stale(pool.stale_grace_seconds());
  const std::chrono::seconds unknown(pool.unknown_grace_seconds());
  if (pool.on_untrusted() == v1::ON_UNTRUSTED_REPORT) return false;
  switch (trust.level()) {
    case v1::TRUST_UNTRUSTED:
      return true;
    case v1::TRUST_STALE:
      return stale.count() > 0 && silent_for.has_value() && *silent_for >= stale;
    case v1::TRUST_UNKNOWN:
      return unknown.count() > 0 && FromTimestamp(trust.change_time()) + unknown <= now;
    default:
      return false;
  }
}

bool Reconciler::Impl::IsLeft(const v1::PoolSpec& pool, const v1::Host& host) const {
  // The rule for most hosts, and for most of the time.
  if (host.status().trust().level() == v1::TRUST_TRUSTED) return false;
  const auto since = parts_.attestor.SilentSince(host.metadata().name());
  std::optional<std::chrono::nanoseconds> silent_for;
  if (since.has_value()) silent_for = parts_.clock.Monotonic() - *since;
  return MustLeave(pool, host.status().trust(), parts_.clock.Now(), silent_for);
}

Reconciler::Impl::Standing Reconciler::Impl::StandingOf(const v1::Host& host) const {
  if (host.spec().maintenance()) return {.state = v1::HOST_MAINTENANCE, .reason = ""};
  const auto pool = parts_.view.Get<v1::Pool>(host.spec().pool());
  if (pool == nullptr || !pool->spec().trusted_service()) {
    return {.state = v1::HOST_UP, .reason = ""};
  }
  const v1::HostTrust& trust = host.status().trust();
  const auto seen = seen_.find(host.metadata().name());
  const std::string boot_id = seen == seen_.end() ? "" : seen->second.boot_id;
  if (trust.level() == v1::TRUST_LEVEL_UNSPECIFIED) {
    return {.state = v1::HOST_JOINING, .reason = "it has not been attested yet"};
  }
  if (trust.level() == v1::TRUST_TRUSTED) {
    if (trust.boot_id() == boot_id) return {.state = v1::HOST_UP, .reason = ""};
    return {.state = v1::HOST_JOINING, .reason = "it has rebooted and is being attested"};
  }
  return {.state = v1::HOST_NON_OPERATIONAL,
          .reason = LevelWord(trust.level()) + ": " + trust.detail()};
}

bool Reconciler::Impl::NeedsLease(const v1::Instance& instance) const {
  return PoolOf(instance, parts_.view).trusted_service();
}

void Reconciler::Impl::ReconcilePool(const std::string& pool) {
  for (const auto& instance : parts_.view.All<v1::Instance>()) {
    const std::string& in = instance->spec().pool();
    const std::string& name = instance->metadata().name();
    if ((in.empty() ? "default" : in) == pool && Failed(ReconcileInstance(name))) {
      retry_instances_.insert(name);
    }
  }
  for (const auto& host : parts_.view.All<v1::Host>()) {
    const std::string& name = host->metadata().name();
    if (host->spec().pool() == pool && Failed(ReconcileHost(name))) retry_hosts_.insert(name);
  }
}

Result<void> Reconciler::Impl::SettleTrust(const Hosts& hosts) {
  std::map<std::string_view, const v1::Host*> left;
  for (const auto& host : hosts) {
    const auto pool = parts_.view.Get<v1::Pool>(host->spec().pool());
    if (pool != nullptr && pool->spec().trusted_service() &&
        seen_[host->metadata().name()].greeted && IsLeft(pool->spec(), *host)) {
      left.emplace(host->metadata().name(), host.get());
    }
  }
  if (left.empty()) return Ok();
  // Once for all hosts: there may be many instances.
  for (const auto& instance : parts_.view.All<v1::Instance>()) {
    const auto host = left.find(instance->status().host());
    if (host == left.end()) continue;
    if (MovesFrom(*instance, *host->second)) {
      // One that fails keeps no other on a host that is not trusted.
      static_cast<void>(Failed(ReconcileInstance(instance->metadata().name())));
    } else if (Runs(*instance)) {
      static_cast<void>(Failed(StopForTrust(instance->metadata().name(), *host->second)));
    }
  }
  return Ok();
}

void Reconciler::Impl::KeepTrustReason(const v1::Instance& before, v1::Instance& after) {
  const v1::InstancePhase phase = after.status().phase();
  const bool ended = phase == v1::INSTANCE_STOPPED || phase == v1::INSTANCE_STOPPING;
  // Its agent said so before it heard: STOPPING and STOPPED follow, and the reason is theirs.
  const bool late = (phase == v1::INSTANCE_STARTING || phase == v1::INSTANCE_RUNNING ||
                     phase == v1::INSTANCE_PAUSED) &&
                    after.status().reason().empty();
  if ((!ended && !late) || after.spec().power() != v1::POWER_STOPPED ||
      !before.status().reason().starts_with(kStopped)) {
    return;
  }
  after.mutable_status()->set_reason(before.status().reason());
  after.mutable_status()->set_fix(before.status().fix());
}

Result<void> Reconciler::Impl::StopForTrust(const std::string& name, const v1::Host& host) {
  bool stopped = false;
  const std::string& host_name = host.metadata().name();
  const v1::HostTrust& trust = host.status().trust();
  ASSIGN_OR_RETURN(
      const v1::Instance after,
      parts_.resources.Modify<v1::Instance>(name, [&](v1::Instance& current) -> Result<Write> {
        stopped = current.status().host() == host_name && Runs(current);
        if (!stopped) return Write::kKeep;
        current.mutable_spec()->set_power(v1::POWER_STOPPED);
        current.mutable_spec()->set_force_stop(true);
        current.mutable_status()->set_reason(std::string(kStopped) + host_name + " is " +
                                             LevelWord(trust.level()) + ": " + trust.detail());
        current.mutable_status()->set_fix("`vallum host show " + host_name +
                                          " --explain` says why; start the instance once the host "
                                          "is trusted again");
        return Write::kWrite;
      }));
  if (stopped) {
    Tell("instance.stopped-untrusted", "error", "instances/" + name, after.status().reason(),
         after.metadata().tenant());
  }
  return parts_.view.WaitFor(after.metadata().revision());
}

}  // namespace vallum::controller

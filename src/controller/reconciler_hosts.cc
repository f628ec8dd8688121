// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "controller/reconciler_impl.h"

namespace vallum::controller {
namespace {

constexpr const char* kLost =
    "the host no longer has this instance: its disk and its TPM state are gone";

std::string Object(const std::string& host) { return "hosts/" + host; }

}  // namespace

void Reconciler::Impl::Saw(const std::string& host) { seen_[host].last = parts_.clock.Monotonic(); }

// Each host can put this off once, so that one which comes and goes puts nothing off.
MonotonicTime Reconciler::Impl::AwaitedSince() const {
  return std::min(last_return_, started_ + options_.return_limit);
}

Result<void> Reconciler::Impl::Greet(const std::string& host, const v1::Hello& hello) {
  if (seen_[host].last == MonotonicTime{}) last_return_ = parts_.clock.Monotonic();
  Saw(host);
  seen_[host].greeted = true;
  seen_[host].boot_id = hello.boot_id();
  bool was_up = false;
  ASSIGN_OR_RETURN(const v1::Host stored,
                   parts_.resources.Modify<v1::Host>(host, [&](v1::Host& current) -> Result<Write> {
                     v1::HostStatus& status = *current.mutable_status();
                     was_up = status.state() == v1::HOST_UP;
                     const Standing standing = StandingOf(current);
                     status.set_state(standing.state);
                     status.set_reason(standing.reason);
                     *status.mutable_capabilities() = hello.capabilities();
                     status.mutable_capabilities()->set_agent_version(hello.agent_version());
                     *status.mutable_last_seen() = ToTimestamp(parts_.clock.Now());
                     return Write::kWrite;
                   }));
  if (!was_up && stored.status().state() == v1::HOST_UP) {
    Tell("host.up", "info", Object(host), "its agent has connected");
  }
  for (const v1::InstanceReport& report : hello.instances()) {
    // One that cannot be applied keeps its host from nothing else.
    if (Failed(ApplyReport(host, report))) {
      retry_reports_.insert_or_assign({host, report.uid()}, report);
    }
  }
  RETURN_IF_ERROR(SettleUnreported(host, hello));
  v1::DesiredState desired;
  for (const auto& instance : parts_.view.All<v1::Instance>()) {
    if (instance->status().host() == host &&
        (!IsLost(*instance) || instance->metadata().has_delete_time())) {
      *desired.add_instances() = Desired(*instance);
    }
  }
  gateway_->SendDesired(host, desired);
  parts_.attestor.OnConnected(host, hello.boot_id());
  return Ok();
}

// Instances that are placed on the host but that its agent did not speak of: one that has run there
// is lost and must not silently come back from its image; one that never arrived is sent again.
Result<void> Reconciler::Impl::SettleUnreported(const std::string& host, const v1::Hello& hello) {
  std::set<std::string> reported;
  for (const v1::InstanceReport& report : hello.instances()) {
    reported.insert(report.uid());
  }
  store::Revision last = 0;
  for (const auto& instance : parts_.view.All<v1::Instance>()) {
    if (instance->status().host() != host || reported.contains(instance->metadata().uid()) ||
        instance->metadata().has_delete_time()) {
      continue;
    }
    ASSIGN_OR_RETURN(
        const v1::Instance after,
        parts_.resources.Modify<v1::Instance>(
            instance->metadata().name(), [&](v1::Instance& current) -> Result<Write> {
              v1::InstanceStatus& status = *current.mutable_status();
              if (current.metadata().uid() != instance->metadata().uid() || status.host() != host) {
                return Write::kKeep;
              }
              if (status.observed_generation() > 0) {
                status.set_phase(v1::INSTANCE_FAILED);
                status.set_reason(kLost);
                status.set_fix(
                    "delete the instance, or start it to have it made anew from its image");
                return Write::kWrite;
              }
              if (status.phase() == v1::INSTANCE_UNKNOWN) {
                status.set_phase(v1::INSTANCE_STARTING);
                status.clear_reason();
                return Write::kWrite;
              }
              return Write::kKeep;
            }));
    last = std::max<store::Revision>(last, after.metadata().revision());
  }
  return parts_.view.WaitFor(last);
}

bool IsLost(const v1::Instance& instance) {
  return instance.status().phase() == v1::INSTANCE_FAILED && instance.status().reason() == kLost &&
         instance.metadata().generation() <= instance.status().observed_generation();
}

Result<void> Reconciler::Impl::StoreCapabilities(const std::string& host,
                                                 const v1::HostCapabilities& capabilities) {
  Saw(host);
  RETURN_IF_ERROR(parts_.resources.Modify<v1::Host>(host, [&](v1::Host& current) -> Result<Write> {
    *current.mutable_status()->mutable_capabilities() = capabilities;
    return Write::kWrite;
  }));
  return Ok();
}

Result<void> Reconciler::Impl::StoreHeartbeat(const std::string& host, int64_t disk_free_bytes) {
  Saw(host);
  const auto known = parts_.view.Get<v1::Host>(host);
  if (known == nullptr ||
      FromTimestamp(known->status().last_seen()) + options_.seen_interval > parts_.clock.Now()) {
    return Ok();
  }
  RETURN_IF_ERROR(parts_.resources.Modify<v1::Host>(host, [&](v1::Host& current) -> Result<Write> {
    *current.mutable_status()->mutable_last_seen() = ToTimestamp(parts_.clock.Now());
    current.mutable_status()->mutable_capabilities()->set_disk_free_bytes(disk_free_bytes);
    return Write::kWrite;
  }));
  return Ok();
}

Result<void> Reconciler::Impl::SetHostState(const v1::Host& host, v1::HostState state,
                                            const std::string& reason) {
  const std::string& name = host.metadata().name();
  if (host.status().state() == state && host.status().reason() == reason) {
    return Ok();
  }
  bool changed = false;
  RETURN_IF_ERROR(parts_.resources.Modify<v1::Host>(name, [&](v1::Host& current) -> Result<Write> {
    changed = current.status().state() != state;
    current.mutable_status()->set_state(state);
    current.mutable_status()->set_reason(reason);
    return Write::kWrite;
  }));
  if (changed && state == v1::HOST_DOWN) {
    Tell("host.down", "error", Object(name), reason);
  } else if (changed && state == v1::HOST_NON_OPERATIONAL) {
    Tell("host.non-operational", "error", Object(name), reason);
  } else if (changed && state == v1::HOST_UP) {
    Tell("host.up", "info", Object(name), "its pool takes it");
  }
  return Ok();
}

Result<void> Reconciler::Impl::ReconcileHost(const std::string& name) {
  const auto host = parts_.view.Get<v1::Host>(name);
  if (host == nullptr) {
    // Its certificate opens nothing any more, and neither does what is open.
    gateway_->Disconnect(name);
    seen_.erase(name);
    return Ok();
  }
  Seen& seen = seen_[name];
  if (!gateway_->Connected(name)) {
    seen.greeted = false;
    parts_.attestor.OnGone(name);
  }
  // While hosts come back, this controller may be too busy with them to hear those whose sessions
  // are open: that they are silent says nothing of them.
  const bool awaited = seen.greeted || seen.last == MonotonicTime{};
  const MonotonicTime last = awaited ? std::max(seen.last, AwaitedSince()) : seen.last;
  const bool overdue = taken_ - last > options_.host_grace;
  if (seen.greeted && !overdue) {
    const Standing standing = StandingOf(*host);
    return SetHostState(*host, standing.state, standing.reason);
  }
  if (host->status().state() == v1::HOST_JOINING || !overdue) {
    return Ok();
  }
  RETURN_IF_ERROR(SetHostState(*host, v1::HOST_DOWN,
                               "no word from its agent for more than " +
                                   std::to_string(options_.host_grace.count()) + " s"));
  return MarkUnknown(*host);
}

Result<void> Reconciler::Impl::MarkUnknown(const v1::Host& host) {
  const std::string& name = host.metadata().name();
  for (const auto& instance : parts_.view.All<v1::Instance>()) {
    if (instance->status().host() != name || instance->status().phase() == v1::INSTANCE_UNKNOWN) {
      continue;
    }
    RETURN_IF_ERROR(parts_.resources.Modify<v1::Instance>(
        instance->metadata().name(), [&](v1::Instance& current) -> Result<Write> {
          if (current.status().host() != name) {
            return Write::kKeep;
          }
          current.mutable_status()->set_phase(v1::INSTANCE_UNKNOWN);
          current.mutable_status()->set_reason(
              "host " + name + " is down: " + "the instance may still be running there");
          return Write::kWrite;
        }));
  }
  return Ok();
}

void Reconciler::Impl::CheckClock() {
  for (const auto& host : parts_.view.All<v1::Host>()) {
    if (Failed(ReconcileHost(host->metadata().name()))) {
      retry_hosts_.insert(host->metadata().name());
    }
  }
  static_cast<void>(Failed(SettleTrust(parts_.view.All<v1::Host>())));
}

void Reconciler::Impl::KeepHouse() {
  const MonotonicTime now = parts_.clock.Monotonic();
  if (now - last_housekeeping_ < options_.housekeeping) {
    return;
  }
  last_housekeeping_ = now;
  const Result<int> collected =
      parts_.operations.CollectGarbage(parts_.view, options_.operation_age);
  if (!collected.has_value()) {
    static_cast<void>(Failed(collected.error()));
  }
  static_cast<void>(Failed(SweepEvidence()));
  const store::Revision keep_from = parts_.view.revision() - options_.keep_revisions;
  if (keep_from > 0) {
    // kNotFound: compacted past it already, perhaps by another controller.
    static_cast<void>(Failed(parts_.resources.raw().Compact(keep_from)));
  }
}

}  // namespace vallum::controller

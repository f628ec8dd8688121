// SPDX-License-Identifier: Apache-2.0
#include "controller/reconciler.h"

#include <chrono>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "controller/reconciler_impl.h"
#include "controller/report_limits.h"

namespace vallum::controller {
namespace {

constexpr std::chrono::milliseconds kTick{1000};
constexpr std::chrono::seconds kRejudgeLimit{2};

}  // namespace

Reconciler::Impl::Impl(const Options& options, const Parts& parts)
    : options_(options), parts_(parts), scheduler_(parts.resources, parts.view, parts.metrics) {}

Reconciler::Impl::~Impl() { Stop(); }

Result<void> Reconciler::Impl::Start(Gateway& gateway) {
  gateway_ = &gateway;
  started_ = parts_.clock.Monotonic();
  taken_ = started_;
  last_return_ = started_;
  last_housekeeping_ = started_;
  RETURN_IF_ERROR(SweepEvidence());
  ASSIGN_OR_RETURN(subscription_,
                   parts_.view.Subscribe(0, [this](const Change& change) { OnChange(change); }));
  // Everything is looked at once: whatever an earlier controller left half done is found here.
  Note([&](Notes& notes) {
    for (const auto& instance : parts_.view.All<v1::Instance>()) {
      name_of_uid_[instance->metadata().uid()] = instance->metadata().name();
      notes.instances.insert(instance->metadata().name());
    }
    uids_known_ = true;
    for (const auto& host : parts_.view.All<v1::Host>()) {
      notes.hosts.insert(host->metadata().name());
    }
    for (const auto& operation : parts_.view.All<v1::Operation>()) {
      if (operation->state() == v1::OPERATION_RUNNING &&
          operation->target().starts_with("instances/")) {
        notes.instances.insert(operation->target().substr(operation->target().find('/') + 1));
      }
    }
  });
  thread_ = std::thread([this] { Run(); });
  return Ok();
}

void Reconciler::Impl::Stop() {
  if (!thread_.joinable()) {
    return;
  }
  parts_.view.Unsubscribe(subscription_);
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Reconciler::Impl::OnChange(const Change& change) {
  if (change.kind != Kind::kInstance && change.kind != Kind::kHost && change.kind != Kind::kPool &&
      change.kind != Kind::kRollout) {
    return;
  }
  Note([&](Notes& notes) {
    if (change.kind == Kind::kRollout) {
      notes.rollouts = true;
      return;
    }
    if (change.kind == Kind::kPool) {
      notes.pools.insert(change.name);
      return;
    }
    if (change.kind == Kind::kHost) {
      notes.hosts.insert(change.name);
      return;
    }
    const std::string& uid = MetadataOf(*change.resource).uid();
    if (change.what == Change::What::kPut) {
      name_of_uid_[uid] = change.name;
    } else {
      name_of_uid_.erase(uid);
      notes.gone.insert(uid);
    }
    notes.instances.insert(change.name);
  });
}

void Reconciler::Impl::Run() {
  auto next_tick = std::chrono::steady_clock::now() + kTick;
  while (true) {
    Notes notes;
    {
      std::unique_lock lock(mutex_);
      wake_.wait_until(lock, next_tick, [&] { return stopping_ || !notes_.empty(); });
      if (stopping_) {
        return;
      }
      notes = std::exchange(notes_, Notes{});
      taken_ = parts_.clock.Monotonic();
    }
    if (std::chrono::steady_clock::now() >= next_tick) {
      notes.tick = true;
      next_tick = std::chrono::steady_clock::now() + kTick;
    }
    parts_.metrics.reconcile_queue.store(
        static_cast<int64_t>(notes.instances.size() + notes.hosts.size() + notes.reports.size()));
    Work(std::move(notes));
  }
}

void Reconciler::Impl::Work(Notes notes) {
  for (const auto& [host, hello] : notes.hellos) {
    // It brings every report anew.
    std::erase_if(retry_reports_, [&](const auto& item) { return item.first.first == host; });
    if (Failed(Greet(host, hello))) {
      // The agent repeats everything when it dials again.
      gateway_->Disconnect(host);
    }
  }
  for (const auto& [host, capabilities] : notes.capabilities) {
    static_cast<void>(Failed(StoreCapabilities(host, capabilities)));
  }
  for (const auto& [host, disk_free] : notes.heartbeats) {
    static_cast<void>(Failed(StoreHeartbeat(host, disk_free)));
  }
  for (const auto& [key, report] : notes.reports) {
    retry_reports_.erase(key);
    if (Failed(ApplyReport(key.first, report))) {
      // Kept unless a later one came: the agent does not repeat it within a session.
      // At the next tick: a store that fails now fails at once again.
      retry_reports_.insert_or_assign(key, report);
    }
  }
  WorkOnBoots(notes);
  if (notes.tick) {
    notes.instances.merge(std::exchange(retry_instances_, {}));
    notes.hosts.merge(std::exchange(retry_hosts_, {}));
    for (const auto& [key, report] : std::exchange(retry_reports_, {})) {
      // A later report was applied meanwhile, or will be.
      if (notes.reports.contains(key)) continue;
      if (Failed(ApplyReport(key.first, report))) retry_reports_.try_emplace(key, report);
    }
    CheckClock();
    KeepHouse();
  }
  Hosts changed;
  for (const std::string& host : notes.hosts) {
    if (Failed(ReconcileHost(host))) {
      retry_hosts_.insert(host);
    }
    if (auto known = parts_.view.Get<v1::Host>(host); known != nullptr) {
      changed.push_back(std::move(known));
    }
  }
  static_cast<void>(Failed(SettleTrust(changed)));
  if (notes.tick || notes.rollouts || !notes.instances.empty()) ReconcileRollouts();
  if (notes.tick || !notes.hosts.empty()) {
    notes.instances.insert(pending_.begin(), pending_.end());
  }
  for (const std::string& name : notes.instances) {
    parts_.metrics.reconciles_total.fetch_add(1);
    if (Failed(ReconcileInstance(name))) {
      retry_instances_.insert(name);
    }
  }
}

bool Reconciler::Impl::Failed(const Result<void>& result) {
  // What does not exist any more needs nothing any more.
  if (result.has_value() || result.error().code() == ErrorCode::kNotFound) {
    return false;
  }
  parts_.metrics.reconcile_errors_total.fetch_add(1);
  if (options_.on_error) {
    options_.on_error(result.error());
  }
  return true;
}

void Reconciler::Impl::Tell(std::string_view kind, std::string_view severity,
                            const std::string& object, const std::string& message,
                            const std::string& tenant) {
  const Result<v1::Event> appended = parts_.events.Append({.kind = std::string(kind),
                                                           .severity = std::string(severity),
                                                           .object = object,
                                                           .user = {},
                                                           .message = message,
                                                           .tenant = tenant});
  if (!appended.has_value()) {
    static_cast<void>(Failed(appended.error()));
  }
}

Reconciler::Reconciler(const Options& options, const Parts& parts)
    : impl_(std::make_unique<Impl>(options, parts)) {}
Reconciler::~Reconciler() = default;
Result<void> Reconciler::Start(Gateway& gateway) { return impl_->Start(gateway); }
void Reconciler::Stop() { impl_->Stop(); }

void Reconciler::Tick() {
  impl_->Note([](Impl::Notes& notes) { notes.tick = true; });
}

void Reconciler::Rejudge(const std::string& instance) {
  std::promise<void> promise;
  const std::future<void> done = promise.get_future();
  impl_->Note([&](Impl::Notes& notes) {
    notes.rejudge.insert(instance);
    notes.rejudged.push_back(std::move(promise));
  });
  done.wait_for(kRejudgeLimit);
}

void Reconciler::OnHello(const std::string& host, v1::Hello hello) {
  for (v1::InstanceReport& report : *hello.mutable_instances()) {
    *report.mutable_status() = BoundedStatus(std::move(*report.mutable_status()));
  }
  impl_->Note([&](Impl::Notes& notes) {
    // Reports of an earlier session say less than the Hello of this one.
    std::erase_if(notes.reports, [&](const auto& item) { return item.first.first == host; });
    notes.hellos[host] = std::move(hello);
  });
}

void Reconciler::OnReport(const std::string& host, v1::InstanceReport report) {
  *report.mutable_status() = BoundedStatus(std::move(*report.mutable_status()));
  impl_->Note([&](Impl::Notes& notes) {
    // Nobody asks for it, and there is no end of uids.
    if (!impl_->Knows(report.uid())) return;
    notes.reports[{host, report.uid()}] = std::move(report);
  });
}

void Reconciler::OnEvidence(const std::string& host, v1::BootEvidenceReport report) {
  impl_->Note([&](Impl::Notes& notes) {
    if (!impl_->Knows(report.uid())) return;
    notes.evidence[{host, report.uid()}] = std::move(report);
  });
}

void Reconciler::OnHeartbeat(const std::string& host, const v1::Heartbeat& heartbeat) {
  impl_->Note([&](Impl::Notes& notes) { notes.heartbeats[host] = heartbeat.disk_free_bytes(); });
}

void Reconciler::OnCapabilities(const std::string& host, v1::HostCapabilities capabilities) {
  impl_->Note([&](Impl::Notes& notes) { notes.capabilities[host] = std::move(capabilities); });
}

void Reconciler::OnGone(const std::string& host) {
  impl_->Note([&](Impl::Notes& notes) { notes.hosts.insert(host); });
}

}  // namespace vallum::controller

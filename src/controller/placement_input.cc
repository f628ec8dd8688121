// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "controller/instance_service.h"
#include "placement/placement.h"

namespace vallum::controller {
namespace {

ByteCount Count(int64_t bytes) {
  return ByteCount::Bytes(static_cast<uint64_t>(std::max<int64_t>(bytes, 0)));
}

std::string BridgeTrait(const std::string& bridge) { return "bridge:" + bridge; }

placement::HostState State(const v1::Host& host) {
  if (host.spec().maintenance()) {
    return placement::HostState::kMaintenance;
  }
  switch (host.status().state()) {
    case v1::HOST_UP:
      return placement::HostState::kUp;
    case v1::HOST_DOWN:
      return placement::HostState::kDown;
    case v1::HOST_MAINTENANCE:
      return placement::HostState::kMaintenance;
    case v1::HOST_NON_OPERATIONAL:
      return placement::HostState::kNonOperational;
    default:
      return placement::HostState::kJoining;
  }
}

placement::HostView ToView(const v1::Host& host, double overcommit) {
  const v1::HostCapabilities& capabilities = host.status().capabilities();
  placement::HostView view;
  view.name = host.metadata().name();
  view.pool = host.spec().pool();
  view.state = State(host);
  view.state_reason = host.status().reason();
  view.trusted = host.status().trust().level() == v1::TRUST_TRUSTED;
  for (const std::string& trait : capabilities.traits()) {
    view.traits.Insert(trait);
  }
  for (const std::string& bridge : capabilities.bridges()) {
    view.traits.Insert(BridgeTrait(bridge));
  }
  for (const v1::Probe& probe : capabilities.probes()) {
    view.probes.push_back({.name = probe.name(), .ok = probe.ok(), .detail = probe.detail()});
  }
  view.accelerator = capabilities.accelerator();
  view.cpus = capabilities.cpus();
  view.cpu_overcommit = overcommit;
  view.memory = Count(capabilities.memory_bytes());
  view.disk_free = Count(capabilities.disk_free_bytes());
  return view;
}

}  // namespace

std::vector<placement::HostView> ToHostViews(const View::Placement& snapshot) {
  std::map<std::string, double> overcommit;
  for (const auto& pool : snapshot.pools) {
    overcommit[pool->metadata().name()] = pool->spec().cpu_overcommit();
  }
  std::vector<placement::HostView> views;
  std::map<std::string, size_t> index;
  for (const auto& host : snapshot.hosts) {
    const auto pool = overcommit.find(host->spec().pool());
    index[host->metadata().name()] = views.size();
    views.push_back(ToView(*host, pool == overcommit.end() ? 0 : pool->second));
  }
  // Counted from the instances themselves, not from the host's own numbers, so that the sum cannot
  // drift.
  for (const auto& instance : snapshot.instances) {
    const auto at = index.find(instance->status().host());
    if (at == index.end()) {
      continue;
    }
    placement::HostView& view = views[at->second];
    view.allocated_vcpus += instance->spec().vcpus();
    view.allocated_memory = ByteCount::Bytes(view.allocated_memory.bytes() +
                                             Count(instance->spec().memory_bytes()).bytes());
  }
  return views;
}

placement::Request ToPlacementRequest(const v1::Instance& instance, const BootPolicy& policy,
                                      const View::Placement& snapshot) {
  placement::Request request;
  for (const auto& pool : snapshot.pools) {
    if (pool->metadata().name() == instance.spec().pool()) {
      request.needs_trusted_host = pool->spec().trusted_service();
    }
  }
  request.pool = instance.spec().pool();
  request.pinned_host = instance.spec().host();
  request.required_traits = placement::TraitSet(policy.required_traits);
  for (const v1::Network& network : instance.spec().networks()) {
    if (network.type() == "bridge") {
      request.required_traits.Insert(BridgeTrait(network.bridge()));
    }
  }
  request.vcpus = instance.spec().vcpus();
  request.memory = Count(instance.spec().memory_bytes());
  // An overlay starts small and grows: what is asked for is what it may become.
  request.disk = Count(instance.spec().disk_bytes());
  return request;
}

}  // namespace vallum::controller

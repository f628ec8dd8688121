// SPDX-License-Identifier: Apache-2.0
#include "controller/placement_input.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "controller/placement_settings.h"
#include "controller/trust_gap.h"

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

}  // namespace

placement::HostView ToHostView(const v1::Host& host, const v1::Pool* pool,
                               const v1::AttestationPolicy* policy, WallTime now) {
  const v1::HostCapabilities& capabilities = host.status().capabilities();
  placement::HostView view;
  view.name = host.metadata().name();
  view.pool = host.spec().pool();
  view.state = State(host);
  view.state_reason = host.status().reason();
  if (pool != nullptr && pool->spec().trusted_service()) {
    const auto gap = FindTrustGap(host, pool->spec(), policy, now);
    view.trusted = !gap.has_value();
    if (gap.has_value()) view.trust_reason = gap->words;
  }
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
  view.hypervisor_type = capabilities.hypervisor_type();
  view.hypervisor_version = capabilities.hypervisor_version();
  view.cpus = capabilities.cpus();
  view.cpu_overcommit = pool == nullptr ? 0 : pool->spec().cpu_overcommit();
  view.memory_overcommit = pool == nullptr ? 0 : pool->spec().memory_overcommit();
  view.memory = Count(capabilities.memory_bytes());
  view.disk_free = Count(capabilities.disk_free_bytes());
  return view;
}

int64_t ClaimedVcpus(const v1::Instance& instance) {
  return std::max<int64_t>(instance.spec().vcpus(), 0);
}

ByteCount ClaimedMemory(const v1::Instance& instance) {
  return Count(instance.spec().memory_bytes());
}

Result<placement::Request> ToPlacementRequest(const v1::Instance& instance,
                                              const BootPolicy& policy) {
  const v1::InstanceSpec& spec = instance.spec();
  ASSIGN_OR_RETURN(
      PlacementSettings settings,
      ReadPlacementSettings("request", {spec.properties().begin(), spec.properties().end()}));
  placement::Request request;
  request.pool = spec.pool();
  request.pinned_host = spec.host();
  request.required_traits = std::move(settings.required);
  for (const std::string& trait : policy.required_traits) {
    request.required_traits.Insert(trait);
  }
  for (const v1::Network& network : spec.networks()) {
    if (network.type() == "bridge") {
      request.required_traits.Insert(BridgeTrait(network.bridge()));
    }
  }
  request.forbidden_traits = std::move(settings.forbidden);
  request.accelerator = std::move(settings.accelerator);
  request.hypervisor_type = std::move(settings.hypervisor_type);
  request.hypervisor_versions = std::move(settings.hypervisor_versions);
  request.vcpus = spec.vcpus();
  request.memory = ClaimedMemory(instance);
  // An overlay starts small and grows: what is asked for is what it may become.
  request.disk = Count(spec.disk_bytes());
  return request;
}

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#include "controller/placement_book.h"

#include <algorithm>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "controller/placement_input.h"
#include "controller/resource_store.h"

namespace vallum::controller {
namespace {

template <typename Table>
auto FindIn(const Table& table, std::string_view name) -> typename Table::mapped_type {
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

// A tenant has no say in where the instances of others are, nor learns where they are.
bool HasSay(const v1::Instance& who, const v1::Instance& about) {
  return who.metadata().tenant().empty() || who.metadata().tenant() == about.metadata().tenant();
}

// What of a pool counts on each of its hosts.
auto OvercommitOf(const v1::Pool* pool) {
  return pool == nullptr
             ? std::pair(0.0, 0.0)
             : std::pair(pool->spec().cpu_overcommit(), pool->spec().memory_overcommit());
}

bool SameForPlacement(const v1::Instance& a, const v1::Instance& b) {
  return a.status().host() == b.status().host() && ClaimedVcpus(a) == ClaimedVcpus(b) &&
         ClaimedMemory(a) == ClaimedMemory(b);
}

}  // namespace

PlacementBook::PlacementBook(const View::Placement& snapshot, const Policies& policies,
                             WallTime now)
    : now_(now) {
  for (const auto& policy : policies) policy_table_[policy->metadata().name()] = policy;
  for (const auto& pool : snapshot.pools) pool_table_[pool->metadata().name()] = pool;
  for (const auto& instance : snapshot.instances) PutInstance(instance);
  for (const auto& host : snapshot.hosts) PutHost(host);
}

void PlacementBook::Apply(const Change& change) {
  const bool gone = change.what == Change::What::kDelete;
  if (change.kind == Kind::kHost) {
    if (gone) return RemoveHost(change.name);
    PutHost(std::static_pointer_cast<const v1::Host>(change.resource));
  } else if (change.kind == Kind::kInstance) {
    if (gone) return RemoveInstance(change.name);
    PutInstance(std::static_pointer_cast<const v1::Instance>(change.resource));
  } else if (change.kind == Kind::kPool) {
    if (gone) return RemovePool(change.name);
    PutPool(std::static_pointer_cast<const v1::Pool>(change.resource));
  } else if (change.kind == Kind::kAttestationPolicy) {
    if (gone) return RemovePolicy(change.name);
    PutPolicy(std::static_pointer_cast<const v1::AttestationPolicy>(change.resource));
  }
}

void PlacementBook::EndLeases(WallTime now) {
  now_ = now;
  while (!leases_.empty() && leases_.begin()->first <= now) {
    const auto host = FindHost(leases_.begin()->second);
    // What is indexed at this time is not trusted, and so has no lease here any more.
    Index(*host);
  }
}

std::shared_ptr<const v1::Instance> PlacementBook::FindInstance(std::string_view name) const {
  return FindIn(instance_table_, name);
}

std::shared_ptr<const v1::Host> PlacementBook::FindHost(std::string_view name) const {
  return FindIn(host_table_, name);
}

PlacementBook::Claims PlacementBook::ClaimsOn(std::string_view host) const {
  const auto found = claims_.find(host);
  return found == claims_.end() ? Claims() : found->second;
}

void PlacementBook::Index(const v1::Host& host) {
  const auto pool = FindIn(pool_table_, host.spec().pool());
  const auto policy =
      pool == nullptr ? nullptr : FindIn(policy_table_, pool->spec().attestation_policy());
  placement::HostView view = ToHostView(host, pool.get(), policy.get(), now_);
  ForgetLease(view.name);
  if (view.trusted) {
    const WallTime end = FromTimestamp(host.status().trust().lease_expire_time());
    leases_.emplace(end, view.name);
    lease_of_.emplace(view.name, end);
  }
  const Claims claims = ClaimsOn(view.name);
  view.allocated_vcpus = claims.vcpus;
  view.allocated_memory = ByteCount::Bytes(claims.memory);
  hosts_.Put(std::move(view));
}

void PlacementBook::ForgetLease(const std::string& host) {
  const auto found = lease_of_.find(host);
  if (found == lease_of_.end()) return;
  leases_.erase({found->second, host});
  lease_of_.erase(found);
}

void PlacementBook::PutHost(std::shared_ptr<const v1::Host> host) {
  Index(*host);
  std::string name = host->metadata().name();
  host_table_[std::move(name)] = std::move(host);
}

void PlacementBook::RemoveHost(const std::string& name) {
  ForgetLease(name);
  hosts_.Remove(name);
  host_table_.erase(name);
}

void PlacementBook::IndexPool(const std::string& pool) {
  for (const auto& [name, host] : host_table_) {
    if (host->spec().pool() == pool) Index(*host);
  }
}

void PlacementBook::PutPool(std::shared_ptr<const v1::Pool> pool) {
  const std::string name = pool->metadata().name();
  const auto before = FindIn(pool_table_, name);
  const v1::PoolSpec& now = pool->spec();
  const v1::PoolSpec then = before == nullptr ? v1::PoolSpec() : before->spec();
  const bool differs = OvercommitOf(before.get()) != OvercommitOf(pool.get()) ||
                       then.trusted_service() != now.trusted_service() ||
                       then.attestation_policy() != now.attestation_policy();
  pool_table_[name] = std::move(pool);
  if (differs) IndexPool(name);
}

void PlacementBook::RemovePool(const std::string& name) {
  pool_table_.erase(name);
  IndexPool(name);
}

void PlacementBook::IndexPoolsOf(const std::string& policy) {
  for (const auto& [name, pool] : pool_table_) {
    if (pool->spec().trusted_service() && pool->spec().attestation_policy() == policy) {
      IndexPool(name);
    }
  }
}

void PlacementBook::PutPolicy(std::shared_ptr<const v1::AttestationPolicy> policy) {
  const std::string name = policy->metadata().name();
  const auto before = FindIn(policy_table_, name);
  const bool differs =
      before == nullptr || before->status().active_version() != policy->status().active_version();
  policy_table_[name] = std::move(policy);
  if (differs) IndexPoolsOf(name);
}

void PlacementBook::RemovePolicy(const std::string& name) {
  policy_table_.erase(name);
  IndexPoolsOf(name);
}

void PlacementBook::Count(const v1::Instance& instance, int sign) {
  const std::string& host = instance.status().host();
  if (host.empty()) return;
  Claims& claims = claims_[host];
  claims.vcpus += sign * ClaimedVcpus(instance);
  const uint64_t memory = ClaimedMemory(instance).bytes();
  claims.memory = sign > 0 ? claims.memory + memory : claims.memory - memory;
  claims.instances += sign;
  hosts_.SetAllocated(host, claims.vcpus, ByteCount::Bytes(claims.memory));
  if (claims.instances == 0) claims_.erase(host);
}

void PlacementBook::Relate(const v1::Instance& instance) {
  for (const std::string& other : instance.spec().apart_from()) {
    apart_said_by_[other].insert(instance.metadata().name());
  }
}

void PlacementBook::Unrelate(const v1::Instance& instance) {
  for (const std::string& other : instance.spec().apart_from()) {
    const auto at = apart_said_by_.find(other);
    if (at == apart_said_by_.end()) continue;
    at->second.erase(instance.metadata().name());
    if (at->second.empty()) apart_said_by_.erase(at);
  }
}

void PlacementBook::PutInstance(std::shared_ptr<const v1::Instance> instance) {
  std::shared_ptr<const v1::Instance>& kept = instance_table_[instance->metadata().name()];
  // Reports change an instance often, and seldom what it claims.
  if (kept == nullptr || !SameForPlacement(*kept, *instance)) {
    if (kept != nullptr) Count(*kept, -1);
    Count(*instance, 1);
  }
  if (kept != nullptr) Unrelate(*kept);
  Relate(*instance);
  kept = std::move(instance);
}

void PlacementBook::RemoveInstance(const std::string& name) {
  const auto found = instance_table_.find(name);
  if (found == instance_table_.end()) return;
  Count(*found->second, -1);
  Unrelate(*found->second);
  instance_table_.erase(found);
}

std::vector<placement::Neighbour> PlacementBook::ApartFrom(const v1::Instance& instance) const {
  std::vector<placement::Neighbour> out;
  const auto add = [&](const std::shared_ptr<const v1::Instance>& other, bool counts) {
    if (other == nullptr || !counts || other->status().host().empty()) return;
    out.push_back({.instance = other->metadata().name(), .host = other->status().host()});
  };
  for (const std::string& name : instance.spec().apart_from()) {
    const auto other = FindInstance(name);
    add(other, other != nullptr && HasSay(instance, *other));
  }
  if (const auto said = apart_said_by_.find(instance.metadata().name());
      said != apart_said_by_.end()) {
    for (const std::string& name : said->second) {
      const auto other = FindInstance(name);
      add(other, other != nullptr && HasSay(*other, instance));
    }
  }
  // Where a copy of it is that is not what it has become.
  for (const std::string& host : instance.status().left_on()) {
    out.push_back({.instance = "what it left of itself there", .host = host});
  }
  std::ranges::sort(out, {}, [](const placement::Neighbour& neighbour) {
    return std::tie(neighbour.host, neighbour.instance);
  });
  return out;
}

Result<placement::Request> PlacementBook::RequestOf(const v1::Instance& instance,
                                                    const BootPolicy& policy) const {
  ASSIGN_OR_RETURN(placement::Request request, ToPlacementRequest(instance, policy));
  const auto pool = FindIn(pool_table_, instance.spec().pool());
  // Nothing says that an unknown pool takes any host.
  request.needs_trusted_host = pool == nullptr || pool->spec().trusted_service();
  for (const std::string& name : instance.spec().near()) {
    const auto other = FindInstance(name);
    const bool counts = other != nullptr && HasSay(instance, *other);
    request.near.push_back(
        {.instance = name, .host = counts ? other->status().host() : std::string()});
  }
  request.apart_from = ApartFrom(instance);
  return request;
}

void SetClaims(const PlacementBook::Claims& claims, v1::Host& host) {
  constexpr int64_t kMostVcpus = std::numeric_limits<int32_t>::max();
  constexpr uint64_t kMostMemory = std::numeric_limits<int64_t>::max();
  v1::HostStatus& status = *host.mutable_status();
  status.set_allocated_vcpus(static_cast<int32_t>(std::min(claims.vcpus, kMostVcpus)));
  status.set_allocated_memory_bytes(static_cast<int64_t>(std::min(claims.memory, kMostMemory)));
  status.set_instances(claims.instances);
}

}  // namespace vallum::controller

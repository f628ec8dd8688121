// SPDX-License-Identifier: Apache-2.0
#include "placement/host_index.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <utility>

#include "base/text.h"

namespace vallum::placement {
namespace {

// Free CPUs by powers of two: a request looks at the classes that have enough of them, and only in
// the lowest of these can a host lack some.
constexpr size_t kCpuClasses = 16;

size_t CpuClass(int64_t vcpus) {
  if (vcpus <= 0) return 0;
  return std::min<size_t>(static_cast<size_t>(std::bit_width(static_cast<uint64_t>(vcpus))),
                          kCpuClasses - 1);
}

// What FirstFailingProperty asks of a host, but the pool.
std::string ClassKey(const HostView& host) {
  std::string key = std::to_string(static_cast<int>(host.state)) + (host.trusted ? 't' : 'u') +
                    host.accelerator + '\n' + host.hypervisor_type + '\n' + host.hypervisor_version;
  for (const std::string& trait : host.traits.Names()) key += '\n' + trait;
  return key;
}

FreeCapacity CapacityOf(const HostView& host) {
  return {.host = &host,
          .memory = FreeMemory(host).bytes(),
          .vcpus = FreeVcpus(host),
          .disk = host.disk_free.bytes(),
          .order = TieOrder(host.name)};
}

}  // namespace

struct HostIndex::Class {
  HostView example;  // stands for all of them in what ClassKey says, and in its pool
  std::string key;
  std::array<CapacityTree, kCpuClasses> trees;  // by CpuClass
  size_t size = 0;
};

HostIndex::HostIndex() = default;
HostIndex::~HostIndex() = default;

void HostIndex::Enlist(Entry& entry) {
  const HostView& host = entry.host;
  std::string key = ClassKey(host);
  std::unique_ptr<Class>& kind = pools_[host.pool][key];
  if (kind == nullptr) {
    kind = std::make_unique<Class>();
    kind->example.pool = host.pool;
    kind->example.state = host.state;
    kind->example.trusted = host.trusted;
    kind->example.traits = host.traits;
    kind->example.accelerator = host.accelerator;
    kind->example.hypervisor_type = host.hypervisor_type;
    kind->example.hypervisor_version = host.hypervisor_version;
    kind->key = std::move(key);
  }
  const FreeCapacity capacity = CapacityOf(host);
  entry.kind = kind.get();
  entry.slot = kind->trees.at(CpuClass(capacity.vcpus)).Add(capacity);
  ++kind->size;
}

void HostIndex::Strike(Entry& entry) {
  Class& kind = *entry.kind;
  kind.trees.at(CpuClass(FreeVcpus(entry.host))).Remove(entry.slot);
  if (--kind.size > 0) return;
  const auto pool = pools_.find(kind.example.pool);
  pool->second.erase(std::string(kind.key));
  if (pool->second.empty()) pools_.erase(pool);
}

void HostIndex::Put(HostView host) {
  const auto found = hosts_.find(host.name);
  if (found == hosts_.end()) {
    auto entry = std::make_unique<Entry>();
    entry->host = std::move(host);
    Enlist(*entry);
    std::string name = entry->host.name;
    hosts_.emplace(std::move(name), std::move(entry));
    return;
  }
  Entry& entry = *found->second;
  Strike(entry);
  entry.host = std::move(host);
  Enlist(entry);
}

void HostIndex::SetAllocated(std::string_view name, int64_t vcpus, ByteCount memory) {
  const auto found = hosts_.find(name);
  if (found == hosts_.end()) return;
  Entry& entry = *found->second;
  const size_t before = CpuClass(FreeVcpus(entry.host));
  entry.host.allocated_vcpus = vcpus;
  entry.host.allocated_memory = memory;
  const FreeCapacity capacity = CapacityOf(entry.host);
  const size_t after = CpuClass(capacity.vcpus);
  if (before == after) {
    entry.kind->trees.at(after).Update(entry.slot, capacity);
    return;
  }
  entry.kind->trees.at(before).Remove(entry.slot);
  entry.slot = entry.kind->trees.at(after).Add(capacity);
}

void HostIndex::Remove(std::string_view name) {
  const auto found = hosts_.find(name);
  if (found == hosts_.end()) return;
  Strike(*found->second);
  hosts_.erase(found);
}

const HostView* HostIndex::Find(std::string_view name) const {
  const auto found = hosts_.find(name);
  return found == hosts_.end() ? nullptr : &found->second->host;
}

const HostView* HostIndex::FindFitting(std::string_view name, const Request& request) const {
  const HostView* host = Find(name);
  return host != nullptr && FirstFailing(*host, request) == Requirement::kNone ? host : nullptr;
}

const HostView* HostIndex::Choose(const Request& request) const {
  if (!request.pinned_host.empty()) return FindFitting(request.pinned_host, request);
  if (!request.near.empty()) return FindFitting(request.near.front().host, request);
  const auto pool = pools_.find(request.pool);
  if (pool == pools_.end()) return nullptr;
  const std::function<bool(const HostView&)> excluded = [&](const HostView& host) {
    return IsApart(host, request);
  };
  Candidate best;
  for (const auto& [key, kind] : pool->second) {
    if (FirstFailingProperty(kind->example, request) != Requirement::kNone) continue;
    for (size_t i = CpuClass(request.vcpus); i < kCpuClasses; ++i) {
      best = kind->trees.at(i).Best(request.memory.bytes(), request.vcpus, request.disk.bytes(),
                                    excluded, best);
    }
  }
  return best.host;
}

Decision HostIndex::Explain(const Request& request) const {
  std::vector<const HostView*> hosts;
  hosts.reserve(hosts_.size());
  for (const auto& [name, entry] : hosts_) hosts.push_back(&entry->host);
  std::ranges::sort(hosts, {}, &HostView::name);
  Decision decision;
  decision.hosts.reserve(hosts.size());
  for (const HostView* host : hosts) decision.hosts.push_back(Judge(*host, request));
  if (const HostView* chosen = Choose(request); chosen != nullptr) decision.chosen = chosen->name;
  return decision;
}

}  // namespace vallum::placement

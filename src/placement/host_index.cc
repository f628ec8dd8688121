// SPDX-License-Identifier: Apache-2.0
#include "placement/host_index.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
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

// What FirstFailingProperty asks of a host, but the pool. Each part with its length: whatever a
// host calls itself, it is of no other's class.
std::string ClassKey(const HostView& host) {
  std::string key = std::to_string(static_cast<int>(host.state)) + (host.trusted ? 't' : 'u');
  const auto add = [&key](std::string_view part) {
    key += std::to_string(part.size());
    key += ':';
    key += part;
  };
  add(host.accelerator);
  add(host.hypervisor_type);
  add(host.hypervisor_version);
  for (const std::string& trait : host.traits.Names()) add(trait);
  return key;
}

FreeCapacity CapacityOf(const HostView& host) {
  return {.host = &host,
          .memory = FreeMemory(host).bytes(),
          .vcpus = FreeVcpus(host),
          .disk = host.disk_free.bytes(),
          .order = TieOrder(host.name)};
}

void NoteRoom(const FreeCapacity& room, Refusal& refusal) {
  refusal.most_vcpus = std::max(refusal.most_vcpus, room.vcpus);
  refusal.most_memory = std::max(refusal.most_memory, ByteCount::Bytes(room.memory));
  refusal.most_disk = std::max(refusal.most_disk, ByteCount::Bytes(room.disk));
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

void HostIndex::Enlist(std::string_view name, Entry& entry) {
  const HostView& host = entry.host;
  std::string key = ClassKey(host);
  Pool& pool = pools_[host.pool];
  pool.names.insert(name);
  std::unique_ptr<Class>& kind = pool.classes[key];
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

void HostIndex::Strike(std::string_view name, Entry& entry) {
  Class& kind = *entry.kind;
  kind.trees.at(CpuClass(FreeVcpus(entry.host))).Remove(entry.slot);
  const auto pool = pools_.find(kind.example.pool);
  pool->second.names.erase(name);
  if (--kind.size > 0) return;
  pool->second.classes.erase(std::string(kind.key));
  if (pool->second.classes.empty()) pools_.erase(pool);
}

void HostIndex::Put(HostView host) {
  const auto found = hosts_.find(host.name);
  if (found == hosts_.end()) {
    auto entry = std::make_unique<Entry>();
    entry->host = std::move(host);
    std::string name = entry->host.name;
    const auto added = hosts_.emplace(std::move(name), std::move(entry)).first;
    names_.insert(added->first);
    Enlist(added->first, *added->second);
    return;
  }
  Entry& entry = *found->second;
  Strike(found->first, entry);
  entry.host = std::move(host);
  Enlist(found->first, entry);
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
  Strike(found->first, *found->second);
  names_.erase(found->first);
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
  for (const auto& [key, kind] : pool->second.classes) {
    if (FirstFailingProperty(kind->example, request) != Requirement::kNone) continue;
    for (size_t i = CpuClass(request.vcpus); i < kCpuClasses; ++i) {
      best = kind->trees.at(i).Best(request.memory.bytes(), request.vcpus, request.disk.bytes(),
                                    excluded, best);
    }
  }
  return best.host;
}

Decision HostIndex::Explain(const Request& request) const {
  Decision decision;
  decision.hosts.reserve(hosts_.size());
  for (const std::string_view name : names_) {
    decision.hosts.push_back(Judge(*Find(name), request));
  }
  if (const HostView* chosen = Choose(request); chosen != nullptr) decision.chosen = chosen->name;
  return decision;
}

std::vector<HostVerdict> HostIndex::ShowSome(const Request& request, const Pool* pool) const {
  std::vector<std::string_view> shown;
  const auto add = [&](std::string_view name) {
    if (Find(name) != nullptr && std::ranges::find(shown, name) == shown.end()) {
      shown.push_back(name);
    }
    return shown.size() < kShownHosts;
  };
  add(request.pinned_host);
  if (!request.near.empty()) add(request.near.front().host);
  if (pool != nullptr) std::ranges::all_of(pool->names, add);
  // Few are passed over here: were there many in the pool, it would have been enough.
  if (shown.size() < kShownHosts) std::ranges::all_of(names_, add);
  std::vector<HostVerdict> out;
  for (const std::string_view name : shown) out.push_back(Judge(*Find(name), request));
  return out;
}

// What a host fails by as far as its class says. Nothing is known to fit.
std::string HostIndex::CategoryOf(const HostView& example, const Request& request) {
  if (!request.pinned_host.empty()) {
    return NameRequirement(example, request, Requirement::kPinnedHost);
  }
  const Requirement failed = FirstFailingProperty(example, request);
  if (failed != Requirement::kNone) return NameRequirement(example, request, failed);
  if (request.near.empty()) return std::string(Refusal::kRoom);
  return NameRequirement(example, request, Requirement::kAffinity);
}

// Moves the hosts that the request itself names to what they fail by.
void HostIndex::CountNamed(const Request& request, const Pool& pool, Counts& counts,
                           Refusal& refusal) const {
  Names named;
  if (!request.pinned_host.empty()) {
    named.insert(request.pinned_host);
  } else if (!request.near.empty()) {
    named.insert(request.near.front().host);
  } else {
    for (const Neighbour& other : request.apart_from) named.insert(other.host);
  }
  for (const std::string_view name : named) {
    if (!pool.names.contains(name)) continue;
    const HostView& host = *Find(name);
    const Requirement failed = FirstFailing(host, request);
    const bool room = failed == Requirement::kVcpus || failed == Requirement::kMemory ||
                      failed == Requirement::kDisk;
    --counts[CategoryOf(host, request)];
    ++counts[room ? std::string(Refusal::kRoom) : NameRequirement(host, request, failed)];
    if (room) NoteRoom(CapacityOf(host), refusal);
  }
}

Refusal HostIndex::Refuse(const Request& request) const {
  Refusal refusal;
  refusal.hosts = hosts_.size();
  Counts counts;
  const auto found = pools_.find(request.pool);
  const Pool* pool = found == pools_.end() ? nullptr : &found->second;
  counts[NameRequirement({}, request, Requirement::kPool)] =
      hosts_.size() - (pool == nullptr ? 0 : pool->names.size());
  if (pool != nullptr) {
    for (const auto& [key, kind] : pool->classes) {
      const std::string category = CategoryOf(kind->example, request);
      counts[category] += kind->size;
      if (category != Refusal::kRoom) continue;
      for (const CapacityTree& tree : kind->trees) {
        if (!tree.empty()) NoteRoom(tree.Most(), refusal);
      }
    }
    CountNamed(request, *pool, counts, refusal);
  }
  for (const auto& [requirement, hosts] : counts) {
    if (hosts > 0) refusal.counts.push_back({.requirement = requirement, .hosts = hosts});
  }
  std::ranges::sort(refusal.counts, [](const Refusal::Count& x, const Refusal::Count& y) {
    return std::tie(y.hosts, x.requirement) < std::tie(x.hosts, y.requirement);
  });
  refusal.shown = ShowSome(request, pool);
  return refusal;
}

}  // namespace vallum::placement

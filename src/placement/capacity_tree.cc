// SPDX-License-Identifier: Apache-2.0
#include "placement/capacity_tree.h"

#include <algorithm>
#include <array>
#include <utility>

namespace vallum::placement {
namespace {

// ComesBefore() of what a node and a candidate keep of their hosts.
bool Beats(const Candidate& a, const Candidate& b) {
  if (a.host == nullptr || b.host == nullptr) return a.host != nullptr;
  if (a.memory != b.memory) return a.memory > b.memory;
  return a.order != b.order ? a.order < b.order : a.host->name < b.host->name;
}

}  // namespace

struct CapacityTree::Search {
  uint64_t memory;
  int64_t vcpus;
  uint64_t disk;
  const std::function<bool(const HostView&)>& excluded;
  Candidate found;
};

Candidate CapacityTree::CandidateOf(const Node& node) const {
  return {.host = node.best == kNone ? nullptr : hosts_[node.best],
          .memory = node.memory,
          .order = node.order};
}

bool CapacityTree::Before(const Node& a, const Node& b) const {
  if (a.best == kNone || b.best == kNone) return a.best != kNone;
  if (a.memory != b.memory) return a.memory > b.memory;
  // Names are far away: they are looked at when all else is equal only.
  return a.order != b.order ? a.order < b.order : Beats(CandidateOf(a), CandidateOf(b));
}

void CapacityTree::Grow() {
  const std::vector<Node> before = std::move(nodes_);
  const size_t had = leaves_;
  leaves_ = std::max<size_t>(leaves_ * 2, 16);
  hosts_.resize(leaves_);
  nodes_.assign(leaves_ * 2, Node());
  for (Slot slot = 0; slot < had; ++slot) {
    nodes_[leaves_ + slot] = before[had + slot];
    Refresh(slot);
  }
}

void CapacityTree::Refresh(Slot slot) {
  for (size_t at = (leaves_ + slot) / 2; at > 0; at /= 2) {
    const Node& left = nodes_[at * 2];
    const Node& right = nodes_[at * 2 + 1];
    Node winner = Before(right, left) ? right : left;
    winner.vcpus = std::max(left.vcpus, right.vcpus);
    winner.disk = std::max(left.disk, right.disk);
    nodes_[at] = winner;
  }
  root_ = nodes_[1];
}

CapacityTree::Slot CapacityTree::Add(const FreeCapacity& host) {
  if (vacant_.empty()) {
    const size_t before = leaves_;
    Grow();
    for (size_t slot = leaves_; slot > before; --slot) {
      vacant_.push_back(static_cast<Slot>(slot - 1));
    }
  }
  const Slot slot = vacant_.back();
  vacant_.pop_back();
  ++size_;
  Update(slot, host);
  return slot;
}

void CapacityTree::Update(Slot slot, const FreeCapacity& host) {
  hosts_[slot] = host.host;
  nodes_[leaves_ + slot] = {.memory = host.memory,
                            .vcpus = host.vcpus,
                            .disk = host.disk,
                            .best = slot,
                            .order = host.order};
  Refresh(slot);
}

void CapacityTree::Remove(Slot slot) {
  hosts_[slot] = nullptr;
  nodes_[leaves_ + slot] = Node();
  Refresh(slot);
  vacant_.push_back(slot);
  --size_;
}

void CapacityTree::Descend(size_t at, const Node& here, Search& search) const {
  if (here.best == kNone || here.vcpus < search.vcpus || here.disk < search.disk ||
      here.memory < search.memory || here.memory < search.found.memory) {
    return;
  }
  const Candidate best = CandidateOf(here);
  if (!Beats(best, search.found)) return;
  const Node& leaf = nodes_[leaves_ + here.best];
  if (leaf.vcpus >= search.vcpus && leaf.disk >= search.disk && !search.excluded(*best.host)) {
    search.found = best;
    return;
  }
  if (at >= leaves_) return;
  // The better half first: what it gives often rules the other one out.
  std::array<size_t, 2> halves = {at * 2, at * 2 + 1};
  if (Before(nodes_[halves[1]], nodes_[halves[0]])) std::swap(halves[0], halves[1]);
  for (const size_t half : halves) Descend(half, nodes_[half], search);
}

Candidate CapacityTree::Best(uint64_t memory, int64_t vcpus, uint64_t disk,
                             const std::function<bool(const HostView&)>& excluded,
                             const Candidate& beaten) const {
  if (size_ == 0) return beaten;
  Search search{
      .memory = memory, .vcpus = vcpus, .disk = disk, .excluded = excluded, .found = beaten};
  Descend(1, root_, search);
  return search.found;
}

}  // namespace vallum::placement

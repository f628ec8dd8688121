// SPDX-License-Identifier: Apache-2.0
#include "placement/capacity_tree.h"

#include <algorithm>
#include <array>
#include <utility>

namespace vallum::placement {

struct CapacityTree::Search {
  uint64_t memory;
  int64_t vcpus;
  uint64_t disk;
  const std::function<bool(std::string_view)>& excluded;
  Node found = {};
};

bool CapacityTree::Before(const Node& a, const Node& b) const {
  if (a.best == kNone || b.best == kNone) return b.best == kNone && a.best != kNone;
  return a.memory != b.memory ? a.memory > b.memory : hosts_[a.best].name < hosts_[b.best].name;
}

void CapacityTree::Grow() {
  leaves_ = std::max<size_t>(leaves_ * 2, 16);
  hosts_.resize(leaves_);
  nodes_.assign(leaves_ * 2, Node());
  for (Slot slot = 0; slot < leaves_; ++slot) {
    if (hosts_[slot].name.data() != nullptr) Refresh(slot);
  }
}

void CapacityTree::Refresh(Slot slot) {
  const FreeCapacity& host = hosts_[slot];
  const bool taken = host.name.data() != nullptr;
  size_t at = leaves_ + slot;
  nodes_[at] = taken ? Node{.memory = host.memory,
                            .vcpus = host.vcpus,
                            .disk = host.disk,
                            .best = slot}
                     : Node();
  for (at /= 2; at > 0; at /= 2) {
    const Node& left = nodes_[at * 2];
    const Node& right = nodes_[at * 2 + 1];
    Node winner = Before(right, left) ? right : left;
    winner.vcpus = std::max(left.vcpus, right.vcpus);
    winner.disk = std::max(left.disk, right.disk);
    nodes_[at] = winner;
  }
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
  hosts_[slot] = host;
  Refresh(slot);
}

void CapacityTree::Remove(Slot slot) {
  hosts_[slot] = FreeCapacity();
  Refresh(slot);
  vacant_.push_back(slot);
  --size_;
}

void CapacityTree::Descend(size_t node, Search& search) const {
  const Node& here = nodes_[node];
  if (here.best == kNone || here.vcpus < search.vcpus || here.disk < search.disk ||
      here.memory < search.memory || !Before(here, search.found)) {
    return;
  }
  const FreeCapacity& best = hosts_[here.best];
  if (best.vcpus >= search.vcpus && best.disk >= search.disk && !search.excluded(best.name)) {
    search.found = here;
    return;
  }
  if (node >= leaves_) return;
  // The better half first: what it gives often rules the other one out.
  std::array<size_t, 2> halves = {node * 2, node * 2 + 1};
  if (Before(nodes_[halves[1]], nodes_[halves[0]])) std::swap(halves[0], halves[1]);
  for (const size_t half : halves) Descend(half, search);
}

const FreeCapacity* CapacityTree::Best(
    uint64_t memory, int64_t vcpus, uint64_t disk,
    const std::function<bool(std::string_view)>& excluded) const {
  if (size_ == 0) return nullptr;
  Search search{.memory = memory, .vcpus = vcpus, .disk = disk, .excluded = excluded};
  Descend(1, search);
  return search.found.best == kNone ? nullptr : &hosts_[search.found.best];
}

}  // namespace vallum::placement

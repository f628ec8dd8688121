// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "placement/placement.h"

namespace vallum::placement {

// What one host has left. The host is the owner's and outlives the entry.
struct FreeCapacity {
  const HostView* host = nullptr;
  uint64_t memory = 0;  // bytes
  int64_t vcpus = 0;
  uint64_t disk = 0;   // bytes
  uint32_t order = 0;  // TieOrder() of its name
};

// A host that would do. nullptr: there is none yet.
struct Candidate {
  const HostView* host = nullptr;
  uint64_t memory = 0;
  uint32_t order = 0;
};

// Hosts that differ in nothing but what they have left, kept so that the one with most free memory
// is found without looking at each: a tournament tree whose nodes know their best host and how many
// CPUs and how much disk any host below them has. A change costs the height of the tree; so does a
// search, unless many hosts with more memory lack CPUs or disk. Not thread-safe.
class CapacityTree {
 public:
  using Slot = uint32_t;

  // Adds a host; the slot stays its own until Remove.
  Slot Add(const FreeCapacity& host);
  void Update(Slot slot, const FreeCapacity& host);
  void Remove(Slot slot);
  bool empty() const { return size_ == 0; }
  // The most that any host has of each, and no host's name.
  FreeCapacity Most() const {
    return {.memory = root_.memory, .vcpus = root_.vcpus, .disk = root_.disk};
  }

  // The host that ComesBefore() the others among those with at least this much of each, or
  // `beaten`, when no such host comes before that.
  //   excluded: hosts that are not to be taken; asked for few of them only.
  Candidate Best(uint64_t memory, int64_t vcpus, uint64_t disk,
                 const std::function<bool(const HostView&)>& excluded,
                 const Candidate& beaten) const;

 private:
  static constexpr Slot kNone = UINT32_MAX;
  // Two of them, which are looked at together, fill a cache line. A leaf is a host.
  struct alignas(32) Node {
    uint64_t memory = 0;  // of the best
    int64_t vcpus = 0;    // the most of any
    uint64_t disk = 0;
    Slot best = kNone;   // of the hosts below
    uint32_t order = 0;  // of the best
  };
  struct Search;

  Candidate CandidateOf(const Node& node) const;
  // Whether the best of a is taken before that of b.
  bool Before(const Node& a, const Node& b) const;
  void Grow();
  void Refresh(Slot slot);
  void Descend(size_t at, const Node& here, Search& search) const;

  Node root_;  // nodes_[1], where a search that ends there finds it
  size_t size_ = 0;
  std::vector<const HostView*> hosts_;  // by slot; nullptr: empty
  std::vector<Slot> vacant_;
  std::vector<Node> nodes_;  // a heap: children of i are 2i and 2i + 1, the leaves come last
  size_t leaves_ = 0;        // a power of two
};

}  // namespace vallum::placement

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "placement/capacity_tree.h"
#include "placement/placement.h"

namespace vallum::placement {

// All hosts, kept so that a decision hardly costs more when there are more of them: hosts that a
// request cannot tell apart but by what they have left form a class; a request is compared with
// each class once and then asks it for its best host. Chooses the same host as Choose() on the same
// hosts. Not thread-safe.
class HostIndex {
 public:
  HostIndex();
  ~HostIndex();
  HostIndex(const HostIndex&) = delete;
  HostIndex& operator=(const HostIndex&) = delete;

  // Adds a host, or replaces the one of that name.
  void Put(HostView host);
  // What the instances on a host claim, in all. Does nothing when there is no such host.
  void SetAllocated(std::string_view name, int64_t vcpus, ByteCount memory);
  // Does nothing when there is no such host.
  void Remove(std::string_view name);
  // nullptr: there is none. Valid until the host is changed.
  const HostView* Find(std::string_view name) const;
  size_t size() const { return hosts_.size(); }

  // The host that fits and ComesBefore() the others that do. nullptr: none fits.
  const HostView* Choose(const Request& request) const;
  // Place() on all hosts, in the order of their names: looks at each.
  Decision Explain(const Request& request) const;
  // Why none fits, when Choose() finds none: as much work as that, however many hosts there are.
  // Shows the host that is asked for or to be near to, then the first by name of the pool, then
  // the first of all.
  Refusal Refuse(const Request& request) const;

 private:
  struct Class;
  struct Entry {
    HostView host;
    Class* kind = nullptr;
    CapacityTree::Slot slot = 0;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };

  using Names = std::set<std::string_view>;  // keys of hosts_
  struct Pool {
    std::map<std::string, std::unique_ptr<Class>> classes;  // by what makes the class
    Names names;
  };

  using Counts = std::map<std::string, size_t>;  // hosts, by what they fail by

  static std::string CategoryOf(const HostView& example, const Request& request);
  void CountNamed(const Request& request, const Pool& pool, Counts& counts, Refusal& refusal) const;
  std::vector<HostVerdict> ShowSome(const Request& request, const Pool* pool) const;
  const HostView* FindFitting(std::string_view name, const Request& request) const;
  void Enlist(std::string_view name, Entry& entry);
  void Strike(std::string_view name, Entry& entry);

  std::unordered_map<std::string, std::unique_ptr<Entry>, Hash, std::equal_to<>> hosts_;
  Names names_;
  std::map<std::string, Pool, std::less<>> pools_;
};

}  // namespace vallum::placement

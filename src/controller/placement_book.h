// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "controller/boot_policy.h"
#include "controller/view.h"
#include "placement/host_index.h"

namespace vallum::controller {

// Hosts, instances and pools as one revision has them, in placement's terms, kept current change
// by change so that a decision looks at few of them. What is claimed on a host is counted from the
// instances themselves, not taken from the host's own numbers. Which hosts are trusted is as of the
// time that it was told of last. Not thread-safe.
class PlacementBook {
 public:
  using Policies = std::vector<std::shared_ptr<const v1::AttestationPolicy>>;
  PlacementBook(const View::Placement& snapshot, const Policies& policies, WallTime now);

  // In the order of View; after the last change of a revision the book is as that revision.
  void Apply(const Change& change);

  // Leases end without a change: to be called before a decision. Costs nothing while none has.
  void EndLeases(WallTime now);

  // nullptr: there is none.
  std::shared_ptr<const v1::Instance> FindInstance(std::string_view name) const;
  std::shared_ptr<const v1::Host> FindHost(std::string_view name) const;

  // Everything that the instance asks of its host, with its pool's trust and the hosts of its
  // neighbours: instances that it names, and those that name it to be apart from.
  // Errors: kInvalidInput (see ToPlacementRequest).
  Result<placement::Request> RequestOf(const v1::Instance& instance,
                                       const BootPolicy& policy) const;
  const placement::HostIndex& hosts() const { return hosts_; }

  // What the instances on a host claim, in all.
  struct Claims {
    int64_t vcpus = 0;
    uint64_t memory = 0;  // bytes
    int32_t instances = 0;
    friend bool operator==(const Claims&, const Claims&) = default;
  };
  Claims ClaimsOn(std::string_view host) const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  template <typename T>
  using Table = std::unordered_map<std::string, std::shared_ptr<const T>, Hash, std::equal_to<>>;

  void PutHost(std::shared_ptr<const v1::Host> host);
  void RemoveHost(const std::string& name);
  void PutPool(std::shared_ptr<const v1::Pool> pool);
  void RemovePool(const std::string& name);
  void PutPolicy(std::shared_ptr<const v1::AttestationPolicy> policy);
  void RemovePolicy(const std::string& name);
  void IndexPoolsOf(const std::string& policy);
  void ForgetLease(const std::string& host);
  void PutInstance(std::shared_ptr<const v1::Instance> instance);
  void RemoveInstance(const std::string& name);
  void Count(const v1::Instance& instance, int sign);
  void Relate(const v1::Instance& instance);
  void Unrelate(const v1::Instance& instance);
  void Index(const v1::Host& host);
  void IndexPool(const std::string& pool);
  std::vector<placement::Neighbour> ApartFrom(const v1::Instance& instance) const;

  placement::HostIndex hosts_;
  Table<v1::Host> host_table_;
  Table<v1::Instance> instance_table_;
  Table<v1::Pool> pool_table_;
  Table<v1::AttestationPolicy> policy_table_;
  WallTime now_;
  // Of the hosts that are trusted, in the order in which that ends.
  std::set<std::pair<WallTime, std::string>> leases_;
  std::unordered_map<std::string, WallTime, Hash, std::equal_to<>> lease_of_;
  std::unordered_map<std::string, Claims, Hash, std::equal_to<>> claims_;  // by host
  // Who says of an instance that it is to be apart from it.
  std::map<std::string, std::set<std::string>, std::less<>> apart_said_by_;
};

// Writes what is claimed on a host into its status.
void SetClaims(const PlacementBook::Claims& claims, v1::Host& host);

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "store/store.h"

namespace vallum::store {

// The live leases, when each expires, and the keys that belong to it. A value without locks.
class LeaseTable {
 public:
  void Add(LeaseId lease, std::chrono::seconds ttl, MonotonicTime now);
  void Remove(LeaseId lease);
  // From here on the lease is gone for everyone, until it is removed or restored.
  void MarkRevoked(LeaseId lease);
  void Restore(LeaseId lease);

  // Moves the expiry to now + TTL. Errors: kNotFound (no such lease, or expired).
  Result<void> KeepAlive(LeaseId lease, MonotonicTime now);
  // Errors: kNotFound (no such lease, or expired).
  Result<void> CheckLive(LeaseId lease, MonotonicTime now) const;
  bool empty() const { return leases_.empty(); }

  std::vector<LeaseId> Expired(MonotonicTime now) const;
  const std::set<std::string>& Keys(LeaseId lease) const;

  // A lease that is not in the table is passed over: it was revoked together with its keys.
  void Attach(LeaseId lease, const std::string& key);
  void Detach(LeaseId lease, const std::string& key);
  void DetachAll();

 private:
  struct Lease {
    std::chrono::seconds ttl{};
    MonotonicTime expiry;
    std::set<std::string> keys;
    bool revoked = false;
  };
  std::unordered_map<LeaseId, Lease> leases_;
};

}  // namespace vallum::store

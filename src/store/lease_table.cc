// SPDX-License-Identifier: Apache-2.0
#include "store/lease_table.h"

#include <chrono>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/result.h"

namespace vallum::store {

void LeaseTable::Add(LeaseId lease, std::chrono::seconds ttl, MonotonicTime now) {
  leases_[lease] = Lease{ttl, now + ttl, {}, false};
}

void LeaseTable::Remove(LeaseId lease) { leases_.erase(lease); }

void LeaseTable::MarkRevoked(LeaseId lease) {
  if (const auto it = leases_.find(lease); it != leases_.end()) it->second.revoked = true;
}

void LeaseTable::Restore(LeaseId lease) {
  if (const auto it = leases_.find(lease); it != leases_.end()) it->second.revoked = false;
}

Result<void> LeaseTable::KeepAlive(LeaseId lease, MonotonicTime now) {
  RETURN_IF_ERROR(CheckLive(lease, now));
  Lease& found = leases_.find(lease)->second;
  found.expiry = now + found.ttl;
  return Ok();
}

Result<void> LeaseTable::CheckLive(LeaseId lease, MonotonicTime now) const {
  const auto it = leases_.find(lease);
  if (it == leases_.end() || it->second.revoked || it->second.expiry <= now) {
    return NotFound("lease " + std::to_string(lease) + " does not exist or has expired")
        .WithFix("grant a new lease");
  }
  return Ok();
}

std::vector<LeaseId> LeaseTable::Expired(MonotonicTime now) const {
  std::vector<LeaseId> expired;
  for (const auto& [id, lease] : leases_) {
    if (!lease.revoked && lease.expiry <= now) expired.push_back(id);
  }
  return expired;
}

const std::set<std::string>& LeaseTable::Keys(LeaseId lease) const {
  static const std::set<std::string> kNone;
  const auto it = leases_.find(lease);
  return it == leases_.end() ? kNone : it->second.keys;
}

void LeaseTable::Attach(LeaseId lease, const std::string& key) {
  if (const auto it = leases_.find(lease); it != leases_.end()) it->second.keys.insert(key);
}

void LeaseTable::Detach(LeaseId lease, const std::string& key) {
  if (const auto it = leases_.find(lease); it != leases_.end()) it->second.keys.erase(key);
}

void LeaseTable::DetachAll() {
  for (auto& [id, lease] : leases_) lease.keys.clear();
}

}  // namespace vallum::store

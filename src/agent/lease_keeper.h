// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// What a lease must be about.
struct LeaseExpectation {
  std::string host;
  std::string boot_id;
  Bytes ak_name;
  std::string ca_pem;
  WallTime now;
};
// Clocks of host and controller may differ by so much.
inline constexpr std::chrono::minutes kLeaseClockSkew{5};

// Checks a lease: signed by a lease signer of the deployment's CA, for this host, this boot of it
// and this attestation key; not over, and issued no later than now.
// Errors: kDenied, saying which check failed; kInvalidInput (unreadable). Pure.
Result<v1::LeaseClaims> VerifyLease(const v1::TrustLease& lease,
                                    const LeaseExpectation& expectation);

// Time since the host booted, asleep or not; nobody can set it back.
std::chrono::nanoseconds TimeSinceBoot();

struct LeaseOptions {
  std::filesystem::path path;  // lease.pb
  std::string host;
  std::string boot_id;
  std::string ca_pem;
  std::function<std::chrono::nanoseconds()> since_boot = TimeSinceBoot;
};

// Keeps what the controller last said of this host's trust, and its lease, over restarts of the
// agent. A lease lives until its end by the wall clock, and no longer than it had left when it came
// by the clock since boot: a wall clock that is set back prolongs nothing. Thread-safe.
class LeaseKeeper {
 public:
  //   clock: outlives this.
  LeaseKeeper(LeaseOptions options, const Clock& clock);

  // The attestation key in use; a lease for another one ends.
  void SetKey(Bytes ak_name);
  // Takes up the lease that an earlier agent had, if it is one of this boot. Returns why it has not
  // been, or nothing.
  std::string Load();
  // Takes what the controller says. A lease that does not verify leaves none. Errors: as
  // VerifyLease; those of the file system (the lease is in force, but only for this agent).
  Result<void> Take(const v1::TrustNotice& notice);
  // For words alone.
  void SetReached(bool reached);

  // Whether instances of a trusted pool may start, now.
  // Errors: kDenied, in words, with what will change it.
  Result<void> Check(const std::string& pool) const;

 private:
  struct Held {
    v1::TrustLease lease;
    v1::LeaseClaims claims;
    std::chrono::nanoseconds ends_since_boot;
  };
  bool IsLive(const Held& held) const;
  Result<void> Store() const;

  const LeaseOptions options_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  Bytes ak_name_;             // guarded by mutex_, as the rest
  std::optional<Held> held_;  // live or over
  std::string detail_;        // the controller's
  bool heard_ = false;        // the controller has said something
  bool reached_ = false;
  WallTime reached_change_;
};

}  // namespace vallum::agent

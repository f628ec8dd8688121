// SPDX-License-Identifier: Apache-2.0
#include "agent/lease_keeper.h"

#include <algorithm>
#include <charconv>
#include <ctime>
#include <utility>

#include "agent/messages.h"
#include "agent/state_files.h"
#include "base/text.h"
#include "tls/authority.h"
#include "tls/certificate.h"
#include "tls/signing.h"

namespace vallum::agent {
namespace {

using std::chrono::nanoseconds;

constexpr const char* kKind = "lease";
constexpr size_t kMaxClaims = size_t{16} << 10U;
constexpr const char* kFix =
    "this host may start instances of trusted pools again once the controller has found it "
    "TRUSTED; `vallum host show NAME --explain` says why it is not";

Error NotOurs(const std::string& what) {
  return Denied("the controller's lease is not taken: " + what);
}

}  // namespace

nanoseconds TimeSinceBoot() {
  timespec time{};
  clock_gettime(CLOCK_BOOTTIME, &time);
  return std::chrono::seconds(time.tv_sec) + nanoseconds(time.tv_nsec);
}

Result<v1::LeaseClaims> VerifyLease(const v1::TrustLease& lease,
                                    const LeaseExpectation& expectation) {
  const ByteView signer = AsBytes(lease.signer_certificate());
  RETURN_IF_ERROR(
      tls::VerifySigner(signer, expectation.ca_pem, tls::kLeaseSignerUnit, expectation.now))
      .context("reading the controller's lease");
  RETURN_IF_ERROR(tls::VerifySha256(signer, AsBytes(lease.claims()), AsBytes(lease.signature())))
      .context("reading the controller's lease");
  v1::LeaseClaims claims;
  if (lease.claims().size() > kMaxClaims || !claims.ParseFromString(lease.claims())) {
    return InvalidInput("the controller's lease cannot be read");
  }
  if (claims.host() != expectation.host) {
    return NotOurs("it is for host '" + Printable(claims.host(), 70) + "'");
  }
  if (claims.boot_id() != expectation.boot_id) {
    return NotOurs("it is for another boot of this host");
  }
  if (expectation.ak_name.empty() || claims.ak_name() != AsText(ByteView(expectation.ak_name))) {
    return NotOurs("it is for another attestation key than this host's");
  }
  if (!claims.has_issue_time() || !claims.has_expire_time() ||
      FromTimestamp(claims.expire_time()) <= FromTimestamp(claims.issue_time())) {
    return NotOurs("it has no time in which it is good");
  }
  if (FromTimestamp(claims.expire_time()) <= expectation.now) {
    return NotOurs("it ended at " + FormatTime(FromTimestamp(claims.expire_time())) +
                   "; compare the clocks of this host and the controller");
  }
  if (FromTimestamp(claims.issue_time()) > expectation.now + kLeaseClockSkew) {
    return NotOurs("it begins at " + FormatTime(FromTimestamp(claims.issue_time())) +
                   ", which is in the future; compare the clocks of this host and the controller");
  }
  return claims;
}

LeaseKeeper::LeaseKeeper(LeaseOptions options, const Clock& clock)
    : options_(std::move(options)), clock_(clock), reached_change_(clock.Now()) {}

void LeaseKeeper::SetKey(Bytes ak_name) {
  const std::lock_guard lock(mutex_);
  ak_name_ = std::move(ak_name);
  if (held_ && held_->claims.ak_name() != AsText(ByteView(ak_name_))) {
    held_.reset();
  }
}

void LeaseKeeper::SetReached(bool reached) {
  const std::lock_guard lock(mutex_);
  if (reached_ != reached) {
    reached_ = reached;
    reached_change_ = clock_.Now();
  }
}

bool LeaseKeeper::IsLive(const Held& held) const {
  return options_.since_boot() < held.ends_since_boot &&
         clock_.Now() < FromTimestamp(held.claims.expire_time());
}

Result<void> LeaseKeeper::Store() const {
  if (!held_) {
    return RemoveTree(options_.path);
  }
  return WriteStateFile(
      options_.path, kKind,
      std::to_string(held_->ends_since_boot.count()) + "\n" + held_->lease.SerializeAsString());
}

std::string LeaseKeeper::Load() {
  auto content = ReadStateFile(options_.path, kKind);
  if (!content) {
    return content.error().code() == ErrorCode::kNotFound ? "" : content.error().Describe();
  }
  const size_t line = content->find('\n');
  int64_t ends = 0;
  v1::TrustLease lease;
  if (line == std::string::npos ||
      std::from_chars(content->data(), content->data() + line, ends).ptr !=
          content->data() + line ||
      !lease.ParseFromString(content->substr(line + 1))) {
    return options_.path.string() + " cannot be read";
  }
  const std::lock_guard lock(mutex_);
  auto claims = VerifyLease(lease, {.host = options_.host,
                                    .boot_id = options_.boot_id,
                                    .ak_name = ak_name_,
                                    .ca_pem = options_.ca_pem,
                                    .now = clock_.Now()});
  if (!claims) {
    return claims.error().Describe();
  }
  held_ = Held{std::move(lease), *std::move(claims), nanoseconds(ends)};
  return "";
}

Result<void> LeaseKeeper::Take(const v1::TrustNotice& notice) {
  const std::lock_guard lock(mutex_);
  heard_ = true;
  detail_ = Printable(notice.detail(), 500);
  if (!notice.has_lease()) {
    held_.reset();
    return Store();
  }
  const WallTime now = clock_.Now();
  auto claims = VerifyLease(notice.lease(), {.host = options_.host,
                                             .boot_id = options_.boot_id,
                                             .ak_name = ak_name_,
                                             .ca_pem = options_.ca_pem,
                                             .now = now});
  if (!claims) {
    held_.reset();
    static_cast<void>(Store());
    detail_ = claims.error().Describe();
    return std::move(claims).error();
  }
  const WallTime issued = FromTimestamp(claims->issue_time());
  const WallTime expires = FromTimestamp(claims->expire_time());
  nanoseconds ends = options_.since_boot() + std::min<nanoseconds>(expires - now, expires - issued);
  // The same lease, told again, ends when it was to end: the wall clock may have been set back.
  if (held_ && held_->claims.serial() == claims->serial()) {
    ends = std::min(ends, held_->ends_since_boot);
  }
  held_ = Held{notice.lease(), *std::move(claims), ends};
  return Store();
}

Result<void> LeaseKeeper::Check(const std::string& pool) const {
  const std::lock_guard lock(mutex_);
  if (held_ && IsLive(*held_)) {
    if (held_->claims.pool() == pool) {
      return Ok();
    }
    // Trusted by the policy of one pool is not trusted by that of another.
    return Denied("no live lease for pool " + Printable(pool, 63) +
                  ": this host has one for pool " + Printable(held_->claims.pool(), 63))
        .WithFix("move the host to the instance's pool: `vallum host move`");
  }
  std::string words = "no live lease: ";
  if (held_) {
    words += "the lease ended at " + FormatTime(FromTimestamp(held_->claims.expire_time()));
  } else if (heard_) {
    words += "the controller gives this host none" + (detail_.empty() ? "" : ": " + detail_);
  } else {
    words += "this host has none of this boot";
  }
  if (!reached_) {
    words += "; the controller has not been reached since " + FormatTime(reached_change_);
  }
  return Denied(std::move(words)).WithFix(kFix);
}

}  // namespace vallum::agent

// SPDX-License-Identifier: Apache-2.0
#include "controller/host_standing.h"

#include <optional>
#include <utility>

#include "controller/resource_store.h"
#include "controller/trust_gap.h"

namespace vallum::controller {

attest::TpmKind TpmKindOf(const v1::HostIdentity& identity) {
  if (identity.emulated()) return attest::TpmKind::kEmulated;
  return identity.authority().empty() ? attest::TpmKind::kUnknown : attest::TpmKind::kHardware;
}

attest::HostVerdictKind VerdictKindOf(v1::TrustLevel level) {
  switch (static_cast<int>(level)) {
    case v1::TRUST_TRUSTED:
      return attest::HostVerdictKind::kTrusted;
    case v1::TRUST_UNTRUSTED:
      return attest::HostVerdictKind::kUntrusted;
    case v1::TRUST_STALE:
      return attest::HostVerdictKind::kStale;
    default:  // also a level of a later version
      return attest::HostVerdictKind::kUnknown;
  }
}

namespace {

// What holds now: a host that has rebooted, is away, whose lease is over, or that was found good by
// what is not in force any more, was trusted once.
attest::HostVerdictKind VerdictKindNow(const v1::Host& host, const View& view, WallTime now) {
  const attest::HostVerdictKind kind = VerdictKindOf(host.status().trust().level());
  if (kind != attest::HostVerdictKind::kTrusted) return kind;
  const v1::HostState state = host.status().state();
  const bool here = state == v1::HOST_UP || state == v1::HOST_MAINTENANCE;
  const auto pool = view.Get<v1::Pool>(host.spec().pool());
  if (!here || pool == nullptr) return attest::HostVerdictKind::kStale;
  const auto policy = view.Get<v1::AttestationPolicy>(pool->spec().attestation_policy());
  return FindTrustGap(host, pool->spec(), policy.get(), now).has_value()
             ? attest::HostVerdictKind::kStale
             : kind;
}

}  // namespace

attest::HostStanding StandingOf(const v1::Host& host, const View& view, WallTime now) {
  const v1::HostTrust& trust = host.status().trust();
  const v1::HostIdentity& identity = host.status().identity();
  attest::HostStanding out;
  out.kind = VerdictKindNow(host, view, now);
  out.policy = trust.policy();
  out.policy_version = static_cast<uint64_t>(trust.policy_version());
  // An administrator who approved a key by hand vouches for the key, not for what holds it.
  out.hardware_tpm =
      !identity.ak_name().empty() && TpmKindOf(identity) == attest::TpmKind::kHardware;
  out.files_judged = trust.ima_entries() > 0;
  for (const v1::TrustReason& each : trust.reasons()) {
    attest::Reason reason{
        .id = attest::ReasonFromName(each.id()).value_or(attest::ReasonId::kMoreReasons),
        .content = each.decoded(),
        .expected = each.expected(),
        .actual = each.actual(),
        .fix = each.fix()};
    if (each.has_pcr()) reason.pcr = static_cast<uint32_t>(each.pcr());
    if (each.has_event()) reason.event = static_cast<size_t>(each.event());
    out.reasons.push_back(std::move(reason));
  }
  return out;
}

attest::OatHost OatHostOf(const std::string& name, const v1::Host* host, const View& view,
                          WallTime now) {
  attest::OatHost out{.name = name};
  if (host == nullptr) return out;
  out.kind = VerdictKindNow(*host, view, now);
  if (host->status().trust().has_verify_time()) {
    out.verified = FromTimestamp(host->status().trust().verify_time());
  }
  return out;
}

}  // namespace vallum::controller

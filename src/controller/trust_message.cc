// SPDX-License-Identifier: Apache-2.0
#include "controller/trust_message.h"

#include <string>

#include "controller/resource_store.h"

namespace vallum::controller {

v1::TrustLevel LevelOf(attest::HostVerdictKind kind) {
  switch (kind) {
    case attest::HostVerdictKind::kTrusted:
      return v1::TRUST_TRUSTED;
    case attest::HostVerdictKind::kUntrusted:
      return v1::TRUST_UNTRUSTED;
    case attest::HostVerdictKind::kUnknown:
      return v1::TRUST_UNKNOWN;
    case attest::HostVerdictKind::kStale:
      return v1::TRUST_STALE;
  }
  return v1::TRUST_UNKNOWN;
}

v1::TrustReason ToMessage(const attest::Reason& reason) {
  v1::TrustReason out;
  out.set_id(std::string(attest::ReasonName(reason.id)));
  if (reason.pcr.has_value()) out.set_pcr(static_cast<int32_t>(*reason.pcr));
  if (reason.event.has_value()) out.set_event(static_cast<int32_t>(*reason.event));
  out.set_decoded(reason.content);
  out.set_expected(reason.expected);
  out.set_actual(reason.actual);
  out.set_fix(reason.fix);
  return out;
}

void SetWithoutEvidence(v1::TrustLevel level, const std::string& detail, WallTime now,
                        v1::HostTrust& trust) {
  if (trust.level() != level) *trust.mutable_change_time() = ToTimestamp(now);
  trust.set_level(level);
  trust.set_detail(detail);
  trust.clear_reasons();
  *trust.add_reasons() =
      ToMessage({.id = level == v1::TRUST_STALE ? attest::ReasonId::kTooOld
                                                : attest::ReasonId::kNeverAttested,
                 .actual = detail});
  trust.clear_notes();
  trust.clear_lease_expire_time();
}

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "attest/ear.h"
#include "attest/host_verification.h"
#include "attest/oat_trust.h"
#include "attest/reason.h"
#include "controller/resource_kind.h"
#include "controller/view.h"

namespace vallum::controller {

// What vouches for a host's TPM: kUnknown where nobody certified its key.
attest::TpmKind TpmKindOf(const v1::HostIdentity& identity);

// A host whose pool asks for no trust was not judged: it is UNKNOWN.
attest::HostVerdictKind VerdictKindOf(v1::TrustLevel level);

// What is known of a host, for relying parties: as in FindTrustGap, and while the host is here.
attest::HostStanding StandingOf(const v1::Host& host, const View& view, WallTime now);

// What clients of OpenAttestation are told of a host, as StandingOf; of one that does not exist
// (nullptr), that it is unknown.
attest::OatHost OatHostOf(const std::string& name, const v1::Host* host, const View& view,
                          WallTime now);

}  // namespace vallum::controller

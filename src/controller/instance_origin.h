// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "controller/principal.h"
#include "controller/view.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::controller {

// What a new instance is made from: the image that its spec names, or its snapshot's disk in the
// form of one. nullptr: the spec names neither, or there is none of that name.
std::shared_ptr<const v1::Image> OriginOf(const View& view, const v1::InstanceSpec& spec);

// "image debian12", "snapshot s1".
std::string OriginWords(const v1::InstanceSpec& spec);

// The snapshot that a spec names, which need not be READY.
// Errors: kNotFound (none that the principal may see: whether there is one is not said).
Result<std::shared_ptr<const v1::Snapshot>> FindSnapshot(const View& view,
                                                         const Principal& principal,
                                                         const std::string& name);

// Fills what a spec with `snapshot` leaves open from the instance that was snapshotted: sizes,
// boot, vTPM model, key set, pool, networks (each with a new MAC), seed (without its hostname),
// trusted_service. Errors: kNotFound (no snapshot of that name that the principal may see),
// kConflict (not READY), kInvalidInput (also an image; TPM_ORIGIN_COPY without a vTPM in the
// snapshot, or without a snapshot).
Result<void> FillFromSnapshot(const View& view, const Principal& principal, v1::InstanceSpec& spec);

// A trusted instance belongs into a pool of attested hosts.
enum class TrustCrossing { kNone, kAllowed };
// Errors: kConflict (trusted instance, other pool, and nobody allowed it).
Result<TrustCrossing> CheckTrust(const v1::InstanceSpec& spec, const v1::Pool& pool);

// Whether the state of its vTPM came from outside, at first or second hand: then nobody knows who
// else has its keys.
bool HasImportedTpm(const View& view, const v1::InstanceSpec& spec);

// The image that a host starts the instance from, and what its first start takes over.
void SetDesiredOrigin(const View& view, const v1::Instance& instance, v1::DesiredInstance& desired);

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"
#include "controller/boot_policy.h"
#include "controller/event_log.h"
#include "controller/instance_keys.h"
#include "controller/instance_origin.h"
#include "controller/minute_pace.h"
#include "controller/operations.h"
#include "controller/principal.h"
#include "controller/resource_store.h"
#include "controller/view.h"

namespace vallum::controller {

enum class StopKind { kGraceful, kForce };
// What to do when an image would not start with new keys.
enum class Unbootable { kRefuse, kWarn };

// What people ask of instances: each call changes the stored spec and makes an Operation in the
// same Txn; reconcilers do the rest. Does not authorize: the caller has done that. When a call
// returns, the view has seen the change. Thread-safe; calls block on the store.
class InstanceService {
 public:
  //   attest_now: asks a host for evidence as soon as it can.
  using AttestNow = std::function<void(const std::string& host)>;
  InstanceService(ResourceStore& resources, const View& view, Operations& operations,
                  EventLog& events, AttestNow attest_now)
      : resources_(resources),
        view_(view),
        operations_(operations),
        events_(events),
        attest_now_(std::move(attest_now)),
        pace_(resources.clock()) {}

  struct Accepted {
    v1::Instance instance;
    v1::Operation operation;
  };
  // Resolves image, flavor, pool and boot policy; copies the flavor's sizes into spec. In a pool
  // that is a trusted service the instance becomes a trusted one.
  //   instance: metadata.name, labels and tenant, and spec.
  //   preflight: warns of an image that will not start. Asked again, a few times at most, when what
  //   the instance uses changes meanwhile.
  // Errors: kInvalidInput (with both settings for boot conflicts), kNotFound (image, snapshot,
  // flavor, pool, key set), kConflict (name taken; image or snapshot not ready; a trusted instance
  // and a pool that is not; what it uses changed again and again).
  Result<Accepted> Create(const v1::Instance& instance, const Principal& principal,
                          const Preflight& preflight);

  // if_match: as in ResourceStore::Update. Errors: kNotFound, kConflict (being deleted, If-Match,
  // wrong state), and the store's.
  Result<Accepted> Start(std::string_view name, const Principal& who, store::Revision if_match = 0);
  Result<Accepted> Stop(std::string_view name, StopKind kind, const Principal& who,
                        store::Revision if_match = 0);
  Result<Accepted> Reboot(std::string_view name, const Principal& who,
                          store::Revision if_match = 0);
  Result<Accepted> Pause(std::string_view name, const Principal& who, store::Revision if_match = 0);
  Result<Accepted> Resume(std::string_view name, const Principal& who,
                          store::Revision if_match = 0);
  Result<Accepted> Delete(std::string_view name, const Principal& who,
                          store::Revision if_match = 0);

  // PUT and PATCH: labels and those fields of spec that may change: power, force_stop,
  // stop_timeout_seconds, reboot_count; key_set and key_set_version, from the next start or reboot
  // on; boot.mode of a stopped instance, resolved as at creation.
  //   preflight: keys under which the image would not start are refused, unless forced; then they
  //   are a warning.
  // Errors: also kInvalidInput, naming the field that may not; kConflict (would not start; the host
  // cannot do it).
  Result<v1::Instance> Update(const v1::Instance& wanted, store::Revision if_match,
                              const Preflight& preflight, Unbootable unbootable);

  // What would be chosen now for an instance of the principal's tenant (empty: none), and why not
  // each other host. Errors: as Create.
  Result<v1::ScheduleExplainReply> Explain(const v1::InstanceSpec& spec,
                                           const Principal& principal) const;

 private:
  Result<BootPolicy> Resolve(v1::InstanceSpec& spec) const;
  // Errors: kConflict; then the host is asked for evidence.
  Result<void> CheckTrustOfHost(const v1::Instance& instance);
  Result<void> ChangeBoot(const v1::Instance& current, const Preflight& preflight,
                          Unbootable unbootable, v1::Instance& next) const;
  Result<void> ChangeMode(const v1::Instance& current, v1::Instance& next) const;
  // nullopt: a key set changed since, and it is to be decided again.
  Result<std::optional<store::Txn>> MakeUpdate(store::Revision decided_from,
                                               const v1::Instance& current,
                                               const v1::Instance& next) const;
  // What a request becomes by what there is now.
  struct Decision {
    v1::Instance instance;  // but for its metadata
    TrustCrossing crossing = TrustCrossing::kNone;
  };
  Result<Decision> Decide(v1::Instance instance, const Principal& principal,
                          const Preflight& preflight) const;
  Result<void> TellCrossing(const v1::Instance& instance, const Principal& principal);
  // False when what it uses has changed since.
  //   decided_from: the view's revision before anything was looked at.
  Result<bool> CommitNew(store::Revision decided_from, v1::Instance& instance,
                         v1::Operation& operation);
  Result<Accepted> Change(std::string_view name, std::string_view kind, const Principal& who,
                          store::Revision if_match,
                          const std::function<Result<void>(v1::Instance&)>& change);

  ResourceStore& resources_;
  const View& view_;
  Operations& operations_;
  EventLog& events_;
  const AttestNow attest_now_;
  MinutePace pace_;  // of what is asked of hosts
};

}  // namespace vallum::controller

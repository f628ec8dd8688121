// SPDX-License-Identifier: Apache-2.0
#include "controller/scheduler.h"

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "controller/boot_policy.h"
#include "controller/placement_input.h"
#include "placement/placement.h"

namespace vallum::controller {
namespace {

constexpr int kAttempts = 20;

// The traits follow from the mode that was resolved at creation, whatever image or flavor say now.
Result<BootPolicy> StoredPolicy(const v1::Instance& instance) {
  BootInputs inputs;
  inputs.request.set_type(instance.status().boot().requested().type());
  inputs.request.set_mode(instance.status().boot().requested().mode());
  inputs.request_tpm_model = instance.spec().tpm_model();
  return ResolveBoot(inputs);
}

store::Compare Unchanged(Kind kind, const v1::Metadata& metadata) {
  return {.key = KeyOf(kind, metadata.name()), .mod_revision = metadata.revision()};
}

Error NoInstance(const std::string& name) {
  return NotFound("instance \"" + name + "\" does not exist");
}

}  // namespace

Scheduler::Scheduler(ResourceStore& resources, View& view, Metrics& metrics)
    : resources_(resources), view_(view), metrics_(metrics) {
  // Once more when so much has changed meanwhile that the view has forgotten where that began.
  while (subscription_ == 0) {
    const View::Placement snapshot = view_.ForPlacement();
    {
      const std::lock_guard lock(mutex_);
      // Policies of a later revision do no harm: what led to them is heard below, in its order.
      book_ = std::make_unique<PlacementBook>(snapshot, view_.All<v1::AttestationPolicy>(),
                                              resources_.clock().Now());
      unfinished_.clear();
    }
    const auto subscribed =
        view_.Subscribe(snapshot.revision + 1, [this](const Change& change) { Hear(change); });
    if (subscribed.has_value()) subscription_ = *subscribed;
  }
}

Scheduler::~Scheduler() { view_.Unsubscribe(subscription_); }

void Scheduler::Hear(const Change& change) {
  const std::lock_guard lock(mutex_);
  // Between an instance's change and its host's the book would show a host of one revision with
  // the claims of another, and the comparison of revisions would not notice.
  unfinished_.push_back(change);
  if (!change.ends_revision) return;
  for (const Change& one : unfinished_) book_->Apply(one);
  unfinished_.clear();
}

Result<Scheduler::Claim> Scheduler::Decide(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  book_->EndLeases(resources_.clock().Now());
  Claim claim;
  claim.instance = book_->FindInstance(name);
  if (claim.instance == nullptr) return NoInstance(name);
  if (!claim.instance->status().host().empty()) return claim;
  ASSIGN_OR_RETURN(const BootPolicy policy, StoredPolicy(*claim.instance));
  ASSIGN_OR_RETURN(const placement::Request request, book_->RequestOf(*claim.instance, policy));
  const placement::HostView* chosen = book_->hosts().Choose(request);
  if (chosen == nullptr) {
    return Exhausted(placement::DescribeRefusal(book_->hosts().Refuse(request)))
        .WithFix(
            "`vallum schedule explain` shows every host; add a host, free one, or ask for "
            "less");
  }
  claim.host = book_->FindHost(chosen->name);
  CHECK(claim.host != nullptr);
  claim.claims = book_->ClaimsOn(chosen->name);
  return claim;
}

Result<store::TxnResult> Scheduler::Commit(const Claim& claim, const v1::Instance& placed) {
  v1::Host claimed = *claim.host;
  PlacementBook::Claims claims = claim.claims;
  claims.vcpus += ClaimedVcpus(placed);
  claims.memory += ClaimedMemory(placed).bytes();
  ++claims.instances;
  SetClaims(claims, claimed);
  store::Txn txn;
  txn.compares = {Unchanged(Kind::kInstance, claim.instance->metadata()),
                  Unchanged(Kind::kHost, claim.host->metadata())};
  txn.writes = {
      store::Write::Put(KeyOf(Kind::kInstance, placed.metadata().name()), EncodeResource(placed)),
      store::Write::Put(KeyOf(Kind::kHost, claimed.metadata().name()), EncodeResource(claimed))};
  return resources_.raw().Commit(txn);
}

Result<v1::Instance> Scheduler::Place(const std::string& name) {
  const std::lock_guard placing(placing_);
  RETURN_IF_ERROR(view_.WaitUntilHeard(view_.revision()));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const Result<Claim> claim = Decide(name);
    if (!claim.has_value()) {
      if (claim.error().code() == ErrorCode::kExhausted) {
        metrics_.placement_refusals_total.fetch_add(1);
      }
      return claim.error();
    }
    v1::Instance placed = *claim->instance;
    if (claim->host == nullptr) return placed;
    v1::InstanceStatus& status = *placed.mutable_status();
    status.set_host(claim->host->metadata().name());
    status.set_phase(placed.spec().power() == v1::POWER_STOPPED ? v1::INSTANCE_STOPPED
                                                                : v1::INSTANCE_STARTING);
    status.clear_reason();
    status.clear_fix();
    ASSIGN_OR_RETURN(const store::TxnResult done, Commit(*claim, placed));
    // Either way the book must catch up before it can be decided from again.
    RETURN_IF_ERROR(view_.WaitUntilHeard(done.revision));
    if (done.succeeded) {
      metrics_.placements_total.fetch_add(1);
      placed.mutable_metadata()->set_revision(done.revision);
      return placed;
    }
    metrics_.claim_conflicts_total.fetch_add(1);
  }
  return Conflict("too many others are placing instances at once").WithFix("try again");
}

Result<Scheduler::Claim> Scheduler::FindClaim(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  Claim claim;
  claim.instance = book_->FindInstance(name);
  if (claim.instance == nullptr) return NoInstance(name);
  const std::string& host = claim.instance->status().host();
  claim.host = book_->FindHost(host);
  if (claim.host == nullptr) return claim;
  claim.claims = book_->ClaimsOn(host);
  claim.claims.vcpus -= ClaimedVcpus(*claim.instance);
  claim.claims.memory -= ClaimedMemory(*claim.instance).bytes();
  --claim.claims.instances;
  return claim;
}

Result<bool> Scheduler::Unplace(const std::string& name, const v1::Snapshot& origin,
                                const std::function<bool(v1::Instance&)>& change) {
  const std::lock_guard placing(placing_);
  RETURN_IF_ERROR(view_.WaitUntilHeard(view_.revision()));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const Claim claim, FindClaim(name));
    v1::Instance changed = *claim.instance;
    if (!change(changed)) return false;
    ResourceStore::PrepareUpdate(*claim.instance, changed);
    store::Txn txn;
    // What it starts from must be there still, and whoever deletes it must see this use.
    txn.compares = {Unchanged(Kind::kInstance, claim.instance->metadata()),
                    Unchanged(Kind::kSnapshot, origin.metadata())};
    txn.writes = {store::Write::Put(KeyOf(Kind::kInstance, name), EncodeResource(changed)),
                  store::Write::Put(UseKey(Kind::kSnapshot, origin.metadata().name()),
                                    changed.metadata().uid())};
    if (claim.host != nullptr) {
      v1::Host freed = *claim.host;
      SetClaims(claim.claims, freed);
      txn.compares.push_back(Unchanged(Kind::kHost, claim.host->metadata()));
      txn.writes.push_back(
          store::Write::Put(KeyOf(Kind::kHost, freed.metadata().name()), EncodeResource(freed)));
    }
    ASSIGN_OR_RETURN(const store::TxnResult done, resources_.raw().Commit(txn));
    RETURN_IF_ERROR(view_.WaitUntilHeard(done.revision));
    if (done.succeeded) return true;
  }
  return Conflict("instance \"" + name + "\" or its snapshot changes too often")
      .WithFix("try again");
}

Result<void> Scheduler::Release(const std::string& name) {
  const std::lock_guard placing(placing_);
  RETURN_IF_ERROR(view_.WaitUntilHeard(view_.revision()));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const Claim claim, FindClaim(name));
    store::Txn txn;
    txn.compares = {Unchanged(Kind::kInstance, claim.instance->metadata())};
    txn.writes = {store::Write::Delete(KeyOf(Kind::kInstance, name))};
    if (claim.host != nullptr) {
      v1::Host freed = *claim.host;
      SetClaims(claim.claims, freed);
      txn.compares.push_back(Unchanged(Kind::kHost, claim.host->metadata()));
      txn.writes.push_back(
          store::Write::Put(KeyOf(Kind::kHost, freed.metadata().name()), EncodeResource(freed)));
    }
    ASSIGN_OR_RETURN(const store::TxnResult done, resources_.raw().Commit(txn));
    RETURN_IF_ERROR(view_.WaitUntilHeard(done.revision));
    if (done.succeeded) {
      return Ok();
    }
  }
  return Conflict("instance \"" + name + "\" changes too often to be deleted").WithFix("try again");
}

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#include "controller/scheduler.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "controller/boot_policy.h"
#include "controller/instance_service.h"
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

std::shared_ptr<const v1::Host> FindHost(const View::Placement& snapshot, const std::string& name) {
  const auto found = std::find_if(snapshot.hosts.begin(), snapshot.hosts.end(),
                                  [&](const auto& h) { return h->metadata().name() == name; });
  return found == snapshot.hosts.end() ? nullptr : *found;
}

std::shared_ptr<const v1::Instance> FindInstance(const View::Placement& snapshot,
                                                 const std::string& name) {
  const auto found = std::find_if(snapshot.instances.begin(), snapshot.instances.end(),
                                  [&](const auto& i) { return i->metadata().name() == name; });
  return found == snapshot.instances.end() ? nullptr : *found;
}

store::Compare Unchanged(Kind kind, const v1::Metadata& metadata) {
  return {.key = KeyOf(kind, metadata.name()), .mod_revision = metadata.revision()};
}

}  // namespace

bool Recount(v1::Host& host, const std::vector<std::shared_ptr<const v1::Instance>>& instances) {
  int32_t vcpus = 0;
  int64_t memory = 0;
  int32_t count = 0;
  for (const auto& instance : instances) {
    if (instance->status().host() == host.metadata().name()) {
      vcpus += instance->spec().vcpus();
      memory += instance->spec().memory_bytes();
      ++count;
    }
  }
  v1::HostStatus& status = *host.mutable_status();
  const bool changed = status.allocated_vcpus() != vcpus ||
                       status.allocated_memory_bytes() != memory || status.instances() != count;
  status.set_allocated_vcpus(vcpus);
  status.set_allocated_memory_bytes(memory);
  status.set_instances(count);
  return changed;
}

Result<v1::Instance> Scheduler::Place(const std::string& name) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    View::Placement snapshot = view_.ForPlacement();
    const auto current = FindInstance(snapshot, name);
    if (current == nullptr) {
      return NotFound("instance \"" + name + "\" does not exist");
    }
    if (!current->status().host().empty()) {
      return *current;
    }
    ASSIGN_OR_RETURN(const BootPolicy policy, StoredPolicy(*current));
    const placement::Decision decision =
        placement::Place(ToHostViews(snapshot), ToPlacementRequest(*current, policy, snapshot));
    if (decision.chosen.empty()) {
      metrics_.placement_refusals_total.fetch_add(1);
      return Exhausted(placement::DescribeRefusal(decision))
          .WithFix(
              "`vallum schedule explain` shows every host; add a host, free one, or ask for "
              "less");
    }
    const auto host = FindHost(snapshot, decision.chosen);
    v1::Instance placed = *current;
    placed.mutable_status()->set_host(decision.chosen);
    placed.mutable_status()->set_phase(
        placed.spec().power() == v1::POWER_STOPPED ? v1::INSTANCE_STOPPED : v1::INSTANCE_STARTING);
    placed.mutable_status()->clear_reason();
    placed.mutable_status()->clear_fix();
    v1::Host claimed = *host;
    snapshot.instances.push_back(std::make_shared<v1::Instance>(placed));
    Recount(claimed, snapshot.instances);
    store::Txn txn;
    txn.compares = {Unchanged(Kind::kInstance, current->metadata()),
                    Unchanged(Kind::kHost, host->metadata())};
    txn.writes = {store::Write::Put(KeyOf(Kind::kInstance, name), EncodeResource(placed)),
                  store::Write::Put(KeyOf(Kind::kHost, decision.chosen), EncodeResource(claimed))};
    ASSIGN_OR_RETURN(const store::TxnResult done, resources_.raw().Commit(txn));
    // Either way the view must catch up before it can be decided from again.
    RETURN_IF_ERROR(view_.WaitFor(done.revision));
    if (done.succeeded) {
      metrics_.placements_total.fetch_add(1);
      placed.mutable_metadata()->set_revision(done.revision);
      return placed;
    }
    metrics_.claim_conflicts_total.fetch_add(1);
  }
  return Conflict("too many others are placing instances at once").WithFix("try again");
}

Result<void> Scheduler::Release(const std::string& name) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    View::Placement snapshot = view_.ForPlacement();
    const auto current = FindInstance(snapshot, name);
    if (current == nullptr) {
      return NotFound("instance \"" + name + "\" does not exist");
    }
    store::Txn txn;
    txn.compares = {Unchanged(Kind::kInstance, current->metadata())};
    txn.writes = {store::Write::Delete(KeyOf(Kind::kInstance, name))};
    if (const auto host = FindHost(snapshot, current->status().host()); host != nullptr) {
      std::erase_if(snapshot.instances, [&](const auto& i) { return i == current; });
      v1::Host freed = *host;
      Recount(freed, snapshot.instances);
      txn.compares.push_back(Unchanged(Kind::kHost, host->metadata()));
      txn.writes.push_back(
          store::Write::Put(KeyOf(Kind::kHost, host->metadata().name()), EncodeResource(freed)));
    }
    ASSIGN_OR_RETURN(const store::TxnResult done, resources_.raw().Commit(txn));
    RETURN_IF_ERROR(view_.WaitFor(done.revision));
    if (done.succeeded) {
      return Ok();
    }
  }
  return Conflict("instance \"" + name + "\" changes too often to be deleted").WithFix("try again");
}

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#include "agent/instance_manager.h"

#include <chrono>
#include <system_error>
#include <utility>
#include <vector>

#include "agent/instance_files.h"
#include "agent/state_files.h"
#include "base/ids.h"
#include "base/text.h"

namespace vallum::agent {
namespace {

constexpr std::chrono::seconds kAdoptionLimit{3};

}  // namespace

InstanceManager::InstanceManager(const InstanceServices& services) : services_(services) {
  std::error_code failure;
  const std::filesystem::path directory = services.config.state_dir / "instances";
  std::vector<std::pair<std::string, StoredInstance>> found;
  for (const auto& entry : std::filesystem::directory_iterator(directory, failure)) {
    const std::string uid = entry.path().filename().string();
    if (!IsUid(uid)) {
      continue;  // not ours: left alone
    }
    const InstancePaths paths = MakeInstancePaths(services.config, uid);
    RemoveLeftovers(paths.directory);
    RemoveLeftovers(paths.tpm_dir);
    StoredInstance stored = LoadInstance(paths, uid);
    services_.images.Hold(uid, stored.desired ? stored.desired->image_sha256() : "");
    found.emplace_back(uid, std::move(stored));
  }
  // Only now: a worker that goes on with a removal must not take an image that another needs.
  for (auto& [uid, stored] : found) {
    workers_.emplace(uid, std::make_unique<InstanceWorker>(uid, std::move(stored), services_));
  }
  // All adopt at once; one that does not answer delays the first Hello by no more than this.
  const auto deadline = std::chrono::steady_clock::now() + kAdoptionLimit;
  for (const auto& [uid, worker] : workers_) {
    static_cast<void>(worker->WaitUntilAdopted(deadline));
  }
}

void InstanceManager::DropGone() {
  std::erase_if(workers_, [](const auto& entry) { return entry.second->gone(); });
}

void InstanceManager::SetDesired(const v1::DesiredState& desired) {
  for (const v1::DesiredInstance& instance : desired.instances()) {
    SetDesired(instance);
  }
}

void InstanceManager::SetDesired(const v1::DesiredInstance& desired) {
  v1::InstanceReport refusal;
  refusal.set_uid(desired.uid());
  {
    const std::lock_guard lock(mutex_);
    DropGone();
    const auto found = workers_.find(desired.uid());
    if (IsUid(desired.uid()) && !desired.remove()) {
      services_.images.Hold(desired.uid(), desired.image_sha256());
    }
    if (found != workers_.end()) {
      found->second->SetDesired(desired);
      return;
    }
    // The uid becomes part of paths.
    if (IsUid(desired.uid()) && !desired.remove()) {
      auto worker = std::make_unique<InstanceWorker>(desired.uid(), StoredInstance{}, services_);
      worker->SetDesired(desired);
      workers_.emplace(desired.uid(), std::move(worker));
      return;
    }
  }
  if (desired.remove()) {
    refusal.set_gone(true);  // nothing of it is here
  } else {
    refusal.mutable_status()->set_phase(v1::INSTANCE_FAILED);
    refusal.mutable_status()->set_reason("instance uid '" + Printable(desired.uid(), 60) +
                                         "' is not a uid");
  }
  services_.board.Put(std::move(refusal));
}

void InstanceManager::TakeSnapshot(const v1::TakeSnapshot& request) {
  const std::lock_guard lock(mutex_);
  const auto found = workers_.find(request.instance_uid());
  // One that is not here yet is asked for again.
  if (found != workers_.end()) {
    found->second->TakeSnapshot(request);
  }
}

void InstanceManager::LeaseChanged() {
  const std::lock_guard lock(mutex_);
  for (const auto& [uid, worker] : workers_) {
    worker->LeaseChanged();
  }
}

Result<std::shared_ptr<SerialHub>> InstanceManager::Serial(const std::string& uid) {
  const std::lock_guard lock(mutex_);
  const auto found = workers_.find(uid);
  if (found == workers_.end()) {
    return NotFound("this host has no instance " + Printable(uid, 60));
  }
  auto hub = found->second->serial();
  if (!hub) {
    return NotFound("the instance does not run, so it has no console")
        .WithFix("start the instance");
  }
  return hub;
}

Result<RunningVtpm> InstanceManager::Vtpm(const std::string& uid) {
  const std::lock_guard lock(mutex_);
  const auto found = workers_.find(uid);
  if (found == workers_.end()) {
    return NotFound("this host has no instance " + Printable(uid, 60));
  }
  return found->second->vtpm();
}

std::vector<std::string> InstanceManager::Uids() {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> uids;
  for (const auto& [uid, worker] : workers_) {
    uids.push_back(uid);
  }
  return uids;
}

}  // namespace vallum::agent

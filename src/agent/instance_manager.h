// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "agent/instance_worker.h"
#include "base/result.h"

namespace vallum::agent {

// Every instance that this host has state of, each with a worker of its own, so that a slow one
// holds up no other. Thread-safe; calls return at once.
class InstanceManager {
 public:
  // Adopts what an earlier agent left in the state directory. A directory that cannot be read
  // becomes an instance that is FAILED, with the reason; the others go on. Blocks until all are
  // adopted, for at most 3 s.
  explicit InstanceManager(const InstanceServices& services);

  // Everything this host shall have. Instances that are not in the list are kept as they are.
  void SetDesired(const v1::DesiredState& desired);
  void SetDesired(const v1::DesiredInstance& desired);

  // Has a snapshot of a stopped instance taken and sent; the controller hears of it by the upload.
  void TakeSnapshot(const v1::TakeSnapshot& request);

  // Wakes those that wait for a live lease.
  void LeaseChanged();

  // The serial line of an instance. Errors: kNotFound (no such instance, or it does not run).
  Result<std::shared_ptr<SerialHub>> Serial(const std::string& uid);

  // The vTPM of an instance. Errors: kNotFound (no such instance); kConflict (it does not run, or
  // has no vTPM).
  Result<RunningVtpm> Vtpm(const std::string& uid);

  // Every uid known, for the log.
  std::vector<std::string> Uids();

 private:
  void DropGone();  // mutex_ is held

  const InstanceServices services_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<InstanceWorker>> workers_;
};

}  // namespace vallum::agent

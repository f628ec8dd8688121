// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "agent/capabilities.h"
#include "agent/config.h"
#include "base/result.h"
#include "vallum/v1/agent.pb.h"
#include "vm/vm_spec.h"

namespace vallum::agent {

// How an instance is to be started on this host.
struct LaunchPlan {
  v1::BootEffective effective;
  // What vars.fd is copied from, or, with keys of the controller's, has the layout of; "" with
  // BIOS.
  std::string variable_template;
};

// Chooses firmware, accelerator and TPM for an instance. What was asked for is met as it is or
// refused: there is no fallback to anything weaker.
// Errors: kInvalidInput (the request contradicts itself), kNotFound (this host lacks something),
// each with reason and fix. Pure; thread-safe.
Result<LaunchPlan> PlanLaunch(const v1::DesiredInstance& desired, const HostFacts& facts);

// Identity of the variable store that a plan needs: a vars.fd made for another one is never used as
// it is.
std::string VariableOrigin(const LaunchPlan& plan);

// Whether a guest that was started so has other keys than it shall have from its next boot on.
bool VariablesOutdated(const v1::DesiredInstance& desired, const v1::BootEffective& effective);

struct LaunchFiles {
  std::string image_path;         // the base image's blob
  std::optional<vm::RunAs> user;  // absent: the agent's own
};

// The complete description for vm::InstanceRunner; the same for start and for adoption.
//   effective: of the plan, or as stored when the instance was started.
// Errors: kInvalidInput (no such network type, bad format name). Pure; thread-safe.
Result<vm::VmSpec> MakeVmSpec(const AgentConfig& config, const v1::DesiredInstance& desired,
                              const v1::BootEffective& effective, const LaunchFiles& files);

// "52:54:00:..." from the instance's uid and the number of the network: stable and local.
std::string DeriveMac(const std::string& uid, int index);

// How long the guest may take to shut down.
std::chrono::milliseconds StopGrace(const v1::InstanceSpec& spec);

// Size of the root disk. Errors: kInvalidInput (smaller than the image's disk).
Result<ByteCount> RootDiskSize(const v1::DesiredInstance& desired);

}  // namespace vallum::agent

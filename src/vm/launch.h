// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "vm/instance_runner.h"
#include "vm/process.h"
#include "vm/qmp_client.h"
#include "vm/vm_spec.h"

namespace vallum::vm {

inline constexpr std::chrono::milliseconds kQmpLimit{10000};

// The processes of an instance and the connection to its monitor.
struct Launched {
  std::unique_ptr<Process> qemu;
  std::unique_ptr<Process> vtpm;  // null without a vTPM, or when it has ended
  std::unique_ptr<QmpClient> qmp;
  std::vector<std::string> notes;
  std::string status;  // QEMU's run state when found: "running", "shutdown", ...
};

// Starts both processes and lets the guest run. See InstanceRunner::Start.
Result<Launched> LaunchInstance(const VmSpec& spec);
// Finds them. See InstanceRunner::Adopt.
Result<Launched> FindInstance(const VmSpec& spec);

// Sets the link of every network device.
Result<void> SetLinks(const VmSpec& spec, QmpClient& qmp, LinkState state);

// Waits for a process to end by itself, then asks it with SIGTERM, then ends it with SIGKILL.
// Returns its end in words.
std::string EndProcess(Process& process, std::chrono::milliseconds by_itself,
                       std::chrono::milliseconds after_term);

// Removes sockets and identities of an instance that has no processes any more.
void RemoveRunFiles(const VmSpec& spec);

}  // namespace vallum::vm

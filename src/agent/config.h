// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace vallum::agent {

// What the agent was told on its command line.
struct AgentConfig {
  std::filesystem::path state_dir;
  std::filesystem::path run_dir;
  std::string host;
  std::optional<std::filesystem::path> join_token_file;
  std::string qemu_program = "/usr/bin/qemu-system-x86_64";
  std::string swtpm_program = "/usr/bin/swtpm";
  std::string vtpm_program;
  // Instead of QEMU's own directories of firmware descriptors; empty: QEMU's own.
  std::vector<std::string> firmware_directories;
  // cgroup v2 directory delegated to the agent; empty: limits are not applied.
  std::string cgroup_parent;
  // As tpm::ParseTpmAddress reads it.
  std::string tpm = "auto";
  // Under which the /proc and /sys of evidence lie.
  std::filesystem::path host_root = "/";
  // As root, each instance runs as a user of its own from this range.
  uid_t first_user = 200000;
  uid_t user_count = 60000;
};

// Checks a configuration and makes its paths absolute.
// Errors: kInvalidInput, naming the option.
Result<AgentConfig> ValidateConfig(AgentConfig config);

// The directories and files of one instance; all follow from the configuration.
struct InstancePaths {
  std::filesystem::path directory;      // <state-dir>/instances/<uid>, the agent's
  std::filesystem::path desired;        // instance.pb
  std::filesystem::path status;         // status.pb
  std::filesystem::path origin;         // what vars.fd was made from
  std::filesystem::path evidence;       // of the current boot
  std::filesystem::path key_set;        // that the guest was started with
  std::filesystem::path boot;           // what the running guest was started with
  std::filesystem::path lease_refusal;  // the generation that was refused for want of a lease
  std::filesystem::path root_disk;
  std::filesystem::path variables;
  std::filesystem::path seed;
  std::filesystem::path tpm_dir;  // the instance user's
  std::filesystem::path log_dir;  // logs; each file is the instance user's
  std::filesystem::path run_dir;  // <run-dir>/instances/<uid>
};
InstancePaths MakeInstancePaths(const AgentConfig& config, const std::string& uid);

}  // namespace vallum::agent

// SPDX-License-Identifier: Apache-2.0
#include "agent/config.h"

#include <sys/un.h>

#include <system_error>
#include <utility>

#include "base/ids.h"
#include "tpm/address.h"

namespace vallum::agent {
namespace {

// "/instances/" + uid + "/" + the longest socket name that src/vm uses, with some room.
constexpr size_t kSocketSuffix = 11 + 36 + 1 + 20;
constexpr size_t kSocketLimit = sizeof(sockaddr_un::sun_path) - 1;
// Below lie the distribution's own users; above, nobody's uid_t is valid.
constexpr uid_t kLowestUser = 1000;
constexpr uid_t kHighestUser = 2000000000;

Result<void> MakeAbsolute(std::filesystem::path& path, const char* option) {
  if (path.empty()) {
    return InvalidInput(std::string(option) + " is empty").WithFix("give it a directory");
  }
  std::error_code failure;
  path = std::filesystem::absolute(path, failure).lexically_normal();
  if (failure) {
    return ErrnoError(failure.value(), std::string(option) + " " + path.string());
  }
  return Ok();
}

}  // namespace

Result<AgentConfig> ValidateConfig(AgentConfig config) {
  RETURN_IF_ERROR(MakeAbsolute(config.state_dir, "--state-dir"));
  RETURN_IF_ERROR(MakeAbsolute(config.run_dir, "--run-dir"));
  RETURN_IF_ERROR(ValidateName("host", config.host)).context("reading --name");
  if (config.run_dir.string().size() + kSocketSuffix > kSocketLimit) {
    return InvalidInput("--run-dir " + config.run_dir.string() + " has " +
                        std::to_string(config.run_dir.string().size()) +
                        " characters; unix sockets below it would have too long a path")
        .WithFix("use a path of at most " + std::to_string(kSocketLimit - kSocketSuffix) +
                 " characters, such as /run/vallum");
  }
  if (config.first_user < kLowestUser || config.user_count == 0 ||
      config.first_user > kHighestUser || config.user_count > kHighestUser - config.first_user) {
    return InvalidInput("--first-uid " + std::to_string(config.first_user) + " with --uid-count " +
                        std::to_string(config.user_count) + " is no usable range")
        .WithFix("choose at least one uid between 1000 and 2000000000 that no account has");
  }
  for (const auto& [option, program] :
       {std::pair<const char*, const std::string&>{"--qemu", config.qemu_program},
        {"--swtpm", config.swtpm_program},
        {"--vtpm", config.vtpm_program}}) {
    if (program.empty() || program[0] != '/') {
      return InvalidInput(std::string(option) + " '" + program + "' is not an absolute path")
          .WithFix("write the whole path of the program");
    }
  }
  RETURN_IF_ERROR(tpm::ParseTpmAddress(config.tpm)).context("reading --tpm");
  return config;
}

InstancePaths MakeInstancePaths(const AgentConfig& config, const std::string& uid) {
  const std::filesystem::path directory = config.state_dir / "instances" / uid;
  return InstancePaths{.directory = directory,
                       .desired = directory / "instance.pb",
                       .status = directory / "status.pb",
                       .origin = directory / "vars-origin",
                       .evidence = directory / "boot-evidence",
                       .key_set = directory / "key-set",
                       .boot = directory / "boot-id",
                       .lease_refusal = directory / "lease-refusal",
                       .root_disk = directory / "root.qcow2",
                       .variables = directory / "vars.fd",
                       .seed = directory / "seed.iso",
                       .tpm_dir = directory / "tpm",
                       .log_dir = directory,
                       .run_dir = config.run_dir / "instances" / uid};
}

}  // namespace vallum::agent

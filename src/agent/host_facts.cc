// SPDX-License-Identifier: Apache-2.0
// The part of capabilities.h that asks the host.
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <system_error>
#include <utility>

#include "agent/capabilities.h"
#include "agent/state_files.h"
#include "base/digest.h"
#include "images/firmware_files.h"

namespace vallum::agent {
namespace {

constexpr ByteCount kFirmwareLimit = ByteCount::MiB(64);

std::string ConfigHome() {
  if (const char* home = std::getenv("XDG_CONFIG_HOME"); home != nullptr && *home == '/') {
    return home;
  }
  const char* home = std::getenv("HOME");
  return home != nullptr && *home == '/' ? std::string(home) + "/.config" : "";
}

// Digest of the executable; the template is only asked to exist.
Result<std::string> CheckFiles(const firmware::FirmwareDescriptor& descriptor) {
  const std::string& executable = descriptor.mapping.executable.path;
  if (executable.empty()) {
    return std::string();
  }
  std::error_code failure;
  const std::filesystem::path target = std::filesystem::canonical(executable, failure);
  if (failure) {
    return NotFound("its executable " + executable + " does not exist");
  }
  ASSIGN_OR_RETURN(const Bytes content, ReadWholeFile(target, kFirmwareLimit));
  const std::string& variables = descriptor.mapping.nvram_template.path;
  if (!variables.empty() && access(variables.c_str(), R_OK) != 0) {
    return NotFound("its variable store template " + variables + " does not exist");
  }
  return ToHex(Sha256(content));
}

void ReadFirmware(const AgentConfig& config, HostFacts& facts) {
  const std::vector<std::string> directories = config.firmware_directories.empty()
                                                   ? firmware::DescriptorDirectories(ConfigHome())
                                                   : config.firmware_directories;
  const auto files = images::ReadDescriptorFiles(directories, facts.problems);
  firmware::DescriptorSet set = firmware::ResolveDescriptors(directories, files);
  facts.problems.insert(facts.problems.end(), set.problems.begin(), set.problems.end());
  for (firmware::FirmwareDescriptor& descriptor : set.descriptors) {
    auto digest = CheckFiles(descriptor);
    if (!digest) {
      facts.problems.push_back(descriptor.source + ": " + digest.error().message());
      continue;
    }
    facts.firmware.push_back(HostFirmware{std::move(descriptor), *std::move(digest)});
  }
}

std::vector<std::string> FindBridges() {
  std::vector<std::string> bridges;
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/class/net", failure)) {
    std::error_code ignored;
    if (std::filesystem::exists(entry.path() / "bridge", ignored)) {
      bridges.push_back(entry.path().filename().string());
    }
  }
  std::sort(bridges.begin(), bridges.end());
  return bridges;
}

}  // namespace

uint64_t DiskFree(const std::filesystem::path& directory) {
  struct statvfs info{};
  if (statvfs(directory.c_str(), &info) != 0) {
    return 0;
  }
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

Result<HostFacts> ProbeFacts(const AgentConfig& config) {
  HostFacts facts;
  vm::ProbeOptions options;
  options.qemu_program = config.qemu_program;
  options.swtpm_program = config.swtpm_program;
  options.cache_path = (config.state_dir / "probe-cache.json").string();
  options.cgroup_parent = config.cgroup_parent;
  ASSIGN_OR_RETURN(facts.probes, vm::ProbeHost(options));
  if (const vm::Probe* swtpm = facts.probes.Find(vm::kProbeSwtpm); swtpm != nullptr && swtpm->ok) {
    facts.swtpm_version = swtpm->detail;
  }
  ReadFirmware(config, facts);
  facts.bridges = FindBridges();
  facts.may_make_taps = geteuid() == 0 && access("/dev/net/tun", R_OK | W_OK) == 0;
  utsname kernel{};
  if (uname(&kernel) == 0) {
    facts.kernel_version = kernel.release;
  }
  facts.cpus = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  struct sysinfo memory{};
  if (sysinfo(&memory) == 0) {
    facts.memory_bytes = static_cast<uint64_t>(memory.totalram) * memory.mem_unit;
  }
  facts.disk_free_bytes = DiskFree(config.state_dir);
  return facts;
}

}  // namespace vallum::agent

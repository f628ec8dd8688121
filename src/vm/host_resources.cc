// SPDX-License-Identifier: Apache-2.0
#include "vm/host_resources.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/magic.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "vm/process_files.h"

namespace vallum::vm {
namespace {

constexpr uint32_t kCpuPeriodMicroseconds = 100'000;

std::string CgroupDir(const VmSpec& spec) {
  return spec.limits.cgroup_parent + "/vallum-" + spec.uid;
}

Result<void> WriteSetting(const std::string& path, const std::string& value) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_WRONLY));
  if (write(fd.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size())) {
    return ErrnoError(errno, "write " + value + " to " + path);
  }
  return Ok();
}

Result<void> ApplyLimits(const std::string& dir, const ResourceLimits& limits) {
  if (limits.memory_max.has_value()) {
    RETURN_IF_ERROR(WriteSetting(dir + "/memory.max", std::to_string(limits.memory_max->bytes())));
  }
  if (limits.cpu_weight.has_value()) {
    RETURN_IF_ERROR(WriteSetting(dir + "/cpu.weight", std::to_string(*limits.cpu_weight)));
  }
  if (limits.cpu_percent.has_value()) {
    const uint64_t quota = uint64_t{*limits.cpu_percent} * kCpuPeriodMicroseconds / 100;
    RETURN_IF_ERROR(WriteSetting(
        dir + "/cpu.max", std::to_string(quota) + " " + std::to_string(kCpuPeriodMicroseconds)));
  }
  if (limits.pids_max.has_value()) {
    RETURN_IF_ERROR(WriteSetting(dir + "/pids.max", std::to_string(*limits.pids_max)));
  }
  return Ok();
}

}  // namespace

Result<void> CheckCgroupParent(const std::string& parent) {
  if (parent.empty()) {
    return NotFound("no cgroup directory is configured");
  }
  struct statfs info{};
  if (statfs(parent.c_str(), &info) != 0) {
    return ErrnoError(errno, "stat " + parent);
  }
  if (info.f_type != CGROUP2_SUPER_MAGIC) {
    return NotFound(parent + " is not a cgroup v2 directory")
        .WithFix("boot the host with systemd.unified_cgroup_hierarchy=1");
  }
  if (access((parent + "/cgroup.procs").c_str(), W_OK) != 0 || access(parent.c_str(), W_OK) != 0) {
    return Denied(parent + " is not delegated to the agent")
        .WithFix("set Delegate=yes in the agent's systemd unit");
  }
  return Ok();
}

Result<std::string> MakeCgroup(const VmSpec& spec) {
  RETURN_IF_ERROR(CheckCgroupParent(spec.limits.cgroup_parent));
  // Fails where they are enabled already by somebody else; then the limits themselves tell.
  static_cast<void>(
      WriteSetting(spec.limits.cgroup_parent + "/cgroup.subtree_control", "+memory +cpu +pids"));
  std::string dir = CgroupDir(spec);
  if (mkdir(dir.c_str(), 0755) != 0 && errno != EEXIST) {
    return ErrnoError(errno, "make cgroup " + dir);
  }
  if (auto applied = ApplyLimits(dir, spec.limits); !applied.has_value()) {
    rmdir(dir.c_str());
    return std::move(applied).error();
  }
  return dir;
}

void RemoveCgroup(const VmSpec& spec) {
  if (!spec.limits.cgroup_parent.empty()) {
    rmdir(CgroupDir(spec).c_str());
  }
}

Result<UniqueFd> MakeTap(const std::string& bridge) {
  ASSIGN_OR_RETURN(UniqueFd tap, OpenFile("/dev/net/tun", O_RDWR));
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  memcpy(request.ifr_name, "vallum%d", 9);  // the kernel fills in a number
  if (ioctl(tap.get(), TUNSETIFF, &request) != 0) {
    return ErrnoError(errno, "make a tap device");
  }
  const UniqueFd control(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const unsigned index = if_nametoindex(request.ifr_name);
  ifreq port{};
  memcpy(port.ifr_name, bridge.data(), std::min(bridge.size(), sizeof port.ifr_name - 1));
  port.ifr_ifindex = static_cast<int>(index);
  if (!control.valid() || index == 0 || ioctl(control.get(), SIOCBRADDIF, &port) != 0) {
    return ErrnoError(errno == ENODEV ? ENOENT : errno, "add a tap device to bridge " + bridge);
  }
  request.ifr_flags = IFF_UP;
  if (ioctl(control.get(), SIOCSIFFLAGS, &request) != 0) {
    return ErrnoError(errno, "bring up " + std::string(request.ifr_name));
  }
  return tap;
}

}  // namespace vallum::vm

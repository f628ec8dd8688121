// SPDX-License-Identifier: Apache-2.0
#include "cli/kinds.h"

#include "base/check.h"

namespace vallum::cli {
namespace {

Column Text(std::string title, std::string path) { return {std::move(title), std::move(path)}; }
Column Wide(std::string title, std::string path, Style style = Style::kText) {
  return {std::move(title), std::move(path), style, true};
}
Column As(Style style, std::string title, std::string path) {
  return {std::move(title), std::move(path), style};
}

std::vector<Column> InstanceColumns() {
  return {Text("NAME", "metadata.name"),
          As(Style::kEnum, "PHASE", "status.phase"),
          Text("HOST", "status.host"),
          Text("IMAGE", "spec.image"),
          Text("FLAVOR", "spec.flavor"),
          As(Style::kEnum, "BOOT", "status.boot.requested.type"),
          As(Style::kEnum, "MODE", "status.boot.requested.mode"),
          As(Style::kEnum, "VERDICT", "status.boot.measured.verdict"),
          As(Style::kAge, "CREATED", "metadata.createTime"),
          Wide("POOL", "spec.pool"),
          Wide("SECURE BOOT", "status.boot.measured.secureBoot", Style::kEnum),
          Wide("UID", "metadata.uid"),
          Wide("REASON", "status.reason")};
}

std::vector<Column> HostColumns() {
  return {Text("NAME", "metadata.name"),
          As(Style::kEnum, "STATE", "status.state"),
          As(Style::kEnum, "TRUST", "status.trust.level"),
          Text("POOL", "spec.pool"),
          Text("ACCEL", "status.capabilities.accelerator"),
          As(Style::kNumber, "CPUS", "status.capabilities.cpus"),
          As(Style::kBytes, "MEMORY", "status.capabilities.memoryBytes"),
          As(Style::kNumber, "INSTANCES", "status.instances"),
          As(Style::kAge, "LAST SEEN", "status.lastSeen"),
          Wide("QEMU", "status.capabilities.hypervisorVersion"),
          Wide("AGENT", "status.capabilities.agentVersion"),
          Wide("KERNEL", "status.capabilities.kernelVersion"),
          Wide("TPM", "status.identity.manufacturer"),
          Wide("LEASE ENDS", "status.trust.leaseExpireTime", Style::kAge),
          Wide("REASON", "status.reason")};
}

std::vector<Column> ImageColumns() {
  return {Text("NAME", "metadata.name"),
          As(Style::kEnum, "STATE", "status.state"),
          Text("FORMAT", "spec.diskFormat"),
          As(Style::kBytes, "SIZE", "status.sizeBytes"),
          As(Style::kBytes, "DISK", "status.virtualSizeBytes"),
          As(Style::kBool, "BOOTABLE", "status.bootable"),
          As(Style::kAge, "CREATED", "metadata.createTime"),
          Wide("SHA256", "status.sha256"),
          Wide("REASON", "status.reason")};
}

std::vector<Column> OperationColumns() {
  return {Text("NAME", "metadata.name"),
          Text("KIND", "kind"),
          Text("TARGET", "target"),
          As(Style::kEnum, "STATE", "state"),
          As(Style::kNumber, "PERCENT", "progressPercent"),
          As(Style::kAge, "CREATED", "metadata.createTime"),
          Wide("USER", "user"),
          Wide("MESSAGE", "message")};
}

std::vector<Kind> MakeKinds() {
  return {
      {"pool",
       "pools",
       "Groups of hosts",
       true,
       true,
       {Text("NAME", "metadata.name"), As(Style::kNumber, "HOSTS", "status.hosts"),
        As(Style::kNumber, "UP", "status.hostsUp"),
        As(Style::kNumber, "INSTANCES", "status.instances"),
        As(Style::kBool, "TRUSTED", "spec.trustedService"),
        As(Style::kAge, "CREATED", "metadata.createTime"), Wide("POLICY", "spec.attestationPolicy"),
        Wide("DESCRIPTION", "spec.description")},
       "spec.trustedService=true"},
      {"host", "hosts", "Machines that run instances", true, true, HostColumns(),
       "status.trust.level=TRUST_UNTRUSTED"},
      {"image", "images", "Disk images", true, true, ImageColumns(), "status.state=IMAGE_READY"},
      {"flavor",
       "flavors",
       "Sizes of instances",
       true,
       true,
       {Text("NAME", "metadata.name"), As(Style::kNumber, "VCPUS", "spec.vcpus"),
        As(Style::kBytes, "MEMORY", "spec.memoryBytes"),
        As(Style::kBytes, "DISK", "spec.diskBytes"), Text("EXTRA SPECS", "spec.extraSpecs"),
        Wide("DESCRIPTION", "spec.description")}},
      {"instance", "instances", "Virtual machines", true, true, InstanceColumns(),
       "status.phase=INSTANCE_RUNNING"},
      {"keyset",
       "keysets",
       "Keys under which images start",
       true,
       true,
       {Text("NAME", "metadata.name"), As(Style::kNumber, "VERSION", "status.version"),
        As(Style::kNumber, "INSTANCES", "status.instances"),
        As(Style::kBool, "BUILT IN", "status.builtIn"),
        As(Style::kAge, "CREATED", "metadata.createTime"), Wide("DESCRIPTION", "spec.description"),
        Wide("FINDINGS", "status.findings")}},
      {"rollout",
       "rollouts",
       "Instances on their way to a version of a key set",
       false,
       true,
       {Text("NAME", "metadata.name"), Text("KEY SET", "spec.keySet"),
        As(Style::kNumber, "VERSION", "spec.version"), As(Style::kEnum, "STATE", "status.state"),
        As(Style::kAge, "CREATED", "metadata.createTime"), Wide("REASON", "status.reason")}},
      {"snapshot",
       "snapshots",
       "Disk, variables and vTPM of stopped instances",
       false,
       true,
       {Text("NAME", "metadata.name"), As(Style::kEnum, "STATE", "status.state"),
        Text("INSTANCE", "spec.instance"), As(Style::kBytes, "SIZE", "status.disk.sizeBytes"),
        As(Style::kBytes, "DISK", "status.diskVirtualSizeBytes"),
        As(Style::kAge, "TAKEN", "status.takenAt"), Wide("KEY SET", "status.instanceSpec.keySet"),
        Wide("DESCRIPTION", "spec.description"), Wide("REASON", "status.reason")}},
      {"policy",
       "attestationpolicies",
       "What hosts of trusted pools must be",
       true,
       true,
       {Text("NAME", "metadata.name"), As(Style::kNumber, "ACTIVE", "status.activeVersion"),
        As(Style::kAge, "CREATED", "metadata.createTime"),
        Text("DESCRIPTION", "spec.description")}},
      {"tpmauthority",
       "tpmauthorities",
       "Who certifies TPMs",
       true,
       true,
       {Text("NAME", "metadata.name"), As(Style::kBool, "EMULATED", "spec.emulated"),
        As(Style::kAge, "CREATED", "metadata.createTime"),
        Text("DESCRIPTION", "spec.description")}},
      {"allowlist",
       "allowlists",
       "Files that hosts may have measured, for policies to name",
       true,
       true,
       {Text("NAME", "metadata.name"), As(Style::kNumber, "PATHS", "status.paths"),
        As(Style::kBytes, "SIZE", "status.sizeBytes"), Text("SHA256", "status.sha256"),
        Wide("DESCRIPTION", "spec.description")}},
      {"operation", "operations", "Long work and its progress", false, false, OperationColumns()},
      {"event",
       "events",
       "What happened",
       false,
       false,
       {As(Style::kAge, "TIME", "time"), Text("SEVERITY", "severity"), Text("KIND", "kind"),
        Text("OBJECT", "object"), Text("USER", "user"), Text("MESSAGE", "message"),
        Wide("SEQUENCE", "sequence")},
       "kind=host.untrusted"},
      {"token",
       "tokens",
       "Credentials of users and of joining hosts",
       true,
       true,
       {Text("NAME", "metadata.name"), As(Style::kEnum, "ROLE", "spec.role"),
        Text("TENANT", "spec.tenant"), Text("POOL", "spec.pool"),
        As(Style::kBool, "USED", "status.used"), As(Style::kAge, "EXPIRES", "spec.expireTime"),
        Wide("USED BY", "status.usedBy"), Wide("DESCRIPTION", "spec.description")}}};
}

}  // namespace

const std::vector<Kind>& Kinds() {
  static const std::vector<Kind> kinds = MakeKinds();
  return kinds;
}

const Kind& KindOf(const std::string& name) {
  for (const Kind& kind : Kinds()) {
    if (kind.name == name) return kind;
  }
  CHECK(false);
  std::abort();
}

}  // namespace vallum::cli

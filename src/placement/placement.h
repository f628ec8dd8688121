// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "placement/trait_set.h"
#include "placement/version_range.h"

namespace vallum::placement {

enum class HostState { kJoining, kUp, kDown, kMaintenance, kNonOperational };

// One capability that the host's agent tried; why a trait is missing is said with its words.
struct Probe {
  std::string name;  // "smm", "kvm", "firmware-secure-boot", "swtpm", ...
  bool ok = false;
  std::string detail;
};

// What placement needs to know of one host.
struct HostView {
  std::string name;
  std::string pool;
  HostState state = HostState::kJoining;
  std::string state_reason;
  bool trusted = false;      // its pool trusts it now
  std::string trust_reason;  // why it does not, in words
  TraitSet traits;
  std::vector<Probe> probes;
  std::string accelerator;         // "kvm", "tcg"; empty: none ran a guest
  std::string hypervisor_type;     // "QEMU"
  std::string hypervisor_version;  // as it was reported
  int64_t cpus = 0;
  double cpu_overcommit = 0;  // 0: kDefaultCpuOvercommit
  int64_t allocated_vcpus = 0;
  ByteCount memory;
  double memory_overcommit = 0;  // 0: 1, as much as there is
  ByteCount allocated_memory;
  ByteCount disk_free;
};

inline constexpr double kDefaultCpuOvercommit = 4.0;

// Memory that is left to the host itself: 1/16 of it, at least 256 MiB, at most 4 GiB.
ByteCount HostMemoryReserve(ByteCount total);
// What may still be promised: memory without the reserve, with overcommit, 0 when too much is
// promised already; CPUs with overcommit, negative then.
ByteCount FreeMemory(const HostView& host);
int64_t FreeVcpus(const HostView& host);

// Another instance that has a say in where one is placed.
struct Neighbour {
  std::string instance;
  std::string host;  // empty: it is on none
};

// What one instance asks of its host.
struct Request {
  std::string pool;
  std::string pinned_host;  // empty: any
  TraitSet required_traits;
  TraitSet forbidden_traits;
  std::string accelerator;  // empty: any that works
  bool needs_trusted_host = false;
  std::string hypervisor_type;  // in any case; empty: any
  VersionRange hypervisor_versions;
  int64_t vcpus = 1;
  ByteCount memory;
  ByteCount disk;
  std::vector<Neighbour> near;        // it must be on the host of every one of them
  std::vector<Neighbour> apart_from;  // and on that of none of these; in the order of `host`
};

// In the order in which they are tried.
enum class Requirement {
  kNone,  // the host fits
  kPool,
  kPinnedHost,
  kState,
  kMaintenance,
  kTrust,
  kTrait,
  kForbiddenTrait,
  kAccelerator,
  kHypervisorType,
  kHypervisorVersion,
  kAffinity,
  kAntiAffinity,
  kVcpus,
  kMemory,
  kDisk,
};

struct HostVerdict {
  std::string host;
  Requirement failed = Requirement::kNone;
  std::string requirement;  // "trait VALLUM_SMM", "memory", ...; empty if the host fits
  std::string detail;       // in words, with both values
  double score = 0;         // bytes of memory free after the instance; 0 if it does not fit
  bool fits() const { return failed == Requirement::kNone; }
};

// Every host's verdict, in the order given, and the name of the chosen one (empty: none fits).
struct Decision {
  std::string chosen;
  std::vector<HostVerdict> hosts;
};

// Tries one host. Pure; thread-safe; allocates nothing.
Requirement FirstFailing(const HostView& host, const Request& request);
// The same for what hosts have alike and what does not change when instances come and go: pool,
// state, trust, traits, accelerator, hypervisor.
Requirement FirstFailingProperty(const HostView& host, const Request& request);
// Whether an instance that this one is to be apart from is on the host.
bool IsApart(const HostView& host, const Request& request);
// FirstFailing() in words. Pure; thread-safe.
HostVerdict Judge(const HostView& host, const Request& request);

// Which of two hosts that fit is taken: the one with more free memory; of equals the one whose name
// has the lower hash: no host is the first of all alike, and no name need be looked at.
bool ComesBefore(const HostView& a, const HostView& b);
uint32_t TieOrder(std::string_view name);

// Chooses the host that fits and ComesBefore() the others that do. Returns its index, or
// hosts.size() if none fits. Pure; thread-safe.
size_t Choose(std::span<const HostView> hosts, const Request& request);

// Choose() with an explanation for each host. Pure; thread-safe.
Decision Place(std::span<const HostView> hosts, const Request& request);

// Why nothing fits, without looking at each host.
struct Refusal {
  // How many hosts fail by what. Those that have everything but room are counted as one: what each
  // of them lacks would have to be looked up.
  struct Count {
    std::string requirement;  // "state", "trait VALLUM_SMM", "anti-affinity", kRoom
    size_t hosts = 0;
    bool operator==(const Count&) const = default;
  };
  static constexpr std::string_view kRoom = "room";
  size_t hosts = 0;
  std::vector<Count> counts;  // most first
  // The most that one host has free, of those that have everything else for all that is known.
  int64_t most_vcpus = 0;
  ByteCount most_memory;
  ByteCount most_disk;
  std::vector<HostVerdict> shown;  // of a few hosts
};
inline constexpr size_t kShownHosts = 4;

// "no host fits: node1: trait VALLUM_SMM: ...; node2: ...; and 996 more. Failing of 1000 hosts:
// 900 by room (...), 100 by state".
std::string DescribeRefusal(const Refusal& refusal);
// What of a host fails, without its values: HostVerdict::requirement.
std::string NameRequirement(const HostView& host, const Request& request, Requirement failed);

}  // namespace vallum::placement

// SPDX-License-Identifier: Apache-2.0
#include "placement/placement.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "base/text.h"
#include "base/units.h"
#include "placement/trait_set.h"

namespace vallum::placement {
namespace {

uint64_t SaturatingSubtract(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

// Names of the probes that a trait follows from.
std::vector<std::string_view> ProbesOf(std::string_view trait) {
  if (trait == kTraitSmm) {
    return {"smm:kvm", "smm:tcg", "smm"};
  }
  if (trait == kTraitSecureBoot) {
    return {"firmware-secure-boot", "smm:kvm", "smm:tcg", "smm"};
  }
  if (trait == kTraitTpm20 || trait == kTraitTpmCrb || trait == kTraitTpmTis) {
    return {"swtpm", "device:tpm-crb", "device:tpm-tis"};
  }
  if (trait == kTraitUefi) {
    return {"firmware-uefi"};
  }
  if (trait == "VALLUM_ACCEL_KVM") {
    return {"accel:kvm"};
  }
  return {};
}

std::string ProbeWords(const HostView& host, const std::string& name) {
  for (const Probe& probe : host.probes) {
    if (probe.name == name && !probe.ok) {
      return probe.name + ": " + (probe.detail.empty() ? "failed" : probe.detail);
    }
  }
  return {};
}

std::string WhyTraitIsMissing(const HostView& host, const std::string& trait) {
  std::vector<std::string> reasons;
  for (const std::string_view name : ProbesOf(trait)) {
    if (std::string words = ProbeWords(host, std::string(name)); !words.empty()) {
      reasons.push_back(std::move(words));
    }
  }
  return reasons.empty() ? "the host's agent did not report it" : Join(reasons, "; ");
}

std::string AcceleratorWords(const HostView& host, const Request& request) {
  std::vector<std::string> reasons;
  const std::array<std::string_view, 2> both = {"kvm", "tcg"};
  for (const std::string_view name : both) {
    if (!request.accelerator.empty() && request.accelerator != name) {
      continue;
    }
    if (std::string words = ProbeWords(host, "accel:" + std::string(name)); !words.empty()) {
      reasons.push_back(std::move(words));
    }
  }
  const std::string has = host.accelerator.empty() ? "none that ran a guest" : host.accelerator;
  std::string text = "the host has " + has;
  if (!request.accelerator.empty()) {
    text += ", " + request.accelerator + " is required";
  }
  return reasons.empty() ? text : text + " (" + Join(reasons, "; ") + ")";
}

std::string_view StateWords(HostState state) {
  switch (state) {
    case HostState::kJoining:
      return "the host is joining and has not reported yet";
    case HostState::kUp:
      return "the host is up";
    case HostState::kDown:
      return "the host is down";
    case HostState::kMaintenance:
      return "the host is in maintenance";
    case HostState::kNonOperational:
      return "its pool does not take the host";
  }
  return "the host is in an unknown state";
}

bool HypervisorTypeFits(const HostView& host, const Request& request) {
  return request.hypervisor_type.empty() ||
         ToLower(host.hypervisor_type) == ToLower(request.hypervisor_type);
}

bool HypervisorVersionFits(const HostView& host, const Request& request) {
  if (request.hypervisor_versions.empty()) return true;
  const std::optional<Version> version = ReadVersion(host.hypervisor_version);
  return version && request.hypervisor_versions.Contains(*version);
}

std::string Reported(const std::string& value) { return value.empty() ? "an unknown one" : value; }

// The instance that keeps this one from the host, by affinity.
std::string NearWords(const HostView& host, const Request& request) {
  const auto at = std::ranges::find_if(
      request.near, [&](const Neighbour& other) { return other.host != host.name; });
  if (at == request.near.end()) return {};
  return "it must be near instance " + at->instance + ", which is on " +
         (at->host.empty() ? "no host yet" : "host " + at->host);
}

std::vector<Neighbour>::const_iterator FindApart(const HostView& host, const Request& request) {
  const auto at = std::ranges::lower_bound(request.apart_from, host.name, {}, &Neighbour::host);
  return at != request.apart_from.end() && at->host == host.name ? at : request.apart_from.end();
}

bool AcceleratorFits(const HostView& host, const Request& request) {
  return request.accelerator.empty() ? !host.accelerator.empty()
                                     : host.accelerator == request.accelerator;
}

// ", the rest promised 1.50 times"; empty without overcommit.
std::string OvercommitWords(double factor) {
  if (!(factor > 1)) return {};
  const auto hundredths = static_cast<int64_t>(std::min(factor, 1e6) * 100);
  const std::string cents = std::to_string(hundredths % 100);
  return ", the rest promised " + std::to_string(hundredths / 100) + "." +
         (cents.size() == 1 ? "0" : "") + cents + " times";
}

std::string Detail(const HostView& host, const Request& request, Requirement failed) {
  switch (failed) {
    case Requirement::kNone:
      return {};
    case Requirement::kPool:
      return "the host is in pool " + host.pool + ", not in " + request.pool;
    case Requirement::kPinnedHost:
      return "the instance asks for host " + request.pinned_host;
    case Requirement::kState:
      return std::string(StateWords(host.state)) +
             (host.state_reason.empty() ? "" : ": " + host.state_reason);
    case Requirement::kMaintenance:
      return "the host is in maintenance";
    case Requirement::kTrust:
      return (host.trust_reason.empty() ? "not attested" : host.trust_reason) + ": pool " +
             request.pool + " takes trusted hosts only";
    case Requirement::kTrait:
      return WhyTraitIsMissing(
          host, host.traits.FirstMissing(request.required_traits).value_or(std::string()));
    case Requirement::kForbiddenTrait:
      return "the host has it";
    case Requirement::kAccelerator:
      return AcceleratorWords(host, request);
    case Requirement::kHypervisorType:
      return "the host has " + Reported(host.hypervisor_type) + ", " + request.hypervisor_type +
             " is required";
    case Requirement::kHypervisorVersion:
      return "the host has " + Reported(host.hypervisor_version) + ", " +
             request.hypervisor_versions.words() + " is required";
    case Requirement::kAffinity:
      return NearWords(host, request);
    case Requirement::kAntiAffinity:
      return "it must be apart from instance " + FindApart(host, request)->instance +
             ", which is on this host";
    case Requirement::kVcpus:
      return std::to_string(request.vcpus) + " asked for, " +
             std::to_string(std::max<int64_t>(FreeVcpus(host), 0)) + " free of " +
             std::to_string(host.cpus) + " CPUs with overcommit";
    case Requirement::kMemory:
      return FormatByteCount(request.memory) + " asked for, " + FormatByteCount(FreeMemory(host)) +
             " free of " + FormatByteCount(host.memory) + " (" +
             FormatByteCount(HostMemoryReserve(host.memory)) + " kept for the host" +
             OvercommitWords(host.memory_overcommit) + ")";
    case Requirement::kDisk:
      return FormatByteCount(request.disk) + " asked for, " + FormatByteCount(host.disk_free) +
             " free";
  }
  return {};
}

}  // namespace

ByteCount HostMemoryReserve(ByteCount total) {
  return std::clamp(ByteCount::Bytes(total.bytes() / 16), ByteCount::MiB(256), ByteCount::GiB(4));
}

ByteCount FreeMemory(const HostView& host) {
  uint64_t usable = SaturatingSubtract(host.memory.bytes(), HostMemoryReserve(host.memory).bytes());
  if (host.memory_overcommit > 0 && host.memory_overcommit != 1) {
    // Beyond this no host is limited by its memory, and the conversion stays defined.
    constexpr double kEnough = 1e18;
    const double promised = static_cast<double>(usable) * host.memory_overcommit;
    usable = static_cast<uint64_t>(std::min(promised, kEnough));
  }
  return ByteCount::Bytes(SaturatingSubtract(usable, host.allocated_memory.bytes()));
}

int64_t FreeVcpus(const HostView& host) {
  const double factor = host.cpu_overcommit > 0 ? host.cpu_overcommit : kDefaultCpuOvercommit;
  const double promised = static_cast<double>(std::max<int64_t>(host.cpus, 0)) * factor;
  // Beyond this no host is limited by its CPUs, and the conversion stays defined.
  constexpr double kEnough = 1e15;
  return static_cast<int64_t>(std::min(promised, kEnough)) - host.allocated_vcpus;
}

Requirement FirstFailingProperty(const HostView& host, const Request& request) {
  if (host.pool != request.pool) {
    return Requirement::kPool;
  }
  if (host.state == HostState::kMaintenance) {
    return Requirement::kMaintenance;
  }
  if (host.state != HostState::kUp) {
    return Requirement::kState;
  }
  if (request.needs_trusted_host && !host.trusted) {
    return Requirement::kTrust;
  }
  if (!host.traits.ContainsAll(request.required_traits)) {
    return Requirement::kTrait;
  }
  if (host.traits.ContainsAny(request.forbidden_traits)) {
    return Requirement::kForbiddenTrait;
  }
  if (!AcceleratorFits(host, request)) {
    return Requirement::kAccelerator;
  }
  if (!HypervisorTypeFits(host, request)) {
    return Requirement::kHypervisorType;
  }
  return HypervisorVersionFits(host, request) ? Requirement::kNone
                                              : Requirement::kHypervisorVersion;
}

Requirement FirstFailing(const HostView& host, const Request& request) {
  const Requirement property = FirstFailingProperty(host, request);
  // The pool comes before it, everything else after.
  if (property != Requirement::kPool && !request.pinned_host.empty() &&
      host.name != request.pinned_host) {
    return Requirement::kPinnedHost;
  }
  if (property != Requirement::kNone) {
    return property;
  }
  if (std::ranges::any_of(request.near,
                          [&](const Neighbour& other) { return other.host != host.name; })) {
    return Requirement::kAffinity;
  }
  if (IsApart(host, request)) {
    return Requirement::kAntiAffinity;
  }
  if (FreeVcpus(host) < request.vcpus) {
    return Requirement::kVcpus;
  }
  if (FreeMemory(host) < request.memory) {
    return Requirement::kMemory;
  }
  return host.disk_free < request.disk ? Requirement::kDisk : Requirement::kNone;
}

bool IsApart(const HostView& host, const Request& request) {
  return FindApart(host, request) != request.apart_from.end();
}

// FNV-1a. Source: The FNV Non-Cryptographic Hash Algorithm, RFC 9923.
uint32_t TieOrder(std::string_view name) {
  uint32_t hash = 2166136261U;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
  return hash;
}

bool ComesBefore(const HostView& a, const HostView& b) {
  const auto key = [](const HostView& host) {
    return std::tuple(~FreeMemory(host).bytes(), TieOrder(host.name), std::string_view(host.name));
  };
  return key(a) < key(b);
}

size_t Choose(std::span<const HostView> hosts, const Request& request) {
  size_t best = hosts.size();
  for (size_t i = 0; i < hosts.size(); ++i) {
    if (FirstFailing(hosts[i], request) != Requirement::kNone) {
      continue;
    }
    if (best == hosts.size() || ComesBefore(hosts[i], hosts[best])) {
      best = i;
    }
  }
  return best;
}

HostVerdict Judge(const HostView& host, const Request& request) {
  HostVerdict verdict;
  verdict.host = host.name;
  verdict.failed = FirstFailing(host, request);
  verdict.requirement = NameRequirement(host, request, verdict.failed);
  verdict.detail = Detail(host, request, verdict.failed);
  if (verdict.fits()) {
    verdict.score =
        static_cast<double>(SaturatingSubtract(FreeMemory(host).bytes(), request.memory.bytes()));
  }
  return verdict;
}

Decision Place(std::span<const HostView> hosts, const Request& request) {
  Decision decision;
  decision.hosts.reserve(hosts.size());
  for (const HostView& host : hosts) {
    decision.hosts.push_back(Judge(host, request));
  }
  if (const size_t best = Choose(hosts, request); best < hosts.size()) {
    decision.chosen = hosts[best].name;
  }
  return decision;
}

std::string NameRequirement(const HostView& host, const Request& request, Requirement failed) {
  switch (failed) {
    case Requirement::kNone:
      return {};
    case Requirement::kPool:
      return "pool";
    case Requirement::kPinnedHost:
      return "host";
    case Requirement::kState:
      return "state";
    case Requirement::kMaintenance:
      return "maintenance";
    case Requirement::kTrust:
      return "trust";
    case Requirement::kTrait:
      return "trait " + host.traits.FirstMissing(request.required_traits).value_or(std::string());
    case Requirement::kForbiddenTrait:
      return "trait " + host.traits.FirstCommon(request.forbidden_traits).value_or(std::string()) +
             " forbidden";
    case Requirement::kAccelerator:
      return "accelerator";
    case Requirement::kHypervisorType:
      return "hypervisor type";
    case Requirement::kHypervisorVersion:
      return "hypervisor version";
    case Requirement::kAffinity:
      return "affinity";
    case Requirement::kAntiAffinity:
      return "anti-affinity";
    case Requirement::kVcpus:
      return "vcpus";
    case Requirement::kMemory:
      return "memory";
    case Requirement::kDisk:
      return "disk";
  }
  return {};
}

std::string DescribeRefusal(const Refusal& refusal) {
  constexpr size_t kShownCounts = 6;
  if (refusal.hosts == 0) {
    return "no host fits: no host has joined";
  }
  std::vector<std::string> parts;
  for (const HostVerdict& verdict : refusal.shown) {
    parts.push_back(verdict.host + ": " + verdict.requirement + ": " + verdict.detail);
  }
  const std::string first = "no host fits: " + Join(parts, "; ");
  if (refusal.hosts <= refusal.shown.size()) return first;
  std::vector<std::string> counts;
  for (const Refusal::Count& each : refusal.counts) {
    if (counts.size() == kShownCounts) {
      counts.emplace_back("others otherwise");
      break;
    }
    std::string words = std::to_string(each.hosts) + " by " + each.requirement;
    if (each.requirement == Refusal::kRoom) {
      words += " (the most that one has free: " +
               std::to_string(std::max<int64_t>(refusal.most_vcpus, 0)) + " vcpus, " +
               FormatByteCount(refusal.most_memory) + " memory, " +
               FormatByteCount(refusal.most_disk) + " disk)";
    }
    counts.push_back(std::move(words));
  }
  return first + (parts.empty() ? "" : "; and ") +
         std::to_string(refusal.hosts - refusal.shown.size()) + " more. Failing of " +
         std::to_string(refusal.hosts) + " hosts: " + Join(counts, ", ");
}

}  // namespace vallum::placement

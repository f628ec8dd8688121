// SPDX-License-Identifier: Apache-2.0
#include <google/protobuf/message.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "attest/ek_certificate.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/result.h"
#include "base/text.h"
#include "base/units.h"
#include "controller/allow_list_use.h"
#include "controller/boot_policy.h"
#include "controller/deletion.h"
#include "controller/key_set_service.h"
#include "controller/placement_settings.h"
#include "controller/resource_kind.h"
#include "controller/rest_context.h"
#include "controller/view.h"
#include "images/convert.h"
#include "images/inspection.h"

namespace vallum::controller {
namespace {

constexpr int kMaxVcpus = 512;
constexpr int64_t kMinMemory = int64_t{16} << 20U;
constexpr int64_t kMaxMemory = int64_t{16} << 40U;
constexpr int kMaxLabels = 64;
constexpr size_t kMaxLabelLength = 256;
constexpr size_t kMaxDescription = 4096;
// Of a pool that says nothing: see PoolSpec.
constexpr int32_t kDefaultLease = 600;
constexpr int32_t kDefaultInterval = 240;
constexpr int32_t kMaxTrustSeconds = 7 * 86400;

Result<void> ValidateLabels(const v1::Metadata& metadata) {
  if (metadata.labels_size() > kMaxLabels) {
    return InvalidInput("metadata.labels: " + std::to_string(metadata.labels_size()) +
                        " labels, at most " + std::to_string(kMaxLabels));
  }
  for (const auto& [key, value] : metadata.labels()) {
    const bool bad_key = key.empty() || key.size() > kMaxLabelLength ||
                         key.find_first_of(",= \t\n") != std::string::npos;
    if (bad_key || value.size() > kMaxLabelLength || value.find(',') != std::string::npos) {
      return InvalidInput("metadata.labels: \"" + Printable(key, 60) + "=" + Printable(value, 60) +
                          "\" is not valid")
          .WithFix("keys without ',', '=' and blanks, values without ',', at most 256 bytes each");
    }
  }
  return Ok();
}

Result<void> ValidateDescription(const std::string& text) {
  if (text.size() <= kMaxDescription) return Ok();
  return InvalidInput("spec.description: longer than 4096 bytes");
}

// How a trusted pool attests its hosts. Checked of other pools, too: one may be made ready first.
Result<void> ValidateAttestation(const v1::PoolSpec& spec) {
  if (!v1::OnUntrusted_IsValid(spec.on_untrusted())) {
    return InvalidInput("spec.onUntrusted: " + std::to_string(spec.on_untrusted()) +
                        " is no value of it")
        .WithFix("use ON_UNTRUSTED_STOP, ON_UNTRUSTED_MOVE or ON_UNTRUSTED_REPORT");
  }
  const std::pair<const char*, int32_t> times[] = {
      {"leaseSeconds", spec.lease_seconds()},
      {"attestIntervalSeconds", spec.attest_interval_seconds()},
      {"staleGraceSeconds", spec.stale_grace_seconds()},
      {"unknownGraceSeconds", spec.unknown_grace_seconds()}};
  for (const auto& [field, seconds] : times) {
    if (seconds < 0 || seconds > kMaxTrustSeconds) {
      return InvalidInput(std::string("spec.") + field + ": " + std::to_string(seconds) +
                          " is not from 0 to " + std::to_string(kMaxTrustSeconds));
    }
  }
  const int32_t lease = spec.lease_seconds() > 0 ? spec.lease_seconds() : kDefaultLease;
  const int32_t interval =
      spec.attest_interval_seconds() > 0 ? spec.attest_interval_seconds() : kDefaultInterval;
  if (lease <= interval) {
    return InvalidInput("spec.leaseSeconds=" + std::to_string(lease) +
                        " conflicts with spec.attestIntervalSeconds=" + std::to_string(interval) +
                        ": leases would end before they are renewed")
        .WithFix("make the lease at least twice as long as the interval; left out they are " +
                 std::to_string(kDefaultLease) + " and " + std::to_string(kDefaultInterval));
  }
  return Ok();
}

Result<void> ValidateTpmAuthority(const v1::TpmAuthority& authority) {
  RETURN_IF_ERROR(ValidateDescription(authority.spec().description()));
  const attest::CertificateBundle bundle =
      attest::ReadCertificateBundle(AsBytes(authority.spec().certificates_pem()));
  if (!bundle.certificates.empty()) return Ok();
  return InvalidInput("spec.certificatesPem: there is no certificate in it" +
                      (bundle.problems.empty() ? "" : ": " + Join(bundle.problems, "; ")))
      .WithFix("give the authority's root certificates as PEM");
}

Result<void> ValidatePool(const v1::Pool& pool) {
  RETURN_IF_ERROR(ValidateDescription(pool.spec().description()));
  const double overcommit = pool.spec().cpu_overcommit();
  if (overcommit != 0 && !(overcommit >= 1 && overcommit <= 64)) {
    return InvalidInput("spec.cpuOvercommit: " + std::to_string(overcommit) +
                        " is not from 1 to 64")
        .WithFix("leave it out for the default of 4");
  }
  const double memory = pool.spec().memory_overcommit();
  if (memory != 0 && !(memory >= 1 && memory <= 10)) {
    return InvalidInput("spec.memoryOvercommit: " + std::to_string(memory) + " is not from 1 to 10")
        .WithFix("leave it out for the default of 1: no memory is promised that is not there");
  }
  if (!v1::OnDiverged_IsValid(pool.spec().on_diverged())) {
    return InvalidInput("spec.onDiverged: " + std::to_string(pool.spec().on_diverged()) +
                        " is no value of it")
        .WithFix("use ON_DIVERGED_REPORT, ON_DIVERGED_ISOLATE or ON_DIVERGED_STOP");
  }
  return ValidateAttestation(pool.spec());
}

Result<void> ValidateFlavor(const v1::Flavor& flavor) {
  const v1::FlavorSpec& spec = flavor.spec();
  RETURN_IF_ERROR(ValidateDescription(spec.description()));
  if (spec.vcpus() < 1 || spec.vcpus() > kMaxVcpus) {
    return InvalidInput("spec.vcpus: " + std::to_string(spec.vcpus()) + " is not from 1 to " +
                        std::to_string(kMaxVcpus));
  }
  if (spec.memory_bytes() < kMinMemory || spec.memory_bytes() > kMaxMemory) {
    return InvalidInput("spec.memoryBytes: " + std::to_string(spec.memory_bytes()) +
                        " is not from 16 MiB to 16 TiB");
  }
  if (spec.memory_bytes() % (1 << 20) != 0) {
    return InvalidInput("spec.memoryBytes: " + std::to_string(spec.memory_bytes()) +
                        " is not a whole number of MiB");
  }
  if (spec.disk_bytes() < 0 || spec.disk_bytes() % 512 != 0) {
    return InvalidInput("spec.diskBytes: " + std::to_string(spec.disk_bytes()) +
                        " is not a multiple of 512");
  }
  RETURN_IF_ERROR(ReadPlacementSettings("flavor " + flavor.metadata().name(),
                                        {spec.extra_specs().begin(), spec.extra_specs().end()}));
  return Ok();
}

Result<void> ValidateImage(const v1::Image& image) {
  const v1::ImageSpec& spec = image.spec();
  RETURN_IF_ERROR(ValidateDescription(spec.description()));
  ASSIGN_OR_RETURN(const images::DeclaredFormat format,
                   images::ParseDeclaredFormat(spec.disk_format()));
  if (!spec.store_format().empty()) {
    RETURN_IF_ERROR(images::ParseStoreFormat(spec.store_format()));
    if (!images::IsDiskFormat(format)) {
      return InvalidInput("spec.storeFormat=" + spec.store_format() +
                          " conflicts with spec.diskFormat=" + spec.disk_format() +
                          ", which is no disk")
          .WithFix("leave spec.storeFormat out");
    }
  }
  RETURN_IF_ERROR(CheckImageProperties(image.metadata().name(),
                                       {spec.properties().begin(), spec.properties().end()}));
  RETURN_IF_ERROR(ReadPlacementSettings("image " + image.metadata().name(),
                                        {spec.properties().begin(), spec.properties().end()}));
  if (!spec.expected_sha256().empty()) {
    const Result<Bytes> digest = FromHex(spec.expected_sha256());
    if (!digest.has_value() || digest->size() != 32) {
      return InvalidInput("spec.expectedSha256: not a SHA-256 in 64 hexadecimal digits");
    }
  }
  if (spec.expected_size_bytes() < 0) return InvalidInput("spec.expectedSizeBytes: negative");
  return Ok();
}

Result<void> CheckPolicyUnused(const View& view, const v1::AttestationPolicy& policy) {
  const std::string& name = policy.metadata().name();
  for (const auto& pool : view.All<v1::Pool>()) {
    if (pool->spec().attestation_policy() != name) continue;
    const std::string& user = pool->metadata().name();
    return Conflict("attestation policy " + name + " is used by pool " + user)
        .WithFix("give the pool another one: `vallum pool update " + user +
                 " --attestation-policy NAME`");
  }
  if (policy.status().active_version() == 0) return Ok();
  const std::string active = std::to_string(policy.status().active_version());
  return Conflict("version " + active + " of attestation policy " + name + " is active")
      .WithFix("`vallum policy retire " + name + " --version " + active + "` first");
}

Error InUse(Kind kind, const std::string& name, const std::string& by) {
  return Conflict(std::string(KindName(kind)) + " " + name + " is used by " + by)
      .WithFix("delete or move that first");
}

}  // namespace

Result<void> ValidateResource(Kind kind, const google::protobuf::Message& resource) {
  RETURN_IF_ERROR(ValidateName(KindName(kind), MetadataOf(resource).name()));
  RETURN_IF_ERROR(ValidateLabels(MetadataOf(resource)));
  switch (kind) {
    case Kind::kPool:
      return ValidatePool(static_cast<const v1::Pool&>(resource));
    case Kind::kFlavor:
      return ValidateFlavor(static_cast<const v1::Flavor&>(resource));
    case Kind::kImage:
      return ValidateImage(static_cast<const v1::Image&>(resource));
    case Kind::kKeySet:
      return ValidateDescription(static_cast<const v1::KeySet&>(resource).spec().description());
    case Kind::kHost:
    case Kind::kInstance:
    case Kind::kOperation:
    case Kind::kEvent:
    case Kind::kToken:
    case Kind::kSnapshot:
    case Kind::kRollout:
      return Ok();
    case Kind::kAttestationPolicy:
      return ValidateDescription(
          static_cast<const v1::AttestationPolicy&>(resource).spec().description());
    case Kind::kTpmAuthority:
      return ValidateTpmAuthority(static_cast<const v1::TpmAuthority&>(resource));
    case Kind::kAllowList:
      return ValidateDescription(static_cast<const v1::AllowList&>(resource).spec().description());
  }
  return Ok();
}

Result<void> CheckUnused(const View& view, Kind kind, const google::protobuf::Message& resource) {
  const std::string& name = MetadataOf(resource).name();
  if (kind == Kind::kKeySet) {
    if (static_cast<const v1::KeySet&>(resource).status().built_in()) {
      return Conflict("keyset " + name + " comes with the controller and cannot be deleted");
    }
    const std::string user = UserOfKeySet(view, name);
    return user.empty() ? Ok() : Result<void>(InUse(kind, name, user));
  }
  if (kind == Kind::kAttestationPolicy) {
    return CheckPolicyUnused(view, static_cast<const v1::AttestationPolicy&>(resource));
  }
  if (kind == Kind::kAllowList) {
    const std::string user =
        UserOfAllowList(view, static_cast<const v1::AllowList&>(resource).status().sha256());
    if (user.empty()) return Ok();
    return Conflict("allowlist " + name + " is used by " + user)
        .WithFix("`vallum policy retire` that version first");
  }
  if (kind == Kind::kRollout && IsUnderWay(static_cast<const v1::Rollout&>(resource))) {
    return Conflict("rollout " + name + " is under way")
        .WithFix("`vallum rollout stop " + name + "` first");
  }
  for (const auto& instance : view.All<v1::Instance>()) {
    const std::string by = "instance " + instance->metadata().name();
    const std::string pool = instance->spec().pool().empty() ? "default" : instance->spec().pool();
    if (kind == Kind::kImage && instance->spec().image() == name) return InUse(kind, name, by);
    if (kind == Kind::kSnapshot && instance->spec().snapshot() == name) {
      return InUse(kind, name, by);
    }
    if (kind == Kind::kPool && pool == name) return InUse(kind, name, by);
    if (kind == Kind::kHost && instance->status().host() == name) {
      // A host that died for good takes the instances with it that are being deleted: nobody is
      // left to report them gone.
      const bool lost = static_cast<const v1::Host&>(resource).status().state() == v1::HOST_DOWN;
      if (!lost || !instance->metadata().has_delete_time()) return InUse(kind, name, by);
    }
  }
  if (kind == Kind::kPool) {
    for (const auto& host : view.All<v1::Host>()) {
      if (host->spec().pool() == name) return InUse(kind, name, "host " + host->metadata().name());
    }
  }
  return Ok();
}

}  // namespace vallum::controller

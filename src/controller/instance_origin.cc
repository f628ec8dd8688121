// SPDX-License-Identifier: Apache-2.0
#include "controller/instance_origin.h"

#include <memory>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "controller/placement_settings.h"

namespace vallum::controller {
namespace {

// No host makes a variable store for this.
constexpr const char* kImportedVariables = "an import";

std::shared_ptr<const v1::Image> AsImage(const v1::Snapshot& snapshot) {
  auto image = std::make_shared<v1::Image>();
  image->mutable_metadata()->set_name("of snapshot " + snapshot.metadata().name());
  const v1::SnapshotStatus& from = snapshot.status();
  v1::ImageStatus& status = *image->mutable_status();
  status.set_state(from.state() == v1::SNAPSHOT_READY ? v1::IMAGE_READY : v1::IMAGE_PENDING);
  status.set_sha256(from.disk().sha256());
  status.set_size_bytes(from.disk().size_bytes());
  status.set_virtual_size_bytes(from.disk_virtual_size_bytes());
  status.set_detected_format("qcow2");
  // It was the disk of an instance that started.
  status.set_bootable(true);
  *status.mutable_boot_binaries() = from.boot_binaries();
  return image;
}

// One that a host took is of an instance.
bool IsImported(const v1::Snapshot& snapshot) { return snapshot.status().instance_uid().empty(); }

}  // namespace

std::shared_ptr<const v1::Image> OriginOf(const View& view, const v1::InstanceSpec& spec) {
  if (spec.snapshot().empty()) return view.Get<v1::Image>(spec.image());
  const auto snapshot = view.Get<v1::Snapshot>(spec.snapshot());
  return snapshot == nullptr ? nullptr : AsImage(*snapshot);
}

std::string OriginWords(const v1::InstanceSpec& spec) {
  return spec.snapshot().empty() ? "image " + spec.image() : "snapshot " + spec.snapshot();
}

Result<std::shared_ptr<const v1::Snapshot>> FindSnapshot(const View& view,
                                                         const Principal& principal,
                                                         const std::string& name) {
  auto snapshot = view.Get<v1::Snapshot>(name);
  if (snapshot == nullptr || !Visible(principal, Kind::kSnapshot, snapshot->metadata().tenant())) {
    return NotFound("snapshot \"" + Printable(name, 63) + "\" does not exist")
        .WithFix("`vallum snapshot list` shows what there is");
  }
  return snapshot;
}

Result<void> FillFromSnapshot(const View& view, const Principal& principal,
                              v1::InstanceSpec& spec) {
  const bool copies = spec.tpm_origin() == v1::TPM_ORIGIN_COPY;
  if (spec.snapshot().empty()) {
    if (!copies) return Ok();
    return InvalidInput("tpm_origin=COPY without a snapshot: there is no vTPM to copy")
        .WithFix("name a snapshot, or leave tpm_origin out");
  }
  const std::string& name = spec.snapshot();
  if (!spec.image().empty()) {
    return InvalidInput("image=" + Printable(spec.image(), 63) + " conflicts with snapshot=" +
                        Printable(name, 63) + ": an instance is made from one of them")
        .WithFix("leave one of them out");
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const v1::Snapshot> snapshot,
                   FindSnapshot(view, principal, name));
  if (snapshot->status().state() != v1::SNAPSHOT_READY) {
    return Conflict("snapshot \"" + name + "\" is not ready" +
                    (snapshot->status().reason().empty() ? "" : ": " + snapshot->status().reason()))
        .WithFix("`vallum snapshot show " + name + "` says how far it is");
  }
  if (copies && snapshot->status().tpm().sha256().empty()) {
    return InvalidInput("tpm_origin=COPY, but snapshot \"" + name + "\" has no vTPM")
        .WithFix("use tpm_origin=NEW");
  }
  v1::InstanceSpec merged = snapshot->status().instance_spec();
  // Of the instance that was, not of one like it.
  for (v1::Network& network : *merged.mutable_networks()) network.clear_mac();
  merged.mutable_seed()->clear_hostname();
  for (auto clear : {&v1::InstanceSpec::clear_image, &v1::InstanceSpec::clear_host,
                     &v1::InstanceSpec::clear_power, &v1::InstanceSpec::clear_reboot_count,
                     &v1::InstanceSpec::clear_force_stop, &v1::InstanceSpec::clear_properties,
                     &v1::InstanceSpec::clear_snapshot, &v1::InstanceSpec::clear_tpm_origin,
                     &v1::InstanceSpec::clear_allow_untrusted, &v1::InstanceSpec::clear_near,
                     &v1::InstanceSpec::clear_apart_from}) {
    (merged.*clear)();
  }
  // What it asks of a host, its disk still asks for.
  for (const auto& [key, value] : snapshot->status().instance_spec().properties()) {
    if (DecidesPlacement(key)) (*merged.mutable_properties())[key] = value;
  }
  // Its sizes are in the spec already.
  if (view.Get<v1::Flavor>(merged.flavor()) == nullptr) merged.clear_flavor();
  if (!spec.flavor().empty()) {
    merged.clear_vcpus();
    merged.clear_memory_bytes();
    merged.clear_disk_bytes();
  }
  // Lists are replaced, not appended to.
  if (spec.networks_size() > 0) merged.clear_networks();
  if (spec.has_seed()) merged.clear_seed();
  if (!spec.key_set().empty()) merged.clear_key_set_version();
  merged.MergeFrom(spec);
  spec = std::move(merged);
  return Ok();
}

Result<TrustCrossing> CheckTrust(const v1::InstanceSpec& spec, const v1::Pool& pool) {
  if (!spec.trusted_service() || pool.spec().trusted_service()) return TrustCrossing::kNone;
  if (spec.allow_untrusted()) return TrustCrossing::kAllowed;
  return Conflict("trusted_service=true conflicts with pool \"" + pool.metadata().name() +
                  "\", whose hosts need not be attested")
      .WithFix(
          "choose a pool with trusted_service, or say allow_untrusted (--allow-untrusted), "
          "which is recorded");
}

bool HasImportedTpm(const View& view, const v1::InstanceSpec& spec) {
  if (spec.tpm_origin() != v1::TPM_ORIGIN_COPY) return false;
  const auto snapshot = view.Get<v1::Snapshot>(spec.snapshot());
  return snapshot == nullptr || snapshot->status().tpm_imported() || IsImported(*snapshot);
}

void SetDesiredOrigin(const View& view, const v1::Instance& instance,
                      v1::DesiredInstance& desired) {
  const auto image = OriginOf(view, instance.spec());
  if (image == nullptr) return;
  const v1::ImageStatus& status = image->status();
  desired.set_image_sha256(status.sha256());
  desired.set_image_size_bytes(status.size_bytes());
  desired.set_image_format(status.detected_format());
  desired.set_image_virtual_size_bytes(status.virtual_size_bytes());
  *desired.mutable_boot_binaries() = status.boot_binaries();
  const auto snapshot = view.Get<v1::Snapshot>(instance.spec().snapshot());
  if (snapshot == nullptr) return;
  v1::SnapshotSource& source = *desired.mutable_snapshot();
  source.set_variables_sha256(snapshot->status().variables().content_sha256());
  // Hosts leave a store as it is that was made for the keys they would place: only a host's own
  // word says so, whatever an older controller has kept of an import.
  source.set_variable_origin(IsImported(*snapshot) ? kImportedVariables
                                                   : snapshot->status().variable_origin());
  if (instance.spec().tpm_origin() == v1::TPM_ORIGIN_COPY) {
    source.set_tpm_sha256(snapshot->status().tpm().content_sha256());
  }
}

}  // namespace vallum::controller

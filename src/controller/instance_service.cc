// SPDX-License-Identifier: Apache-2.0
#include "controller/instance_service.h"

#include <google/protobuf/util/message_differencer.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/text.h"
#include "controller/boot_settings.h"
#include "controller/boot_verdicts.h"
#include "controller/instance_keys.h"
#include "controller/instance_origin.h"
#include "controller/key_set_service.h"
#include "controller/loader_signature.h"
#include "controller/placement_book.h"
#include "controller/placement_input.h"
#include "controller/placement_settings.h"
#include "controller/spec_limits.h"
#include "controller/trust_gap.h"

namespace vallum::controller {
namespace {

constexpr int kAttempts = 50;
constexpr int kDecisions = 5;  // each may look into an image
constexpr int32_t kMaxStopTimeout = 3600;

Properties ToProperties(const google::protobuf::Map<std::string, std::string>& map) {
  return {map.begin(), map.end()};
}

Error NoSuch(Kind kind, const std::string& name) {
  const std::string word(KindName(kind));
  return NotFound(word + " \"" + Printable(name) + "\" does not exist")
      .WithFix("`vallum " + word + " list` shows what there is");
}

// Sizes: the request's own, else the flavor's; the disk is never smaller than the image.
Result<void> CopySizes(const v1::Flavor& flavor, const v1::Image& image, v1::InstanceSpec& spec) {
  if (spec.vcpus() < 0 || spec.memory_bytes() < 0 || spec.disk_bytes() < 0) {
    return InvalidInput("vcpus, memory_bytes and disk_bytes cannot be negative")
        .WithFix("leave them out to take the flavor's");
  }
  if (spec.vcpus() == 0) {
    spec.set_vcpus(flavor.spec().vcpus());
  }
  if (spec.memory_bytes() == 0) {
    spec.set_memory_bytes(flavor.spec().memory_bytes());
  }
  const int64_t image_size = image.status().virtual_size_bytes();
  const int64_t disk = spec.disk_bytes() != 0 ? spec.disk_bytes() : flavor.spec().disk_bytes();
  if (disk != 0 && disk < image_size) {
    return InvalidInput("disk_bytes=" + std::to_string(disk) + " conflicts with image " +
                        image.metadata().name() + ", whose disk has " + std::to_string(image_size) +
                        " bytes")
        .WithFix("choose a flavor with a larger disk");
  }
  spec.set_disk_bytes(disk != 0 ? disk : image_size);
  if (spec.vcpus() < 1 || spec.memory_bytes() < 1) {
    return InvalidInput("flavor " + flavor.metadata().name() + " has no CPUs or no memory")
        .WithFix("choose another flavor");
  }
  return Ok();
}

bool IsSecureHost(const v1::Host& host, const std::string& pool) {
  if (host.spec().pool() != pool) return false;
  const placement::HostView view = ToHostView(host, nullptr, nullptr, {});
  return view.state == placement::HostState::kUp && view.traits.Contains(placement::kTraitSmm) &&
         view.traits.Contains(placement::kTraitSecureBoot) &&
         view.traits.Contains(placement::kTraitTpm20);
}

SecureHosts AnySecureHost(const View& view, const std::string& pool) {
  // A page at a time: one of the first will do as a rule.
  constexpr size_t kPage = 64;
  std::string after;
  while (true) {
    const View::Listing page = view.List(Kind::kHost, after, kPage);
    for (const AnyResource& item : page.items) {
      const auto& host = static_cast<const v1::Host&>(*item);
      if (IsSecureHost(host, pool)) return SecureHosts::kSome;
    }
    if (page.items.size() < kPage) return SecureHosts::kNone;
    after = MetadataOf(*page.items.back()).name();
  }
}

// An instance that it is to be near must be there, or it would wait for ever.
Result<void> CheckNear(const View& view, const v1::Instance& instance) {
  const std::string& tenant = instance.metadata().tenant();
  for (const std::string& name : instance.spec().near()) {
    const auto other = view.Get<v1::Instance>(name);
    if (other == nullptr || (!tenant.empty() && other->metadata().tenant() != tenant)) {
      return NotFound("near=" + name + " (request): there is no such instance")
          .WithFix("`vallum instance list` shows what there is");
    }
  }
  return Ok();
}

// After Resolve().
Result<void> SettlePlacement(const View& view, v1::InstanceSpec& spec) {
  return StorePlacementSettings(OriginOf(view, spec).get(),
                                view.Get<v1::Flavor>(spec.flavor()).get(), spec);
}

// The resolved boot is what counts from now on; the aliases were its source.
void StorePolicy(const BootPolicy& policy, v1::InstanceSpec& spec) {
  spec.mutable_boot()->set_type(policy.requested.type());
  spec.mutable_boot()->set_mode(policy.requested.mode());
  spec.set_tpm_model(policy.tpm_model);
  auto& properties = *spec.mutable_properties();
  for (auto property = properties.begin(); property != properties.end();) {
    property = ToLower(property->first) == kLoaderSignature ? properties.erase(property)
                                                            : std::next(property);
  }
  if (!policy.signature.empty()) properties[kLoaderSignature] = policy.signature;
}

// Warnings of the pre-flight begin so: with other keys they are made anew.
std::string PreflightPrefix(const v1::Instance& instance) {
  return OriginWords(instance.spec()) + " will not start under key set ";
}

void SetWarning(const std::string& warning, v1::Instance& instance) {
  v1::BootRequested& requested = *instance.mutable_status()->mutable_boot()->mutable_requested();
  const google::protobuf::RepeatedPtrField<std::string> before = requested.warnings();
  requested.clear_warnings();
  for (const std::string& other : before) {
    if (!other.starts_with(PreflightPrefix(instance))) requested.add_warnings(other);
  }
  if (!warning.empty()) requested.add_warnings(warning);
}

// A key set beside the instance's own whose db it has as well; empty: none.
std::string OtherSigner(const v1::Instance& instance) {
  const std::string signer = SignatureOf(instance).key_set;
  return signer == instance.spec().key_set() ? std::string() : signer;
}

// That something can start from what it is made of.
Result<void> CheckOrigin(const View& view, const v1::InstanceSpec& spec) {
  const auto image = OriginOf(view, spec);
  if (image == nullptr || image->status().state() != v1::IMAGE_READY) {
    return Conflict("image \"" + spec.image() + "\" is not ready")
        .WithFix("`vallum image show " + spec.image() +
                 "` says how far it is, or why it was refused");
  }
  if (!image->status().bootable()) {
    return Conflict("nothing starts from image \"" + spec.image() + "\" (" +
                    image->status().detected_format() + ", " + image->status().content_format() +
                    ")")
        .WithFix("use the image of a bootable disk");
  }
  return Ok();
}

Result<void> CheckFree(const v1::Instance& instance) {
  if (instance.metadata().has_delete_time()) {
    return Conflict("instance \"" + instance.metadata().name() + "\" is being deleted")
        .WithFix("wait until it is gone");
  }
  if (const std::string& snapshot = instance.status().taking_snapshot(); !snapshot.empty()) {
    return Conflict("snapshot \"" + snapshot + "\" of instance \"" + instance.metadata().name() +
                    "\" is being taken, and until then the instance stays as it is")
        .WithFix("wait for it, or give it up with `vallum snapshot delete " + snapshot + "`");
  }
  return Ok();
}

// Whether a change of what is wanted has a guest started, resumed or rebooted.
bool IsToBegin(const v1::InstanceSpec& before, const v1::InstanceSpec& after) {
  const bool starts = before.power() == v1::POWER_STOPPED;
  const bool resumes = before.power() == v1::POWER_PAUSED && after.power() == v1::POWER_RUNNING;
  const bool reboots = before.reboot_count() != after.reboot_count();
  return after.power() != v1::POWER_STOPPED && (starts || resumes || reboots);
}

Result<void> CheckMutable(const v1::Instance& current, const v1::Instance& wanted) {
  v1::InstanceSpec allowed = current.spec();
  allowed.set_power(wanted.spec().power());
  allowed.set_force_stop(wanted.spec().force_stop());
  allowed.set_stop_timeout_seconds(wanted.spec().stop_timeout_seconds());
  allowed.set_reboot_count(wanted.spec().reboot_count());
  allowed.set_key_set(wanted.spec().key_set());
  allowed.set_key_set_version(wanted.spec().key_set_version());
  allowed.mutable_boot()->set_mode(wanted.spec().boot().mode());
  std::string difference;
  google::protobuf::util::MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&difference);
  if (!differencer.Compare(allowed, wanted.spec())) {
    return InvalidInput("spec of an instance may not change here: " +
                        std::string(Trim(Printable(difference))))
        .WithFix(
            "delete the instance and create it anew, or change only power, force_stop, "
            "stop_timeout_seconds, reboot_count, key_set, key_set_version and boot.mode");
  }
  const int64_t more = wanted.spec().reboot_count() - current.spec().reboot_count();
  if (wanted.spec().reboot_count() < 0 || (more != 0 && more != 1)) {
    return InvalidInput("reboot_count can only be raised by one");
  }
  if (wanted.spec().stop_timeout_seconds() < 0 ||
      wanted.spec().stop_timeout_seconds() > kMaxStopTimeout) {
    return InvalidInput("stop_timeout_seconds must be from 0 to 3600");
  }
  if (!v1::PowerState_IsValid(wanted.spec().power()) ||
      wanted.spec().power() == v1::POWER_STATE_UNSPECIFIED) {
    return InvalidInput("power is not set")
        .WithFix("use POWER_RUNNING, POWER_STOPPED or POWER_PAUSED");
  }
  return Ok();
}

}  // namespace

Result<BootPolicy> InstanceService::Resolve(v1::InstanceSpec& spec) const {
  if (spec.pool().empty()) {
    spec.set_pool("default");
  }
  const auto image = OriginOf(view_, spec);
  const auto flavor = view_.Get<v1::Flavor>(spec.flavor());
  if (view_.Get<v1::Pool>(spec.pool()) == nullptr) {
    return NoSuch(Kind::kPool, spec.pool());
  }
  // To explain scheduling, image and flavor may be left out.
  if (image == nullptr && !spec.image().empty()) {
    return NoSuch(Kind::kImage, spec.image());
  }
  if (flavor == nullptr && !spec.flavor().empty()) {
    return NoSuch(Kind::kFlavor, spec.flavor());
  }
  BootInputs inputs;
  inputs.request = spec.boot();
  inputs.request_properties = ToProperties(spec.properties());
  inputs.request_tpm_model = spec.tpm_model();
  inputs.image_name = spec.image();
  inputs.flavor_name = spec.flavor();
  if (image != nullptr) {
    inputs.image_properties = ToProperties(image->spec().properties());
  }
  if (flavor != nullptr) {
    inputs.flavor_extra_specs = ToProperties(flavor->spec().extra_specs());
  }
  inputs.secure_hosts = AnySecureHost(view_, spec.pool());
  const v1::Image no_image;
  const v1::Flavor no_flavor;
  if (flavor != nullptr || spec.vcpus() != 0) {
    RETURN_IF_ERROR(CopySizes(flavor ? *flavor : no_flavor, image ? *image : no_image, spec));
  }
  return ResolveBoot(inputs);
}

// What the agent would refuse, too: nothing starts on a host that its pool does not take.
Result<void> InstanceService::CheckTrustOfHost(const v1::Instance& instance) {
  const auto host = view_.Get<v1::Host>(instance.status().host());
  const v1::PoolSpec pool = PoolOf(instance, view_);
  if (host == nullptr || !pool.trusted_service()) return Ok();
  const std::string& name = host->metadata().name();
  if (host->spec().pool() != instance.spec().pool()) {
    return Conflict("host " + name + ", where the instance is, is in pool " + host->spec().pool() +
                    " now, not in " + instance.spec().pool())
        .WithFix("`vallum host move " + name + " --pool " + instance.spec().pool() +
                 "`, or delete the instance");
  }
  const auto policy = view_.Get<v1::AttestationPolicy>(pool.attestation_policy());
  if (!FindTrustGap(*host, pool, policy.get(), resources_.clock().Now()).has_value()) return Ok();
  // The verdict is old, or may be another one by now. Whoever starts things without end does not
  // have the host prove itself without end.
  if (pace_.Take(name)) attest_now_(name);
  const v1::HostTrust& trust = host->status().trust();
  // Then the start waits at the host until evidence has brought a lease.
  if (trust.level() == v1::TRUST_TRUSTED || trust.level() == v1::TRUST_LEVEL_UNSPECIFIED) {
    return Ok();
  }
  const std::string words =
      "host " + name + ", where the instance is, is not trusted: " + trust.detail();
  if (host->status().state() == v1::HOST_DOWN) {
    return Conflict(words + "; its agent is not connected, so that it cannot be asked for evidence")
        .WithFix("start its agent: the host is attested as soon as it connects");
  }
  return Conflict(words + "; it has been asked for new evidence within the last minute")
      .WithFix("try again in a moment; `vallum host show " + name + " --explain` says why");
}

Result<InstanceService::Accepted> InstanceService::Create(const v1::Instance& instance,
                                                          const Principal& principal,
                                                          const Preflight& preflight) {
  const std::string& name = instance.metadata().name();
  bool told = false;
  for (int attempt = 0; attempt < kDecisions; ++attempt) {
    const store::Revision decided_from = view_.revision();
    ASSIGN_OR_RETURN(Decision decision, Decide(instance, principal, preflight));
    resources_.PrepareCreate(decision.instance);
    v1::Operation operation = operations_.Make("instance.create",
                                               {.kind = Kind::kInstance,
                                                .name = name,
                                                .uid = decision.instance.metadata().uid(),
                                                .generation = 1,
                                                .tenant = instance.metadata().tenant()},
                                               principal.name);
    // Before it is so: a controller that ends in between has told of it.
    if (decision.crossing == TrustCrossing::kAllowed && !told) {
      RETURN_IF_ERROR(TellCrossing(decision.instance, principal));
      told = true;
    }
    ASSIGN_OR_RETURN(const bool committed, CommitNew(decided_from, decision.instance, operation));
    if (!committed) continue;
    const std::string& origin = decision.instance.status().boot().requested().origin();
    RETURN_IF_ERROR(events_.Append({.kind = "instance.create",
                                    .severity = "info",
                                    .object = "instances/" + name,
                                    .user = principal.name,
                                    .message = "asked for, to boot with " + origin,
                                    .tenant = instance.metadata().tenant()}));
    RETURN_IF_ERROR(view_.WaitFor(decision.instance.metadata().revision()));
    return Accepted{.instance = std::move(decision.instance), .operation = std::move(operation)};
  }
  return Conflict("image, snapshot, pool or key set changed again and again while instance \"" +
                  name + "\" was created")
      .WithFix("try again");
}

Result<void> InstanceService::TellCrossing(const v1::Instance& instance,
                                           const Principal& principal) {
  RETURN_IF_ERROR(events_.Append(
      {.kind = "instance.trust-overridden",
       .severity = "warning",
       .object = "instances/" + instance.metadata().name(),
       .user = principal.name,
       .message = "a trusted instance is asked for in pool " + instance.spec().pool() +
                  ", whose hosts need not be attested: allow_untrusted was said",
       .tenant = instance.metadata().tenant()}));
  return Ok();
}

Result<InstanceService::Decision> InstanceService::Decide(v1::Instance instance,
                                                          const Principal& principal,
                                                          const Preflight& preflight) const {
  const std::string& name = instance.metadata().name();
  RETURN_IF_ERROR(ValidateName("instance", name));
  v1::InstanceSpec& spec = *instance.mutable_spec();
  if (spec.snapshot().empty() && (spec.image().empty() || spec.flavor().empty())) {
    return InvalidInput(std::string("the instance names no ") +
                        (spec.image().empty() ? "image" : "flavor"))
        .WithFix("set spec.image and spec.flavor, or spec.snapshot");
  }
  RETURN_IF_ERROR(CheckLimits(spec, principal));
  RETURN_IF_ERROR(CheckNeighbours(name, spec));
  RETURN_IF_ERROR(CheckNear(view_, instance));
  RETURN_IF_ERROR(FillFromSnapshot(view_, principal, spec));
  // What came out of the snapshot is somebody's wish as well: that of whoever imported it, or of an
  // operator who gave the instance that was more than its tenant may ask for.
  if (principal.role == v1::ROLE_TENANT && !spec.snapshot().empty()) {
    RETURN_IF_ERROR(TakeFlavorSizes(spec));
  }
  RETURN_IF_ERROR(CheckLimits(spec, principal));
  if (spec.stop_timeout_seconds() < 0 || spec.stop_timeout_seconds() > kMaxStopTimeout) {
    return InvalidInput("stop_timeout_seconds must be from 0 to 3600");
  }
  ASSIGN_OR_RETURN(BootPolicy policy, Resolve(spec));
  const auto pool = view_.Get<v1::Pool>(spec.pool());
  if (pool == nullptr) return NoSuch(Kind::kPool, spec.pool());
  ASSIGN_OR_RETURN(const TrustCrossing crossing, CheckTrust(spec, *pool));
  // What is made of it later, a clone or an import, is of an instance that was promised attested
  // hosts, whether or not anybody said so.
  if (pool->spec().trusted_service()) spec.set_trusted_service(true);
  RETURN_IF_ERROR(CheckOrigin(view_, spec));
  if (policy.machine != "q35") {
    return InvalidInput("hw_machine_type=" + policy.machine + " is not supported")
        .WithFix("use q35, which starts BIOS disks as well");
  }
  StorePolicy(policy, spec);
  RETURN_IF_ERROR(SettlePlacement(view_, spec));
  RETURN_IF_ERROR(ResolveKeySet(view_, policy.requested, instance));
  if (spec.power() == v1::POWER_STATE_UNSPECIFIED) {
    spec.set_power(v1::POWER_RUNNING);
  }
  spec.set_reboot_count(0);
  instance.clear_status();
  instance.mutable_status()->set_phase(v1::INSTANCE_PENDING);
  *instance.mutable_status()->mutable_boot()->mutable_requested() = policy.requested;
  // Says before anything hangs what the pre-flight found.
  SetWarning(WhyUnbootable(view_, instance, preflight), instance);
  if (HasImportedTpm(view_, spec)) {
    instance.mutable_status()->mutable_boot()->mutable_requested()->add_warnings(
        "its vTPM was imported: who else has its keys is not known, and none of them is certified");
  }
  return Decision{.instance = std::move(instance), .crossing = crossing};
}

Result<bool> InstanceService::CommitNew(store::Revision decided_from, v1::Instance& instance,
                                        v1::Operation& operation) {
  const std::string key = KeyOf(Kind::kInstance, instance.metadata().name());
  store::Txn txn;
  txn.compares = {{.key = key, .mod_revision = 0}};
  txn.writes = {store::Write::Put(key, EncodeResource(instance)),
                store::Write::Put(KeyOf(Kind::kOperation, operation.metadata().name()),
                                  EncodeResource(operation))};
  // What it uses must be there still, and whoever deletes it must see this use.
  const auto origin = instance.spec().snapshot().empty()
                          ? std::pair(Kind::kImage, instance.spec().image())
                          : std::pair(Kind::kSnapshot, instance.spec().snapshot());
  for (const auto& [kind, name] : {origin, std::pair(Kind::kPool, instance.spec().pool()),
                                   std::pair(Kind::kKeySet, instance.spec().key_set()),
                                   std::pair(Kind::kKeySet, OtherSigner(instance))}) {
    if (name.empty()) continue;  // BIOS: no key set
    const AnyResource used = view_.Find(kind, name);
    if (used == nullptr) return NoSuch(kind, name);
    const store::Revision revision = MetadataOf(*used).revision();
    if (revision > decided_from) return false;
    txn.compares.push_back({.key = KeyOf(kind, name), .mod_revision = revision});
    txn.writes.push_back(store::Write::Put(UseKey(kind, name), instance.metadata().uid()));
  }
  ASSIGN_OR_RETURN(const store::TxnResult done, resources_.raw().Commit(txn));
  if (!done.succeeded) {
    RETURN_IF_ERROR(view_.WaitFor(done.revision));
    if (view_.Find(Kind::kInstance, instance.metadata().name()) == nullptr) return false;
    return Conflict("instance \"" + instance.metadata().name() + "\" exists already")
        .WithFix("choose another name");
  }
  instance.mutable_metadata()->set_revision(done.revision);
  operation.mutable_metadata()->set_revision(done.revision);
  return true;
}

Result<InstanceService::Accepted> InstanceService::Change(
    std::string_view name, std::string_view kind, const Principal& who, store::Revision if_match,
    const std::function<Result<void>(v1::Instance&)>& change) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const v1::Instance current, resources_.Get<v1::Instance>(name));
    if (if_match != 0 && if_match != current.metadata().revision()) {
      return Conflict("instance \"" + std::string(name) +
                      "\" was changed by someone else meanwhile")
          .WithFix("read it again and repeat the change on what you read");
    }
    RETURN_IF_ERROR(CheckFree(current));
    v1::Instance wanted = current;
    RETURN_IF_ERROR(change(wanted));
    const auto deleted = wanted.metadata().delete_time();
    const bool deleting = wanted.metadata().has_delete_time();
    ResourceStore::PrepareUpdate(current, wanted);
    if (deleting) {
      *wanted.mutable_metadata()->mutable_delete_time() = deleted;
      wanted.mutable_metadata()->set_generation(current.metadata().generation() + 1);
    }
    v1::Operation operation = operations_.Make(kind,
                                               {.kind = Kind::kInstance,
                                                .name = std::string(name),
                                                .uid = wanted.metadata().uid(),
                                                .generation = wanted.metadata().generation(),
                                                .tenant = wanted.metadata().tenant()},
                                               who.name);
    const std::string key = KeyOf(Kind::kInstance, name);
    store::Txn txn;
    txn.compares = {{.key = key, .mod_revision = current.metadata().revision()}};
    txn.writes = {store::Write::Put(key, EncodeResource(wanted)),
                  store::Write::Put(KeyOf(Kind::kOperation, operation.metadata().name()),
                                    EncodeResource(operation))};
    ASSIGN_OR_RETURN(const store::TxnResult done, resources_.raw().Commit(txn));
    if (!done.succeeded) {
      continue;
    }
    wanted.mutable_metadata()->set_revision(done.revision);
    operation.mutable_metadata()->set_revision(done.revision);
    RETURN_IF_ERROR(events_.Append({.kind = std::string(kind),
                                    .severity = "info",
                                    .object = "instances/" + std::string(name),
                                    .user = who.name,
                                    .message = "asked for",
                                    .tenant = wanted.metadata().tenant()}));
    RETURN_IF_ERROR(view_.WaitFor(done.revision));
    return Accepted{.instance = std::move(wanted), .operation = std::move(operation)};
  }
  return Conflict("instance \"" + std::string(name) + "\" changes too often").WithFix("try again");
}

Result<InstanceService::Accepted> InstanceService::Start(std::string_view name,
                                                         const Principal& who,
                                                         store::Revision if_match) {
  return Change(name, "instance.start", who, if_match,
                [this](v1::Instance& instance) -> Result<void> {
                  v1::InstanceSpec& spec = *instance.mutable_spec();
                  const v1::InstancePhase phase = instance.status().phase();
                  if (spec.power() == v1::POWER_PAUSED) {
                    return Conflict("the instance is paused").WithFix("resume it instead");
                  }
                  // One that ended by itself is asked for already: the count makes this a new
                  // request.
                  if (spec.power() == v1::POWER_RUNNING &&
                      (phase == v1::INSTANCE_CRASHED || phase == v1::INSTANCE_FAILED ||
                       phase == v1::INSTANCE_STOPPED)) {
                    spec.set_reboot_count(spec.reboot_count() + 1);
                  }
                  RETURN_IF_ERROR(CheckTrustOfHost(instance));
                  spec.set_power(v1::POWER_RUNNING);
                  spec.set_force_stop(false);
                  return Ok();
                });
}

Result<InstanceService::Accepted> InstanceService::Stop(std::string_view name, StopKind kind,
                                                        const Principal& who,
                                                        store::Revision if_match) {
  return Change(name, "instance.stop", who, if_match, [&](v1::Instance& instance) -> Result<void> {
    instance.mutable_spec()->set_power(v1::POWER_STOPPED);
    instance.mutable_spec()->set_force_stop(kind == StopKind::kForce);
    return Ok();
  });
}

Result<InstanceService::Accepted> InstanceService::Reboot(std::string_view name,
                                                          const Principal& who,
                                                          store::Revision if_match) {
  return Change(
      name, "instance.reboot", who, if_match, [&](v1::Instance& instance) -> Result<void> {
        if (instance.spec().power() != v1::POWER_RUNNING) {
          return Conflict("the instance is not meant to run").WithFix("start or resume it instead");
        }
        RETURN_IF_ERROR(CheckTrustOfHost(instance));
        instance.mutable_spec()->set_reboot_count(instance.spec().reboot_count() + 1);
        return Ok();
      });
}

Result<InstanceService::Accepted> InstanceService::Pause(std::string_view name,
                                                         const Principal& who,
                                                         store::Revision if_match) {
  return Change(name, "instance.pause", who, if_match, [](v1::Instance& instance) -> Result<void> {
    if (instance.spec().power() == v1::POWER_STOPPED) {
      return Conflict("the instance is stopped").WithFix("start it first");
    }
    instance.mutable_spec()->set_power(v1::POWER_PAUSED);
    return Ok();
  });
}

Result<InstanceService::Accepted> InstanceService::Resume(std::string_view name,
                                                          const Principal& who,
                                                          store::Revision if_match) {
  return Change(name, "instance.resume", who, if_match,
                [&](v1::Instance& instance) -> Result<void> {
                  if (instance.spec().power() == v1::POWER_STOPPED) {
                    return Conflict("the instance is stopped").WithFix("start it instead");
                  }
                  if (instance.spec().power() == v1::POWER_RUNNING) return Ok();
                  RETURN_IF_ERROR(CheckTrustOfHost(instance));
                  instance.mutable_spec()->set_power(v1::POWER_RUNNING);
                  return Ok();
                });
}

Result<InstanceService::Accepted> InstanceService::Delete(std::string_view name,
                                                          const Principal& who,
                                                          store::Revision if_match) {
  return Change(
      name, "instance.delete", who, if_match, [&](v1::Instance& instance) -> Result<void> {
        *instance.mutable_metadata()->mutable_delete_time() = ToTimestamp(resources_.clock().Now());
        if (instance.status().phase() != v1::INSTANCE_UNKNOWN) {
          instance.mutable_status()->set_phase(v1::INSTANCE_DELETING);
        }
        return Ok();
      });
}

Result<void> InstanceService::ChangeMode(const v1::Instance& current, v1::Instance& next) const {
  const std::string& name = current.metadata().name();
  const v1::InstancePhase phase = current.status().phase();
  const bool still = phase == v1::INSTANCE_STOPPED || phase == v1::INSTANCE_CRASHED ||
                     phase == v1::INSTANCE_FAILED || phase == v1::INSTANCE_PENDING;
  if (current.spec().power() != v1::POWER_STOPPED || !still) {
    return Conflict("boot.mode of instance " + name + " cannot change while it is not stopped")
        .WithFix("`vallum instance stop " + name + " --wait` first");
  }
  v1::InstanceSpec& spec = *next.mutable_spec();
  // At creation they were resolved into what is now to change.
  auto& properties = *spec.mutable_properties();
  for (auto property = properties.begin(); property != properties.end();) {
    property = DecidesBoot(property->first) ? properties.erase(property) : std::next(property);
  }
  properties.erase(kLoaderSignature);
  ASSIGN_OR_RETURN(const BootPolicy policy, Resolve(spec));
  if (const auto host = view_.Get<v1::Host>(current.status().host()); host != nullptr) {
    const auto& traits = host->status().capabilities().traits();
    for (const std::string& trait : policy.required_traits) {
      if (std::ranges::find(traits, trait) != traits.end()) continue;
      return Conflict("host " + host->metadata().name() + ", which has the disk of instance " +
                      name + ", has no " + trait)
          .WithFix("`vallum host show " + host->metadata().name() + " --explain` says why");
    }
  }
  StorePolicy(policy, spec);
  *next.mutable_status()->mutable_boot()->mutable_requested() = policy.requested;
  return Ok();
}

Result<void> InstanceService::ChangeBoot(const v1::Instance& current, const Preflight& preflight,
                                         Unbootable unbootable, v1::Instance& next) const {
  const v1::InstanceSpec& before = current.spec();
  v1::InstanceSpec& spec = *next.mutable_spec();
  const bool mode = spec.boot().mode() != before.boot().mode();
  const bool keys =
      spec.key_set() != before.key_set() || spec.key_set_version() != before.key_set_version();
  if (!mode && !keys) return Ok();
  if (mode) {
    RETURN_IF_ERROR(ChangeMode(current, next));
    // A set that goes with one mode goes with no other.
    if (!keys) {
      spec.clear_key_set();
      spec.clear_key_set_version();
    }
  }
  RETURN_IF_ERROR(ResolveKeySet(view_, next.status().boot().requested(), next));
  const std::string why = WhyUnbootable(view_, next, preflight);
  if (!why.empty() && unbootable == Unbootable::kRefuse) {
    return Conflict(why).WithFix("choose other keys, or change it all the same with --force");
  }
  SetWarning(why, next);
  return Ok();
}

Result<std::optional<store::Txn>> InstanceService::MakeUpdate(store::Revision decided_from,
                                                              const v1::Instance& current,
                                                              const v1::Instance& next) const {
  const std::string key = KeyOf(Kind::kInstance, next.metadata().name());
  store::Txn txn;
  txn.compares = {{.key = key, .mod_revision = current.metadata().revision()}};
  txn.writes = {store::Write::Put(key, EncodeResource(next))};
  const bool same_keys = next.spec().key_set() == current.spec().key_set() &&
                         next.spec().key_set_version() == current.spec().key_set_version() &&
                         OtherSigner(next) == OtherSigner(current);
  if (same_keys) return txn;
  for (const std::string& name : {next.spec().key_set(), OtherSigner(next)}) {
    if (name.empty()) continue;
    const AnyResource used = view_.Find(Kind::kKeySet, name);
    if (used == nullptr) return NoSuch(Kind::kKeySet, name);
    const store::Revision revision = MetadataOf(*used).revision();
    if (revision > decided_from) return std::nullopt;
    txn.compares.push_back({.key = KeyOf(Kind::kKeySet, name), .mod_revision = revision});
    txn.writes.push_back(store::Write::Put(UseKey(Kind::kKeySet, name), next.metadata().uid()));
  }
  return txn;
}

Result<v1::Instance> InstanceService::Update(const v1::Instance& wanted, store::Revision if_match,
                                             const Preflight& preflight, Unbootable unbootable) {
  const std::string name = wanted.metadata().name();
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const store::Revision decided_from = view_.revision();
    ASSIGN_OR_RETURN(const v1::Instance current, resources_.Get<v1::Instance>(name));
    if (if_match != 0 && if_match != current.metadata().revision()) {
      return Conflict("instance \"" + name + "\" was changed by someone else meanwhile")
          .WithFix("read it again and repeat the change on what you read");
    }
    RETURN_IF_ERROR(CheckFree(current));
    RETURN_IF_ERROR(CheckMutable(current, wanted));
    v1::Instance next = current;
    *next.mutable_spec() = wanted.spec();
    *next.mutable_metadata()->mutable_labels() = wanted.metadata().labels();
    if (IsToBegin(current.spec(), next.spec())) {
      RETURN_IF_ERROR(CheckTrustOfHost(next));
    }
    RETURN_IF_ERROR(ChangeBoot(current, preflight, unbootable, next));
    ResourceStore::PrepareUpdate(current, next);
    ASSIGN_OR_RETURN(const std::optional<store::Txn> txn, MakeUpdate(decided_from, current, next));
    if (!txn.has_value()) continue;
    ASSIGN_OR_RETURN(const store::TxnResult done, resources_.raw().Commit(*txn));
    RETURN_IF_ERROR(view_.WaitFor(done.revision));
    if (!done.succeeded) continue;
    next.mutable_metadata()->set_revision(done.revision);
    return next;
  }
  return Conflict("instance \"" + name + "\" changes too often").WithFix("try again");
}

Result<v1::ScheduleExplainReply> InstanceService::Explain(const v1::InstanceSpec& spec,
                                                          const Principal& principal) const {
  v1::Instance instance;
  // Or it could be asked on which host an instance of somebody else is, or what a snapshot is of.
  instance.mutable_metadata()->set_tenant(principal.tenant);
  if (!spec.snapshot().empty()) {
    RETURN_IF_ERROR(FindSnapshot(view_, principal, spec.snapshot()));
  }
  *instance.mutable_spec() = spec;
  ASSIGN_OR_RETURN(const BootPolicy policy, Resolve(*instance.mutable_spec()));
  RETURN_IF_ERROR(CheckNeighbours(instance.metadata().name(), instance.spec()));
  RETURN_IF_ERROR(CheckNear(view_, instance));
  RETURN_IF_ERROR(SettlePlacement(view_, *instance.mutable_spec()));
  const PlacementBook book(view_.ForPlacement(), view_.All<v1::AttestationPolicy>(),
                           resources_.clock().Now());
  ASSIGN_OR_RETURN(const placement::Request request, book.RequestOf(instance, policy));
  const placement::Decision decision = book.hosts().Explain(request);
  v1::ScheduleExplainReply reply;
  reply.set_chosen(decision.chosen);
  *reply.mutable_boot() = policy.requested;
  for (const placement::HostVerdict& verdict : decision.hosts) {
    v1::ScheduleExplainReply::HostVerdict& out = *reply.add_hosts();
    out.set_host(verdict.host);
    out.set_fits(verdict.fits());
    out.set_requirement(verdict.requirement);
    out.set_detail(verdict.detail);
    out.set_score(verdict.score);
  }
  return reply;
}

}  // namespace vallum::controller

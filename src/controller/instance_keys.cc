// SPDX-License-Identifier: Apache-2.0
#include "controller/instance_keys.h"

#include <memory>
#include <string>

#include "base/error.h"
#include "base/text.h"
#include "controller/instance_origin.h"
#include "controller/key_set_content.h"
#include "controller/key_set_service.h"
#include "controller/loader_signature.h"
#include "controller/resource_store.h"

namespace vallum::controller {
namespace {

Error NoKeySet(const std::string& name) {
  Error error = NotFound("keyset \"" + Printable(name, 63) + "\" does not exist");
  if (name == kMicrosoftKeys) {
    return std::move(error).WithFix(
        "install the package ovmf beside the controller and start it again, or name another key "
        "set");
  }
  return std::move(error).WithFix("`vallum keyset list` shows what there is");
}

Error NoVersion(const v1::KeySet& key_set, int32_t version) {
  const std::string& name = key_set.metadata().name();
  return NotFound("keyset " + name + " has no version " + std::to_string(version) +
                  "; the newest is " + std::to_string(key_set.status().version()))
      .WithFix("`vallum keyset show " + name + "` lists the versions");
}

// A tenant's key set is for its own instances.
bool MaySee(const std::string& tenant, const v1::KeySet& key_set) {
  return key_set.metadata().tenant().empty() || key_set.metadata().tenant() == tenant;
}

Result<void> CheckMode(const v1::BootRequested& boot, const std::string& key_set,
                       const v1::KeySetContent& content) {
  const bool secure = boot.mode() == v1::BOOT_MODE_SECURE;
  if (secure && content.pk().empty()) {
    return InvalidInput("key_set=" + key_set + " conflicts with boot.mode=SECURE (" +
                        boot.origin() +
                        "): it has no platform key (PK), so firmware would verify nothing")
        .WithFix("use a key set with PK, KEK and db, such as microsoft");
  }
  if (!secure && !content.pk().empty()) {
    return InvalidInput("key_set=" + key_set + " conflicts with boot.mode=LEGACY (" +
                        boot.origin() + "): nothing is verified by its keys then")
        .WithFix("use boottype=UEFI bootmode=SECURE, or leave key_set out");
  }
  return Ok();
}

// A key set that os_secure_boot_signature names stays what it is now; a version that it names is
// there.
Result<void> PinSignature(const View& view, v1::Instance& instance) {
  auto& properties = *instance.mutable_spec()->mutable_properties();
  const LoaderSignature signature = SignatureOf(instance);
  if (signature.key_set.empty()) return Ok();
  const auto key_set = view.Get<v1::KeySet>(signature.key_set);
  if (key_set == nullptr || !MaySee(instance.metadata().tenant(), *key_set)) {
    return NoKeySet(signature.key_set);
  }
  if (signature.version != 0) {
    const bool there = FindContent(*key_set, signature.version) != nullptr;
    return there ? Ok() : Result<void>(NoVersion(*key_set, signature.version));
  }
  properties[kLoaderSignature] =
      signature.key_set + "@" + std::to_string(key_set->status().version());
  return Ok();
}

// The lists that os_secure_boot_signature adds to db.
Result<std::string> SignatureEntries(const View& view, const v1::Instance& instance) {
  const LoaderSignature signature = SignatureOf(instance);
  if (signature.key_set.empty()) return std::string(AsText(signature.list));
  const auto key_set = view.Get<v1::KeySet>(signature.key_set);
  if (key_set == nullptr || !MaySee(instance.metadata().tenant(), *key_set)) {
    return NoKeySet(signature.key_set);
  }
  const v1::KeySetContent* content = FindContent(*key_set, signature.version);
  if (content == nullptr) return NoVersion(*key_set, signature.version);
  return content->db();
}

// Built-in sets are judged when an image is imported. That report holds as long as the set is the
// same and nothing is added to it.
const v1::BootReport* StoredReport(const View& view, const v1::Instance& instance,
                                   const v1::Image& image) {
  if (instance.spec().properties().contains(kLoaderSignature)) return nullptr;
  const auto key_set = view.Get<v1::KeySet>(KeySetOf(instance));
  if (key_set == nullptr || !key_set->status().built_in()) return nullptr;
  const v1::KeySetVersion& newest = *key_set->status().versions().rbegin();
  if (instance.spec().key_set_version() != newest.version() ||
      FromTimestamp(image.metadata().create_time()) < FromTimestamp(newest.create_time())) {
    return nullptr;
  }
  for (const v1::BootReport& report : image.status().boot_reports()) {
    if (report.key_set() == key_set->metadata().name()) return &report;
  }
  return nullptr;
}

}  // namespace

std::string WhyUnbootable(const View& view, const v1::Instance& instance, const Preflight& judge) {
  if (instance.status().boot().requested().mode() != v1::BOOT_MODE_SECURE) return {};
  const std::string words = OriginWords(instance.spec()) + " will not start under key set " +
                            instance.spec().key_set() + ": ";
  const auto image = OriginOf(view, instance.spec());
  if (image == nullptr) return words + "it is gone, so that its boot chain cannot be judged";
  if (const v1::BootReport* report = StoredReport(view, instance, *image); report != nullptr) {
    if (report->bootable() != "no") return {};
    return words + (report->reasons().empty() ? "its boot chain" : report->reasons(0));
  }
  const Result<firmware::KeySet> keys = KeysFor(view, instance);
  const Result<PreflightVerdict> verdict =
      keys.has_value() ? judge(*image, *keys) : Result<PreflightVerdict>(keys.error());
  if (!verdict.has_value()) {
    return words + "its boot chain cannot be judged: " + verdict.error().Describe();
  }
  return verdict->starts ? std::string() : words + verdict->reason;
}

Result<void> ResolveKeySet(const View& view, const v1::BootRequested& boot,
                           v1::Instance& instance) {
  v1::InstanceSpec& spec = *instance.mutable_spec();
  if (boot.type() == v1::BOOT_TYPE_BIOS) {
    if (spec.key_set().empty() && spec.key_set_version() == 0) return Ok();
    return InvalidInput("key_set=" + Printable(spec.key_set(), 63) +
                        " conflicts with boot.type=BIOS (" + boot.origin() +
                        "), which holds no keys")
        .WithFix("leave key_set out, or use boottype=UEFI");
  }
  if (spec.key_set().empty() && spec.key_set_version() != 0) {
    return InvalidInput("key_set_version is set, key_set is not").WithFix("name the key set");
  }
  const bool secure = boot.mode() == v1::BOOT_MODE_SECURE;
  const std::string name =
      !spec.key_set().empty() ? spec.key_set() : std::string(secure ? kMicrosoftKeys : kNoKeys);
  const auto key_set = view.Get<v1::KeySet>(name);
  if (key_set == nullptr || !MaySee(instance.metadata().tenant(), *key_set)) return NoKeySet(name);
  const int32_t version =
      spec.key_set_version() != 0 ? spec.key_set_version() : key_set->status().version();
  const v1::KeySetContent* content = FindContent(*key_set, version);
  if (content == nullptr) return NoVersion(*key_set, version);
  RETURN_IF_ERROR(CheckMode(boot, name, *content));
  spec.set_key_set(name);
  spec.set_key_set_version(version);
  return PinSignature(view, instance);
}

Result<void> CheckKeySet(const View& view, const std::string& tenant,
                         const v1::InstanceSpec& spec) {
  if (spec.key_set().empty()) {
    if (spec.key_set_version() == 0) return Ok();
    return InvalidInput("key_set_version is set, key_set is not").WithFix("name the key set");
  }
  const auto key_set = view.Get<v1::KeySet>(spec.key_set());
  if (key_set == nullptr || !MaySee(tenant, *key_set)) return NoKeySet(spec.key_set());
  const int32_t version = spec.key_set_version();
  if (version != 0 && FindContent(*key_set, version) == nullptr) {
    return NoVersion(*key_set, version);
  }
  return Ok();
}

Result<v1::KeySetContent> ContentFor(const View& view, const v1::Instance& instance) {
  const std::string name = KeySetOf(instance);
  if (name.empty()) return v1::KeySetContent();
  const auto key_set = view.Get<v1::KeySet>(name);
  if (key_set == nullptr) return NoKeySet(name);
  const int32_t version = instance.spec().key_set_version();
  const v1::KeySetContent* content = FindContent(*key_set, version);
  if (content == nullptr) return NoVersion(*key_set, version);
  v1::KeySetContent whole = *content;
  ASSIGN_OR_RETURN(const std::string more, SignatureEntries(view, instance));
  whole.mutable_db()->append(more);
  return whole;
}

Result<firmware::KeySet> KeysFor(const View& view, const v1::Instance& instance) {
  ASSIGN_OR_RETURN(const v1::KeySetContent content, ContentFor(view, instance));
  return ParseContent(KeySetOf(instance), content);
}

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#include "controller/key_set_service.h"

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "controller/key_set_content.h"
#include "controller/loader_signature.h"

namespace vallum::controller {
namespace {

constexpr int kAttempts = 20;
constexpr std::string_view kReserved[] = {kNoKeys, kMicrosoftKeys, "debian", "audit"};
constexpr const char* kFromPackage = "from the packages of the controller's machine";

Error ChangedMeanwhile(const std::string& name) {
  return Conflict("keyset \"" + name + "\" was changed by someone else meanwhile")
      .WithFix("read it again and repeat the change on what you read");
}

v1::KeySetVersion MakeVersion(const v1::KeySet& key_set, const firmware::KeySet& keys,
                              int32_t number, const std::string& user, WallTime now) {
  v1::KeySetVersion version;
  version.set_version(number);
  version.set_sha256(ContentSha256(keys));
  *version.mutable_create_time() = ToTimestamp(now);
  version.set_user(user);
  version.set_description(key_set.spec().description());
  return version;
}

// Drops the oldest versions that nothing uses until few and small ones are left.
Result<void> Trim(const std::set<int32_t>& used, v1::KeySet& key_set) {
  auto& versions = *key_set.mutable_status()->mutable_versions();
  const auto unused = [&](const v1::KeySetVersion& version) {
    return version.version() != key_set.status().version() && !used.contains(version.version());
  };
  auto idle = std::ranges::count_if(versions, unused);
  size_t bytes = 0;
  for (const v1::KeySetVersion& version : versions) bytes += version.content().ByteSizeLong();
  while (idle > 0 && (idle > kKeptVersions || bytes > kMaxOldContentBytes)) {
    const auto oldest = std::ranges::find_if(versions, unused);
    bytes -= oldest->content().ByteSizeLong();
    versions.erase(oldest);
    --idle;
  }
  if (bytes > kMaxOldContentBytes) {
    return Exhausted("the versions of keyset " + key_set.metadata().name() +
                     " that are in use take " + std::to_string(bytes) + " bytes, at most " +
                     std::to_string(kMaxOldContentBytes) + " are kept")
        .WithFix("bring its instances to a newer version, or make another key set");
  }
  return Ok();
}

// Each resource that needs a version of the key set: what it is, in words, and which version.
void ForEachUse(const View& view, std::string_view key_set,
                const std::function<void(const std::string&, int32_t)>& use) {
  for (const auto& instance : view.All<v1::Instance>()) {
    const std::string words = "instance " + instance->metadata().name();
    if (KeySetOf(*instance) == key_set) use(words, instance->spec().key_set_version());
    const LoaderSignature signer = SignatureOf(*instance);
    if (signer.key_set == key_set) use(words, signer.version);
    const v1::BootEffective& effective = instance->status().boot().effective();
    if (effective.key_set() == key_set) use(words, effective.key_set_version());
  }
  for (const auto& snapshot : view.All<v1::Snapshot>()) {
    const v1::InstanceSpec& spec = snapshot->status().instance_spec();
    if (spec.key_set() == key_set) {
      use("snapshot " + snapshot->metadata().name(), spec.key_set_version());
    }
  }
  for (const auto& rollout : view.All<v1::Rollout>()) {
    if (!IsUnderWay(*rollout)) continue;
    const std::string words = "rollout " + rollout->metadata().name();
    if (rollout->spec().key_set() == key_set) use(words, rollout->spec().version());
    for (const v1::RolloutInstance& instance : rollout->status().instances()) {
      if (instance.from_key_set() == key_set) use(words, instance.from_version());
    }
  }
}

}  // namespace

bool IsUnderWay(const v1::Rollout& rollout) {
  return rollout.status().state() == v1::ROLLOUT_CANARY ||
         rollout.status().state() == v1::ROLLOUT_ROLLING ||
         rollout.status().state() == v1::ROLLOUT_RETURNING;
}

std::string KeySetOf(const v1::Instance& instance) {
  if (!instance.spec().key_set().empty()) return instance.spec().key_set();
  const v1::BootRequested& boot = instance.status().boot().requested();
  if (boot.type() != v1::BOOT_TYPE_UEFI) return {};
  return std::string(boot.mode() == v1::BOOT_MODE_SECURE ? kMicrosoftKeys : kNoKeys);
}

std::set<int32_t> VersionsInUse(const View& view, std::string_view key_set) {
  std::set<int32_t> versions;
  ForEachUse(view, key_set,
             [&](const std::string& /*who*/, int32_t version) { versions.insert(version); });
  return versions;
}

std::string UserOfKeySet(const View& view, std::string_view key_set) {
  std::string user;
  ForEachUse(view, key_set, [&](const std::string& who, int32_t /*version*/) {
    if (user.empty()) user = who;
  });
  return user;
}

int32_t CountInstances(const View& view, std::string_view key_set) {
  const auto instances = view.All<v1::Instance>();
  return static_cast<int32_t>(std::ranges::count_if(
      instances, [&](const auto& instance) { return KeySetOf(*instance) == key_set; }));
}

Result<void> KeySetService::Create(v1::KeySet& key_set, const std::string& user) {
  const std::string name = key_set.metadata().name();
  if (std::ranges::find(kReserved, name) != std::end(kReserved)) {
    return InvalidInput("\"" + name + "\" is a name that the controller keeps for itself")
        .WithFix("choose another name");
  }
  ASSIGN_OR_RETURN(const firmware::KeySet keys, ParseContent(name, key_set.spec().content()));
  key_set.clear_status();
  return CreateChecked(key_set, keys, user);
}

Result<void> KeySetService::CreateChecked(v1::KeySet& key_set, const firmware::KeySet& keys,
                                          const std::string& user) {
  key_set.mutable_status()->set_version(1);
  *key_set.mutable_status()->add_versions() =
      MakeVersion(key_set, keys, 1, user, resources_.clock().Now());
  RETURN_IF_ERROR(resources_.CreateAny(Kind::kKeySet, key_set));
  return view_.WaitFor(key_set.metadata().revision());
}

Result<void> KeySetService::Update(v1::KeySet& key_set, store::Revision if_match,
                                   const std::string& user) {
  const std::string name = key_set.metadata().name();
  ASSIGN_OR_RETURN(const firmware::KeySet keys, ParseContent(name, key_set.spec().content()));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    // Before the key set and the view: a use that comes later fails the commit.
    ASSIGN_OR_RETURN(
        const store::ReadResult use,
        resources_.raw().Read({.range = store::KeyRange::Single(UseKey(Kind::kKeySet, name))}));
    RETURN_IF_ERROR(view_.WaitFor(use.revision));
    ASSIGN_OR_RETURN(const v1::KeySet current, resources_.Get<v1::KeySet>(name));
    if (if_match != 0 && if_match != current.metadata().revision()) return ChangedMeanwhile(name);
    if (current.status().built_in()) {
      return Conflict("keyset " + name + " comes with the controller and cannot be changed")
          .WithFix("make one of your own: `vallum keyset create NAME --from " + name + "`");
    }
    const store::Revision used = use.items.empty() ? 0 : use.items.front().mod_revision;
    const Result<void> done = Commit(current, used, key_set, keys, user);
    if (done.has_value() || done.error().code() != ErrorCode::kConflict) return done;
  }
  return ChangedMeanwhile(name);
}

Result<void> KeySetService::Commit(const v1::KeySet& current, store::Revision use,
                                   v1::KeySet& key_set, const firmware::KeySet& keys,
                                   const std::string& user) {
  const std::string name = current.metadata().name();
  *key_set.mutable_status() = current.status();
  auto& versions = *key_set.mutable_status()->mutable_versions();
  if (versions.empty() || versions.rbegin()->sha256() != ContentSha256(keys)) {
    const int32_t next = current.status().version() + 1;
    if (!versions.empty()) *versions.rbegin()->mutable_content() = current.spec().content();
    *versions.Add() = MakeVersion(key_set, keys, next, user, resources_.clock().Now());
    key_set.mutable_status()->set_version(next);
    RETURN_IF_ERROR(Trim(VersionsInUse(view_, name), key_set));
  }
  ResourceStore::PrepareUpdate(current, key_set);
  store::Txn txn;
  txn.compares = {
      {.key = KeyOf(Kind::kKeySet, name), .mod_revision = current.metadata().revision()},
      {.key = UseKey(Kind::kKeySet, name), .mod_revision = use}};
  txn.writes = {store::Write::Put(KeyOf(Kind::kKeySet, name), EncodeResource(key_set))};
  ASSIGN_OR_RETURN(const store::TxnResult done, resources_.raw().Commit(txn));
  if (!done.succeeded) return ChangedMeanwhile(name);
  key_set.mutable_metadata()->set_revision(done.revision);
  return view_.WaitFor(done.revision);
}

Result<void> KeySetService::MakeBuiltIn(const std::vector<firmware::KeySet>& installed) {
  firmware::KeySet none;
  none.name = kNoKeys;
  none.secure_boot = false;
  RETURN_IF_ERROR(MakeOneBuiltIn(none));
  for (const firmware::KeySet& keys : installed) RETURN_IF_ERROR(MakeOneBuiltIn(keys));
  return Ok();
}

Result<void> KeySetService::MakeOneBuiltIn(const firmware::KeySet& keys) {
  v1::KeySet key_set;
  key_set.mutable_metadata()->set_name(keys.name);
  *key_set.mutable_spec()->mutable_content() = EncodeContent(keys);
  key_set.mutable_spec()->set_description(
      keys.name == kNoKeys ? "no keys: firmware verifies nothing" : kFromPackage);
  key_set.mutable_status()->set_built_in(true);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const Result<v1::KeySet> current = resources_.Get<v1::KeySet>(keys.name);
    if (!current.has_value() && current.error().code() != ErrorCode::kNotFound) {
      return current.error();
    }
    Result<void> done = Ok();
    if (!current.has_value()) {
      done = CreateChecked(key_set, keys, "");
    } else if (current->status().versions().rbegin()->sha256() == ContentSha256(keys)) {
      return Ok();
    } else {
      ASSIGN_OR_RETURN(const store::ReadResult use,
                       resources_.raw().Read(
                           {.range = store::KeyRange::Single(UseKey(Kind::kKeySet, keys.name))}));
      RETURN_IF_ERROR(view_.WaitFor(use.revision));
      const store::Revision used = use.items.empty() ? 0 : use.items.front().mod_revision;
      done = Commit(*current, used, key_set, keys, "");
    }
    if (done.has_value() || done.error().code() != ErrorCode::kConflict) return done;
  }
  return ChangedMeanwhile(keys.name);
}

}  // namespace vallum::controller

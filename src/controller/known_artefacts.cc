// SPDX-License-Identifier: Apache-2.0
#include "controller/known_artefacts.h"

#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.h"
#include "controller/key_set_content.h"
#include "firmware/guid.h"
#include "measure/event_digest.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {
namespace {

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr const char* kFirmware = "firmware";

template <typename Artefacts>
void AddPrograms(const google::protobuf::RepeatedPtrField<v1::BootBinary>& binaries,
                 const std::string& whose, Artefacts& out) {
  for (const v1::BootBinary& binary : binaries) {
    Result<Bytes> digest = FromHex(binary.authenticode_sha256());
    if (!digest.has_value() || digest->size() != DigestSize(kBank)) {
      continue;
    }
    std::string words = Printable(binary.path()) + " of " + whose;
    words += binary.signer().empty() ? ", unsigned" : ", signed by " + Printable(binary.signer());
    out.push_back({*std::move(digest), std::move(words)});
  }
}

template <typename Artefacts>
void AddKeys(const v1::KeySetContent& keys, const std::string& whose, Artefacts& out) {
  const auto add = [&](const char* name, const firmware::Guid& vendor, const std::string& data) {
    // An empty one is the same in every set: the firmware's part says what it is.
    if (!data.empty()) {
      out.push_back({measure::VariableEventDigest(kBank, name, vendor, AsBytes(data)),
                     std::string(name) + " of " + whose});
    }
  };
  add("PK", firmware::kGlobalVariableGuid, keys.pk());
  add("KEK", firmware::kGlobalVariableGuid, keys.kek());
  add("db", firmware::kSecurityDatabaseGuid, keys.db());
  add("dbx", firmware::kSecurityDatabaseGuid, keys.dbx());
  add("dbt", firmware::kSecurityDatabaseGuid, keys.dbt());
  add("dbr", firmware::kSecurityDatabaseGuid, keys.dbr());
}

template <typename Artefacts>
void AddFirmware(Artefacts& out) {
  using firmware::kGlobalVariableGuid;
  using firmware::kSecurityDatabaseGuid;
  out.push_back({measure::SeparatorDigest(kBank), "separator"});
  out.push_back(
      {measure::ErrorSeparatorDigest(kBank), "the firmware's mark that measuring failed"});
  for (const std::string_view action : measure::kBootActions) {
    out.push_back({measure::ActionDigest(kBank, action), "action \"" + std::string(action) + "\""});
  }
  const auto variable = [&](const char* name, const firmware::Guid& vendor, ByteView data,
                            const std::string& words) {
    out.push_back({measure::VariableEventDigest(kBank, name, vendor, data), words});
  };
  const Bytes on = {std::byte{1}};
  const Bytes off = {std::byte{0}};
  variable("SecureBoot", kGlobalVariableGuid, on, "Secure Boot is on");
  variable("SecureBoot", kGlobalVariableGuid, off, "Secure Boot is off");
  for (const char* name : {"PK", "KEK"}) {
    variable(name, kGlobalVariableGuid, {}, "an empty " + std::string(name));
  }
  for (const char* name : {"db", "dbx"}) {
    variable(name, kSecurityDatabaseGuid, {}, "an empty " + std::string(name));
  }
}

}  // namespace

KnownArtefacts::KnownArtefacts(View& view) : view_(view) {
  std::vector<Artefact> constants;
  AddFirmware(constants);
  Replace(kFirmware, {}, std::move(constants));
  // When a controller starts, nobody else writes yet: what is read here is not older than a change.
  const Result<View::SubscriptionId> subscribed =
      view_.Subscribe(0, [this](const Change& change) { OnChange(change); });
  if (subscribed.has_value()) {  // from now on: never too old
    subscription_ = *subscribed;
  }
  for (const Kind kind : {Kind::kImage, Kind::kSnapshot, Kind::kKeySet}) {
    for (const AnyResource& resource : view_.List(kind).items) {
      const v1::Metadata& metadata = MetadataOf(*resource);
      Replace(KeyOf(kind, metadata.name()), metadata.tenant(), ArtefactsOf(kind, *resource));
    }
  }
}

KnownArtefacts::~KnownArtefacts() { view_.Unsubscribe(subscription_); }

std::vector<KnownArtefacts::Artefact> KnownArtefacts::ArtefactsOf(
    Kind kind, const google::protobuf::Message& resource) {
  std::vector<Artefact> out;
  const std::string& name = MetadataOf(resource).name();
  if (kind == Kind::kImage) {
    AddPrograms(static_cast<const v1::Image&>(resource).status().boot_binaries(), "image " + name,
                out);
  } else if (kind == Kind::kSnapshot) {
    AddPrograms(static_cast<const v1::Snapshot&>(resource).status().boot_binaries(),
                "snapshot " + name, out);
  } else if (kind == Kind::kKeySet) {
    const auto& key_set = static_cast<const v1::KeySet&>(resource);
    for (const auto& version : key_set.status().versions()) {
      // That of the newest stands in spec.
      if (const auto* content = FindContent(key_set, version.version()); content != nullptr) {
        AddKeys(*content, "key set " + name + " version " + std::to_string(version.version()), out);
      }
    }
  }
  return out;
}

void KnownArtefacts::OnChange(const Change& change) {
  if (change.kind != Kind::kImage && change.kind != Kind::kSnapshot &&
      change.kind != Kind::kKeySet) {
    return;
  }
  const bool put = change.what == Change::What::kPut;
  Replace(KeyOf(change.kind, change.name), MetadataOf(*change.resource).tenant(),
          put ? ArtefactsOf(change.kind, *change.resource) : std::vector<Artefact>());
}

void KnownArtefacts::Replace(const std::string& source, const std::string& tenant,
                             std::vector<Artefact> artefacts) {
  const std::lock_guard lock(mutex_);
  for (const Bytes& digest : digests_[source]) {
    const auto found = words_.find(digest);
    if (found != words_.end()) {
      found->second.erase(source);
      if (found->second.empty()) words_.erase(found);
    }
  }
  digests_.erase(source);
  for (Artefact& artefact : artefacts) {
    if (words_.size() >= kMaxDigests && !words_.contains(artefact.digest)) {
      return;
    }
    // A program that is there twice is one; it keeps its first name.
    if (words_[artefact.digest]
            .try_emplace(source, Words{tenant, std::move(artefact.words)})
            .second) {
      digests_[source].push_back(std::move(artefact.digest));
    }
  }
}

std::string KnownArtefacts::Describe(const Bytes& digest, const std::string& tenant) const {
  const std::lock_guard lock(mutex_);
  const auto found = words_.find(digest);
  if (found == words_.end()) return {};
  for (const auto& [source, words] : found->second) {
    if (tenant.empty() || words.tenant.empty() || words.tenant == tenant) return words.words;
  }
  return {};
}

}  // namespace vallum::controller

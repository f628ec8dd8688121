// SPDX-License-Identifier: Apache-2.0
#include "controller/key_set_content.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "firmware/key_set_tools.h"
#include "firmware/pkcs7.h"
#include "firmware/sbat.h"
#include "firmware/signature_list.h"

namespace vallum::controller {
namespace {

using firmware::KeySet;
using firmware::Signature;

struct Member {
  const char* field;
  std::vector<Signature> KeySet::* list;
  const std::string& (v1::KeySetContent::*get)() const;
  std::string* (v1::KeySetContent::*mutate)();
};
constexpr Member kMembers[] = {
    {"pk", &KeySet::pk, &v1::KeySetContent::pk, &v1::KeySetContent::mutable_pk},
    {"kek", &KeySet::kek, &v1::KeySetContent::kek, &v1::KeySetContent::mutable_kek},
    {"db", &KeySet::db, &v1::KeySetContent::db, &v1::KeySetContent::mutable_db},
    {"dbx", &KeySet::dbx, &v1::KeySetContent::dbx, &v1::KeySetContent::mutable_dbx},
    {"dbt", &KeySet::dbt, &v1::KeySetContent::dbt, &v1::KeySetContent::mutable_dbt},
    {"dbr", &KeySet::dbr, &v1::KeySetContent::dbr, &v1::KeySetContent::mutable_dbr},
    {"mok", &KeySet::mok, &v1::KeySetContent::mok, &v1::KeySetContent::mutable_mok},
    {"mokx", &KeySet::mokx, &v1::KeySetContent::mokx, &v1::KeySetContent::mutable_mokx},
};

Error NotValid(const std::string& field, const Error& why) {
  return InvalidInput("spec.content." + field + " is not what the variable holds: " + why.message())
      .WithFix("send EFI_SIGNATURE_LISTs, as `vallum keyset create` makes them from files");
}

}  // namespace

Result<KeySet> ParseContent(std::string name, const v1::KeySetContent& content) {
  if (content.ByteSizeLong() > kMaxKeySetContentBytes) {
    return Exhausted("spec.content has " + std::to_string(content.ByteSizeLong()) +
                     " bytes, at most " + std::to_string(kMaxKeySetContentBytes) +
                     " fit into a variable store")
        .WithFix("leave out entries of dbx that an SBAT level covers");
  }
  KeySet keys;
  keys.name = std::move(name);
  size_t certificates = 0;
  for (const Member& member : kMembers) {
    const std::string& value = (content.*member.get)();
    Result<std::vector<Signature>> entries = firmware::ParseSignatureLists(AsBytes(value));
    if (!entries.has_value()) return NotValid(member.field, entries.error());
    for (const Signature& entry : *entries) {
      if (entry.type != firmware::SignatureType::kX509) continue;
      ++certificates;
      const auto parsed = firmware::Certificate::Parse(entry.data);
      if (!parsed.has_value()) return NotValid(member.field, parsed.error());
    }
    keys.*member.list = *std::move(entries);
  }
  if (certificates > firmware::kMaxKeySetCertificates) {
    return Exhausted("spec.content has " + std::to_string(certificates) +
                     " certificates, at most " + std::to_string(firmware::kMaxKeySetCertificates) +
                     " are used");
  }
  if (!content.sbat_level().empty()) {
    const auto level = firmware::ParseSbatLevel(content.sbat_level());
    if (!level.has_value()) {
      return InvalidInput("spec.content.sbatLevel is no SBAT level: " + level.error().message())
          .WithFix("give lines as \"sbat,1,2024010900\" and \"shim,4\", or leave it out");
    }
    keys.sbat_level = content.sbat_level();
  }
  keys.secure_boot = !keys.pk.empty();
  return keys;
}

v1::KeySetContent EncodeContent(const KeySet& keys) {
  v1::KeySetContent content;
  for (const Member& member : kMembers) {
    const Bytes lists = firmware::EncodeSignatureLists(keys.*member.list);
    *(content.*member.mutate)() = std::string(AsText(lists));
  }
  content.set_sbat_level(keys.sbat_level);
  return content;
}

std::string ContentSha256(const KeySet& keys) { return ToHex(firmware::DigestOf(keys)); }

const v1::KeySetContent* FindContent(const v1::KeySet& key_set, int32_t version) {
  if (version == 0 || version == key_set.status().version()) return &key_set.spec().content();
  for (const v1::KeySetVersion& old : key_set.status().versions()) {
    if (old.version() == version) return &old.content();
  }
  return nullptr;
}

std::string VersionWords(const std::string& name, int32_t version) {
  return name + " version " + std::to_string(version);
}

}  // namespace vallum::controller

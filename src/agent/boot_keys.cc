// SPDX-License-Identifier: Apache-2.0
#include "agent/boot_keys.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "base/digest.h"
#include "base/text.h"
#include "firmware/key_set_tools.h"
#include "firmware/sbat.h"
#include "measure/event_digest.h"

namespace vallum::agent {
namespace {

using firmware::kGlobalVariableGuid;
using firmware::kSecurityDatabaseGuid;
using firmware::kShimLockGuid;
using firmware::Signature;

constexpr size_t kNamedEntries = 3;

Result<void> ReadList(const std::string& value, std::string_view name,
                      std::vector<Signature>& out) {
  auto parsed = firmware::ParseSignatureLists(AsBytes(value));
  if (!parsed) {
    return InvalidInput("the instance's key set: " + std::string(name) + ": " +
                        parsed.error().Describe())
        .WithFix("give the instance another version of its key set");
  }
  out = *std::move(parsed);
  return Ok();
}

std::string ValueOf(const firmware::VariableStore& store, std::string_view name,
                    const firmware::Guid& vendor) {
  const firmware::Variable* variable = store.Find(name, vendor);
  return variable == nullptr ? std::string() : std::string(AsText(variable->data));
}

// Entries of `a` that `b` has not.
std::vector<const Signature*> Missing(const std::vector<Signature>& a,
                                      const std::vector<Signature>& b) {
  const auto key = [](const Signature& entry) {
    return std::pair(entry.type_guid.ToString(), entry.Encode());
  };
  std::set<std::pair<std::string, Bytes>> there;
  for (const Signature& entry : b) {
    there.insert(key(entry));
  }
  std::vector<const Signature*> missing;
  for (const Signature& entry : a) {
    if (!there.contains(key(entry))) {
      missing.push_back(&entry);
    }
  }
  return missing;
}

// "X.509 CN=..., SHA-256 80b4... and 12 more".
std::string Name(const std::vector<const Signature*>& entries) {
  std::vector<std::string> names;
  for (const Signature* entry : entries) {
    if (names.size() == kNamedEntries) {
      break;
    }
    names.push_back(firmware::DescribeSignature(*entry));
  }
  std::string text = Join(names, ", ");
  if (entries.size() > names.size()) {
    text += " and " + std::to_string(entries.size() - names.size()) + " more";
  }
  return text;
}

}  // namespace

std::string KeySetLabel(const std::string& name, int version) {
  const std::string label = "key set " + Printable(name, firmware::kMaxKeySetName);
  return version == 0 ? label : label + " version " + std::to_string(version);
}

std::string KeySetDigest(firmware::KeySet keys) {
  keys.secure_boot = !keys.pk.empty();
  return ToHex(firmware::DigestOf(keys));
}

Result<firmware::KeySet> ToKeySet(const v1::DesiredInstance& desired) {
  const v1::KeySetContent& content = desired.key_set();
  firmware::KeySet keys;
  keys.name = Printable(desired.key_set_name(), firmware::kMaxKeySetName);
  keys.secure_boot = desired.boot().mode() == v1::BOOT_MODE_SECURE;
  RETURN_IF_ERROR(ReadList(content.pk(), "PK", keys.pk));
  RETURN_IF_ERROR(ReadList(content.kek(), "KEK", keys.kek));
  RETURN_IF_ERROR(ReadList(content.db(), "db", keys.db));
  RETURN_IF_ERROR(ReadList(content.dbx(), "dbx", keys.dbx));
  RETURN_IF_ERROR(ReadList(content.dbt(), "dbt", keys.dbt));
  RETURN_IF_ERROR(ReadList(content.dbr(), "dbr", keys.dbr));
  RETURN_IF_ERROR(ReadList(content.mok(), "MokList", keys.mok));
  RETURN_IF_ERROR(ReadList(content.mokx(), "MokListX", keys.mokx));
  keys.sbat_level = content.sbat_level();
  return keys;
}

v1::KeySetContent ToContent(const firmware::VariableStore& store) {
  v1::KeySetContent content;
  content.set_pk(ValueOf(store, "PK", kGlobalVariableGuid));
  content.set_kek(ValueOf(store, "KEK", kGlobalVariableGuid));
  content.set_db(ValueOf(store, "db", kSecurityDatabaseGuid));
  content.set_dbx(ValueOf(store, "dbx", kSecurityDatabaseGuid));
  content.set_dbt(ValueOf(store, "dbt", kSecurityDatabaseGuid));
  content.set_dbr(ValueOf(store, "dbr", kSecurityDatabaseGuid));
  content.set_mok(ValueOf(store, "MokList", kShimLockGuid));
  content.set_mokx(ValueOf(store, "MokListX", kShimLockGuid));
  // A level is ASCII; the guest may have written anything.
  const std::string level = ValueOf(store, "SbatLevel", kShimLockGuid);
  if (std::ranges::all_of(level, [](char c) { return static_cast<unsigned char>(c) < 0x80; })) {
    content.set_sbat_level(level);
  }
  return content;
}

namespace {

// What shim and the firmware's own lists besides db and dbx hold: a guest changes these with its
// owner's hand on the console, so that they contradict nothing, but whoever relies on the verdict
// ought to know.
void CompareOthers(const firmware::VariableStore& store, const AssignedKeys& assigned,
                   KeyComparison& comparison) {
  struct List {
    std::string_view name;
    firmware::Guid vendor;
    const std::vector<Signature>& set;
  };
  const List lists[] = {{"dbt", kSecurityDatabaseGuid, assigned.keys.dbt},
                        {"dbr", kSecurityDatabaseGuid, assigned.keys.dbr},
                        {"MokList", kShimLockGuid, assigned.keys.mok},
                        {"MokListX", kShimLockGuid, assigned.keys.mokx}};
  for (const List& list : lists) {
    const std::string name(list.name);
    const firmware::Variable* variable = store.Find(list.name, list.vendor);
    const auto stored =
        firmware::ParseSignatureLists(variable == nullptr ? ByteView() : ByteView(variable->data));
    if (!stored) {
      comparison.notes.push_back(name + " of the variable store cannot be read");
      continue;
    }
    if (const auto more = Missing(*stored, list.set); !more.empty()) {
      comparison.notes.push_back(name + " of the variable store has entries that " +
                                 assigned.label + " has not: " + Name(more));
    }
    if (const auto less = Missing(list.set, *stored); !less.empty()) {
      comparison.notes.push_back(name + " of the variable store lacks entries of " +
                                 assigned.label + ": " + Name(less));
    }
  }
  const auto wanted = firmware::ParseSbatLevel(assigned.keys.sbat_level);
  const auto level = firmware::ParseSbatLevel(ValueOf(store, "SbatLevel", kShimLockGuid));
  if (wanted && (!level || level->datestamp < wanted->datestamp)) {
    comparison.notes.push_back("SbatLevel of the variable store is missing or older than that of " +
                               assigned.label);
  }
  if (store.Find("MokSBState", kShimLockGuid) != nullptr) {
    comparison.notes.emplace_back("shim is told to verify nothing (MokSBState)");
  }
}

}  // namespace

Result<KeyComparison> CompareKeys(const firmware::VariableStore& store,
                                  const AssignedKeys& assigned) {
  struct List {
    std::string_view name;
    firmware::Guid vendor;
    const std::vector<Signature>& set;
    bool forbids;
  };
  constexpr int kEventOfPk = 2;
  const List lists[] = {{"PK", kGlobalVariableGuid, assigned.keys.pk, false},
                        {"KEK", kGlobalVariableGuid, assigned.keys.kek, false},
                        {"db", kSecurityDatabaseGuid, assigned.keys.db, false},
                        {"dbx", kSecurityDatabaseGuid, assigned.keys.dbx, true}};
  KeyComparison comparison;
  for (const List& list : lists) {
    const firmware::Variable* variable = store.Find(list.name, list.vendor);
    ASSIGN_OR_RETURN_CONTEXT(
        const std::vector<Signature> stored,
        firmware::ParseSignatureLists(variable == nullptr ? ByteView() : ByteView(variable->data)),
        "reading " + std::string(list.name) + " of the variable store");
    const size_t before = comparison.contradictions.size();
    const auto more = Missing(stored, list.set);
    const auto less = Missing(list.set, stored);
    const std::string name(list.name);
    if (!more.empty()) {
      auto& to = list.forbids ? comparison.notes : comparison.contradictions;
      to.push_back(name + " of the variable store has entries that " + assigned.label +
                   " has not: " + Name(more));
    }
    if (!less.empty()) {
      auto& to = list.forbids ? comparison.contradictions : comparison.notes;
      to.push_back(name + " of the variable store lacks entries of " + assigned.label + ": " +
                   Name(less));
    }
    if (comparison.contradictions.size() > before && !comparison.first) {
      const auto digest = [&](ByteView value) {
        return measure::VariableEventDigest(HashAlgorithm::kSha256, list.name, list.vendor, value);
      };
      comparison.first = {
          .variable = name,
          .event = kEventOfPk + static_cast<int>(&list - lists),
          .expected = digest(firmware::EncodeSignatureLists(list.set)),
          .measured = digest(variable == nullptr ? ByteView() : ByteView(variable->data))};
    }
  }
  CompareOthers(store, assigned, comparison);
  return comparison;
}

}  // namespace vallum::agent

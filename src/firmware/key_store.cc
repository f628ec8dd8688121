// SPDX-License-Identifier: Apache-2.0
#include "firmware/key_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "firmware/guid.h"
#include "firmware/sbat.h"
#include "firmware/signature_list.h"
#include "firmware/variable_store_editor.h"

namespace vallum::firmware {
namespace {

// EDK II SecurityPkg AuthenticatedVariableFormat.h.
constexpr Guid kCustomModeGuid =
    MakeGuid(0xc076ec0c, 0x7028, 0x4399, {0xa0, 0x72, 0x71, 0xee, 0x5c, 0x44, 0x8b, 0x9f});
constexpr Guid kVendorKeysGuid =
    MakeGuid(0x9073e4e0, 0x60ec, 0x4b6e, {0x99, 0x03, 0x4c, 0x22, 0x3c, 0x26, 0x0f, 0x3c});
constexpr uint32_t kKeyAttributes = 0x27;         // non-volatile, boot, run time, signed
constexpr uint32_t kBootAttributes = 0x03;        // non-volatile, boot
constexpr uint32_t kVendorKeysAttributes = 0x23;  // the same, signed
constexpr std::byte kVendorKeysModified{0};       // "not the vendor's own": as enrolled templates
constexpr std::byte kStandardMode{0};

struct KeyVariable {
  std::u16string_view name;
  std::vector<Signature> KeySet::* list;
  const Guid& vendor;
  uint32_t attributes;
};
// In the order in which templates hold them: the platform key last, since it ends setup mode.
constexpr std::array kKeyVariables = {
    KeyVariable{u"db", &KeySet::db, kSecurityDatabaseGuid, kKeyAttributes},
    KeyVariable{u"dbx", &KeySet::dbx, kSecurityDatabaseGuid, kKeyAttributes},
    KeyVariable{u"dbt", &KeySet::dbt, kSecurityDatabaseGuid, kKeyAttributes},
    KeyVariable{u"dbr", &KeySet::dbr, kSecurityDatabaseGuid, kKeyAttributes},
    KeyVariable{u"KEK", &KeySet::kek, kGlobalVariableGuid, kKeyAttributes},
    KeyVariable{u"PK", &KeySet::pk, kGlobalVariableGuid, kKeyAttributes},
    // shim deletes its own variables when their attributes differ (mok.c, mok_state_variables).
    KeyVariable{u"MokList", &KeySet::mok, kShimLockGuid, kBootAttributes},
    KeyVariable{u"MokListX", &KeySet::mokx, kShimLockGuid, kBootAttributes},
};
constexpr std::u16string_view kSbatLevel = u"SbatLevel";
constexpr std::u16string_view kSecureBootEnable = u"SecureBootEnable";

Variable MakeVariable(std::u16string_view name, const Guid& vendor, uint32_t attributes,
                      Bytes data) {
  Variable variable;
  variable.name = name;
  variable.vendor = vendor;
  variable.attributes = attributes;
  variable.data = std::move(data);
  return variable;
}

struct Name {
  std::u16string_view name;
  const Guid& vendor;
};
// All that KeyVariables can make.
constexpr std::array kOwnNames = {
    Name{u"db", kSecurityDatabaseGuid},
    Name{u"dbx", kSecurityDatabaseGuid},
    Name{u"dbt", kSecurityDatabaseGuid},
    Name{u"dbr", kSecurityDatabaseGuid},
    Name{u"KEK", kGlobalVariableGuid},
    Name{u"PK", kGlobalVariableGuid},
    Name{u"MokList", kShimLockGuid},
    Name{u"MokListX", kShimLockGuid},
    Name{kSbatLevel, kShimLockGuid},
    Name{u"VendorKeysNv", kVendorKeysGuid},
    Name{kSecureBootEnable, kSecureBootEnableGuid},
    Name{u"CustomMode", kCustomModeGuid},
};
// What belongs to the guest as long as a set says nothing of it.
bool IsGuests(const Variable& variable) { return variable.vendor == kShimLockGuid; }

bool IsOwn(const Variable& variable) {
  return std::ranges::any_of(kOwnNames, [&](const Name& own) {
    return own.name == variable.name && own.vendor == variable.vendor;
  });
}

// "3 entries" for lists, "9 bytes" for others.
std::string Amount(const Variable& variable) {
  const bool is_list = std::ranges::any_of(kKeyVariables, [&](const KeyVariable& key) {
    return key.name == variable.name && key.vendor == variable.vendor;
  });
  if (is_list) {
    const auto entries = ParseSignatureLists(variable.data);
    if (!entries.has_value()) return "what cannot be read";
    return fmt::format("{} {}", entries->size(), entries->size() == 1 ? "entry" : "entries");
  }
  if (variable.data.size() == 1) return std::to_string(std::to_integer<int>(variable.data[0]));
  return fmt::format("{} bytes", variable.data.size());
}

// Whether the store's SBAT level is as new as the set's: shim raised it.
bool IsAsNew(const Variable& in_store, const Variable& in_set) {
  const auto have = ParseSbatLevel(AsText(in_store.data));
  const auto want = ParseSbatLevel(AsText(in_set.data));
  return have.has_value() && want.has_value() && have->datestamp >= want->datestamp;
}

// Sets one variable of the set, or keeps what the store has.
Result<void> Renew(VariableStoreEditor& editor, const Variable& variable,
                   KeyReplacement& replacement) {
  const std::string name = variable.NameText();
  const Variable* old = editor.Find(variable.name, variable.vendor);
  if (old != nullptr && old->data == variable.data && old->attributes == variable.attributes) {
    replacement.kept.push_back(fmt::format("{}: the set's already", name));
    return Ok();
  }
  if (old != nullptr && variable.name == kSbatLevel && IsAsNew(*old, variable)) {
    replacement.kept.push_back(fmt::format("{}: as new as the set's or newer", name));
    return Ok();
  }
  replacement.rebuilt.push_back(
      old == nullptr ? fmt::format("{}: added, {}", name, Amount(variable))
                     : fmt::format("{}: {} replaced by {}", name, Amount(*old), Amount(variable)));
  return editor.Set(variable);
}

Result<void> RemoveOthers(VariableStoreEditor& editor, std::span<const Variable> wanted,
                          GuestTrust trust, KeyReplacement& replacement) {
  std::vector<Variable> removed;
  for (const Variable* variable : editor.Variables()) {
    const bool is_wanted = std::ranges::any_of(wanted, [&](const Variable& other) {
      return other.name == variable->name && other.vendor == variable->vendor;
    });
    if (is_wanted) continue;
    const bool drop =
        trust == GuestTrust::kDropped && IsGuests(*variable) && variable->name != kSbatLevel;
    if (drop) {
      removed.push_back(*variable);
    } else if (!IsOwn(*variable)) {
      replacement.kept.push_back(variable->NameText());
    } else if (IsGuests(*variable)) {
      replacement.kept.push_back(fmt::format("{}: the set says nothing of it, {}",
                                             variable->NameText(), Amount(*variable)));
    } else {
      removed.push_back(*variable);
    }
  }
  for (const Variable& variable : removed) {
    replacement.rebuilt.push_back(fmt::format("{}: removed", variable.NameText()));
    RETURN_IF_ERROR(editor.Delete(variable.name, variable.vendor));
  }
  return Ok();
}

}  // namespace

std::vector<Variable> KeyVariables(const KeySet& keys, const VariableTime& time) {
  std::vector<Variable> variables;
  for (const KeyVariable& key : kKeyVariables) {
    const std::vector<Signature>& entries = keys.*key.list;
    if (entries.empty()) continue;
    variables.push_back(
        MakeVariable(key.name, key.vendor, key.attributes, EncodeSignatureLists(entries)));
    if (key.attributes == kKeyAttributes) variables.back().time = time;
  }
  if (!keys.sbat_level.empty()) {
    variables.push_back(MakeVariable(kSbatLevel, kShimLockGuid, kBootAttributes,
                                     ToBytes(AsBytes(keys.sbat_level))));
  }
  if (keys.pk.empty()) return variables;
  variables.push_back(
      MakeVariable(u"VendorKeysNv", kVendorKeysGuid, kVendorKeysAttributes, {kVendorKeysModified}));
  variables.push_back(MakeVariable(kSecureBootEnable, kSecureBootEnableGuid, kBootAttributes,
                                   {std::byte{keys.secure_boot ? uint8_t{1} : uint8_t{0}}}));
  variables.push_back(
      MakeVariable(u"CustomMode", kCustomModeGuid, kBootAttributes, {kStandardMode}));
  return variables;
}

Result<Bytes> MakeKeyStore(const KeySet& keys, OvmfBuild build, const VariableTime& time) {
  ASSIGN_OR_RETURN_CONTEXT(Bytes image, MakeVariableStoreImage(KeyVariables(keys, time), build),
                           fmt::format("storing key set {}", keys.name));
  return image;
}

Result<KeyReplacement> ReplaceKeys(ByteView image, const KeySet& keys, const VariableTime& time,
                                   GuestTrust trust) {
  ASSIGN_OR_RETURN(VariableStoreEditor editor, VariableStoreEditor::Open(image));
  const std::vector<Variable> wanted = KeyVariables(keys, time);
  KeyReplacement replacement;
  RETURN_IF_ERROR(RemoveOthers(editor, wanted, trust, replacement));
  for (const Variable& variable : wanted) {
    RETURN_IF_ERROR(Renew(editor, variable, replacement))
        .context(fmt::format("storing key set {}", keys.name));
  }
  replacement.image = std::move(editor).Take();
  return replacement;
}

}  // namespace vallum::firmware

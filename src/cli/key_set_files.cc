// SPDX-License-Identifier: Apache-2.0
#include "cli/key_set_files.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/local_image.h"
#include "firmware/guid.h"
#include "firmware/key_set_tools.h"
#include "firmware/sbat.h"
#include "firmware/signature_list.h"

namespace vallum::cli {
namespace {

using firmware::KeySet;
using firmware::Signature;

constexpr size_t kMaxFile = size_t{1} << 20U;
// More than this of one variable is told as a number.
constexpr size_t kShownEntries = 40;

void AddNew(const std::vector<Signature>& entries, std::vector<Signature>& list) {
  for (const Signature& entry : entries) {
    const bool there = std::ranges::any_of(list, [&](const Signature& other) {
      return other.type_guid == entry.type_guid && other.data == entry.data;
    });
    if (!there) list.push_back(entry);
  }
}

Result<void> AddFilesTo(const std::vector<std::string>& paths, std::vector<Signature>& list) {
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(const std::vector<Signature> entries, ReadEntries(path));
    AddNew(entries, list);
  }
  return Ok();
}

Result<void> AddHashes(const std::vector<std::string>& hashes, const std::string& option,
                       std::vector<Signature>& list) {
  for (const std::string& text : hashes) {
    ASSIGN_OR_RETURN_CONTEXT(const Signature entry,
                             firmware::SignatureFromDigest(text, firmware::Guid{}), option);
    AddNew({entry}, list);
  }
  return Ok();
}

}  // namespace

const std::vector<KeyVariable>& KeyVariables() {
  static const std::vector<KeyVariable> kVariables = {
      {"pk", "PK", &KeySet::pk},        {"kek", "KEK", &KeySet::kek},
      {"db", "db", &KeySet::db},        {"dbx", "dbx", &KeySet::dbx},
      {"dbt", "dbt", &KeySet::dbt},     {"dbr", "dbr", &KeySet::dbr},
      {"mok", "MokList", &KeySet::mok}, {"mokx", "MokListX", &KeySet::mokx},
  };
  return kVariables;
}

Result<std::vector<Signature>> ReadEntries(const std::string& path) {
  ASSIGN_OR_RETURN(const Bytes content, ReadInputFile(path, kMaxFile));
  Result<std::vector<Signature>> entries = firmware::SignaturesFromFile(content, firmware::Guid{});
  if (entries.has_value()) return entries;
  return Error(entries.error()).Context(Printable(path, 400));
}

Result<void> AddFiles(const KeySetFiles& files, KeySet& keys) {
  for (const std::string& name : files.clear) {
    const auto variable = std::ranges::find_if(
        KeyVariables(), [&](const KeyVariable& v) { return ToLower(name) == v.option; });
    if (variable == KeyVariables().end()) {
      return InvalidInput("--clear '" + Printable(name, 40) + "' is no variable of a key set")
          .WithFix("use pk, kek, db, dbx, dbt, dbr, mok or mokx");
    }
    (keys.*(variable->list)).clear();
  }
  if (!files.pk.empty()) {
    ASSIGN_OR_RETURN(keys.pk, ReadEntries(files.pk));
  }
  RETURN_IF_ERROR(AddFilesTo(files.kek, keys.kek));
  RETURN_IF_ERROR(AddFilesTo(files.db, keys.db));
  RETURN_IF_ERROR(AddFilesTo(files.dbx, keys.dbx));
  RETURN_IF_ERROR(AddFilesTo(files.dbt, keys.dbt));
  RETURN_IF_ERROR(AddFilesTo(files.mok, keys.mok));
  RETURN_IF_ERROR(AddFilesTo(files.mokx, keys.mokx));
  RETURN_IF_ERROR(AddHashes(files.db_hashes, "--db-hash", keys.db));
  RETURN_IF_ERROR(AddHashes(files.dbx_hashes, "--dbx-hash", keys.dbx));
  if (!files.sbat_level.empty()) {
    ASSIGN_OR_RETURN(const Bytes level, ReadInputFile(files.sbat_level, firmware::kMaxSbatBytes));
    RETURN_IF_ERROR(firmware::ParseSbatLevel(AsText(level))).context(files.sbat_level);
    keys.sbat_level = AsText(level);
  }
  keys.secure_boot = !keys.pk.empty();
  return Ok();
}

Json ContentOf(const KeySet& keys) {
  Json content = Json::object();
  for (const KeyVariable& variable : KeyVariables()) {
    const std::vector<Signature>& list = keys.*variable.list;
    if (!list.empty()) content[variable.option] = ToBase64(firmware::EncodeSignatureLists(list));
  }
  if (!keys.sbat_level.empty()) content["sbatLevel"] = keys.sbat_level;
  return content;
}

Result<KeySet> KeysOfContent(const Json& content, const std::string& name) {
  KeySet keys;
  keys.name = name;
  for (const KeyVariable& variable : KeyVariables()) {
    ASSIGN_OR_RETURN(const Bytes lists, FromBase64(TextAt(content, variable.option)));
    ASSIGN_OR_RETURN_CONTEXT(keys.*variable.list, firmware::ParseSignatureLists(lists),
                             std::string("reading ") + variable.title + " of key set " + name);
  }
  keys.sbat_level = TextAt(content, "sbatLevel");
  keys.secure_boot = !keys.pk.empty();
  return keys;
}

std::string DescribeKeys(const KeySet& keys) {
  std::string out;
  for (const KeyVariable& variable : KeyVariables()) {
    const std::vector<Signature>& list = keys.*variable.list;
    if (list.empty()) continue;
    out += std::string(variable.title) + " (" + std::to_string(list.size()) + ")\n";
    for (size_t i = 0; i < std::min(list.size(), kShownEntries); ++i) {
      out += "  " + Printable(firmware::DescribeSignature(list[i]), 300) + "\n";
    }
    if (list.size() > kShownEntries) {
      out += "  and " + std::to_string(list.size() - kShownEntries) + " more (-o json has all)\n";
    }
  }
  if (!keys.sbat_level.empty()) {
    out += "SbatLevel\n";
    for (const std::string& line : Split(keys.sbat_level, '\n')) {
      if (!line.empty()) out += "  " + Printable(line, 100) + "\n";
    }
  }
  return out.empty() ? "no keys\n" : out;
}

}  // namespace vallum::cli

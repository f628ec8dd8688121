// SPDX-License-Identifier: Apache-2.0
#include "attest/oat_whitelist.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "attest/golden.h"
#include "base/text.h"
#include "base/units.h"
#include "formats/bounded_json.h"

namespace vallum::attest {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr formats::JsonLimits kBodyLimits = {.depth = 4, .values = 1024};
constexpr formats::JsonLimits kRemarkLimits = {.depth = 6, .values = 32768};
constexpr std::string_view kRemark = "# whitelist ";
// Strong ones first: SHA-1 is quoted only where nothing else could be.
constexpr std::array kStrongBanks = {HashAlgorithm::kSha256, HashAlgorithm::kSha384,
                                     HashAlgorithm::kSha512};

// The members of a body, or of a query, by their names in lower case.
using Fields = std::map<std::string, Json>;

Result<Fields> FieldsOf(const Json& object) {
  if (!object.is_object()) return InvalidInput("the body is no object");
  Fields out;
  for (const auto& [name, value] : object.items()) {
    if (!out.emplace(ToLower(name), value).second) {
      return InvalidInput("the member " + Printable(name, 40) + " is there twice");
    }
  }
  return out;
}

Fields FieldsOf(const OatQuery& query) {
  Fields out;
  for (const auto& [name, value] : query) out.emplace(ToLower(name), value);
  return out;
}

enum class Presence { kRequired, kOptional };

Result<std::string> Text(const Fields& fields, const std::string& name, Presence presence) {
  const auto found = fields.find(ToLower(name));
  const bool absent =
      found == fields.end() || found->second.is_null() ||
      (found->second.is_string() && found->second.get_ref<const std::string&>().empty());
  if (absent) {
    if (presence == Presence::kOptional) return std::string();
    return InvalidInput(name + " is missing");
  }
  if (!found->second.is_string()) return InvalidInput(name + " is no text");
  std::string text = found->second.get<std::string>();
  if (text.size() > kMaxOatText || Printable(text, kMaxOatText) != text) {
    return InvalidInput(name + " is longer than " + std::to_string(kMaxOatText) +
                        " bytes or cannot be printed");
  }
  return text;
}

Error There(const std::string& what) { return Conflict(what + " is there already"); }
Error NotThere(const std::string& what) { return NotFound("there is no " + what); }

std::string Words(const OatSystemName& os) { return "OS " + os.name + " " + os.version; }
std::string Words(const OatMleName& mle) {
  return "MLE " + mle.name + " " + mle.version + " of " +
         (mle.oem.empty() ? Words(mle.os) : "OEM " + mle.oem);
}

// Puts an entry in, as the edit says.
template <typename Map>
Result<void> Put(Map& map, OatEdit edit, const typename Map::key_type& key,
                 typename Map::mapped_type value, const std::string& what) {
  const bool there = map.contains(key);
  if (edit == OatEdit::kAdd && there) return There(what);
  if (edit == OatEdit::kReplace && !there) return NotThere(what);
  if (!there && map.size() >= kMaxOatEntries) {
    return Exhausted("more than " + std::to_string(kMaxOatEntries) + " entries of a kind");
  }
  map.insert_or_assign(key, std::move(value));
  return Ok();
}

Result<OatSystemName> SystemName(const Fields& fields) {
  OatSystemName out;
  ASSIGN_OR_RETURN(out.name, Text(fields, "Name", Presence::kRequired));
  ASSIGN_OR_RETURN(out.version, Text(fields, "Version", Presence::kRequired));
  return out;
}

// The MLE that members of these names name.
Result<OatMleName> MleName(const Fields& fields, const std::string& name,
                           const std::string& version) {
  OatMleName out;
  ASSIGN_OR_RETURN(out.name, Text(fields, name, Presence::kRequired));
  ASSIGN_OR_RETURN(out.version, Text(fields, version, Presence::kRequired));
  ASSIGN_OR_RETURN(out.oem, Text(fields, "oemName", Presence::kOptional));
  ASSIGN_OR_RETURN(out.os.name, Text(fields, "osName", Presence::kOptional));
  ASSIGN_OR_RETURN(out.os.version, Text(fields, "osVersion", Presence::kOptional));
  const bool of_os = !out.os.name.empty() && !out.os.version.empty();
  if (out.oem.empty() != of_os || out.os.name.empty() == of_os) {
    return InvalidInput("an MLE is of an OEM, or of an OS with its version")
        .WithFix("give oemName, or osName and osVersion");
  }
  return out;
}

// Checks the value and puts it among the MLE's.
Result<void> AddValue(OatMle& mle, const std::string& pcr, const std::string& digest) {
  const std::array entries = {WhitelistEntry{.pcr_name = pcr, .digest = digest, .mle = {}}};
  ASSIGN_OR_RETURN(const auto rules, GoldenFromWhitelist(entries));
  const auto& [number, rule] = *rules.begin();
  const Bytes& bytes = rule.values.list().front().digests.front().digest;
  const auto added = mle.values.emplace(std::pair(number, bytes.size()), ToHex(bytes));
  if (!added.second) {
    return There("a value of that size of PCR " + std::to_string(number));
  }
  return Ok();
}

void DropValues(OatMle& mle, uint32_t pcr) {
  std::erase_if(mle.values, [pcr](const auto& value) { return value.first.first == pcr; });
}

Result<uint32_t> PcrOf(const std::string& name) {
  // Of any digest: the name alone is asked for.
  const std::array entries = {
      WhitelistEntry{.pcr_name = name, .digest = std::string(64, '0'), .mle = {}}};
  ASSIGN_OR_RETURN(const auto rules, GoldenFromWhitelist(entries));
  return rules.begin()->first;
}

Result<void> CheckMleKind(const Fields& fields, const OatMleName& name) {
  ASSIGN_OR_RETURN(const std::string attestation,
                   Text(fields, "Attestation_Type", Presence::kOptional));
  if (!attestation.empty() && ToLower(attestation) != "pcr") {
    return InvalidInput("Attestation_Type is " + attestation + ": PCR alone is supported");
  }
  ASSIGN_OR_RETURN(const std::string kind, Text(fields, "MLE_Type", Presence::kRequired));
  const std::string wanted = name.oem.empty() ? "vmm" : "bios";
  if (ToLower(kind) != wanted) {
    return InvalidInput("MLE_Type is " + kind + ", and the MLE is of an " +
                        (name.oem.empty() ? "OS" : "OEM"))
        .WithFix("BIOS goes with OemName, VMM with OsName and OsVersion");
  }
  return Ok();
}

Result<void> ReadManifests(const Fields& fields, OatMle& mle) {
  const auto found = fields.find("mle_manifests");
  if (found == fields.end() || found->second.is_null()) return Ok();
  // A list of one is sent as the object alone by some clients.
  const Json list = found->second.is_object() ? Json::array({found->second}) : found->second;
  if (!list.is_array()) return InvalidInput("MLE_Manifests is no list");
  mle.values.clear();
  for (const Json& each : list) {
    ASSIGN_OR_RETURN(const Fields entry, FieldsOf(each));
    ASSIGN_OR_RETURN(const std::string pcr, Text(entry, "Name", Presence::kRequired));
    ASSIGN_OR_RETURN(const std::string value, Text(entry, "Value", Presence::kRequired));
    RETURN_IF_ERROR(AddValue(mle, pcr, value));
  }
  return Ok();
}

Result<void> ChangeMle(OatWhitelist& list, OatEdit edit, const Fields& fields) {
  ASSIGN_OR_RETURN(const OatMleName name, MleName(fields, "Name", "Version"));
  RETURN_IF_ERROR(CheckMleKind(fields, name));
  if (!name.oem.empty() && !list.oems.contains(name.oem)) return NotThere("OEM " + name.oem);
  if (name.oem.empty() && !list.systems.contains(name.os)) return NotThere(Words(name.os));
  OatMle mle;
  // A description may be edited without the values being sent again.
  if (const auto old = list.mles.find(name); old != list.mles.end())
    mle.values = old->second.values;
  ASSIGN_OR_RETURN(mle.description, Text(fields, "Description", Presence::kOptional));
  RETURN_IF_ERROR(ReadManifests(fields, mle));
  return Put(list.mles, edit, name, std::move(mle), Words(name));
}

Result<void> ChangePcr(OatWhitelist& list, OatEdit edit, const Fields& fields) {
  ASSIGN_OR_RETURN(const OatMleName name, MleName(fields, "mleName", "mleVersion"));
  ASSIGN_OR_RETURN(const std::string pcr, Text(fields, "pcrName", Presence::kRequired));
  ASSIGN_OR_RETURN(const std::string digest, Text(fields, "pcrDigest", Presence::kRequired));
  const auto mle = list.mles.find(name);
  if (mle == list.mles.end()) return NotThere(Words(name));
  if (edit == OatEdit::kReplace) {
    ASSIGN_OR_RETURN(const uint32_t number, PcrOf(pcr));
    const size_t before = mle->second.values.size();
    DropValues(mle->second, number);
    if (mle->second.values.size() == before) {
      return NotThere("value of PCR " + std::to_string(number) + " of " + Words(name));
    }
  }
  return AddValue(mle->second, pcr, digest);
}

Result<void> CheckValueCount(const OatWhitelist& list) {
  size_t count = 0;
  for (const auto& [name, mle] : list.mles) count += mle.values.size();
  if (count <= kMaxOatValues) return Ok();
  return Exhausted("more than " + std::to_string(kMaxOatValues) + " values of PCRs");
}

OrderedJson MleJson(const OatMleName& name, const OatMle& mle) {
  OrderedJson out = {{"Attestation_Type", "PCR"},
                     {"Description", mle.description},
                     {"MLE_Manifests", OrderedJson::array()},
                     {"MLE_Type", name.oem.empty() ? "VMM" : "BIOS"},
                     {"Name", name.name},
                     {"Version", name.version}};
  for (const auto& [key, value] : mle.values) {
    out["MLE_Manifests"].push_back({{"Name", std::to_string(key.first)}, {"Value", value}});
  }
  if (name.oem.empty()) {
    out["OsName"] = name.os.name;
    out["OsVersion"] = name.os.version;
  } else {
    out["OemName"] = name.oem;
  }
  return out;
}

OrderedJson PcrJson(const OatMleName& name, uint32_t pcr, const std::string& digest) {
  OrderedJson out = {{"pcrName", std::to_string(pcr)},
                     {"pcrDigest", digest},
                     {"mleName", name.name},
                     {"mleVersion", name.version}};
  if (name.oem.empty()) {
    out["osName"] = name.os.name;
    out["osVersion"] = name.os.version;
  } else {
    out["oemName"] = name.oem;
  }
  return out;
}

OrderedJson OemJson(const std::string& name, const std::string& description) {
  return {{"Name", name}, {"Description", description}};
}
OrderedJson OsJson(const OatSystemName& name, const std::string& description) {
  return {{"Name", name.name}, {"Version", name.version}, {"Description", description}};
}

// The whole list as bodies that make it again, one collection after the other.
std::string RemarkOf(const OatWhitelist& list) {
  OrderedJson out = {
      {"oem", OrderedJson::array()}, {"os", OrderedJson::array()}, {"mles", OrderedJson::array()}};
  for (const auto& [name, description] : list.oems)
    out["oem"].push_back(OemJson(name, description));
  for (const auto& [name, description] : list.systems)
    out["os"].push_back(OsJson(name, description));
  for (const auto& [name, mle] : list.mles) out["mles"].push_back(MleJson(name, mle));
  // ASCII alone, so that no character of a description could end the remark.
  return out.dump(-1, ' ', true, OrderedJson::error_handler_t::replace);
}

Result<void> ChangeByFields(OatWhitelist& list, OatCollection collection, OatEdit edit,
                            const Fields& fields) {
  switch (collection) {
    case OatCollection::kOem: {
      ASSIGN_OR_RETURN(const std::string name, Text(fields, "Name", Presence::kRequired));
      ASSIGN_OR_RETURN(std::string description, Text(fields, "Description", Presence::kOptional));
      return Put(list.oems, edit, name, std::move(description), "OEM " + name);
    }
    case OatCollection::kOs: {
      ASSIGN_OR_RETURN(const OatSystemName name, SystemName(fields));
      ASSIGN_OR_RETURN(std::string description, Text(fields, "Description", Presence::kOptional));
      return Put(list.systems, edit, name, std::move(description), Words(name));
    }
    case OatCollection::kMle:
      return ChangeMle(list, edit, fields);
    case OatCollection::kPcr:
      return ChangePcr(list, edit, fields);
  }
  return InvalidInput("no such collection");
}

Result<OatWhitelist> ParseRemark(std::string_view text) {
  ASSIGN_OR_RETURN(const Json json, formats::ParseBoundedJson(text, kRemarkLimits));
  OatWhitelist out;
  constexpr std::array kParts = {std::pair{"oem", OatCollection::kOem},
                                 std::pair{"os", OatCollection::kOs},
                                 std::pair{"mles", OatCollection::kMle}};
  for (const auto& [name, collection] : kParts) {
    if (!json.is_object() || !json.contains(name) || !json[name].is_array()) {
      return InvalidInput("the remark has no " + std::string(name));
    }
    for (const Json& each : json[name]) {
      ASSIGN_OR_RETURN(const Fields fields, FieldsOf(each));
      RETURN_IF_ERROR(ChangeByFields(out, collection, OatEdit::kAdd, fields));
    }
  }
  return out;
}

// Of the banks those are quoted in which every PCR has a value.
Result<AttestationPolicy> PolicyOfEntries(const std::vector<WhitelistEntry>& entries,
                                          const std::string& name, const std::string& description) {
  ASSIGN_OR_RETURN(const auto rules, GoldenFromWhitelist(entries));
  AttestationPolicy policy;
  policy.name = name;
  policy.version = 1;
  policy.description = description;
  const auto complete = [&](HashAlgorithm bank) {
    return std::ranges::all_of(rules,
                               [&](const auto& rule) { return rule.second.values.HasBank(bank); });
  };
  std::ranges::copy_if(kStrongBanks, std::back_inserter(policy.banks), complete);
  if (policy.banks.empty() && complete(HashAlgorithm::kSha1)) {
    policy.banks = {HashAlgorithm::kSha1};
    policy.sha1 = Sha1Use::kAllowed;
  }
  if (policy.banks.empty()) {
    return InvalidInput("there is no bank of which every PCR has a value: nothing could be quoted")
        .WithFix("add the SHA-256 value of each PCR");
  }
  if (rules.empty()) policy.banks = {HashAlgorithm::kSha256};
  return WithGoldenRules(std::move(policy), rules);
}

}  // namespace

Result<OatWhitelist> ChangeOat(OatWhitelist list, OatCollection collection, OatEdit edit,
                               std::string_view body) {
  ASSIGN_OR_RETURN(const Json json, formats::ParseBoundedJson(body, kBodyLimits));
  ASSIGN_OR_RETURN(const Fields fields, FieldsOf(json));
  RETURN_IF_ERROR(ChangeByFields(list, collection, edit, fields));
  RETURN_IF_ERROR(CheckValueCount(list));
  return list;
}

Result<OatWhitelist> RemoveOat(OatWhitelist list, OatCollection collection, const OatQuery& query) {
  const Fields fields = FieldsOf(query);
  const auto used = [&](const auto& is_of, const std::string& what) -> Result<void> {
    const auto mle =
        std::ranges::find_if(list.mles, [&](const auto& each) { return is_of(each.first); });
    if (mle == list.mles.end()) return Ok();
    return Conflict(what + " has " + Words(mle->first)).WithFix("delete its MLEs before it");
  };
  switch (collection) {
    case OatCollection::kOem: {
      ASSIGN_OR_RETURN(const std::string name, Text(fields, "Name", Presence::kRequired));
      RETURN_IF_ERROR(used([&](const OatMleName& mle) { return mle.oem == name; }, "OEM " + name));
      if (list.oems.erase(name) == 0) return NotThere("OEM " + name);
      return list;
    }
    case OatCollection::kOs: {
      ASSIGN_OR_RETURN(const OatSystemName name, SystemName(fields));
      RETURN_IF_ERROR(used([&](const OatMleName& mle) { return mle.os == name; }, Words(name)));
      if (list.systems.erase(name) == 0) return NotThere(Words(name));
      return list;
    }
    case OatCollection::kMle: {
      ASSIGN_OR_RETURN(const OatMleName name, MleName(fields, "mleName", "mleVersion"));
      if (list.mles.erase(name) == 0) return NotThere(Words(name));
      return list;
    }
    case OatCollection::kPcr: {
      ASSIGN_OR_RETURN(const OatMleName name, MleName(fields, "mleName", "mleVersion"));
      ASSIGN_OR_RETURN(const std::string text, Text(fields, "pcrName", Presence::kRequired));
      ASSIGN_OR_RETURN(const uint32_t pcr, PcrOf(text));
      const auto mle = list.mles.find(name);
      if (mle == list.mles.end()) return NotThere(Words(name));
      const size_t before = mle->second.values.size();
      DropValues(mle->second, pcr);
      if (mle->second.values.size() == before) {
        return NotThere("value of PCR " + std::to_string(pcr) + " of " + Words(name));
      }
      return list;
    }
  }
  return InvalidInput("no such collection");
}

std::string ListOat(const OatWhitelist& list, OatCollection collection, std::string_view criteria) {
  const std::string wanted = criteria == "?" ? "" : ToLower(criteria);
  const auto matches = [&](const std::string& name) {
    return ToLower(name).find(wanted) != std::string::npos;
  };
  OrderedJson items = OrderedJson::array();
  std::string key;
  switch (collection) {
    case OatCollection::kOem:
      key = "oem";
      for (const auto& [name, description] : list.oems) {
        if (matches(name)) items.push_back(OemJson(name, description));
      }
      break;
    case OatCollection::kOs:
      key = "os";
      for (const auto& [name, description] : list.systems) {
        if (matches(name.name)) items.push_back(OsJson(name, description));
      }
      break;
    case OatCollection::kMle:
      key = "mleBean";
      for (const auto& [name, mle] : list.mles) {
        if (matches(name.name)) items.push_back(MleJson(name, mle));
      }
      break;
    case OatCollection::kPcr:
      key = "pcrBean";
      for (const auto& [name, mle] : list.mles) {
        if (!matches(name.name)) continue;
        for (const auto& [place, value] : mle.values) {
          items.push_back(PcrJson(name, place.first, value));
        }
      }
      break;
  }
  return OrderedJson{{key, std::move(items)}}.dump(-1, ' ', false,
                                                   OrderedJson::error_handler_t::replace);
}

Result<AttestationPolicy> PolicyOfOat(const OatWhitelist& list, const std::string& name) {
  std::vector<WhitelistEntry> entries;
  for (const auto& [mle_name, mle] : list.mles) {
    for (const auto& [place, value] : mle.values) {
      entries.push_back({.pcr_name = std::to_string(place.first),
                         .digest = value,
                         .mle = mle_name.name + " " + mle_name.version});
    }
  }
  return PolicyOfEntries(entries, name, "the whitelist of /WLMService");
}

Result<AttestationPolicy> PolicyOfPcrBeans(std::string_view text, const std::string& name) {
  ASSIGN_OR_RETURN(const Json document, formats::ParseBoundedJson(text, kRemarkLimits));
  if (!document.is_object() || document.size() != 1 || !document.contains("pcrBean") ||
      !document["pcrBean"].is_array()) {
    return InvalidInput("it is not {\"pcrBean\": [...]}")
        .WithFix("save what GET /WLMService/resources/mles/whitelist/pcr answers");
  }
  if (document["pcrBean"].empty()) return InvalidInput("the list is empty: it would trust nobody");
  if (document["pcrBean"].size() > kMaxOatValues) {
    return Exhausted("the list has more than " + std::to_string(kMaxOatValues) + " values");
  }
  std::vector<WhitelistEntry> entries;
  for (const Json& bean : document["pcrBean"]) {
    const std::string place = "reading value " + std::to_string(entries.size());
    ASSIGN_OR_RETURN_CONTEXT(const Fields fields, FieldsOf(bean), place);
    WhitelistEntry entry;
    ASSIGN_OR_RETURN_CONTEXT(entry.pcr_name, Text(fields, "pcrName", Presence::kRequired), place);
    ASSIGN_OR_RETURN_CONTEXT(entry.digest, Text(fields, "pcrDigest", Presence::kRequired), place);
    ASSIGN_OR_RETURN_CONTEXT(entry.mle, Text(fields, "mleName", Presence::kRequired), place);
    ASSIGN_OR_RETURN_CONTEXT(const std::string version,
                             Text(fields, "mleVersion", Presence::kOptional), place);
    if (!version.empty()) entry.mle += " " + version;
    entries.push_back(std::move(entry));
  }
  return PolicyOfEntries(entries, name, "made from a whitelist of OpenAttestation");
}

Result<std::string> FormatOatDocument(const OatWhitelist& list, const std::string& name) {
  ASSIGN_OR_RETURN(const AttestationPolicy policy, PolicyOfOat(list, name));
  return "# Kept by /WLMService: edit it there, or under another name.\n" + std::string(kRemark) +
         RemarkOf(list) + "\n" + FormatPolicy(policy);
}

Result<OatWhitelist> ParseOatDocument(std::string_view document, const std::string& name) {
  const auto otherwise = [&] {
    return Conflict("attestation policy " + name + " was not written by /WLMService")
        .WithFix("keep your policy under another name, and delete this one");
  };
  const size_t begin = document.find("\n" + std::string(kRemark));
  if (begin == std::string_view::npos) return otherwise();
  std::string_view line = document.substr(begin + 1 + kRemark.size());
  line = line.substr(0, line.find('\n'));
  auto list = ParseRemark(line);
  if (!list.has_value()) return otherwise();
  // Rules that somebody changed by hand would be lost with the next edit.
  const auto rules = ParsePolicy(document);
  const auto again = FormatOatDocument(*list, name);
  if (!rules.has_value() || !again.has_value()) return otherwise();
  const auto expected = ParsePolicy(*again);
  if (!expected.has_value() || *expected != *rules) return otherwise();
  return *std::move(list);
}

}  // namespace vallum::attest

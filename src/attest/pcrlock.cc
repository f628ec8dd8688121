// SPDX-License-Identifier: Apache-2.0
#include "attest/pcrlock.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/text.h"
#include "base/units.h"
#include "formats/bounded_json.h"
#include "measure/extend_log.h"

namespace vallum::attest {
namespace {

using Json = nlohmann::json;

constexpr formats::JsonLimits kLimits = {.depth = 12, .values = 200000};
constexpr std::string_view kSuffix = ".pcrlock";
constexpr std::string_view kFolderSuffix = ".pcrlock.d";

Error Wrong(size_t record, std::string_view what) {
  return InvalidInput("record " + std::to_string(record) + " " + std::string(what));
}

Result<void> AddDigest(const Json& each, size_t record, ReferenceRecord& out) {
  if (!each.is_object() || each.size() != 2 || !each.contains("hashAlg") ||
      !each.contains("digest") || !each["hashAlg"].is_string() || !each["digest"].is_string()) {
    return Wrong(record, "has a digest that is not {hashAlg, digest}");
  }
  const auto bank = measure::ParseBankName(each["hashAlg"].get<std::string>());
  if (!bank.has_value()) return Ok();
  ASSIGN_OR_RETURN_CONTEXT(Bytes digest, FromHex(each["digest"].get<std::string>()),
                           "reading record " + std::to_string(record));
  if (digest.size() != DigestSize(*bank)) return Wrong(record, "has a digest of another size");
  if (std::ranges::any_of(out.digests, [&](const BankDigest& d) { return d.bank == *bank; })) {
    return Wrong(record, "has two digests of a bank");
  }
  out.digests.push_back({.bank = *bank, .digest = std::move(digest)});
  return Ok();
}

Result<ReferenceRecord> ParseRecord(const Json& json, size_t number) {
  if (!json.is_object()) return Wrong(number, "is no object");
  for (const auto& [name, value] : json.items()) {
    if (name != "pcr" && name != "digests" && name != "recnum" && name != "content" &&
        name != "content_type") {
      return Wrong(number, "has the unknown member " + Printable(name, 40));
    }
  }
  if (!json.contains("pcr") || !json["pcr"].is_number_unsigned() ||
      json["pcr"].get<uint64_t>() >= PcrIndex::kCount) {
    return Wrong(number, "names no PCR");
  }
  if (!json.contains("digests") || !json["digests"].is_array()) {
    return Wrong(number, "has no digests");
  }
  ReferenceRecord out{.pcr = json["pcr"].get<uint32_t>(), .digests = {}};
  for (const Json& each : json["digests"]) {
    RETURN_IF_ERROR(AddDigest(each, number, out));
  }
  if (out.digests.empty()) return Wrong(number, "has no digest of a bank that can be computed");
  return out;
}

// "630-shim.pcrlock.d/15.8.pcrlock" as {"630-shim", "15.8"}; "650-kernel.pcrlock" as
// {"650-kernel", ""}.
std::optional<std::pair<std::string, std::string>> SplitPath(std::string_view path) {
  const size_t slash = path.find('/');
  std::string_view file = slash == std::string_view::npos ? path : path.substr(slash + 1);
  if (!file.ends_with(kSuffix) || file.find('/') != std::string_view::npos) return std::nullopt;
  file.remove_suffix(kSuffix.size());
  if (file.empty()) return std::nullopt;
  if (slash == std::string_view::npos) return std::pair(std::string(file), std::string());
  std::string_view folder = path.substr(0, slash);
  if (!folder.ends_with(kFolderSuffix)) return std::nullopt;
  folder.remove_suffix(kFolderSuffix.size());
  if (folder.empty()) return std::nullopt;
  return std::pair(std::string(folder), std::string(file));
}

// Whether a measurement is the record's; a record that does not know the bank fits nothing.
bool Fits(const ReferenceRecord& record, HashAlgorithm bank, ByteView digest) {
  return std::ranges::any_of(record.digests, [&](const BankDigest& each) {
    return each.bank == bank && std::ranges::equal(each.digest, digest);
  });
}

// How many measurements the variant takes from `begin` on; nothing if it does not fit there.
std::optional<size_t> Take(const ReferenceVariant& variant, uint32_t pcr, HashAlgorithm bank,
                           std::span<const ByteView> digests, size_t begin) {
  size_t at = begin;
  for (const ReferenceRecord& record : variant.records) {
    if (record.pcr != pcr) continue;
    if (at == digests.size() || !Fits(record, bank, digests[at])) return std::nullopt;
    ++at;
  }
  return at;
}

}  // namespace

Result<std::vector<ReferenceRecord>> ParsePcrlock(std::string_view text) {
  if (text.size() > kMaxPcrlockText) {
    return InvalidInput("the file is larger than " + std::to_string(kMaxPcrlockText) + " bytes");
  }
  ASSIGN_OR_RETURN(const Json document, formats::ParseBoundedJson(text, kLimits));
  if (!document.is_object() || document.size() != 1 || !document.contains("records") ||
      !document["records"].is_array()) {
    return InvalidInput("it is not {\"records\": [...]}");
  }
  if (document["records"].size() > kMaxPcrlockRecords) {
    return InvalidInput("it has more than " + std::to_string(kMaxPcrlockRecords) + " records");
  }
  std::vector<ReferenceRecord> out;
  for (const Json& each : document["records"]) {
    ASSIGN_OR_RETURN(out.emplace_back(), ParseRecord(each, out.size()));
  }
  return out;
}

Result<std::vector<ReferenceComponent>> ReadPcrlockFolder(std::span<const PcrlockFile> files) {
  std::map<std::string, ReferenceComponent> components;
  size_t records = 0;
  for (const PcrlockFile& file : files) {
    const std::string name = Printable(file.path);
    const auto split = SplitPath(file.path);
    if (!split.has_value()) {
      return InvalidInput(name + " is no file of pcrlock.d")
          .WithFix("they are named COMPONENT.pcrlock or COMPONENT.pcrlock.d/VARIANT.pcrlock");
    }
    if (file.text.empty()) continue;  // masked
    // Their order is that of the files' names: "650-kernel-cmdline.pcrlock", "650-kernel.pcrlock".
    ReferenceComponent& component = components[split->first + std::string(kSuffix)];
    component.name = split->first;
    ASSIGN_OR_RETURN_CONTEXT(std::vector<ReferenceRecord> parsed, ParsePcrlock(file.text),
                             "reading " + name);
    records += parsed.size();
    component.variants.push_back({.name = split->second, .records = std::move(parsed)});
    if (components.size() > kMaxReferenceComponents || records > kMaxReferenceRecords ||
        component.variants.size() > kMaxReferenceVariants) {
      return Exhausted(name + ": too many components, variants or records");
    }
  }
  std::vector<ReferenceComponent> out;
  for (auto& [name, component] : components) {
    std::ranges::sort(component.variants, {}, &ReferenceVariant::name);
    out.push_back(std::move(component));
  }
  return out;
}

ReferenceMatch MatchReference(std::span<const ReferenceComponent> components, uint32_t pcr,
                              HashAlgorithm bank, std::span<const ByteView> digests) {
  // Which prefixes of the measurements the components so far can explain: a set instead of the
  // choices that led there, so that variants do not multiply.
  std::vector<char> reached(digests.size() + 1, 0);
  reached[0] = 1;
  ReferenceMatch match;
  for (const ReferenceComponent& component : components) {
    std::vector<char> next(digests.size() + 1, 0);
    for (size_t begin = 0; begin < reached.size(); ++begin) {
      if (reached[begin] == 0) continue;
      for (const ReferenceVariant& variant : component.variants) {
        const auto end = Take(variant, pcr, bank, digests, begin);
        if (end.has_value()) next[*end] = 1;
      }
    }
    const auto last = std::find(next.rbegin(), next.rend(), 1);
    if (last == next.rend()) {
      match.component = component.name;
      return match;
    }
    match.explained = static_cast<size_t>(next.rend() - last) - 1;
    reached = std::move(next);
  }
  match.complete = reached[digests.size()] != 0;
  return match;
}

}  // namespace vallum::attest

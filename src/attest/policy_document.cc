// SPDX-License-Identifier: Apache-2.0
#include "attest/policy_document.h"

#include <toml++/toml.h>

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "formats/bounded_json.h"

namespace vallum::attest {
namespace {

using Json = nlohmann::json;

std::string Join(const std::string& path, const std::string& key) {
  return path.empty() ? key : path + "." + key;
}

}  // namespace

// Turns TOML into the JSON that says the same, keeping lines.
class TomlReader {
 public:
  Result<PolicyDocument> Read(const toml::table& table) && {
    ASSIGN_OR_RETURN(*document_.root_, ReadTable(table, "", 1));
    return std::move(document_);
  }

 private:
  Result<Json> ReadTable(const toml::table& table, const std::string& path, size_t depth) {
    Json out = Json::object();
    for (const auto& [key, node] : table) {
      const std::string name(key.str());
      ASSIGN_OR_RETURN(out[name], ReadNode(node, Join(path, name), depth));
    }
    return out;
  }

  Result<Json> ReadNode(const toml::node& node, const std::string& path, size_t depth) {
    if (depth > kMaxPolicyDepth || ++values_ > kMaxPolicyValues) {
      return InvalidInput("the policy is too deep or has too many values");
    }
    if (node.source().begin.line != 0) document_.lines_[path] = node.source().begin.line;
    if (const auto* table = node.as_table()) return ReadTable(*table, path, depth + 1);
    if (const auto* array = node.as_array()) {
      Json out = Json::array();
      for (size_t i = 0; i < array->size(); ++i) {
        ASSIGN_OR_RETURN(out.emplace_back(),
                         ReadNode(*array->get(i), path + "[" + std::to_string(i) + "]", depth + 1));
      }
      return out;
    }
    if (const auto* text = node.as_string()) return Json(text->get());
    if (const auto* number = node.as_integer()) {
      if (number->get() < 0) return Json(number->get());
      return Json(static_cast<uint64_t>(number->get()));
    }
    if (const auto* flag = node.as_boolean()) return Json(flag->get());
    return InvalidInput(document_.PlaceOf(path) + " is of a kind that no policy has")
        .WithFix("policies have texts, whole numbers, lists and tables");
  }

  PolicyDocument document_;
  size_t values_ = 0;
};

Result<PolicyDocument> PolicyDocument::Parse(std::string_view text) {
  if (text.size() > kMaxPolicyText) {
    return InvalidInput("the policy is larger than " + std::to_string(kMaxPolicyText) + " bytes");
  }
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '{') {
    PolicyDocument document;
    ASSIGN_OR_RETURN_CONTEXT(
        *document.root_,
        formats::ParseBoundedJson(text, {.depth = kMaxPolicyDepth, .values = kMaxPolicyValues}),
        "reading the policy");
    return document;
  }
  try {
    return TomlReader().Read(toml::parse(text));
  } catch (const toml::parse_error& error) {
    return InvalidInput("the policy is no TOML: line " + std::to_string(error.source().begin.line) +
                        ": " + Printable(error.description()));
  }
}

std::string PolicyDocument::PlaceOf(const std::string& path) const {
  if (path.empty()) return "the policy";
  const auto line = lines_.find(path);
  const std::string name = Printable(path, 120);
  return line == lines_.end() ? name : name + " (line " + std::to_string(line->second) + ")";
}

PolicyTable::PolicyTable(const PolicyDocument& document)
    : PolicyTable(document, document.root(), "") {}

std::string PolicyTable::PathOf(const std::string& key) const { return Join(path_, key); }

std::vector<std::string> PolicyTable::Keys() const {
  std::vector<std::string> out;
  for (const auto& [key, value] : json_->items()) out.push_back(key);
  return out;
}

Error PolicyTable::Wrong(const std::string& key, std::string_view what) const {
  return InvalidInput(document_->PlaceOf(key.empty() ? path_ : PathOf(key)) + " " +
                      std::string(what));
}

Result<void> PolicyTable::AllowOnly(std::initializer_list<std::string_view> keys) const {
  for (const auto& [key, value] : json_->items()) {
    if (std::ranges::find(keys, key) != keys.end()) continue;
    std::string known;
    for (const std::string_view each : keys) known.append(known.empty() ? "" : ", ").append(each);
    return Wrong(key, "is not known here").WithFix("known here: " + known);
  }
  return Ok();
}

Result<const Json*> PolicyTable::Find(const std::string& key) const {
  const auto found = json_->find(key);
  if (found == json_->end()) return Wrong(key, "is missing");
  return &*found;
}

Result<PolicyTable> PolicyTable::Table(const std::string& key) const {
  ASSIGN_OR_RETURN(const Json* value, Find(key));
  if (!value->is_object()) return Wrong(key, "is no table");
  return PolicyTable(*document_, *value, PathOf(key));
}

Result<std::vector<PolicyTable>> PolicyTable::Tables(const std::string& key) const {
  std::vector<PolicyTable> out;
  if (!json_->contains(key)) return out;
  ASSIGN_OR_RETURN(const Json* value, Find(key));
  if (!value->is_array()) return Wrong(key, "is no list of tables");
  for (const Json& each : *value) {
    if (!each.is_object()) return Wrong(key, "is no list of tables");
    out.push_back(
        PolicyTable(*document_, each, PathOf(key) + "[" + std::to_string(out.size()) + "]"));
  }
  return out;
}

Result<std::string> PolicyTable::Text(const std::string& key) const {
  ASSIGN_OR_RETURN(const Json* value, Find(key));
  if (!value->is_string()) return Wrong(key, "is no text");
  return value->get<std::string>();
}

Result<std::vector<std::string>> PolicyTable::Texts(const std::string& key) const {
  std::vector<std::string> out;
  if (!json_->contains(key)) return out;
  ASSIGN_OR_RETURN(const Json* value, Find(key));
  if (!value->is_array()) return Wrong(key, "is no list of texts");
  for (const Json& each : *value) {
    if (!each.is_string()) return Wrong(key, "is no list of texts");
    out.push_back(each.get<std::string>());
  }
  return out;
}

Result<uint64_t> PolicyTable::Number(const std::string& key) const {
  ASSIGN_OR_RETURN(const Json* value, Find(key));
  if (!value->is_number_unsigned()) return Wrong(key, "is no whole number");
  return value->get<uint64_t>();
}

Result<std::vector<uint64_t>> PolicyTable::Numbers(const std::string& key) const {
  std::vector<uint64_t> out;
  if (!json_->contains(key)) return out;
  ASSIGN_OR_RETURN(const Json* value, Find(key));
  if (!value->is_array()) return Wrong(key, "is no list of whole numbers");
  for (const Json& each : *value) {
    if (!each.is_number_unsigned()) return Wrong(key, "is no list of whole numbers");
    out.push_back(each.get<uint64_t>());
  }
  return out;
}

Result<Bytes> PolicyTable::DigestOf(const std::string& key, HashAlgorithm bank,
                                    const std::string& hex) const {
  Result<Bytes> digest = FromHex(hex);
  if (!digest.has_value() || digest->size() != DigestSize(bank)) {
    return Wrong(key, "is no " + std::string(HashAlgorithmName(bank)) + " digest: " +
                          std::to_string(2 * DigestSize(bank)) + " hexadecimal digits");
  }
  return *std::move(digest);
}

Result<Bytes> PolicyTable::Digest(const std::string& key, HashAlgorithm bank) const {
  ASSIGN_OR_RETURN(const std::string hex, Text(key));
  return DigestOf(key, bank, hex);
}

Result<std::vector<Bytes>> PolicyTable::Digests(const std::string& key, HashAlgorithm bank) const {
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, Texts(key));
  std::vector<Bytes> out;
  for (const std::string& hex : texts) {
    ASSIGN_OR_RETURN(out.emplace_back(), DigestOf(key, bank, hex));
  }
  return out;
}

Result<size_t> PolicyTable::Choice(const std::string& key,
                                   std::span<const std::string_view> words) const {
  if (!json_->contains(key)) return size_t{0};
  ASSIGN_OR_RETURN(const std::string word, Text(key));
  const auto found = std::ranges::find(words, word);
  if (found != words.end()) return static_cast<size_t>(found - words.begin());
  std::string known;
  for (const std::string_view each : words) {
    known.append(known.empty() ? "\"" : ", \"").append(each).append("\"");
  }
  return Wrong(key, "is not one of " + known);
}

}  // namespace vallum::attest

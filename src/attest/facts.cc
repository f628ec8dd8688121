// SPDX-License-Identifier: Apache-2.0
#include "attest/facts.h"

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "base/text.h"
#include "formats/bounded_json.h"

namespace vallum::attest {
namespace {

using Json = nlohmann::json;

constexpr formats::JsonLimits kLimits = {.depth = 2, .values = kMaxCpuFeatures + 32};

struct TextFact {
  const char* name;
  std::string HostFacts::* member;
};
constexpr std::array kTexts = {TextFact{"kernelRelease", &HostFacts::kernel_release},
                               TextFact{"commandLine", &HostFacts::command_line},
                               TextFact{"lockdown", &HostFacts::lockdown},
                               TextFact{"iommu", &HostFacts::iommu},
                               TextFact{"swap", &HostFacts::swap},
                               TextFact{"kdump", &HostFacts::kdump},
                               TextFact{"secureBoot", &HostFacts::secure_boot},
                               TextFact{"microcode", &HostFacts::microcode},
                               TextFact{"cpuModel", &HostFacts::cpu_model},
                               TextFact{"architecture", &HostFacts::architecture},
                               TextFact{"bootId", &HostFacts::boot_id}};

Error Wrong(const std::string& name, std::string_view wanted) {
  return InvalidInput("the fact " + Printable(name, 40) + " is not " + std::string(wanted));
}

Result<std::string> Text(const std::string& name, const Json& value) {
  if (!value.is_string() || value.get_ref<const std::string&>().size() > kMaxFactText) {
    return Wrong(name, "a text of at most " + std::to_string(kMaxFactText) + " bytes");
  }
  return value.get<std::string>();
}

Result<std::vector<std::string>> Texts(const std::string& name, const Json& value) {
  if (!value.is_array() || value.size() > kMaxCpuFeatures) {
    return Wrong(name, "a list of at most " + std::to_string(kMaxCpuFeatures) + " texts");
  }
  std::vector<std::string> out;
  for (const Json& each : value) {
    ASSIGN_OR_RETURN(out.emplace_back(), Text(name, each));
  }
  return out;
}

Result<void> SetFact(const std::string& name, const Json& value, HostFacts& facts) {
  for (const TextFact& each : kTexts) {
    if (name != each.name) continue;
    ASSIGN_OR_RETURN(facts.*each.member, Text(name, value));
    return Ok();
  }
  if (name == "cpuFeatures") {
    ASSIGN_OR_RETURN(facts.cpu_features, Texts(name, value));
    return Ok();
  }
  return InvalidInput("there is no fact \"" + Printable(name, 40) + "\"");
}

}  // namespace

Result<HostFacts> ParseHostFacts(std::string_view text) {
  if (text.size() > kMaxFactsSize) {
    return InvalidInput("the facts are larger than " + std::to_string(kMaxFactsSize) + " bytes");
  }
  ASSIGN_OR_RETURN_CONTEXT(const Json document, formats::ParseBoundedJson(text, kLimits),
                           "reading the host's facts");
  if (!document.is_object()) return InvalidInput("the host's facts are not a JSON object");
  HostFacts facts;
  for (const auto& [name, value] : document.items()) {
    RETURN_IF_ERROR(SetFact(name, value, facts));
  }
  return facts;
}

std::string FormatHostFacts(const HostFacts& facts) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  for (const TextFact& each : kTexts) {
    if (!(facts.*each.member).empty()) out[each.name] = facts.*each.member;
  }
  if (!facts.cpu_features.empty()) out["cpuFeatures"] = facts.cpu_features;
  // A kernel's texts need not be UTF-8.
  return out.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::optional<uint64_t> MicrocodeRevision(const HostFacts& facts) {
  std::string_view digits = facts.microcode;
  if (digits.starts_with("0x")) digits.remove_prefix(2);
  uint64_t value = 0;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value, 16);
  return error == std::errc() && stop == end ? std::optional(value) : std::nullopt;
}

}  // namespace vallum::attest

// SPDX-License-Identifier: Apache-2.0
#include "controller/placement_settings.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/text.h"

namespace vallum::controller {
namespace {

constexpr std::string_view kTraitPrefix = "trait:";
constexpr size_t kMaxTraitName = 255;
constexpr std::string_view kHypervisorType = "hypervisor_type";
constexpr std::string_view kHypervisorVersion = "hypervisor_version_requires";

// The one spelling under which a setting is kept; empty: it is none of placement's.
std::string CanonicalKey(std::string_view key) {
  const std::string lower = ToLower(key);
  if (lower.starts_with(kTraitPrefix)) {
    return std::string(kTraitPrefix) + std::string(key.substr(kTraitPrefix.size()));
  }
  if (lower == kHypervisorType || lower == "img_hv_type") return std::string(kHypervisorType);
  if (lower == kHypervisorVersion || lower == "img_hv_requested_version") {
    return std::string(kHypervisorVersion);
  }
  return {};
}

// Source: OpenStack os-traits, "CUSTOM_" and standard names: upper case, digits and underscores.
bool IsTraitName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxTraitName && std::ranges::all_of(name, [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

// One setting of one owner.
struct Setting {
  std::string key;  // as given
  std::string value;
  std::string owner;
  std::string Words() const { return Printable(key) + "=" + Printable(value) + " (" + owner + ")"; }
};

Result<void> ReadTrait(const Setting& setting, std::string_view name, PlacementSettings& out) {
  if (!IsTraitName(name)) {
    return InvalidInput(setting.Words() + " names no trait")
        .WithFix("write it like trait:CUSTOM_RACK_A=required");
  }
  const std::string value = ToLower(setting.value);
  if (value != "required" && value != "forbidden") {
    return InvalidInput(setting.Words() + " is not a value of a trait")
        .WithFix("use required or forbidden, or leave it out");
  }
  (value == "required" ? out.required : out.forbidden).Insert(name);
  return Ok();
}

Result<void> ReadType(const Setting& setting, PlacementSettings& out) {
  const std::string value = ToLower(Trim(setting.value));
  const bool plain = std::ranges::all_of(value, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
  if (value.empty() || value.size() > 63 || !plain) {
    return InvalidInput(setting.Words() + " is not the type of a hypervisor")
        .WithFix("use qemu, or kvm for QEMU with KVM");
  }
  // Others call QEMU with KVM a type of its own; hosts report QEMU and, beside it, how it runs.
  out.hypervisor_type = value == "kvm" ? "qemu" : value;
  out.accelerator = value == "kvm" ? value : "";
  return Ok();
}

Result<void> ReadOne(const Setting& setting, const std::string& key, PlacementSettings& out) {
  if (key.starts_with(kTraitPrefix)) {
    return ReadTrait(setting, std::string_view(key).substr(kTraitPrefix.size()), out);
  }
  if (key == kHypervisorType) return ReadType(setting, out);
  ASSIGN_OR_RETURN_CONTEXT(out.hypervisor_versions, placement::VersionRange::Parse(setting.value),
                           Printable(setting.key) + " (" + setting.owner + ")");
  return Ok();
}

using Merged = std::map<std::string, Setting>;  // by CanonicalKey

Result<void> Merge(const std::string& owner, const Properties& properties, Merged& merged) {
  for (const auto& [key, value] : properties) {
    const std::string canonical = CanonicalKey(key);
    if (canonical.empty()) continue;
    Setting setting{.key = key, .value = value, .owner = owner};
    PlacementSettings checked;
    RETURN_IF_ERROR(ReadOne(setting, canonical, checked));
    setting.value = canonical == kHypervisorVersion ? checked.hypervisor_versions.words()
                                                    : ToLower(Trim(value));
    const auto [at, is_new] = merged.emplace(canonical, setting);
    if (is_new || at->second.value == setting.value) continue;
    if (canonical != kHypervisorVersion) {
      return InvalidInput(at->second.Words() + " conflicts with " + setting.Words())
          .WithFix("leave one of them out, or choose another image or flavor");
    }
    at->second.value += "," + setting.value;
    at->second.owner += ", " + owner;
    RETURN_IF_ERROR(ReadOne(at->second, canonical, checked));
  }
  return Ok();
}

}  // namespace

bool DecidesPlacement(std::string_view key) { return !CanonicalKey(key).empty(); }

Result<PlacementSettings> ReadPlacementSettings(const std::string& owner,
                                                const Properties& properties) {
  Merged merged;
  RETURN_IF_ERROR(Merge(owner, properties, merged));
  PlacementSettings out;
  for (const auto& [key, setting] : merged) RETURN_IF_ERROR(ReadOne(setting, key, out));
  return out;
}

Result<void> StorePlacementSettings(const v1::Image* image, const v1::Flavor* flavor,
                                    v1::InstanceSpec& spec) {
  Merged merged;
  if (flavor != nullptr) {
    const auto& specs = flavor->spec().extra_specs();
    RETURN_IF_ERROR(
        Merge("flavor " + flavor->metadata().name(), {specs.begin(), specs.end()}, merged));
  }
  if (image != nullptr) {
    const auto& said = image->spec().properties();
    RETURN_IF_ERROR(Merge("image " + image->metadata().name(), {said.begin(), said.end()}, merged));
  }
  auto& properties = *spec.mutable_properties();
  RETURN_IF_ERROR(Merge("request", {properties.begin(), properties.end()}, merged));
  for (auto property = properties.begin(); property != properties.end();) {
    property = DecidesPlacement(property->first) ? properties.erase(property) : std::next(property);
  }
  for (const auto& [key, setting] : merged) properties[key] = setting.value;
  return Ok();
}

Result<void> CheckNeighbours(const std::string& instance, const v1::InstanceSpec& spec) {
  std::set<std::string> near;
  for (const auto* names : {&spec.near(), &spec.apart_from()}) {
    const std::string field = names == &spec.near() ? "near" : "apart_from";
    if (names->size() > kMaxNeighbours) {
      return InvalidInput(field + " has " + std::to_string(names->size()) + " names, at most " +
                          std::to_string(kMaxNeighbours) + " are taken");
    }
    for (const std::string& name : *names) {
      RETURN_IF_ERROR(ValidateName("instance", name)).context("in " + field);
      if (name == instance) {
        return InvalidInput(field + "=" + name + " (request) is the instance itself")
            .WithFix("name others");
      }
      if (field == "near") near.insert(name);
      if (field != "near" && near.contains(name)) {
        return InvalidInput("near=" + name + " (request) conflicts with apart_from=" + name +
                            " (request)")
            .WithFix("leave one of them out");
      }
    }
  }
  return Ok();
}

}  // namespace vallum::controller

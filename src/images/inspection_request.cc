// SPDX-License-Identifier: Apache-2.0
#include "images/inspection_request.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"

namespace vallum::images {
namespace {

using Json = nlohmann::json;

bool HasNumber(const Json& json, const char* key) {
  return json.contains(key) && json[key].is_number_unsigned();
}
bool HasText(const Json& json, const char* key) {
  return json.contains(key) && json[key].is_string();
}

Json PlatformToJson(const PredictedPlatform& platform) {
  const measure::MachineInput& machine = platform.machine;
  return {{"firmware", ToBase64(platform.firmware)},
          {"memoryBytes", machine.memory.bytes()},
          {"vcpus", machine.vcpus},
          {"cpuVendor", machine.cpu.vendor},
          {"addressBits", machine.cpu.physical_bits},
          {"gigabytePages", machine.cpu.gigabyte_pages},
          {"bootDiskSlot", machine.boot_disk_slot}};
}

Result<PredictedPlatform> PlatformFromJson(const Json& json) {
  if (!json.is_object() || !HasText(json, "firmware") || !HasNumber(json, "memoryBytes") ||
      !HasNumber(json, "vcpus") || !HasText(json, "cpuVendor") || !HasNumber(json, "addressBits") ||
      !json.contains("gigabytePages") || !json["gigabytePages"].is_boolean() ||
      !HasNumber(json, "bootDiskSlot")) {
    return InvalidInput("the request's platform lacks a field or has one of another type");
  }
  const auto vcpus = json["vcpus"].get<uint64_t>();
  const auto bits = json["addressBits"].get<uint64_t>();
  const auto slot = json["bootDiskSlot"].get<uint64_t>();
  if (vcpus > UINT32_MAX || bits > 64 || slot > 31) {
    return InvalidInput("the request's platform has no such machine");
  }
  PredictedPlatform out;
  ASSIGN_OR_RETURN(out.firmware, FromBase64(json["firmware"].get_ref<const std::string&>()));
  out.machine = {.memory = ByteCount::Bytes(json["memoryBytes"].get<uint64_t>()),
                 .vcpus = static_cast<uint32_t>(vcpus),
                 .cpu = {.vendor = json["cpuVendor"],
                         .physical_bits = static_cast<uint8_t>(bits),
                         .gigabyte_pages = json["gigabytePages"].get<bool>()},
                 .boot_disk_slot = static_cast<uint8_t>(slot)};
  return out;
}

Result<PredictionRequest> PredictionFromJson(const Json& json) {
  if (!json.is_object() || !HasText(json, "variables") || !HasNumber(json, "failedBootOptions")) {
    return InvalidInput("the request's prediction has no variables or failedBootOptions");
  }
  PredictionRequest out;
  ASSIGN_OR_RETURN(out.variables, FromBase64(json["variables"].get_ref<const std::string&>()));
  out.failed_boot_options = json["failedBootOptions"].get<size_t>();
  if (const auto platform = json.find("platform"); platform != json.end()) {
    ASSIGN_OR_RETURN(out.platform, PlatformFromJson(*platform));
  }
  return out;
}

}  // namespace

std::string RequestToJson(const InspectionRequest& request) {
  Json key_sets = Json::array();
  for (const firmware::KeySet& keys : request.key_sets) key_sets.push_back(firmware::ToJson(keys));
  Json object = {{"keySets", std::move(key_sets)}};
  if (request.prediction.has_value()) {
    object["prediction"] = {{"variables", ToBase64(request.prediction->variables)},
                            {"failedBootOptions", request.prediction->failed_boot_options}};
    if (request.prediction->platform.has_value()) {
      object["prediction"]["platform"] = PlatformToJson(*request.prediction->platform);
    }
  }
  return object.dump();
}

Result<InspectionRequest> RequestFromJson(std::string_view json) {
  InspectionRequest request;
  if (json.empty()) return request;
  const Json object = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object() || !object.contains("keySets") || !object["keySets"].is_array()) {
    return InvalidInput("the request for an inspection is no JSON object with keySets");
  }
  if (object["keySets"].size() > kMaxRequestKeySets) {
    return Exhausted("an inspection takes at most " + std::to_string(kMaxRequestKeySets) +
                     " key sets");
  }
  for (const Json& item : object["keySets"]) {
    if (!item.is_string()) return InvalidInput("a key set of the request is no text");
    ASSIGN_OR_RETURN(firmware::KeySet keys,
                     firmware::ParseKeySet(item.get_ref<const std::string&>()));
    request.key_sets.push_back(std::move(keys));
  }
  if (const auto wanted = object.find("prediction"); wanted != object.end()) {
    ASSIGN_OR_RETURN(request.prediction, PredictionFromJson(*wanted));
  }
  return request;
}

}  // namespace vallum::images

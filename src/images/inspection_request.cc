// SPDX-License-Identifier: Apache-2.0
#include "images/inspection_request.h"

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

Result<PredictionRequest> PredictionFromJson(const Json& json) {
  if (!json.is_object() || !json.contains("variables") || !json["variables"].is_string() ||
      !json.contains("failedBootOptions") || !json["failedBootOptions"].is_number_unsigned()) {
    return InvalidInput("the request's prediction has no variables or failedBootOptions");
  }
  PredictionRequest out;
  ASSIGN_OR_RETURN(out.variables, FromBase64(json["variables"].get_ref<const std::string&>()));
  out.failed_boot_options = json["failedBootOptions"].get<size_t>();
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

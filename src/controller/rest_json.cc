// SPDX-License-Identifier: Apache-2.0
#include "controller/rest_json.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/result.h"
#include "base/text.h"

namespace vallum::controller {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Deeper than any resource; the parsers recurse.
constexpr int kDepthLimit = 32;

// Whether brackets nest deeper than the limit, looked at before any recursive parser sees the text.
bool NestsTooDeep(std::string_view json) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kDepthLimit) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

Error BadBody(std::string_view why) {
  return InvalidInput("the request's body is not valid: " + Printable(why))
      .WithFix("send JSON as /openapi.json describes it");
}

// Gives every field of a patch its lowerCamelCase name, so that it meets the same field of the
// resource.
nlohmann::json CanonicalNames(const nlohmann::json& patch, const Descriptor* type) {
  if (!patch.is_object() || type->full_name() == "google.protobuf.Timestamp") return patch;
  nlohmann::json out = nlohmann::json::object();
  for (const auto& [name, value] : patch.items()) {
    const FieldDescriptor* field = type->FindFieldByName(name);
    if (field == nullptr) field = type->FindFieldByCamelcaseName(name);
    if (field == nullptr) {
      out[name] = value;  // FromJson names it as unknown
      continue;
    }
    const bool merges = field->message_type() != nullptr && !field->is_repeated();
    out[field->json_name()] = merges ? CanonicalNames(value, field->message_type()) : value;
  }
  return out;
}

}  // namespace

Result<std::string> ToJson(const Message& message) {
  std::string out;
  const auto status = google::protobuf::util::MessageToJsonString(message, &out);
  if (!status.ok()) return Internal("cannot write JSON: " + status.ToString());
  return out;
}

Result<void> FromJson(std::string_view json, Message& message) {
  if (NestsTooDeep(json)) return BadBody("nested deeper than " + std::to_string(kDepthLimit));
  const auto status = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(json.data(), json.size()), &message);
  if (!status.ok())
    return BadBody(std::string_view(status.message().data(), status.message().size()));
  return Ok();
}

Result<void> ApplyMergePatch(std::string_view patch, Message& message) {
  if (NestsTooDeep(patch)) return BadBody("nested deeper than " + std::to_string(kDepthLimit));
  const nlohmann::json parsed = nlohmann::json::parse(patch, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return BadBody("a merge patch is a JSON object");
  ASSIGN_OR_RETURN(const std::string current, ToJson(message));
  nlohmann::json merged = nlohmann::json::parse(current, nullptr, false);
  merged.merge_patch(CanonicalNames(parsed, message.GetDescriptor()));
  const std::unique_ptr<Message> fresh(message.New());
  RETURN_IF_ERROR(
      FromJson(merged.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), *fresh));
  message.CopyFrom(*fresh);
  return Ok();
}

}  // namespace vallum::controller

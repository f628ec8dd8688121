// SPDX-License-Identifier: Apache-2.0
#include "controller/openapi.h"

#include <google/protobuf/descriptor.h>

#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/text.h"
#include "controller/rest_context.h"
#include "http/message.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using nlohmann::json;

json Reference(const Descriptor& type) {
  if (type.full_name() == "google.protobuf.Timestamp")
    return {{"type", "string"}, {"format", "date-time"}};
  return {{"$ref", "#/components/schemas/" + type.name()}};
}

// The schema of one value, by the protobuf JSON mapping: 64-bit integers are strings, bytes are
// base64.
json ValueSchema(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_UINT32:
      return {{"type", "integer"}, {"format", "int32"}};
    case FieldDescriptor::CPPTYPE_INT64:
    case FieldDescriptor::CPPTYPE_UINT64:
      return {{"type", "string"}, {"format", "int64"}};
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT:
      return {{"type", "number"}};
    case FieldDescriptor::CPPTYPE_BOOL:
      return {{"type", "boolean"}};
    case FieldDescriptor::CPPTYPE_STRING:
      if (field.type() == FieldDescriptor::TYPE_BYTES)
        return {{"type", "string"}, {"format", "byte"}};
      return {{"type", "string"}};
    case FieldDescriptor::CPPTYPE_ENUM: {
      json names = json::array();
      for (int i = 0; i < field.enum_type()->value_count(); ++i)
        names.push_back(field.enum_type()->value(i)->name());
      return {{"type", "string"}, {"enum", names}};
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return Reference(*field.message_type());
  }
  return {};
}

json FieldSchema(const FieldDescriptor& field) {
  if (field.is_map()) {
    return {{"type", "object"},
            {"additionalProperties", ValueSchema(*field.message_type()->map_value())}};
  }
  if (field.is_repeated()) return {{"type", "array"}, {"items", ValueSchema(field)}};
  return ValueSchema(field);
}

// Adds the schema of a message and of all that it holds.
void AddSchema(const Descriptor& type, json& schemas) {
  if (type.full_name() == "google.protobuf.Timestamp" || schemas.contains(type.name())) return;
  json properties = json::object();
  schemas[type.name()] = json::object();  // ends recursion
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    properties[field.json_name()] = FieldSchema(field);
    const Descriptor* held = field.message_type();
    if (held != nullptr && field.is_map()) held = held->map_value()->message_type();
    if (held != nullptr) AddSchema(*held, schemas);
  }
  schemas[type.name()] = {{"type", "object"}, {"properties", properties}};
}

json ListSchema(const Descriptor& item) {
  return {{"type", "object"},
          {"properties",
           {{"items", {{"type", "array"}, {"items", Reference(item)}}},
            {"nextPage", {{"type", "string"}}},
            {"revision", {{"type", "string"}, {"format", "int64"}}}}}};
}

json Parameters(const ApiRoute& route) {
  json parameters = json::array();
  for (const std::string& part : Split(route.pattern, '/')) {
    if (part.size() < 2 || part.front() != '{') continue;
    parameters.push_back({{"name", part.substr(1, part.size() - 2)},
                          {"in", "path"},
                          {"required", true},
                          {"schema", {{"type", "string"}}}});
  }
  if (route.is_list) {
    for (const char* name : {"limit", "page", "labels", "fields", "watch"}) {
      parameters.push_back({{"name", name}, {"in", "query"}, {"schema", {{"type", "string"}}}});
    }
  }
  const bool writes = route.method == http::Method::kPut || route.method == http::Method::kPatch ||
                      route.method == http::Method::kDelete;
  if (writes)
    parameters.push_back(
        {{"name", "If-Match"}, {"in", "header"}, {"schema", {{"type", "string"}}}});
  return parameters;
}

json Operation(const ApiRoute& route) {
  json reply = {{"description", route.status == 202 ? "Accepted" : "Success"}};
  if (route.reply != nullptr) {
    const json schema = route.is_list ? ListSchema(*route.reply) : Reference(*route.reply);
    reply["content"]["application/json"]["schema"] = schema;
  }
  json problem = {{"description", "Problem (RFC 9457)"}};
  problem["content"]["application/problem+json"]["schema"] = Reference(*v1::Problem::descriptor());
  json operation = {{"summary", route.summary},
                    {"parameters", Parameters(route)},
                    {"responses", {{std::to_string(route.status), reply}, {"default", problem}}}};
  if (route.request != nullptr) {
    operation["requestBody"]["content"]["application/json"]["schema"] = Reference(*route.request);
  }
  return operation;
}

}  // namespace

std::string MakeOpenApi(std::span<const ApiRoute> routes) {
  json schemas = json::object();
  AddSchema(*v1::Problem::descriptor(), schemas);
  json paths = json::object();
  for (const ApiRoute& route : routes) {
    if (route.request != nullptr) AddSchema(*route.request, schemas);
    if (route.reply != nullptr) AddSchema(*route.reply, schemas);
    paths[route.pattern][ToLower(http::MethodName(route.method))] = Operation(route);
  }
  const json document = {
      {"openapi", "3.0.3"},
      {"info", {{"title", "Vallum"}, {"version", "v1"}, {"license", {{"name", "Apache-2.0"}}}}},
      {"paths", paths},
      {"components",
       {{"schemas", schemas},
        {"securitySchemes", {{"bearer", {{"type", "http"}, {"scheme", "bearer"}}}}}}},
      {"security", json::array({{{"bearer", json::array()}}})}};
  return document.dump();
}

}  // namespace vallum::controller

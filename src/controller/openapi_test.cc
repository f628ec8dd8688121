// SPDX-License-Identifier: Apache-2.0
#include "controller/openapi.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "controller/rest_context.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {
namespace {

using nlohmann::json;

json MakeDocument() {
  const std::vector<ApiRoute> routes = {
      {http::Method::kGet, "/v1/instances", "List", nullptr, v1::Instance::descriptor(), 200,
       nullptr, true},
      {http::Method::kPut, "/v1/instances/{name}", "Replace", v1::Instance::descriptor(),
       v1::Instance::descriptor(), 200, nullptr, false},
  };
  return json::parse(MakeOpenApi(routes));
}

// Every "$ref" of a document.
void CollectReferences(const json& value, std::vector<std::string>& out) {
  if (value.is_object() && value.contains("$ref")) out.push_back(value["$ref"]);
  for (const json& item : value) {
    if (item.is_structured()) CollectReferences(item, out);
  }
}

TEST(OpenApi, EveryReferenceResolves) {
  const json document = MakeDocument();
  std::vector<std::string> references;
  CollectReferences(document, references);
  EXPECT_GT(references.size(), 10U);
  for (const std::string& reference : references) {
    EXPECT_TRUE(document.contains(json::json_pointer(reference.substr(1)))) << reference;
  }
}

TEST(OpenApi, SchemasFollowTheProtobufJsonMapping) {
  const json document = MakeDocument();
  const json& spec = document["components"]["schemas"]["InstanceSpec"]["properties"];
  EXPECT_EQ(spec["memoryBytes"]["type"], "string");
  EXPECT_EQ(spec["vcpus"]["type"], "integer");
  EXPECT_EQ(spec["properties"]["additionalProperties"]["type"], "string");
  EXPECT_EQ(spec["power"]["enum"][1], "POWER_RUNNING");
  EXPECT_EQ(
      document["components"]["schemas"]["InstanceStatus"]["properties"]["startedAt"]["format"],
      "date-time");
}

TEST(OpenApi, WritesNameTheirPathParameterAndIfMatch) {
  const json operation = MakeDocument()["paths"]["/v1/instances/{name}"]["put"];
  EXPECT_EQ(operation["parameters"][0]["name"], "name");
  EXPECT_EQ(operation["parameters"][1]["name"], "If-Match");
  EXPECT_TRUE(operation.contains("requestBody"));
}

}  // namespace
}  // namespace vallum::controller

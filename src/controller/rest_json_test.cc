// SPDX-License-Identifier: Apache-2.0
#include "controller/rest_json.h"

#include <gtest/gtest.h>

#include <string>

#include "vallum/v1/resources.pb.h"

namespace vallum::controller {
namespace {

TEST(RestJson, BothSpellingsOfFieldNamesAreRead) {
  v1::Flavor a;
  v1::Flavor b;
  ASSERT_TRUE(FromJson(R"({"spec":{"memoryBytes":"1048576"}})", a).has_value());
  ASSERT_TRUE(FromJson(R"({"spec":{"memory_bytes":1048576}})", b).has_value());
  EXPECT_EQ(a.spec().memory_bytes(), 1048576);
  EXPECT_EQ(b.spec().memory_bytes(), 1048576);
}

TEST(RestJson, UnknownFieldIsRefusedByName) {
  v1::Flavor flavor;
  const Result<void> parsed = FromJson(R"({"spec":{"cpus":1}})", flavor);
  ASSERT_FALSE(parsed.has_value());
  EXPECT_NE(parsed.error().message().find("cpus"), std::string::npos);
}

TEST(RestJson, DeepNestingIsRefusedBeforeItIsParsed) {
  v1::Flavor flavor;
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_FALSE(FromJson(deep, flavor).has_value());
  EXPECT_FALSE(ApplyMergePatch(deep, flavor).has_value());
}

TEST(MergePatch, ReplacesMergesAndClears) {
  v1::Instance instance;
  instance.mutable_spec()->set_vcpus(2);
  instance.mutable_spec()->set_image("a");
  (*instance.mutable_metadata()->mutable_labels())["x"] = "1";
  (*instance.mutable_metadata()->mutable_labels())["my_key"] = "2";
  ASSERT_TRUE(
      ApplyMergePatch(
          R"({"metadata":{"labels":{"x":null,"my_key":"3"}},"spec":{"image":null,"stop_timeout_seconds":9}})",
          instance)
          .has_value());
  EXPECT_EQ(instance.metadata().labels().count("x"), 0U);
  EXPECT_EQ(instance.metadata().labels().at("my_key"), "3");
  EXPECT_EQ(instance.spec().image(), "");
  EXPECT_EQ(instance.spec().vcpus(), 2);
  EXPECT_EQ(instance.spec().stop_timeout_seconds(), 9);
}

TEST(MergePatch, RefusedPatchChangesNothing) {
  v1::Instance instance;
  instance.mutable_spec()->set_vcpus(2);
  EXPECT_FALSE(ApplyMergePatch(R"({"spec":{"vcpus":3,"nope":1}})", instance).has_value());
  EXPECT_FALSE(ApplyMergePatch("[]", instance).has_value());
  EXPECT_FALSE(ApplyMergePatch("{", instance).has_value());
  EXPECT_EQ(instance.spec().vcpus(), 2);
}

}  // namespace
}  // namespace vallum::controller

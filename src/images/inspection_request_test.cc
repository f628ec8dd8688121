// SPDX-License-Identifier: Apache-2.0
#include "images/inspection_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/bytes.h"
#include "firmware/guid.h"

namespace vallum::images {
namespace {

using nlohmann::json;

firmware::KeySet MakeKeySet(const std::string& name) {
  firmware::KeySet keys;
  keys.name = name;
  keys.secure_boot = false;
  keys.dbx = {firmware::MakeSignature(firmware::SignatureType::kSha256,
                                      firmware::kGlobalVariableGuid, Bytes(32, std::byte{7}))};
  keys.sbat_level = "sbat,1,2024010900\n";
  return keys;
}

InspectionRequest MakeRequest() {
  return {.key_sets = {MakeKeySet("one"), MakeKeySet("two")},
          .prediction = PredictionRequest{
              .variables = Bytes(1000, std::byte{9}), .failed_boot_options = 2, .platform = {}}};
}

void ExpectRefused(const json& request) {
  EXPECT_FALSE(RequestFromJson(request.dump()).has_value()) << request.dump();
}

TEST(InspectionRequest, ComesBackAsItWas) {
  const InspectionRequest request = MakeRequest();
  const auto back = RequestFromJson(RequestToJson(request));
  ASSERT_TRUE(back.has_value()) << back.error().Describe();
  EXPECT_EQ(back->key_sets, request.key_sets);
  ASSERT_TRUE(back->prediction.has_value());
  EXPECT_EQ(back->prediction->variables, request.prediction->variables);
  EXPECT_EQ(back->prediction->failed_boot_options, 2U);
}

InspectionRequest MakePlatformRequest() {
  InspectionRequest request = MakeRequest();
  request.prediction->platform = PredictedPlatform{
      .firmware = Bytes(100, std::byte{3}),
      .machine = {.memory = ByteCount::GiB(3),
                  .vcpus = 5,
                  .cpu = {.vendor = "GenuineIntel", .physical_bits = 46, .gigabyte_pages = false},
                  .boot_disk_slot = 7}};
  return request;
}

TEST(InspectionRequest, PlatformComesBackAsItWas) {
  const auto back = RequestFromJson(RequestToJson(MakePlatformRequest()));
  ASSERT_TRUE(back.has_value()) << back.error().Describe();
  ASSERT_TRUE(back->prediction->platform.has_value());
  EXPECT_EQ(back->prediction->platform->firmware, Bytes(100, std::byte{3}));
  const measure::MachineInput& machine = back->prediction->platform->machine;
  EXPECT_EQ(machine.memory, ByteCount::GiB(3));
  EXPECT_EQ(machine.vcpus, 5U);
  EXPECT_EQ(machine.cpu.vendor, "GenuineIntel");
  EXPECT_EQ(machine.cpu.physical_bits, 46);
  EXPECT_FALSE(machine.cpu.gigabyte_pages);
  EXPECT_EQ(machine.boot_disk_slot, 7);
}

TEST(InspectionRequest, PlatformWithAMissingOrImpossibleFieldIsRefused) {
  const json valid = json::parse(RequestToJson(MakePlatformRequest()));
  ASSERT_TRUE(RequestFromJson(valid.dump()).has_value());
  for (const auto& [key, value] : valid["prediction"]["platform"].items()) {
    json request = valid;
    request["prediction"]["platform"].erase(key);
    ExpectRefused(request);
    request["prediction"]["platform"][key] = json::array();
    ExpectRefused(request);
  }
  for (const auto& [key, value] : {std::pair{"addressBits", 300}, {"bootDiskSlot", 32}}) {
    json request = valid;
    request["prediction"]["platform"][key] = value;
    ExpectRefused(request);
  }
}

TEST(InspectionRequest, EmptyOneComesBackEmptyAndNoTextIsOne) {
  for (const std::string& text : {RequestToJson({}), std::string()}) {
    const auto back = RequestFromJson(text);
    ASSERT_TRUE(back.has_value());
    EXPECT_TRUE(back->key_sets.empty());
    EXPECT_FALSE(back->prediction.has_value());
  }
}

TEST(InspectionRequest, NameThatIsNoUtf8DoesNotBreakIt) {
  EXPECT_TRUE(
      RequestFromJson(RequestToJson({.key_sets = {MakeKeySet("\xff\xfe")}, .prediction = {}}))
          .has_value());
}

TEST(InspectionRequest, NonsenseIsRefused) {
  for (const char* text : {"{", "[]", "null", "{}", "\xff", R"({"keySets":{}})",
                           R"({"keySets":[1]})", R"({"keySets":["{}"]})"}) {
    const auto back = RequestFromJson(text);
    ASSERT_FALSE(back.has_value()) << text;
    EXPECT_EQ(back.error().code(), ErrorCode::kInvalidInput);
  }
  EXPECT_FALSE(RequestFromJson(std::string(100000, '[')).has_value());
}

TEST(InspectionRequest, TooManyKeySetsAreRefused) {
  InspectionRequest request;
  request.key_sets.assign(kMaxRequestKeySets, MakeKeySet("x"));
  EXPECT_TRUE(RequestFromJson(RequestToJson(request)).has_value());
  request.key_sets.push_back(MakeKeySet("x"));
  EXPECT_EQ(RequestFromJson(RequestToJson(request)).error().code(), ErrorCode::kExhausted);
}

TEST(InspectionRequest, PredictionWithAMemberMissingOrOfAnotherKindIsRefused) {
  const json valid = json::parse(RequestToJson(MakeRequest()));
  json broken = valid;
  broken["prediction"] = 1;
  ExpectRefused(broken);
  for (const char* member : {"variables", "failedBootOptions"}) {
    broken = valid;
    broken["prediction"].erase(member);
    ExpectRefused(broken);
    broken["prediction"][member] = json::array();
    ExpectRefused(broken);
  }
  broken = valid;
  broken["prediction"]["variables"] = "no base64!";
  ExpectRefused(broken);
  broken = valid;
  broken["prediction"]["failedBootOptions"] = -1;
  ExpectRefused(broken);
}

}  // namespace
}  // namespace vallum::images

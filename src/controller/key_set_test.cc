// SPDX-License-Identifier: Apache-2.0
// Key sets and their versions, and which of them instances get.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "controller/key_set_content.h"
#include "controller/key_set_service.h"
#include "controller/rest_json.h"
#include "controller/rest_rig.h"
#include "firmware/guid.h"
#include "firmware/signature_list.h"

namespace vallum::controller {
namespace {

using ::testing::HasSubstr;
using http::Method;
using nlohmann::json;

// An entry of db or dbx; each number is another one.
firmware::Signature Digest(uint8_t number) {
  return firmware::MakeSignature(firmware::SignatureType::kSha256, firmware::kGlobalVariableGuid,
                                 Bytes(32, std::byte{number}));
}

class KeySetTest : public RestRigTest {
 protected:
  // The rig's certificate as PK, KEK and db, and one digest in dbx.
  firmware::KeySet Keys(const std::string& name, uint8_t revoked = 1) {
    firmware::KeySet keys = rig_.key_sets().front();
    keys.name = name;
    keys.dbx = {Digest(revoked)};
    return keys;
  }
  static json Document(const firmware::KeySet& keys) {
    v1::KeySet key_set;
    key_set.mutable_metadata()->set_name(keys.name);
    *key_set.mutable_spec()->mutable_content() = EncodeContent(keys);
    return json::parse(*ToJson(key_set));
  }
  http::Response Post(const firmware::KeySet& keys) {
    return Admin(Method::kPost, "/v1/keysets", Document(keys).dump());
  }
  http::Response Put(const firmware::KeySet& keys, const std::string& if_match = "") {
    return Admin(Method::kPut, "/v1/keysets/" + keys.name, Document(keys).dump(), if_match);
  }
  json Show(const std::string& name) { return Body(Admin(Method::kGet, "/v1/keysets/" + name)); }
  // Asks for an instance of image debian12; the body of the answer.
  json Ask(const std::string& name, const json& spec) {
    json body = {{"metadata", {{"name", name}}},
                 {"spec", {{"image", "debian12"}, {"flavor", "small"}}}};
    body["spec"].update(spec);
    return Body(Admin(Method::kPost, "/v1/instances", body.dump()));
  }
  std::shared_ptr<const v1::Instance> Instance(const std::string& name) {
    return rig_.controller().view().Get<v1::Instance>(name);
  }
};

const json kSecure = {{"type", "BOOT_TYPE_UEFI"}, {"mode", "BOOT_MODE_SECURE"}};

json Secure(const std::string& key_set, int version = 0) {
  json spec = {{"boot", kSecure}, {"keySet", key_set}};
  if (version != 0) spec["keySetVersion"] = version;
  return spec;
}

// ---- content ----

TEST_F(KeySetTest, ContentComesBackAsItWas) {
  firmware::KeySet keys = Keys("prod");
  keys.mok = keys.db;
  keys.sbat_level = "sbat,1,2024010900\nshim,4\n";
  const auto parsed = ParseContent("prod", EncodeContent(keys));
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(*parsed, keys);
}

TEST_F(KeySetTest, DigestIsOfTheEntriesAlone) {
  firmware::KeySet renamed = Keys("prod");
  renamed.name = "other";
  EXPECT_EQ(ContentSha256(renamed), ContentSha256(Keys("prod")));
  EXPECT_NE(ContentSha256(Keys("prod", 2)), ContentSha256(Keys("prod", 1)));
}

TEST_F(KeySetTest, WhatDoesNotParseIsRefusedAndNamesTheField) {
  json sent = Document(Keys("prod"));
  sent["spec"]["content"]["kek"] = ToBase64(AsBytes("no list"));
  json answer = Body(Admin(Method::kPost, "/v1/keysets", sent.dump()));
  EXPECT_EQ(answer["code"], "invalid_input");
  EXPECT_THAT(answer["detail"], HasSubstr("spec.content.kek"));
  EXPECT_NE(answer["fix"], "");

  firmware::KeySet keys = Keys("prod");
  keys.db = {firmware::MakeSignature(firmware::SignatureType::kX509, firmware::kGlobalVariableGuid,
                                     AsBytes("no certificate"))};
  EXPECT_THAT(Body(Post(keys))["detail"], HasSubstr("spec.content.db"));

  keys = Keys("prod");
  keys.sbat_level = "shim,4\n";
  EXPECT_THAT(Body(Post(keys))["detail"], HasSubstr("sbatLevel"));
}

TEST_F(KeySetTest, MoreThanFitsIntoAVariableStoreIsRefused) {
  firmware::KeySet keys = Keys("prod");
  keys.dbx.assign(4000, Digest(1));
  EXPECT_EQ(Body(Post(keys))["code"], "exhausted");
}

// ---- versions ----

TEST_F(KeySetTest, AnotherContentIsAnotherVersionAndTheOldOneIsKept) {
  ASSERT_EQ(Post(Keys("prod", 1)).status, 201);
  ASSERT_EQ(Put(Keys("prod", 2)).status, 200);
  const json shown = Show("prod");
  EXPECT_EQ(shown["status"]["version"], 2);
  ASSERT_EQ(shown["status"]["versions"].size(), 2U);
  EXPECT_EQ(shown["status"]["versions"][0]["sha256"], ContentSha256(Keys("prod", 1)));
  EXPECT_EQ(shown["status"]["versions"][1]["sha256"], ContentSha256(Keys("prod", 2)));
  EXPECT_NE(shown["status"]["versions"][1]["user"], "");
  // Whole in an answer of its own only.
  EXPECT_FALSE(shown["status"]["versions"][0].contains("content"));
  for (const int version : {1, 2}) {
    const json one =
        Body(Admin(Method::kGet, "/v1/keysets/prod/versions/" + std::to_string(version)));
    EXPECT_EQ(one["content"], Document(Keys("prod", static_cast<uint8_t>(version)))["spec"]["content"]);
  }
  EXPECT_EQ(Admin(Method::kGet, "/v1/keysets/prod/versions/3").status, 404);
}

TEST_F(KeySetTest, SameContentIsNoNewVersion) {
  ASSERT_EQ(Post(Keys("prod")).status, 201);
  ASSERT_EQ(Admin(Method::kPatch, "/v1/keysets/prod", R"({"spec":{"description":"ours"}})").status,
            200);
  EXPECT_EQ(Show("prod")["status"]["version"], 1);
  EXPECT_EQ(Show("prod")["spec"]["description"], "ours");
}

TEST_F(KeySetTest, UpdateFromAnOlderReadIsAConflict) {
  const http::Response created = Post(Keys("prod"));
  ASSERT_EQ(Put(Keys("prod", 2)).status, 200);
  EXPECT_EQ(Put(Keys("prod", 3), *created.headers.Get("etag")).status, 409);
  EXPECT_EQ(Show("prod")["status"]["version"], 2);
}

TEST_F(KeySetTest, OldVersionsThatNothingUsesAreTrimmedAndUsedOnesAreNot) {
  rig_.MakeReadyImage("debian12");
  ASSERT_EQ(Post(Keys("prod", 1)).status, 201);
  ASSERT_EQ(Ask("web1", Secure("prod", 1))["kind"], "instance.create");
  for (int version = 2; version <= kKeptVersions + 5; ++version) {
    ASSERT_EQ(Put(Keys("prod", static_cast<uint8_t>(version))).status, 200);
  }
  const json versions = Show("prod")["status"]["versions"];
  // The one in use, those that are kept, and the newest.
  ASSERT_EQ(versions.size(), static_cast<size_t>(kKeptVersions + 2));
  EXPECT_EQ(versions[0]["version"], 1);
  EXPECT_EQ(versions[1]["version"], 5);
  EXPECT_EQ(versions.back()["version"], kKeptVersions + 5);
}

// ---- built-in sets ----

TEST_F(KeySetTest, BuiltInSetsAreThereAndCannotBeChangedOrDeleted) {
  for (const std::string name : {"none", "microsoft"}) {
    EXPECT_EQ(Show(name)["status"]["builtIn"], true) << name;
    EXPECT_EQ(Put(Keys(name)).status, 409) << name;
    EXPECT_EQ(Admin(Method::kDelete, "/v1/keysets/" + name).status, 409) << name;
  }
  EXPECT_EQ(Body(Post(Keys("debian")))["code"], "invalid_input");
}

TEST_F(KeySetTest, AnotherPackageIsANewVersionAtTheNextStart) {
  rest_.reset();
  rig_.Stop();
  rig_.key_sets() = {Keys("microsoft", 7)};
  rig_.Start();
  auto stored = rig_.controller().view().Get<v1::KeySet>("microsoft");
  EXPECT_EQ(stored->status().version(), 2);
  EXPECT_EQ(stored->status().versions_size(), 2);
  rig_.Stop();
  rig_.Start();
  stored = rig_.controller().view().Get<v1::KeySet>("microsoft");
  EXPECT_EQ(stored->status().version(), 2);
}

// ---- instances ----

TEST_F(KeySetTest, InstanceGetsTheDefaultOfItsModeAndTheNewestVersion) {
  rig_.MakeReadyImage("debian12");
  ASSERT_EQ(Post(Keys("prod", 1)).status, 201);
  ASSERT_EQ(Put(Keys("prod", 2)).status, 200);
  Ask("plain", json::object());
  Ask("secure", {{"boot", kSecure}});
  Ask("own", Secure("prod"));
  Ask("bios", {{"boot", {{"type", "BOOT_TYPE_BIOS"}}}});
  EXPECT_EQ(Instance("plain")->spec().key_set(), "none");
  EXPECT_EQ(Instance("secure")->spec().key_set(), "microsoft");
  EXPECT_EQ(Instance("secure")->spec().key_set_version(), 1);
  EXPECT_EQ(Instance("own")->spec().key_set_version(), 2);
  EXPECT_EQ(Instance("bios")->spec().key_set(), "");
  EXPECT_EQ(Show("prod")["status"]["instances"], 1);
}

TEST_F(KeySetTest, KeySetThatDoesNotGoWithTheModeIsRefusedInWords) {
  rig_.MakeReadyImage("debian12");
  const auto detail = [&](const json& spec) { return Ask("web1", spec).value("detail", ""); };
  EXPECT_THAT(detail(Secure("none")), HasSubstr("no platform key"));
  EXPECT_THAT(detail({{"keySet", "microsoft"}}), HasSubstr("boot.mode=LEGACY"));
  EXPECT_THAT(detail({{"keySet", "none"}, {"boot", {{"type", "BOOT_TYPE_BIOS"}}}}),
              HasSubstr("boot.type=BIOS"));
  EXPECT_THAT(detail(Secure("nobody")), HasSubstr("does not exist"));
  EXPECT_THAT(detail(Secure("microsoft", 9)), HasSubstr("has no version 9"));
}

TEST_F(KeySetTest, TenantTakesItsOwnAndTheOperatorsSetsOnly) {
  rig_.MakeReadyImage("debian12");
  for (const std::string tenant : {"acme", "umbrella"}) {
    json sent = Document(Keys(tenant + "-keys"));
    sent["metadata"]["tenant"] = tenant;
    ASSERT_EQ(Admin(Method::kPost, "/v1/keysets", sent.dump()).status, 201);
  }
  const auto client = ClientFor(v1::ROLE_TENANT, "acme");
  const auto status = [&](const std::string& key_set) {
    json body = {{"metadata", {{"name", "of-" + key_set}}},
                 {"spec", {{"image", "debian12"}, {"flavor", "small"}}}};
    body["spec"].update(Secure(key_set));
    return Send(*client, Method::kPost, "/v1/instances", body.dump()).status;
  };
  EXPECT_EQ(status("acme-keys"), 202);
  EXPECT_EQ(status("microsoft"), 202);
  EXPECT_EQ(status("umbrella-keys"), 404);
  EXPECT_EQ(Send(*client, Method::kGet, "/v1/keysets/umbrella-keys/versions/1").status, 404);
  EXPECT_EQ(Send(*client, Method::kPost, "/v1/keysets", Document(Keys("x")).dump()).status, 403);
}

TEST_F(KeySetTest, KeySetInUseCannotBeDeletedAndAnUnusedOneCan) {
  rig_.MakeReadyImage("debian12");
  ASSERT_EQ(Post(Keys("prod")).status, 201);
  ASSERT_EQ(Post(Keys("spare")).status, 201);
  Ask("web1", Secure("prod"));
  const http::Response refused = Admin(Method::kDelete, "/v1/keysets/prod");
  EXPECT_EQ(refused.status, 409);
  EXPECT_THAT(Body(refused)["detail"], HasSubstr("instance web1"));
  EXPECT_EQ(Admin(Method::kDelete, "/v1/keysets/spare").status, 204);
}

TEST_F(KeySetTest, AgentIsSentTheContentOfTheInstancesVersion) {
  rig_.MakeReadyImage("debian12");
  ASSERT_EQ(Post(Keys("prod", 1)).status, 201);
  ASSERT_EQ(Put(Keys("prod", 2)).status, 200);
  const auto agent = rig_.ConnectedAgent("node1");
  Ask("web1", Secure("prod", 1));
  const std::optional<v1::DesiredInstance> desired = agent->NextInstance();
  ASSERT_TRUE(desired.has_value());
  EXPECT_EQ(desired->key_set_name(), "prod");
  EXPECT_EQ(desired->key_set_version(), 1);
  EXPECT_EQ(*ParseContent("prod", desired->key_set()), Keys("prod", 1));
  Ask("bios", {{"boot", {{"type", "BOOT_TYPE_BIOS"}}}});
  while (true) {
    const std::optional<v1::DesiredInstance> next = agent->NextInstance();
    ASSERT_TRUE(next.has_value());
    if (next->name() != "bios") continue;
    EXPECT_FALSE(next->has_key_set());
    break;
  }
}

}  // namespace
}  // namespace vallum::controller

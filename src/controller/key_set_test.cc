// SPDX-License-Identifier: Apache-2.0
// Key sets and their versions, and which of them instances get.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "controller/instance_keys.h"
#include "controller/key_set_content.h"
#include "controller/key_set_service.h"
#include "controller/loader_signature.h"
#include "controller/rest_json.h"
#include "controller/rest_rig.h"
#include "firmware/guid.h"
#include "firmware/signature_list.h"

namespace vallum::controller {
namespace {

using http::Method;
using nlohmann::json;
using ::testing::HasSubstr;

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
    EXPECT_EQ(one["content"],
              Document(Keys("prod", static_cast<uint8_t>(version)))["spec"]["content"]);
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

// ---- os_secure_boot_signature ----

TEST_F(KeySetTest, SignatureOfTheImageGoesIntoTheDbOfItsInstancesOnly) {
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  const std::string digest(64, 'a');
  json spec = Secure("microsoft");
  spec["properties"] = {{"OS_Secure_Boot_Signature", digest}};
  Ask("web1", spec);
  const std::optional<v1::DesiredInstance> desired = agent->NextInstance();
  ASSERT_TRUE(desired.has_value());
  const auto sent = ParseContent("microsoft", desired->key_set());
  ASSERT_TRUE(sent.has_value()) << sent.error().Describe();
  ASSERT_EQ(sent->db.size(), 2U);
  EXPECT_EQ(ToHex(sent->db.back().data), digest);
  EXPECT_EQ(Instance("web1")->spec().properties().at("os_secure_boot_signature"), digest);
  Ask("web2", Secure("microsoft"));
  EXPECT_EQ(KeysFor(rig_.controller().view(), *Instance("web2"))->db.size(), 1U);
}

TEST_F(KeySetTest, SignatureByTheNameOfAKeySetIsItsDbAsOfNowAndKeepsItsVersion) {
  rig_.MakeReadyImage("debian12");
  firmware::KeySet loaders = Keys("loaders");
  loaders.db = {Digest(9)};
  ASSERT_EQ(Post(loaders).status, 201);
  json spec = Secure("microsoft");
  spec["properties"] = {{"os_secure_boot_signature", "loaders"}};
  Ask("web1", spec);
  for (uint8_t version = 2; version <= kKeptVersions + 5; ++version) {
    loaders.db = {Digest(static_cast<uint8_t>(100 + version))};
    ASSERT_EQ(Put(loaders).status, 200);
  }
  const auto keys = KeysFor(rig_.controller().view(), *Instance("web1"));
  ASSERT_TRUE(keys.has_value()) << keys.error().Describe();
  ASSERT_EQ(keys->db.size(), 2U);
  EXPECT_EQ(keys->db.back(), Digest(9));
  EXPECT_EQ(Admin(Method::kDelete, "/v1/keysets/loaders").status, 409);
}

TEST_F(KeySetTest, SignatureByAVersionThatIsNotThereIsRefused) {
  rig_.MakeReadyImage("debian12");
  ASSERT_EQ(Post(Keys("loaders")).status, 201);
  const auto ask = [&](const std::string& name, const std::string& signature) {
    json spec = Secure("microsoft");
    spec["image"] = "debian12";
    spec["flavor"] = "small";
    spec["properties"] = {{"os_secure_boot_signature", signature}};
    return Admin(Method::kPost, "/v1/instances",
                 json{{"metadata", {{"name", name}}}, {"spec", spec}}.dump());
  };
  EXPECT_EQ(ask("web1", "loaders@999").status, 404);
  EXPECT_EQ(ask("web1", "nobody@1").status, 404);
  EXPECT_EQ(ask("web1", "loaders@1").status, 202);
}

TEST_F(KeySetTest, SignatureSaysNothingWithoutSecureBoot) {
  rig_.MakeReadyImage("debian12");
  Ask("web1", {{"properties", {{"os_secure_boot_signature", std::string(64, 'a')}}}});
  EXPECT_TRUE(Instance("web1")->spec().properties().empty());
  EXPECT_THAT(Instance("web1")->status().boot().requested().warnings(0),
              HasSubstr("without Secure Boot"));
}

TEST(LoaderSignature, ValuesThatAreNoneAreRefused) {
  const std::vector<std::string> values = {
      "", "My Keys", "prod@", "prod@0", "prod@x", "!", ToBase64(AsBytes(std::string(80, 'x')))};
  for (const std::string& value : values) {
    const auto parsed = ParseLoaderSignature(value);
    ASSERT_FALSE(parsed.has_value()) << value;
    EXPECT_NE(parsed.error().fix(), "") << value;
  }
  EXPECT_EQ(ParseLoaderSignature("prod@3")->version, 3);
  EXPECT_EQ(ParseLoaderSignature(std::string(64, 'F'))->list,
            firmware::EncodeSignatureList(firmware::MakeSignature(
                firmware::SignatureType::kSha256, firmware::Guid{}, Bytes(32, std::byte{0xff}))));
}

// ---- changes ----

// Says no under keys that have this digest in dbx.
Preflight RefusesWith(uint8_t number) {
  return [=](const v1::Image& /*image*/, const firmware::KeySet& keys) {
    const bool no = std::ranges::count(keys.dbx, Digest(number)) > 0;
    return Result<PreflightVerdict>(
        PreflightVerdict{.starts = !no, .reason = no ? "its shim is in dbx" : ""});
  };
}

class ChangeTest : public KeySetTest {
 protected:
  ChangeTest() {
    rig_.MakeReadyImage("debian12");
    EXPECT_EQ(Post(Keys("prod", 1)).status, 201);
    EXPECT_EQ(Put(Keys("prod", 2)).status, 200);
  }
  static v1::Instance Web1(const json& spec) {
    v1::Instance instance;
    json body = {{"metadata", {{"name", "web1"}}},
                 {"spec", {{"image", "debian12"}, {"flavor", "small"}}}};
    body["spec"].update(spec);
    EXPECT_TRUE(FromJson(body.dump(), instance).has_value());
    return instance;
  }
  void Make(const json& spec) {
    const auto made = rig_.controller().instances().Create(Web1(spec), kTester, RefusesWith(2));
    ASSERT_TRUE(made.has_value()) << made.error().Describe();
  }
  // Asks for web1 while the image is changed, by another, each time that it has been looked at.
  //   changes: how often.
  Result<InstanceService::Accepted> MakeWhileItsImageChanges(int changes) {
    const Preflight changing = [this, changes](const v1::Image& image, const firmware::KeySet&) {
      if (looked_++ < changes) {
        const auto stored = rig_.controller().resources().Modify<v1::Image>(
            image.metadata().name(), [this](v1::Image& current) -> Result<ResourceStore::Change> {
              current.mutable_spec()->set_description(std::to_string(looked_));
              return ResourceStore::Change::kWrite;
            });
        EXPECT_TRUE(stored.has_value());
      }
      return Result<PreflightVerdict>(PreflightVerdict{});
    };
    return rig_.controller().instances().Create(Web1(Secure("prod")), kTester, changing);
  }
  Result<v1::Instance> Change(const std::function<void(v1::InstanceSpec&)>& change,
                              Unbootable unbootable = Unbootable::kRefuse) {
    v1::Instance wanted = *Instance("web1");
    change(*wanted.mutable_spec());
    return rig_.controller().instances().Update(wanted, 0, RefusesWith(2), unbootable);
  }
  Result<v1::Instance> SetKeys(const std::string& name, int32_t version,
                               Unbootable unbootable = Unbootable::kRefuse) {
    return Change(
        [&](v1::InstanceSpec& spec) {
          spec.set_key_set(name);
          spec.set_key_set_version(version);
        },
        unbootable);
  }
  // As an instance that was stopped, or that runs.
  void SetPhase(v1::InstancePhase phase, const std::string& host = "") {
    const auto stored = rig_.controller().resources().Modify<v1::Instance>(
        "web1", [&](v1::Instance& instance) -> Result<ResourceStore::Change> {
          instance.mutable_status()->set_phase(phase);
          instance.mutable_status()->set_host(host);
          instance.mutable_spec()->set_power(phase == v1::INSTANCE_STOPPED ? v1::POWER_STOPPED
                                                                           : v1::POWER_RUNNING);
          return ResourceStore::Change::kWrite;
        });
    ASSERT_TRUE(stored.has_value());
    ASSERT_TRUE(rig_.controller().view().WaitFor(stored->metadata().revision()).has_value());
  }
  Result<v1::Instance> SetMode(v1::BootMode mode) {
    return Change([&](v1::InstanceSpec& spec) { spec.mutable_boot()->set_mode(mode); });
  }
  int looked_ = 0;
};

TEST_F(ChangeTest, InstanceWhoseImageChangesMeanwhileIsDecidedAnew) {
  const auto made = MakeWhileItsImageChanges(2);
  ASSERT_TRUE(made.has_value()) << made.error().Describe();
  EXPECT_EQ(looked_, 3);
  EXPECT_NE(Instance("web1"), nullptr);
}

TEST_F(ChangeTest, InstanceWhoseImageNeverStaysTheSameIsRefusedInTheEnd) {
  const auto made = MakeWhileItsImageChanges(1000);
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code(), ErrorCode::kConflict);
  EXPECT_EQ(Instance("web1"), nullptr);
}

TEST_F(ChangeTest, ChangeWhoseKeySetChangesMeanwhileIsDecidedAnew) {
  Make(Secure("prod", 1));
  v1::Instance wanted = *Instance("web1");
  wanted.mutable_spec()->set_key_set_version(2);
  int looked = 0;
  const Preflight changing = [&](const v1::Image&, const firmware::KeySet&) {
    if (looked++ == 0) {
      EXPECT_EQ(Put(Keys("prod", 3)).status, 200);
    }
    return Result<PreflightVerdict>(PreflightVerdict{});
  };
  const auto changed =
      rig_.controller().instances().Update(wanted, 0, changing, Unbootable::kRefuse);
  ASSERT_TRUE(changed.has_value()) << changed.error().Describe();
  EXPECT_EQ(looked, 2);
  EXPECT_EQ(changed->spec().key_set_version(), 2);
}

TEST_F(ChangeTest, WarningAtCreationIsOfTheInstancesOwnKeys) {
  Make(Secure("prod", 2));
  const auto& warnings = Instance("web1")->status().boot().requested().warnings();
  ASSERT_EQ(warnings.size(), 1);
  EXPECT_THAT(warnings[0], HasSubstr("under key set prod: its shim is in dbx"));
}

TEST_F(ChangeTest, KeysUnderWhichTheImageWouldNotStartAreRefusedUnlessForced) {
  Make(Secure("prod", 1));
  const auto refused = SetKeys("prod", 2);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), ErrorCode::kConflict);
  EXPECT_THAT(refused.error().message(), HasSubstr("its shim is in dbx"));
  EXPECT_EQ(Instance("web1")->spec().key_set_version(), 1);

  const auto forced = SetKeys("prod", 2, Unbootable::kWarn);
  ASSERT_TRUE(forced.has_value()) << forced.error().Describe();
  EXPECT_EQ(forced->spec().key_set_version(), 2);
  EXPECT_EQ(forced->status().boot().requested().warnings_size(), 1);
  EXPECT_GT(forced->metadata().generation(), 1);

  // Back: nothing is to be warned of any more.
  const auto back = SetKeys("prod", 1);
  ASSERT_TRUE(back.has_value()) << back.error().Describe();
  EXPECT_EQ(back->status().boot().requested().warnings_size(), 0);
}

TEST_F(ChangeTest, AnotherKeySetIsANewUseOfIt) {
  Make(Secure("microsoft"));
  ASSERT_TRUE(SetKeys("prod", 1).has_value());
  EXPECT_EQ(Admin(Method::kDelete, "/v1/keysets/prod").status, 409);
  EXPECT_EQ(SetKeys("prod", 9).error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(SetKeys("none", 0).error().code(), ErrorCode::kInvalidInput);
}

TEST_F(ChangeTest, PatchWithoutAVersionIsTheNewest) {
  Make(Secure("microsoft"));
  const http::Response answer =
      Admin(Method::kPatch, "/v1/instances/web1?force=true", R"({"spec":{"keySet":"prod"}})");
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(Body(answer)["spec"]["keySetVersion"], 2);
  // The image of this test has no content: what cannot be judged needs force.
  EXPECT_EQ(
      Admin(Method::kPatch, "/v1/instances/web1", R"({"spec":{"keySet":"prod","keySetVersion":1}})")
          .status,
      409);
}

TEST_F(ChangeTest, ModeOfAStoppedInstanceChangesWithItsDefaultKeys) {
  Make(Secure("prod", 1));
  SetPhase(v1::INSTANCE_STOPPED);
  const auto legacy = SetMode(v1::BOOT_MODE_LEGACY);
  ASSERT_TRUE(legacy.has_value()) << legacy.error().Describe();
  EXPECT_EQ(legacy->spec().key_set(), "none");
  EXPECT_EQ(legacy->status().boot().requested().mode(), v1::BOOT_MODE_LEGACY);
  const auto secure = SetMode(v1::BOOT_MODE_SECURE);
  ASSERT_TRUE(secure.has_value()) << secure.error().Describe();
  EXPECT_EQ(secure->spec().key_set(), "microsoft");
  EXPECT_EQ(secure->status().boot().requested().mode(), v1::BOOT_MODE_SECURE);
}

TEST_F(ChangeTest, AliasesOfTheCreationDoNotHoldTheModeBack) {
  json spec = {{"properties", {{"bootmode", "SECURE"}, {"boottype", "UEFI"}}}};
  Make(spec);
  SetPhase(v1::INSTANCE_STOPPED);
  const auto legacy = SetMode(v1::BOOT_MODE_LEGACY);
  ASSERT_TRUE(legacy.has_value()) << legacy.error().Describe();
  EXPECT_TRUE(legacy->spec().properties().empty());
}

TEST_F(ChangeTest, ModeOfARunningInstanceDoesNotChange) {
  Make(Secure("prod", 1));
  SetPhase(v1::INSTANCE_RUNNING);
  EXPECT_EQ(SetMode(v1::BOOT_MODE_LEGACY).error().code(), ErrorCode::kConflict);
}

TEST_F(ChangeTest, RequirementOfTheImageStillWins) {
  rig_.MakeReadyImage("strict", "required");
  Make({{"image", "strict"}});
  SetPhase(v1::INSTANCE_STOPPED);
  const auto refused = SetMode(v1::BOOT_MODE_LEGACY);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(), HasSubstr("os_secure_boot=required"));
}

TEST_F(ChangeTest, HostThatCannotDoItIsNamed) {
  const auto agent = rig_.NewAgent("plain");
  ASSERT_TRUE(agent->Enroll(rig_.JoinSecret("plain")).ok());
  v1::Hello hello = FakeAgent::MakeHello();
  hello.mutable_capabilities()->clear_traits();
  ASSERT_TRUE(agent->Connect(hello).has_value());
  Make(json::object());
  SetPhase(v1::INSTANCE_STOPPED, "plain");
  const auto refused = SetMode(v1::BOOT_MODE_SECURE);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(), HasSubstr("host plain"));
}

}  // namespace
}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/bytes.h"
#include "cli/cli_rig.h"
#include "cli/key_set_files.h"
#include "firmware/signature_list.h"
#include "http/testing.h"
#include "images/installed_key_sets.h"

namespace vallum::cli {
namespace {

using http::Method;
using http::Request;
using http::Response;
using testing::HasSubstr;

// A certificate that is nobody's.
std::string TestCertificate() {
  static const std::string kPem = [] {
    const http::TestServer server{http::Router{}};
    return server.ca_pem();
  }();
  return kPem;
}

TEST_F(CliTest, KeySetIsMadeFromFilesAndDigests) {
  http::Router router;
  router.Add(Method::kPost, "/v1/keysets", Canned(201, {{"metadata", {{"name", "prod"}}}}));
  Serve(std::move(router));
  Write("pk.pem", TestCertificate(), 0644);
  Write("level.csv", "sbat,1,2024010900\nshim,4\n", 0644);
  const std::string digest(64, 'a');
  ASSERT_EQ(Vallum({"keyset", "create", "prod", "--pk", Path("pk.pem"), "--kek", Path("pk.pem"),
                    "--db", Path("pk.pem"), "--db-hash", digest, "--db-hash", digest,
                    "--sbat-level", Path("level.csv")}),
            0)
      << err_.str();
  const auto keys = KeysOfContent(At(LastBody(), "spec.content"), "prod");
  ASSERT_TRUE(keys.has_value()) << keys.error().Describe();
  EXPECT_EQ(keys->pk.size(), 1U);
  EXPECT_EQ(keys->kek, keys->pk);
  // The same digest twice is one entry.
  ASSERT_EQ(keys->db.size(), 2U);
  EXPECT_EQ(ToHex(keys->db.back().data), digest);
  EXPECT_EQ(keys->sbat_level, "sbat,1,2024010900\nshim,4\n");
}

TEST_F(CliTest, KeySetFileThatHoldsNoKeysIsRefused) {
  Serve({});
  Write("text", "nothing", 0644);
  EXPECT_EQ(Vallum({"keyset", "create", "prod", "--db", Path("text")}), 2);
  EXPECT_THAT(err_.str(), HasSubstr(Path("text")));
  EXPECT_EQ(Vallum({"keyset", "create", "prod", "--db-hash", "abc"}), 2);
  EXPECT_EQ(Vallum({"keyset", "create", "prod", "--clear", "all"}), 2);
}

TEST_F(CliTest, UpdateAddsToWhatIsThereAndClearsOnlyWhatItIsTold) {
  const std::string old(64, 'a');
  const std::string added(64, 'b');
  Write("pk.pem", TestCertificate(), 0644);
  firmware::KeySet keys;
  KeySetFiles files;
  files.pk = Path("pk.pem");
  files.db = {Path("pk.pem")};
  files.dbx_hashes = {old};
  ASSERT_TRUE(AddFiles(files, keys).has_value());
  http::Router router;
  router.Add(Method::kGet, "/v1/keysets/{name}",
             Canned(200, {{"spec", {{"content", ContentOf(keys)}}}, {"status", {{"version", 1}}}}));
  router.Add(Method::kPatch, "/v1/keysets/{name}", Canned(200, {{"status", {{"version", 2}}}}));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"keyset", "update", "prod", "--dbx-hash", added, "--clear", "db"}), 0)
      << err_.str();
  const Json content = At(LastBody(), "spec.content");
  // A merge patch removes what is null.
  EXPECT_TRUE(content["db"].is_null());
  Json sent = content;
  for (auto member = sent.begin(); member != sent.end();) {
    member = member->is_null() ? sent.erase(member) : std::next(member);
  }
  const auto changed = KeysOfContent(sent, "prod");
  ASSERT_TRUE(changed.has_value());
  EXPECT_EQ(changed->pk, keys.pk);
  ASSERT_EQ(changed->dbx.size(), 2U);
  EXPECT_EQ(ToHex(changed->dbx.back().data), added);
  EXPECT_THAT(out_.str(), HasSubstr("has version 2"));
}

TEST_F(CliTest, VersionOfAKeySetIsAskedForByNumber) {
  Write("pk.pem", TestCertificate(), 0644);
  firmware::KeySet keys;
  KeySetFiles files;
  files.pk = Path("pk.pem");
  ASSERT_TRUE(AddFiles(files, keys).has_value());
  http::Router router;
  router.Add(Method::kGet, "/v1/keysets/prod/versions/3",
             Canned(200, {{"content", ContentOf(keys)}}));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"keyset", "export", "prod@3", "-o", Path("out")}), 0) << err_.str();
  EXPECT_EQ(*tls::ReadSmallFile(Path("out/PK.esl")), firmware::EncodeSignatureLists(keys.pk));
  EXPECT_FALSE(std::filesystem::exists(Path("out/db.esl")));
  ASSERT_EQ(Vallum({"keyset", "export", "prod@3", "--format", "store", "-o", Path("vars.fd")}), 0);
  const auto back = images::ReadKeySetFile(Path("vars.fd"));
  ASSERT_TRUE(back.has_value()) << back.error().Describe();
  EXPECT_EQ(back->pk, keys.pk);
  EXPECT_EQ(Vallum({"keyset", "export", "prod@x", "-o", Path("out")}), 2);
}

TEST_F(CliTest, KeySetsAreComparedAndJudgedWithoutAServer) {
  Write("pk.pem", TestCertificate(), 0644);
  firmware::KeySet keys;
  KeySetFiles files;
  files.pk = Path("pk.pem");
  files.kek = files.db = {Path("pk.pem")};
  ASSERT_TRUE(AddFiles(files, keys).has_value());
  Write("a.json", firmware::ToJson(keys), 0644);
  files.dbx_hashes = {std::string(64, 'c')};
  ASSERT_TRUE(AddFiles(files, keys).has_value());
  Write("b.json", firmware::ToJson(keys), 0644);
  ASSERT_EQ(Vallum({"keyset", "diff", Path("a.json"), Path("b.json")}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("dbx\n  + "));
  EXPECT_THAT(out_.str(), HasSubstr(std::string(64, 'c')));
  ASSERT_EQ(Vallum({"keyset", "diff", Path("a.json"), Path("a.json")}), 0);
  EXPECT_EQ(out_.str(), "the same keys\n");
  // No platform key: firmware verifies nothing.
  keys.pk.clear();
  keys.secure_boot = false;
  Write("c.json", firmware::ToJson(keys), 0644);
  EXPECT_EQ(Vallum({"keyset", "verify", Path("c.json")}), 2);
  EXPECT_THAT(out_.str(), HasSubstr("error"));
}

TEST_F(CliTest, InstanceIsMadeWithAVersionOfAKeySet) {
  http::Router router;
  router.Add(Method::kPost, "/v1/instances", Canned(202, {{"metadata", {{"name", "op"}}}}));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"instance", "create", "web1", "--image", "i", "--flavor", "small", "--key-set",
                    "prod@2"}),
            0);
  EXPECT_EQ(TextAt(LastBody(), "spec.keySet"), "prod");
  EXPECT_EQ(NumberAt(LastBody(), "spec.keySetVersion"), 2);
}

TEST_F(CliTest, OtherKeysSayFromWhenOn) {
  http::Router router;
  router.Add(
      Method::kPatch, "/v1/instances/{name}",
      Canned(
          200,
          {{"metadata", {{"name", "web1"}}},
           {"spec",
            {{"keySet", "prod"}, {"keySetVersion", 3}, {"boot", {{"mode", "BOOT_MODE_SECURE"}}}}},
           {"status",
            {{"phase", "INSTANCE_RUNNING"},
             {"boot", {{"requested", {{"warnings", {"will not start"}}}}}}}}}));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"instance", "set-keyset", "web1", "prod", "--force"}), 0) << err_.str();
  EXPECT_EQ(last_.Query("force"), "true");
  EXPECT_EQ(TextAt(LastBody(), "spec.keySet"), "prod");
  EXPECT_EQ(NumberAt(LastBody(), "spec.keySetVersion"), 0);
  EXPECT_THAT(out_.str(), HasSubstr("warning: will not start"));
  EXPECT_THAT(out_.str(), HasSubstr("next reboot"));
  ASSERT_EQ(Vallum({"instance", "set-boot", "web1", "secure"}), 0);
  EXPECT_EQ(TextAt(LastBody(), "spec.boot.mode"), "BOOT_MODE_SECURE");
  EXPECT_EQ(Vallum({"instance", "set-boot", "web1", "fast"}), 2);
}

TEST_F(CliTest, RolloutThatWasTakenBackIsAnErrorForWhoWaits) {
  const auto rollout = [](const std::string& state) {
    return Json{{"metadata", {{"name", "up"}}},
                {"spec", {{"keySet", "prod"}, {"version", 2}}},
                {"status", {{"state", state}, {"reason", "instance web1: its boot is DIVERGED"}}}};
  };
  http::Router router;
  router.Add(Method::kPost, "/v1/rollouts", Canned(201, rollout("ROLLOUT_CANARY")));
  router.Add(Method::kGet, "/v1/rollouts/up", [&](const Request&) {
    return Response::Json(200, rollout("ROLLOUT_RETURNED").dump());
  });
  Serve(std::move(router));
  EXPECT_EQ(Vallum({"keyset", "rollout", "prod@2", "--instances", "web1,web2", "--wait"}), 4);
  EXPECT_EQ(LastBody()["spec"]["instances"], Json({"web1", "web2"}));
  EXPECT_THAT(err_.str(), HasSubstr("DIVERGED"));
  EXPECT_EQ(Vallum({"keyset", "rollout", "prod", "--dry-run"}), 0);
  EXPECT_EQ(last_.Query("dryRun"), "true");
}

}  // namespace
}  // namespace vallum::cli

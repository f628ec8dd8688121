// SPDX-License-Identifier: Apache-2.0
// Commands of trusted pools.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/units.h"
#include "cli/cli_rig.h"
#include "cli/commands.h"
#include "formats/ovf_writer.h"
#include "formats/tar_writer.h"
#include "tls/file.h"

namespace vallum::cli {
namespace {

using http::Method;
using http::Request;
using http::Response;
using testing::HasSubstr;
using testing::Not;
using CliTrustTest = CliTest;

const std::string kPolicies = "/v1/attestationpolicies";

std::string Golden(char digit) {
  return "name = \"gold\"\nversion = 1\n[pcr.14]\nrule = \"golden\"\nvalues = [ { sha256 = \"" +
         std::string(64, digit) + "\" } ]\n";
}

Json Policy(int active, int newest) {
  Json versions = Json::array();
  for (int version = 1; version <= newest; ++version) {
    versions.push_back({{"version", version},
                        {"state", version == active ? "POLICY_ACTIVE" : "POLICY_DRAFT"},
                        {"sha256", std::string(64, 'a')}});
  }
  return {{"metadata", {{"name", "gold"}}},
          {"spec", {{"document", Golden('a')}}},
          {"status", {{"activeVersion", active}, {"versions", versions}}}};
}

Json UntrustedHost() {
  return {{"metadata", {{"name", "node7"}}},
          {"status",
           {{"identity",
             {{"ekSha256", std::string(64, 'e')},
              {"ekType", "ecc-p256"},
              {"manufacturer", "IBM"},
              {"emulated", true},
              {"acceptedBy", "certified by TPM authority lab"}}},
            {"trust",
             {{"level", "TRUST_UNTRUSTED"},
              {"detail", "policy gold version 3 does not accept it"},
              {"policy", "gold"},
              {"policyVersion", 3},
              {"reasons",
               {{{"id", "argument-forbidden"},
                 {"pcr", 8},
                 {"event", 41},
                 {"decoded", "linux /vmlinuz init=/bin/sh"},
                 {"expected", "no init="},
                 {"actual", "init=/bin/sh"},
                 {"fix", "boot it without init="}}}}}}}}};
}

// ---- policies ----

TEST_F(CliTrustTest, PolicyIsCreatedFromAFileAndSaysWhatComesNext) {
  Write("gold.toml", Golden('a'), 0644);
  http::Router router;
  router.Add(Method::kPost, kPolicies, Canned(201, Policy(0, 1)));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"policy", "create", "gold", "--file", Path("gold.toml")}), 0) << err_.str();
  EXPECT_EQ(LastBody()["spec"]["document"], Golden('a'));
  EXPECT_THAT(out_.str(), HasSubstr("vallum policy activate gold"));
}

TEST_F(CliTrustTest, PolicyWithAMistakeIsNotSent) {
  Write("gold.toml", "name = \"gold\"\nversion = 1\n[pcr.14]\nrule = \"goldn\"\n", 0644);
  Serve({});
  EXPECT_EQ(Vallum({"policy", "create", "gold", "--file", Path("gold.toml")}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("line 4"));
}

TEST_F(CliTrustTest, UpdateSaysThatTheActiveVersionStillCounts) {
  Write("gold.toml", Golden('b'), 0644);
  http::Router router;
  router.Add(Method::kGet, kPolicies + "/{name}", Canned(200, Policy(1, 1)));
  router.Add(Method::kPatch, kPolicies + "/{name}", Canned(200, Policy(1, 2)));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"policy", "update", "gold", "--file", Path("gold.toml")}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("has version 2, a draft"));
}

TEST_F(CliTrustTest, ShowListsVersionsAndPools) {
  http::Router router;
  router.Add(Method::kGet, kPolicies + "/{name}", Canned(200, Policy(2, 3)));
  router.Add(Method::kGet, "/v1/pools",
             Canned(200, {{"items", {{{"metadata", {{"name", "vaults"}}}}}}}));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"policy", "show", "gold"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("2  active"));
  EXPECT_THAT(out_.str(), HasSubstr("vaults  not trusted yet"));
}

TEST_F(CliTrustTest, RetireNeedsAVersion) {
  Serve({});
  EXPECT_EQ(Vallum({"policy", "retire", "gold"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("--version"));
}

TEST_F(CliTrustTest, TestTellsByItsExitCodeThatAHostWouldFallOut) {
  http::Router router;
  const Json reply = {
      {"hosts",
       {{{"host", "node7"},
         {"now", "TRUST_TRUSTED"},
         {"then", "TRUST_UNTRUSTED"},
         {"reasons", {{{"id", "pcr-value"}, {"pcr", 14}, {"decoded", "shim's list"}}}}}}},
      {"wouldFallOut", 1}};
  router.Add(Method::kPost, kPolicies + "/{name}/test", Canned(200, reply));
  Serve(std::move(router));
  EXPECT_EQ(Vallum({"policy", "test", "gold", "--version", "3"}), 10) << err_.str();
  EXPECT_EQ(LastBody()["version"], 3);
  EXPECT_THAT(out_.str(), HasSubstr("pcr-value PCR 14: shim's list"));
  EXPECT_THAT(out_.str(), HasSubstr("1 hosts: 1 would fall out, 0 would come in"));
}

TEST_F(CliTrustTest, TestOfAFileAndAVersionAtOnceIsRefused) {
  Write("gold.toml", Golden('a'), 0644);
  Serve({});
  EXPECT_EQ(Vallum({"policy", "test", "gold", "--file", Path("gold.toml"), "--version", "3"}), 2);
}

TEST_F(CliTrustTest, LearnedPolicyIsCreatedWithItsAllowList) {
  http::Router router;
  router.Add(Method::kPost, "/v1/hosts/{name}/learn",
             Canned(200, {{"document", Golden('a')},
                          {"imaList", std::string(64, 'a') + "  /bin/sh\n"},
                          {"allowList", "gold-files"}}));
  router.Add(Method::kPost, "/v1/allowlists", Canned(201, Json::object()));
  std::string uploaded;
  router.Add(Method::kPut, "/v1/allowlists/{name}/content", [&](const Request& request) {
    const std::lock_guard lock(mutex_);
    uploaded = *request.Param("name") + ": " + request.body;
    return Response::Json(200, R"({"status":{"paths":"1"}})");
  });
  router.Add(Method::kPost, kPolicies, Canned(201, Policy(0, 1)));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"policy", "learn", "--from", "node7", "--create", "gold"}), 0) << err_.str();
  EXPECT_THAT(uploaded, HasSubstr("gold-files: aaaa"));
  EXPECT_EQ(LastBody()["spec"]["document"], Golden('a'));
  EXPECT_THAT(out_.str(), HasSubstr("before you activate it"));
}

TEST_F(CliTrustTest, LearnedPolicyIsWrittenWithItsAllowListBesideIt) {
  http::Router router;
  router.Add(Method::kPost, "/v1/hosts/{name}/learn",
             Canned(200, {{"document", Golden('a')}, {"imaList", "list\n"}}));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"policy", "learn", "--from", "node7", "--out", Path("gold.toml")}), 0)
      << err_.str();
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("gold.toml"))), Golden('a'));
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("gold.toml.files"))), "list\n");
}

TEST_F(CliTrustTest, DiffShowsRulesNotHowTheyAreWritten) {
  Write("a.toml", "description = \"one\"\n" + Golden('a'), 0644);
  Write("b.toml", "# a remark\n" + Golden('a'), 0644);
  Write("c.toml", Golden('b'), 0644);
  Serve({});
  ASSERT_EQ(Vallum({"policy", "diff", Path("a.toml"), Path("b.toml")}), 0) << err_.str();
  EXPECT_EQ(out_.str(), "the same rules\n");
  ASSERT_EQ(Vallum({"policy", "diff", Path("a.toml"), Path("c.toml")}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("[pcr.14]"));
  EXPECT_THAT(out_.str(), HasSubstr("+ "));
  EXPECT_THAT(out_.str(), HasSubstr(std::string(64, 'b')));
}

// ---- hosts ----

TEST_F(CliTrustTest, ExplainShowsTpmLevelAndEachReasonWithItsFix) {
  http::Router router;
  router.Add(Method::kGet, "/v1/hosts/{name}", Canned(200, UntrustedHost()));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"host", "show", "node7", "--explain"}), 0) << err_.str();
  for (const char* text : {"EMULATED", "certified by TPM authority lab", "untrusted",
                           "argument-forbidden, PCR 8, event 41", "linux /vmlinuz init=/bin/sh",
                           "no init=", "boot it without init="}) {
    EXPECT_THAT(out_.str(), HasSubstr(text));
  }
}

TEST_F(CliTrustTest, ExplainShowsTheTpmThatWaitsAndHowToApproveIt) {
  Json host = UntrustedHost();
  host["status"]["pendingIdentity"] = {{"ekSha256", std::string(64, '5')},
                                       {"detail", "its TPM has no endorsement certificate"}};
  http::Router router;
  router.Add(Method::kGet, "/v1/hosts/{name}", Canned(200, host));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"host", "show", "node7", "--explain"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("vallum host approve node7 --ek 5555555555555555"));
}

TEST_F(CliTrustTest, HostListShowsTrust) {
  http::Router router;
  router.Add(Method::kGet, "/v1/hosts", Canned(200, {{"items", {UntrustedHost()}}}));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"host", "list"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("TRUST"));
  EXPECT_THAT(out_.str(), HasSubstr("untrusted"));
}

TEST_F(CliTrustTest, ApproveNamesTheKeyThatWasSeen) {
  http::Router router;
  router.Add(Method::kPost, "/v1/hosts/{name}/approve", Canned(200, UntrustedHost()));
  Serve(std::move(router));
  EXPECT_EQ(Vallum({"host", "approve", "node7"}), 2);
  ASSERT_EQ(Vallum({"host", "approve", "node7", "--ek", "eeeeeeeeeeeeeeee"}), 0) << err_.str();
  EXPECT_EQ(LastBody()["ekSha256"], "eeeeeeeeeeeeeeee");
}

TEST_F(CliTrustTest, AttestWaitsForAVerdictAndTellsItByItsExitCode) {
  http::Router router;
  router.Add(Method::kPost, "/v1/hosts/{name}/attest",
             Canned(200, {{"metadata", {{"name", "node7"}}}}));
  router.Add(Method::kGet, "/v1/hosts/{name}", Canned(200, UntrustedHost()));
  Serve(std::move(router));
  EXPECT_EQ(Vallum({"host", "attest", "node7"}), 0) << err_.str();
  EXPECT_EQ(Vallum({"host", "attest", "node7", "--wait"}), 10) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("argument-forbidden"));
}

TEST_F(CliTrustTest, EvidenceIsWrittenAsItCame) {
  http::Router router;
  router.Add(Method::kGet, "/v1/hosts/{name}/evidence", [this](const Request& request) {
    const std::lock_guard lock(mutex_);
    last_ = request;
    return Response::Text(200, std::string("\0bundle", 7));
  });
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"host", "evidence", "node7", "--out", Path("e"), "--kind", "last"}), 0)
      << err_.str();
  EXPECT_EQ(last_.Query("kind"), "last");
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("e"))), std::string_view("\0bundle", 7));
}

// ---- pools, authorities, allow lists ----

TEST_F(CliTrustTest, PoolOptionsOfTrustBecomeItsSpec) {
  http::Router router;
  router.Add(Method::kPatch, "/v1/pools/{name}", Canned(200, Json::object()));
  Serve(std::move(router));
  ASSERT_EQ(
      Vallum({"pool", "update", "gold", "--trusted", "true", "--attestation-policy", "gold",
              "--on-untrusted", "report", "--lease-seconds", "900", "--attest-interval", "300",
              "--stale-grace", "0", "--unknown-grace", "3600", "--memory-overcommit", "1.5"}),
      0)
      << err_.str();
  const Json spec = LastBody()["spec"];
  EXPECT_EQ(spec, Json::parse(R"({"attestationPolicy":"gold","onUntrusted":"ON_UNTRUSTED_REPORT",
                                  "leaseSeconds":900,"attestIntervalSeconds":300,
                                  "staleGraceSeconds":0,"unknownGraceSeconds":3600,
                                  "trustedService":true,"memoryOvercommit":1.5})"));
  EXPECT_EQ(Vallum({"pool", "update", "gold", "--on-untrusted", "panic"}), 2);
}

// An OVA of a trusted machine, with nothing on its disk.
std::string TrustedOva() {
  const std::string disk(1024, '\0');
  formats::OvfExport machine;
  machine.name = "web1";
  machine.trusted_service = true;
  machine.memory = ByteCount::MiB(512).bytes();
  machine.disk = {.id = {}, .href = "web1-disk.qcow2", .size = disk.size(), .compression = {}};
  machine.disk_capacity = disk.size();
  const std::string ovf = formats::WriteOvf(machine).value();
  const std::string manifest = "SHA256(web1.ovf)= " + ToHex(Sha256(AsBytes(ovf))) +
                               "\nSHA256(web1-disk.qcow2)= " + ToHex(Sha256(AsBytes(disk))) + "\n";
  std::string archive;
  for (const auto& [name, content] : {std::pair("web1.ovf", ovf), std::pair("web1.mf", manifest),
                                      std::pair("web1-disk.qcow2", disk)}) {
    archive += AsText(formats::MakeTarHeader(name, content.size()).value());
    archive += content;
    archive.append(formats::TarPadding(content.size()), '\0');
  }
  archive.append(formats::kTarEnd, '\0');
  return archive;
}

TEST_F(CliTrustTest, OvaOfATrustedMachineIsNotImportedIntoAPoolThatIsNotTrusted) {
  Write("web1.ova", TrustedOva(), 0644);
  http::Router router;
  router.Add(Method::kGet, "/v1/pools/{name}", Canned(200, {{"metadata", {{"name", "plain"}}}}));
  Serve(std::move(router));
  EXPECT_EQ(Vallum({"instance", "import", Path("web1.ova"), "web9", "--pool", "plain"}), 4);
  EXPECT_THAT(err_.str(), HasSubstr("of a trusted machine (TrustedService), and pool plain is not "
                                    "trusted"));
  EXPECT_THAT(err_.str(), HasSubstr("--allow-untrusted"));
  // Nothing was sent.
  EXPECT_EQ(last_.path, "/v1/pools/plain");
  // Whoever answers for it gets further: there are no images at this server.
  EXPECT_NE(Vallum({"instance", "import", Path("web1.ova"), "web9", "--pool", "plain",
                    "--allow-untrusted"}),
            0);
  EXPECT_THAT(err_.str(), Not(HasSubstr("of a trusted machine")));
}

TEST_F(CliTrustTest, AllowUntrustedIsSaidToTheServer) {
  http::Router router;
  router.Add(Method::kPatch, "/v1/pools/{name}", Canned(200, Json::object()));
  router.Add(Method::kPatch, "/v1/hosts/{name}", Canned(200, Json::object()));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"pool", "update", "gold", "--trusted", "false"}), 0) << err_.str();
  EXPECT_FALSE(last_.Query("allowUntrusted").has_value());
  ASSERT_EQ(Vallum({"pool", "update", "gold", "--trusted", "false", "--allow-untrusted"}), 0);
  EXPECT_EQ(last_.Query("allowUntrusted"), "true");
  ASSERT_EQ(Vallum({"host", "move", "node7", "--pool", "default", "--allow-untrusted"}), 0);
  EXPECT_EQ(last_.Query("allowUntrusted"), "true");
  EXPECT_EQ(LastBody()["spec"]["pool"], "default");
}

TEST_F(CliTrustTest, TpmAuthorityIsMadeOfAFileAndShowsWhatItIs) {
  Write("roots.pem", "-----BEGIN CERTIFICATE-----", 0644);
  http::Router router;
  Json sent;
  router.Add(Method::kPost, "/v1/tpmauthorities", [&](const Request& request) {
    const std::lock_guard lock(mutex_);
    sent = Json::parse(request.body);
    return Response::Json(201, "{}");
  });
  router.Add(Method::kGet, "/v1/tpmauthorities/{name}/certificates",
             Canned(200, {{"certificates", {{{"subject", "CN=lab"}}}},
                          {"unreadable", {"certificate 2: no DER"}}}));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"tpmauthority", "create", "lab", "--file", Path("roots.pem"), "--emulated"}), 0)
      << err_.str();
  EXPECT_EQ(sent["spec"]["emulated"], true);
  EXPECT_EQ(sent["spec"]["certificatesPem"], "-----BEGIN CERTIFICATE-----");
  EXPECT_THAT(out_.str(), HasSubstr("CN=lab"));
  EXPECT_THAT(out_.str(), HasSubstr("certificate 2: no DER"));
}

TEST_F(CliTrustTest, AllowListIsUploadedAndItsDigestIsSaid) {
  Write("files", std::string(64, 'a') + "  /bin/sh\n", 0644);
  http::Router router;
  router.Add(Method::kPost, "/v1/allowlists", Canned(201, Json::object()));
  router.Add(Method::kPut, "/v1/allowlists/{name}/content",
             Canned(200, {{"status", {{"sha256", "d1"}, {"paths", "1"}}}}));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"allowlist", "import", Path("files"), "--name", "debian"}), 0) << err_.str();
  EXPECT_EQ(last_.body, std::string(64, 'a') + "  /bin/sh\n");
  EXPECT_THAT(out_.str(), HasSubstr("allow-list-sha256 = \"d1\""));
}

TEST_F(CliTrustTest, AllowListThatIsRefusedLeavesNothingBehind) {
  Write("files", "no list\n", 0644);
  http::Router router;
  bool deleted = false;
  router.Add(Method::kPost, "/v1/allowlists", Canned(201, Json::object()));
  router.Add(Method::kPut, "/v1/allowlists/{name}/content",
             Canned(400, {{"status", 400}, {"code", "invalid_input"}, {"detail", "no list"}}));
  router.Add(Method::kDelete, "/v1/allowlists/{name}", [&](const Request&) {
    const std::lock_guard lock(mutex_);
    deleted = true;
    return Response::Json(200, "{}");
  });
  Serve(std::move(router));
  EXPECT_EQ(Vallum({"allowlist", "import", Path("files"), "--name", "debian"}), 2);
  EXPECT_TRUE(deleted);
}

}  // namespace
}  // namespace vallum::cli

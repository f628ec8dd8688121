// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <future>
#include <mutex>
#include <sstream>
#include <thread>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/text.h"
#include "cli/cli_rig.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "cli/key_set_files.h"
#include "firmware/signature_list.h"
#include "http/testing.h"
#include "images/installed_key_sets.h"
#include "tls/file.h"

namespace vallum::cli {
namespace {

using http::Method;
using http::Request;
using http::Response;
using testing::HasSubstr;

// ---- rendering ----

const WallTime kNow = std::chrono::system_clock::from_time_t(1'800'000'000);

TEST(Age, IsShortAndReadsBothWays) {
  EXPECT_EQ(FriendlyAge("2027-01-15T07:59:48Z", kNow), "12s ago");
  EXPECT_EQ(FriendlyAge("2027-01-15T07:57:00.123Z", kNow), "3m ago");
  EXPECT_EQ(FriendlyAge("2027-01-13T08:00:00Z", kNow), "2d ago");
  EXPECT_EQ(FriendlyAge("2027-01-15T09:00:00Z", kNow), "in 1h");
  EXPECT_EQ(FriendlyAge("soon", kNow), "soon");
}

TEST(Enum, LosesItsPrefix) {
  EXPECT_EQ(FriendlyEnum("INSTANCE_RUNNING"), "running");
  EXPECT_EQ(FriendlyEnum("BOOT_MODE_SECURE"), "secure");
  EXPECT_EQ(FriendlyEnum("BOOT_VERIFIED"), "verified");
  EXPECT_EQ(FriendlyEnum("ROLLOUT_DONE"), "done");
  EXPECT_EQ(FriendlyEnum("SNAPSHOT_READY"), "ready");
  EXPECT_EQ(FriendlyEnum("TRUST_STALE"), "stale");
  EXPECT_EQ(FriendlyEnum("HOST_STATE_UNSPECIFIED"), "-");
  EXPECT_EQ(FriendlyEnum(""), "-");
}

const std::vector<Column> kColumns = {{"NAME", "name"},
                                      {"SIZE", "size", Style::kBytes},
                                      {"N", "n", Style::kNumber},
                                      {"OK", "ok", Style::kBool},
                                      {"MORE", "more", Style::kText, true}};

std::string RenderAs(OutputFormat format, const Json& item) {
  return Render(format, kColumns, {item}, Json{{"items", {item}}}, kNow);
}

TEST(Render, TableAlignsAndShowsDefaults) {
  EXPECT_EQ(RenderAs(OutputFormat::kTable, {{"name", "a-long-name"}, {"size", "1048576"}}),
            "NAME         SIZE   N  OK\n"
            "a-long-name  1 MiB  0  no\n");
}

TEST(Render, WideAddsColumns) {
  EXPECT_THAT(RenderAs(OutputFormat::kWide, {{"name", "a"}, {"more", "x"}}), HasSubstr("MORE"));
}

TEST(Render, TerminalSequencesOfOthersAreMadePrintable) {
  const std::string table = RenderAs(OutputFormat::kTable, {{"name", "a\x1b[2Jb\nc"}});
  EXPECT_EQ(table.find('\x1b'), std::string::npos);
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 2);
}

TEST(Render, CsvQuotesAndKeepsRawValues) {
  EXPECT_EQ(RenderAs(OutputFormat::kCsv,
                     {{"name", "a,\"b\""}, {"size", "1024"}, {"ok", true}, {"more", "x"}}),
            "NAME,SIZE,N,OK,MORE\r\n\"a,\"\"b\"\"\",1024,0,true,x\r\n");
}

TEST(Render, CsvIsSafeForTerminalsAndSpreadsheets) {
  const auto cell = [](const std::string& text) {
    const std::string csv =
        Render(OutputFormat::kCsv, {{"NAME", "name"}}, {Json{{"name", text}}}, {}, kNow);
    return csv.substr(std::string_view("NAME\r\n").size());
  };
  EXPECT_EQ(cell("a\x1b[2Jb\nc"), "a\\x1b[2Jb\\x0ac\r\n");
  for (const std::string start : {"=", "+", "-", "@"}) {
    EXPECT_EQ(cell(start + "1"), "'" + start + "1\r\n");
  }
  EXPECT_EQ(cell("\t=1"), "'\\x09=1\r\n");
  EXPECT_EQ(cell("=f(\"a\",b)"), "\"'=f(\"\"a\"\",b)\"\r\n");
  EXPECT_EQ(cell("a=1"), "a=1\r\n");
  const std::string text(5000, 'x');  // never cut: programs read this
  EXPECT_EQ(cell(text), text + "\r\n");
}

TEST(Render, YamlKeepsTextThatLooksLikeOtherThings) {
  EXPECT_EQ(ToYaml({{"a", "no"}, {"b", 3}, {"c", {"x"}}}), "a: \"no\"\nb: 3\nc:\n  - \"x\"\n");
}

TEST(Render, JsonIsTheServersDocument) {
  EXPECT_EQ(Json::parse(RenderAs(OutputFormat::kJson, {{"name", "a"}}))["items"][0]["name"], "a");
}

// ---- contexts ----

TEST_F(CliTest, TokenIsKeptApartFromTheContextAndForItsOwnerOnly) {
  Serve({});
  struct stat info = {};
  ASSERT_EQ(::stat(Path("config/test.token").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("config/config.toml"))).find("s3cret"),
            std::string::npos);
}

TEST_F(CliTest, TokenFileOthersCanReadIsRefused) {
  Serve({});
  Write("open", "s3cret", 0644);
  EXPECT_EQ(Vallum({"pool", "list", "--token-file", Path("open")}), 5);
  EXPECT_THAT(err_.str(), HasSubstr("fix: chmod 600"));
}

TEST_F(CliTest, ContextsAreListedChosenAndRemoved) {
  Serve({});
  EXPECT_EQ(Vallum({"context", "add", "other", "--server", "https://h:1", "--ca", Path("ca.pem")}),
            0);
  EXPECT_EQ(Vallum({"context", "use", "other"}), 0);
  EXPECT_EQ(Vallum({"context", "list", "-o", "csv"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("other,https://h:1,true"));
  EXPECT_EQ(Vallum({"context", "remove", "test"}), 0);
  EXPECT_FALSE(std::filesystem::exists(Path("config/test.token")));
  EXPECT_EQ(Vallum({"context", "use", "test"}), 3);
}

TEST_F(CliTest, DamagedConfigurationNamesTheLine) {
  std::filesystem::create_directory(Path("config"));
  Write("config/config.toml", "current = 'a'\n[[[", 0600);
  EXPECT_EQ(Vallum({"context", "list"}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("line 2"));
}

// ---- arguments and exit codes ----

TEST_F(CliTest, ArgumentErrorsAreBadInput) {
  EXPECT_EQ(Vallum({}), 2);
  EXPECT_EQ(Vallum({"nonsense"}), 2);
  EXPECT_EQ(Vallum({"instance", "create", "web1"}), 2);
  EXPECT_EQ(Vallum({"pool", "list", "-o", "xml"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("fix: use -o table"));
  EXPECT_EQ(Vallum({"pool", "list"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("vallum context add"));
}

TEST_F(CliTest, ServersRefusalsBecomeExitCodes) {
  http::Router router;
  router.Add(Method::kGet, "/v1/pools/{name}", [](const Request& request) {
    const std::string name = *request.Param("name");
    if (name == "conflict") return http::ProblemResponse(Conflict("x").WithFix("do\x1b[2J y"));
    if (name == "denied") return http::ProblemResponse(401, Denied("x"));
    if (name == "busy") return http::ProblemResponse(Unavailable("x"));
    if (name == "broken") return http::ProblemResponse(Internal("x"));
    return http::ProblemResponse(NotFound("x"));
  });
  Serve(std::move(router));
  EXPECT_EQ(Vallum({"pool", "show", "missing"}), 3);
  EXPECT_EQ(Vallum({"pool", "show", "conflict"}), 4);
  EXPECT_THAT(err_.str(), HasSubstr("error: x\nfix: do\\x1b"));
  EXPECT_EQ(Vallum({"pool", "show", "denied"}), 5);
  EXPECT_EQ(Vallum({"pool", "show", "busy"}), 6);
  EXPECT_EQ(Vallum({"pool", "show", "broken"}), 1);
}

TEST_F(CliTest, UnreachableControllerIsUnavailable) {
  Serve({});
  server_->server().Stop(std::chrono::milliseconds(0));
  EXPECT_EQ(Vallum({"pool", "list"}), 6);
}

// ---- resources ----

TEST_F(CliTest, ListReadsAllPagesWithTheToken) {
  http::Router router;
  router.Add(Method::kGet, "/v1/instances", [this](const Request& request) {
    last_ = request;
    const bool second = request.Query("page") == "p/2";
    Json answer = {{"items",
                    {{{"metadata", {{"name", second ? "b" : "a"}}},
                      {"status", {{"phase", "INSTANCE_RUNNING"}}}}}}};
    if (!second) answer["nextPage"] = "p/2";
    return Response::Json(200, answer.dump());
  });
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"instance", "list", "--labels", "a=b,c=d"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("a     running"));
  EXPECT_THAT(out_.str(), HasSubstr("b     running"));
  EXPECT_EQ(last_.headers.Get("Authorization"), "Bearer s3cret");
  EXPECT_EQ(last_.Query("labels"), "a=b,c=d");
}

// What changed while the pages were read is told by a watch from there.
TEST_F(CliTest, RevisionOfAListIsThatOfItsFirstPage) {
  http::Router router;
  router.Add(Method::kGet, "/v1/instances", [](const Request& request) {
    const bool second = request.Query("page") == "2";
    Json answer = {{"items", Json::array()}, {"revision", second ? "9" : "7"}};
    if (!second) answer["nextPage"] = "2";
    return Response::Json(200, answer.dump());
  });
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"instance", "list", "-o", "json"}), 0) << err_.str();
  EXPECT_EQ(Json::parse(out_.str())["revision"], "7");
}

TEST_F(CliTest, SetSendsAMergePatchOfLabels) {
  http::Router router;
  router.Add(Method::kPatch, "/v1/pools/{name}", Canned(200, Json::object()));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"pool", "set", "gold", "tier=1", "old-"}), 0) << err_.str();
  EXPECT_EQ(last_.body, R"({"metadata":{"labels":{"tier":"1","old":null}}})");
  EXPECT_EQ(last_.headers.Get("Content-Type"), "application/merge-patch+json");
}

TEST_F(CliTest, InstanceCreateSendsWhatWasAskedAndWaits) {
  http::Router router;
  const Json operation = {{"metadata", {{"name", "op1"}}}, {"kind", "instance.create"}};
  Json done = operation;
  done["state"] = "OPERATION_DONE";
  Json running = operation;
  running["state"] = "OPERATION_RUNNING";
  router.Add(Method::kPost, "/v1/instances", Canned(202, running));
  router.Add(Method::kGet, "/v1/operations/{name}",
             [done](const Request&) { return Response::Json(200, done.dump()); });
  Serve(std::move(router));
  Write("user-data", "#cloud-config\n", 0644);
  ASSERT_EQ(Vallum({"instance", "create", "web1", "--image", "debian", "--flavor", "small",
                    "--boot-type", "UEFI", "--boot-mode", "secure", "--secure-boot", "required",
                    "--network", "bridge=br0", "--user-data", Path("user-data"), "--wait"}),
            0)
      << err_.str();
  const Json body = LastBody();
  EXPECT_EQ(TextAt(body, "metadata.name"), "web1");
  EXPECT_EQ(TextAt(body, "spec.boot.type"), "BOOT_TYPE_UEFI");
  EXPECT_EQ(TextAt(body, "spec.boot.mode"), "BOOT_MODE_SECURE");
  EXPECT_EQ(TextAt(body, "spec.properties.os_secure_boot"), "required");
  EXPECT_EQ(TextAt(body["spec"]["networks"][0], "bridge"), "br0");
  EXPECT_EQ(TextAt(body, "spec.seed.userData"), "#cloud-config\n");
  EXPECT_EQ(out_.str(), "create instance web1: done\n");
}

TEST_F(CliTest, FailedOperationIsItsError) {
  http::Router router;
  router.Add(Method::kPost, "/v1/instances/{name}/start",
             Canned(202, {{"metadata", {{"name", "op1"}}},
                          {"state", "OPERATION_FAILED"},
                          {"error", {{"code", "denied"}, {"detail", "no"}, {"fix", "do this"}}}}));
  Serve(std::move(router));
  EXPECT_EQ(Vallum({"instance", "start", "web1", "--wait"}), 5);
  EXPECT_EQ(err_.str(), "error: no\nfix: do this\n");
}

// ---- waiting ----

Json Measured(const std::string& verdict, const Json& reasons) {
  return {{"metadata", {{"name", "web1"}}},
          {"status",
           {{"phase", "INSTANCE_RUNNING"},
            {"boot", {{"measured", {{"verdict", verdict}, {"reasons", reasons}}}}}}}};
}

Json InPhase(const std::string& phase) {
  return {{"metadata", {{"name", "web1"}}},
          {"status",
           {{"phase", phase},
            {"reason", "qemu did not\x1b start"},
            {"lastExit", "exit status 1"},
            {"fix", "look at the log"}}}};
}

class WaitTest : public CliTest {
 protected:
  // Answers with these one after the other; the last one stays.
  void ServeInstance(std::vector<Json> answers) {
    http::Router router;
    router.Add(Method::kGet, "/v1/instances/{name}",
               [this, answers = std::move(answers)](const Request&) {
                 const std::lock_guard lock(mutex_);
                 return Response::Json(200, answers[std::min(asked_++, answers.size() - 1)].dump());
               });
    Serve(std::move(router));
  }
  size_t asked_ = 0;
};

TEST_F(WaitTest, VerifiedBootIsSuccess) {
  ServeInstance(
      {InPhase("INSTANCE_STARTING"), Measured("BOOT_PENDING", {}), Measured("BOOT_VERIFIED", {})});
  ASSERT_EQ(Vallum({"instance", "wait", "web1", "--for", "boot-verdict"}), 0) << err_.str();
  EXPECT_EQ(out_.str(), "instance web1 is verified\n");
  EXPECT_EQ(asked_, 3U);
}

TEST_F(WaitTest, EveryOtherVerdictIsAnErrorWithItsReasons) {
  for (const std::string verdict : {"REFUSED", "DIVERGED", "UNMEASURED"}) {
    ServeInstance({Measured("BOOT_" + verdict, {"db lacks the key", "shim\x1b[2J said no"})});
    EXPECT_EQ(Vallum({"instance", "wait", "web1", "--for", "boot-verdict"}), 1);
    EXPECT_EQ(out_.str(), "");
    EXPECT_THAT(err_.str(), HasSubstr("the boot of instance web1 is " + ToLower(verdict) +
                                      "; db lacks the key; shim\\x1b[2J said no\n"));
  }
}

TEST_F(WaitTest, EndOfTheInstanceEndsEveryWaitForAnother) {
  for (const std::string wanted : {"running", "stopped", "boot-verdict"}) {
    ServeInstance({InPhase("INSTANCE_FAILED")});
    EXPECT_EQ(Vallum({"instance", "wait", "web1", "--for", wanted}), 1) << wanted;
    EXPECT_THAT(err_.str(), HasSubstr("instance web1 is failed, not "));
    EXPECT_THAT(err_.str(), HasSubstr("qemu did not\\x1b start (exit status 1)\n"));
    EXPECT_THAT(err_.str(), HasSubstr("fix: look at the log\n"));
  }
}

TEST_F(WaitTest, PhaseThatWasWaitedForIsSuccess) {
  ServeInstance({InPhase("INSTANCE_STARTING"), InPhase("INSTANCE_RUNNING")});
  ASSERT_EQ(Vallum({"instance", "wait", "web1"}), 0) << err_.str();
  EXPECT_EQ(out_.str(), "instance web1 is running\n");
  ServeInstance({InPhase("INSTANCE_STOPPED")});
  EXPECT_EQ(Vallum({"instance", "wait", "web1", "--for", "stopped"}), 0) << err_.str();
  EXPECT_EQ(Vallum({"instance", "wait", "web1", "--for", "running"}), 1);
}

TEST_F(WaitTest, UnknownConditionIsBadInputAndNothingIsAsked) {
  ServeInstance({InPhase("INSTANCE_RUNNING")});
  EXPECT_EQ(Vallum({"instance", "wait", "web1", "--for", "coffee"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("fix: use running, stopped or boot-verdict"));
  EXPECT_EQ(asked_, 0U);
}

TEST_F(CliTest, PrivateSshKeyIsRefusedBeforeAnythingIsSent) {
  Serve({});
  Write("id", "-----BEGIN OPENSSH PRIVATE KEY-----\n", 0600);
  EXPECT_EQ(
      Vallum({"instance", "create", "a", "--image", "i", "--flavor", "f", "--ssh-key", Path("id")}),
      2);
  EXPECT_THAT(err_.str(), HasSubstr("id.pub"));
}

TEST(Describe, InstanceShowsRequestedEffectiveAndMeasured) {
  const Json instance = {
      {"metadata", {{"name", "web1"}}},
      {"status",
       {{"phase", "INSTANCE_RUNNING"},
        {"boot",
         {{"requested", {{"type", "BOOT_TYPE_UEFI"}, {"mode", "BOOT_MODE_SECURE"}}},
          {"effective", {{"firmware", "/x.fd"}, {"smm", true}}},
          {"measured", {{"verdict", "BOOT_DIVERGED"}, {"reasons", {"PCR 7 differs\x1b[2J"}}}}}}}}};
  const std::string text = DescribeInstance(instance, kNow);
  EXPECT_THAT(text, HasSubstr("uefi/secure"));
  EXPECT_THAT(text, HasSubstr("smm           on"));
  EXPECT_THAT(text, HasSubstr("diverged"));
  EXPECT_THAT(text, HasSubstr("PCR 7 differs\\x1b"));
}

// ---- boots ----

Json Stage(const std::string& name, bool expected) {
  return {{"name", name}, {"detail", "\\x.efi"},          {"time", "2027-01-15T08:00:01.250Z"},
          {"pcr", 4},     {"digest", "0123456789abcdef"}, {"asExpected", expected}};
}

Json Boot(const std::string& verdict, std::vector<Json> stages, int resets = 1) {
  return {{"metadata", {{"name", "web1"}, {"generation", "1"}}},
          {"status",
           {{"phase", "INSTANCE_RUNNING"},
            {"observedGeneration", "1"},
            {"boot",
             {{"measured", {{"verdict", verdict}, {"stages", stages}, {"tpmResets", resets}}}}}}}};
}

class WatchBootTest : public CliTest {
 protected:
  // A list with the first, then the others as changes.
  void ServeBoot(std::vector<Json> seen) {
    http::Router router;
    router.Add(
        Method::kGet, "/v1/instances", [this, seen = std::move(seen)](const Request& request) {
          const std::lock_guard lock(mutex_);
          last_ = request;
          if (!request.Query("watch").has_value()) {
            const Json items = seen.empty() ? Json::array() : Json::array({seen.front()});
            return Response::Json(200, Json{{"items", items}, {"revision", "7"}}.dump());
          }
          return Response::Events([seen](const std::shared_ptr<http::EventStream>& stream) {
            stream->Send({.id = "8", .event = "delete", .data = "{}"});
            for (size_t i = 1; i < seen.size(); ++i) {
              stream->Send({.id = std::to_string(8 + i), .event = "put", .data = seen[i].dump()});
            }
          });
        });
    Serve(std::move(router));
  }
};

TEST_F(WatchBootTest, StagesArriveOnceEachUntilTheVerdict) {
  const Json firmware = Stage("firmware", true);
  const Json grub = Stage("grub", false);
  ServeBoot({Boot("BOOT_PENDING", {}), Boot("BOOT_PENDING", {firmware}),
             Boot("BOOT_PENDING", {firmware, grub}), Boot("BOOT_VERIFIED", {firmware, grub})});
  ASSERT_EQ(Vallum({"instance", "watch-boot", "web1"}), 0) << err_.str();
  EXPECT_EQ(out_.str(),
            "08:00:01.250  firmware          as expected      PCR 4 0123456789ab...  \\x.efi\n"
            "08:00:01.250  grub              NOT as expected  PCR 4 0123456789ab...  \\x.efi\n"
            "verdict: verified\n");
  EXPECT_EQ(last_.Query("watch"), "7");
  EXPECT_EQ(last_.Query("fields"), "metadata.name=web1");
}

TEST_F(WatchBootTest, AnotherBootBeginsAnew) {
  const Json firmware = Stage("firmware", true);
  ServeBoot({Boot("BOOT_PENDING", {firmware}), Boot("BOOT_PENDING", {firmware}, 2),
             Boot("BOOT_VERIFIED", {firmware}, 2)});
  ASSERT_EQ(Vallum({"instance", "watch-boot", "web1"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("-- another boot begins --"));
}

TEST_F(WatchBootTest, EachVerdictOfABootThatIsOverHasItsStatus) {
  const std::vector<std::pair<std::string, int>> statuses = {
      {"VERIFIED", 0}, {"DIVERGED", 10}, {"REFUSED", 11}, {"UNMEASURED", 12}};
  for (const auto& [verdict, status] : statuses) {
    ServeBoot({Boot("BOOT_" + verdict, {})});
    EXPECT_EQ(Vallum({"instance", "watch-boot", "web1"}), status);
    EXPECT_THAT(out_.str(), HasSubstr("verdict: " + ToLower(verdict)));
  }
}

TEST_F(WatchBootTest, VerdictOfTheBootBeforeARebootIsNotTheEnd) {
  Json asked = Boot("BOOT_VERIFIED", {});
  asked["spec"]["rebootCount"] = "1";
  Json done = Boot("BOOT_DIVERGED", {}, 2);
  done["spec"]["rebootCount"] = "1";
  done["status"]["observedRebootCount"] = "1";
  ServeBoot({asked, done});
  EXPECT_EQ(Vallum({"instance", "watch-boot", "web1"}), 10);
}

TEST_F(WatchBootTest, InstanceThatEndedWithoutAVerdictIsSaid) {
  Json ended = Boot("BOOT_PENDING", {});
  ended["status"]["phase"] = "INSTANCE_CRASHED";
  ended["status"]["reason"] = "qemu\x1b died";
  ServeBoot({ended});
  EXPECT_EQ(Vallum({"instance", "watch-boot", "web1"}), 13);
  EXPECT_THAT(out_.str(), HasSubstr("no verdict: the instance is crashed: qemu\\x1b died"));
}

TEST_F(WatchBootTest, UnknownInstanceIsNotFound) {
  ServeBoot({});
  EXPECT_EQ(Vallum({"instance", "watch-boot", "web1"}), 3);
}

const Json kDiff = {{"changes",
                     {{{"words", "PCR 9, extend 1: expected a, measured b"}},
                      {{"words", "changed: table"}, {"accepted", true}}}},
                    {"eventsSha256", "feed"}};

TEST_F(CliTest, BaselineDiffTellsByItsStatus) {
  http::Router router;
  router.Add(Method::kGet, "/v1/instances/{name}/baseline/diff", [](const Request& request) {
    return Response::Json(200, *request.Param("name") == "good" ? "{}" : kDiff.dump());
  });
  Serve(std::move(router));
  EXPECT_EQ(Vallum({"instance", "baseline", "diff", "good"}), 0);
  EXPECT_EQ(Vallum({"instance", "baseline", "diff", "web1"}), 10);
  EXPECT_THAT(out_.str(), HasSubstr("  differs   PCR 9, extend 1: expected a, measured b\n"));
  EXPECT_THAT(out_.str(), HasSubstr("  accepted  changed: table\n"));
}

TEST_F(CliTest, BaselineAcceptNamesTheBootThatItShowed) {
  http::Router router;
  router.Add(Method::kGet, "/v1/instances/{name}/baseline/diff",
             [](const Request&) { return Response::Json(200, kDiff.dump()); });
  router.Add(Method::kPost, "/v1/instances/{name}/baseline/accept", Canned(200, Json::object()));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"instance", "baseline", "accept", "web1"}), 0) << err_.str();
  EXPECT_EQ(LastBody(), (Json{{"eventsSha256", "feed"}}));
  EXPECT_THAT(out_.str(), HasSubstr("PCR 9, extend 1"));
}

TEST_F(CliTest, BaselineIsShownPinnedAndUnpinned) {
  http::Router router;
  router.Add(Method::kGet, "/v1/instances/{name}/baseline",
             Canned(200, {{"spec",
                           {{"origin", "accepted by alice"},
                            {"pinned", true},
                            {"events", {{{"pcr", 9}, {"digest", "/w=="}, {"what", "file"}}}}}}}));
  router.Add(Method::kPost, "/v1/instances/{name}/baseline/pin", Canned(200, Json::object()));
  router.Add(Method::kPost, "/v1/instances/{name}/baseline/unpin", Canned(200, Json::object()));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"instance", "baseline", "show", "web1"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("accepted by alice"));
  EXPECT_THAT(out_.str(), HasSubstr(", pinned\n"));
  EXPECT_THAT(out_.str(), HasSubstr("9    ff      file"));
  EXPECT_EQ(Vallum({"instance", "baseline", "pin", "web1"}), 0);
  EXPECT_EQ(Vallum({"instance", "baseline", "unpin", "web1"}), 0);
}

TEST_F(CliTest, PoolUpdateSendsOnlyWhatWasSaid) {
  http::Router router;
  router.Add(Method::kPatch, "/v1/pools/{name}", Canned(200, Json::object()));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"pool", "update", "gold", "--on-diverged", "isolate", "--accept-signed-updates",
                    "false"}),
            0)
      << err_.str();
  EXPECT_EQ(last_.body,
            R"({"spec":{"onDiverged":"ON_DIVERGED_ISOLATE","acceptSignedUpdates":false}})");
  EXPECT_EQ(Vallum({"pool", "update", "gold"}), 2);
  EXPECT_EQ(Vallum({"pool", "update", "gold", "--on-diverged", "explode"}), 2);
  EXPECT_EQ(Vallum({"pool", "update", "gold", "--accept-signed-updates", "maybe"}), 2);
}

TEST(Describe, VerdictShowsHalvesFirstDifferenceAndAcceptedChanges) {
  const std::string text = DescribeVerdict({{"early", "BOOT_VERIFIED"},
                                            {"late", "BOOT_DIVERGED"},
                                            {"firstDifference",
                                             {{"pcr", 9},
                                              {"event", 1},
                                              {"expected", "0123456789abcdef"},
                                              {"expectedWhat", "file /grub.cfg"},
                                              {"expectedFrom", "baseline"}}},
                                            {"acceptedChanges", {"changed: table\x1b"}},
                                            {"reasons", {"because"}}});
  EXPECT_EQ(text,
            "  early         verified\n"
            "  late          diverged\n"
            "  differs at    PCR 9, extend 1\n"
            "  expected      file /grub.cfg (0123456789ab...), by baseline\n"
            "  measured      nothing\n"
            "  accepted      changed: table\\x1b\n"
            "  reason        because\n");
}

// ---- images, tokens, console ----

class Count final : public http::UploadSink {
 public:
  explicit Count(std::string* out) : out_(out) {}
  Result<void> Write(ByteView chunk) override {
    out_->append(AsText(chunk));
    return Ok();
  }
  Response Finish() override {
    return Response::Json(200, R"({"status":{"state":"IMAGE_READY","facts":["one fact"]}})");
  }

 private:
  std::string* out_;
};

TEST_F(CliTest, ImportGoesOnWhereAnEarlierOneBrokeOff) {
  std::string received;
  std::string offset;
  http::Router router;
  router.Add(Method::kPost, "/v1/images",
             [](const Request&) { return http::ProblemResponse(Conflict("exists")); });
  router.Add(Method::kGet, "/v1/images/{name}",
             Canned(200, {{"spec", {{"expectedSizeBytes", "10"}}},
                          {"status", {{"state", "IMAGE_PENDING"}, {"receivedBytes", "4"}}}}));
  router.AddUpload(
      Method::kPut, "/v1/images/{name}/content",
      [&](const Request& request) -> std::variant<Response, std::unique_ptr<http::UploadSink>> {
        offset = *request.Query("offset") + "/" + *request.Query("total");
        return std::make_unique<Count>(&received);
      });
  Serve(std::move(router));
  Write("a.qcow2", "0123456789", 0644);
  ASSERT_EQ(Vallum({"image", "import", Path("a.qcow2"), "--name", "a", "--disk-format", "qcow2",
                    "--wait"}),
            0)
      << err_.str();
  EXPECT_EQ(received, "456789");
  EXPECT_EQ(offset, "4/10");
  EXPECT_EQ(out_.str(), "image a imported: ready\n  one fact\n");
}

TEST_F(CliTest, ImportOfAnotherFileUnderATakenNameIsAConflict) {
  http::Router router;
  router.Add(Method::kPost, "/v1/images",
             [](const Request&) { return http::ProblemResponse(Conflict("exists")); });
  router.Add(Method::kGet, "/v1/images/{name}",
             Canned(200, {{"spec", {{"expectedSizeBytes", "11"}}},
                          {"status", {{"state", "IMAGE_PENDING"}}}}));
  Serve(std::move(router));
  Write("a.qcow2", "0123456789", 0644);
  EXPECT_EQ(Vallum({"image", "import", Path("a.qcow2"), "--name", "a", "--disk-format", "qcow2"}),
            4);
}

TEST_F(CliTest, ContentOfNoKnownFormatMustBeDeclared) {
  Write("disk.qcow2", "x", 0644);
  EXPECT_EQ(Vallum({"image", "inspect", Path("disk.qcow2")}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("declare raw"));
}

TEST_F(CliTest, RefusalIsOneLineWithFileOffsetReasonAndWhatIsAccepted) {
  Write("disk.img", "QFI\xfb" + std::string(1020, '\0'), 0644);
  EXPECT_EQ(Vallum({"image", "inspect", Path("disk.img")}), 2);
  const std::string line = err_.str();
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1) << line;
  EXPECT_THAT(line, HasSubstr("disk.img: "));
  EXPECT_THAT(line, HasSubstr("offset"));
  EXPECT_THAT(line, HasSubstr("qemu-img"));
}

TEST_F(CliTest, InspectNeedsNoServer) {
  Write("blob", std::string(4096, 'x'), 0644);
  EXPECT_EQ(Vallum({"image", "inspect", Path("blob"), "--disk-format", "raw"}), 0) << err_.str();
  EXPECT_EQ(Vallum({"image", "inspect", Path("blob"), "--disk-format", "qcow2"}), 2);
}

// An event log with one bank, SHA-1: SecureBoot on in PCR 7, and an action in PCR 4.
std::string MakeEventLog() {
  ByteWriter log;
  const auto add = [&log](uint32_t pcr, uint32_t type, ByteView data) {
    log.U32Le(pcr).U32Le(type).Raw(Digest(HashAlgorithm::kSha1, data));
    log.U32Le(static_cast<uint32_t>(data.size())).Raw(data);
  };
  ByteWriter variable;
  variable.Raw(*FromHex("61dfe48bca93d211aa0d00e098032b8c")).U64Le(10).U64Le(1);
  for (const char c : std::string_view("SecureBoot")) {
    variable.U8(static_cast<uint8_t>(c)).U8(0);
  }
  add(7, 0x80000001, variable.U8(1).bytes());
  add(4, 0x80000007, AsBytes("Calling EFI Application from Boot Option"));
  return std::string(AsText(log.bytes()));
}

std::string EventLogPcr4() {
  Bytes value(20);
  const Bytes digest =
      Digest(HashAlgorithm::kSha1, AsBytes("Calling EFI Application from Boot Option"));
  value.insert(value.end(), digest.begin(), digest.end());
  return ToHex(Digest(HashAlgorithm::kSha1, value));
}

TEST_F(CliTest, EventLogIsShownInWordsWithItsPcrsAndSecureBoot) {
  Write("log", MakeEventLog(), 0644);
  EXPECT_EQ(Vallum({"eventlog", "show", Path("log")}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("EV_EFI_ACTION"));
  EXPECT_THAT(out_.str(), HasSubstr("Calling EFI Application"));
  EXPECT_THAT(out_.str(), HasSubstr("PCR 4 (sha1) " + EventLogPcr4()));
  EXPECT_THAT(out_.str(), HasSubstr("Secure Boot: on"));
  EXPECT_THAT(out_.str(), HasSubstr("dbx was not measured"));
  EXPECT_THAT(out_.str(), HasSubstr("proven: nothing"));
}

TEST_F(CliTest, EventLogAsJsonHasEventsAndBanks) {
  Write("log", MakeEventLog(), 0644);
  EXPECT_EQ(Vallum({"eventlog", "show", Path("log"), "-o", "json"}), 0) << err_.str();
  const Json report = Json::parse(out_.str());
  EXPECT_EQ(report["events"].size(), 2U);
  EXPECT_EQ(report["events"][1]["data"], "hashed");
  EXPECT_EQ(report["banks"]["sha1"][0]["value"], EventLogPcr4());
  EXPECT_EQ(TextAt(report, "secureBoot.state"), "on");
}

TEST_F(CliTest, EventLogIsComparedWithKnownRegisters) {
  Write("log", MakeEventLog(), 0644);
  EXPECT_EQ(Vallum({"eventlog", "show", Path("log"), "--register", "4=" + EventLogPcr4()}), 0)
      << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("proven: the digests of PCR 4; not those of PCR 7"));
  EXPECT_EQ(Vallum({"eventlog", "show", Path("log"), "--register", "4=" + std::string(40, '0')}),
            4);
  EXPECT_THAT(err_.str(), HasSubstr("PCR 4 holds 0000"));
}

TEST_F(CliTest, BadEventLogOrRegisterIsRefusedInWords) {
  Write("log", MakeEventLog(), 0644);
  Write("text", "no log at all, but long enough for a header", 0644);
  EXPECT_EQ(Vallum({"eventlog", "show", Path("text")}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("text: "));
  EXPECT_THAT(err_.str(), HasSubstr("first event"));
  for (const std::string word : {"4", "x=00", "4=0", "444=00", "24=00", "4=00"}) {
    EXPECT_EQ(Vallum({"eventlog", "show", Path("log"), "--register", word}), 2) << word;
  }
  EXPECT_EQ(Vallum({"eventlog", "show", Path("log"), "--bank", "sha256"}), 2);
  EXPECT_EQ(Vallum({"eventlog", "show", Path("log"), "--bank", "md5"}), 2);
}

TEST_F(CliTest, TokenSecretGoesToAFileForItsOwnerOnly) {
  http::Router router;
  router.Add(
      Method::kPost, "/v1/tokens",
      Canned(201, {{"metadata", {{"name", "j"}}}, {"status", {{"secret", "vallum-join-v1.abc"}}}}));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"token", "create", "j", "--role", "join", "--out", Path("join")}), 0);
  EXPECT_EQ(TextAt(LastBody(), "spec.role"), "ROLE_JOIN");
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("join"))), "vallum-join-v1.abc\n");
  EXPECT_EQ(out_.str().find("abc"), std::string::npos);
  struct stat info = {};
  ASSERT_EQ(::stat(Path("join").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_EQ(Vallum({"token", "create", "j", "--role", "king"}), 2);
}

TEST_F(CliTest, ConsoleCarriesBytesUntilDetached) {
  std::promise<std::string> typed;
  std::thread guest;
  http::Router router;
  router.Add(Method::kPost, "/v1/instances/{name}/console",
             Canned(200, {{"token", "once"}, {"protocol", "serial"}}));
  router.Add(Method::kGet, "/v1/consoles/{token}", [&](const Request&) {
    return Response::Upgrade([&](std::shared_ptr<http::WebSocket> socket) {
      guest = std::thread([&, socket] {
        const auto keys = socket->Receive(std::chrono::seconds(20));
        typed.set_value(keys.has_value() && keys->has_value() ? std::string(AsText(**keys)) : "");
        static_cast<void>(socket->Send(AsBytes("login: "), std::chrono::seconds(5)));
        // Until the client is gone.
        while (socket->Receive(std::chrono::seconds(20)).has_value()) {
        }
      });
    });
  });
  Serve(std::move(router));
  int keys[2];
  int screen[2];
  ASSERT_EQ(::pipe(keys), 0);
  ASSERT_EQ(::pipe(screen), 0);
  in_fd_ = keys[0];
  out_fd_ = screen[1];
  ASSERT_EQ(::write(keys[1], "root", 4), 4);
  std::thread user([&] {
    char text[7];
    // The prompt is seen, then the user detaches.
    size_t got = 0;
    while (got < sizeof text) {
      const ssize_t count = ::read(screen[0], text + got, sizeof text - got);
      if (count <= 0) break;
      got += static_cast<size_t>(count);
    }
    EXPECT_EQ(std::string_view(text, got), "login: ");
    EXPECT_EQ(::write(keys[1], "\x1d", 1), 1);
  });
  EXPECT_EQ(Vallum({"console", "web1"}), 0) << err_.str();
  user.join();
  guest.join();
  EXPECT_EQ(typed.get_future().get(), "root");
  EXPECT_THAT(err_.str(), HasSubstr("detached"));
  for (const int fd : {keys[0], keys[1], screen[0], screen[1]}) ::close(fd);
}

TEST_F(CliTest, QuoteIsWrittenAsFilesWithTheCommandThatChecksIt) {
  http::Router router;
  router.Add(Method::kPost, "/v1/instances/{name}/quote",
             Canned(200, {{"instance", "web1"},
                          {"nonce", "00ff"},
                          {"pcrSelection", "sha256:0,7"},
                          {"quoted", "c2lnbmVk"},
                          {"signature", "c2ln"},
                          {"pcrs", "cGNycw=="},
                          {"akPublic", "YWs="},
                          {"akPublicPem", "-----BEGIN PUBLIC KEY-----\n"}}));
  Serve(std::move(router));
  EXPECT_EQ(Vallum({"instance", "quote", "web1", "--nonce", "00ff", "--out", Path("q")}), 0)
      << err_.str();
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("q/quote.msg"))), "signed");
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("q/quote.sig"))), "sig");
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("q/quote.pcrs"))), "pcrs");
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("q/ak.pem"))), "-----BEGIN PUBLIC KEY-----\n");
  EXPECT_FALSE(std::filesystem::exists(Path("q/ek.pem")));
  EXPECT_THAT(out_.str(), HasSubstr("tpm2_checkquote -u '" + Path("q/ak.pem") + "'"));
  EXPECT_THAT(out_.str(), HasSubstr("-g sha256 -q 00ff"));
  EXPECT_EQ(Vallum({"instance", "quote", "web1", "--nonce", "00ff"}), 2);
}

// ---- key sets ----

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

TEST_F(CliTest, BadArgumentIsAnsweredWithTheHelpOfTheWholeCommand) {
  EXPECT_EQ(Vallum({"snapshot", "create", "web1", "surplus"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("fix: see vallum snapshot create --help"));
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

// ---- generated pages ----

TEST_F(CliTest, CompletionsKnowEveryCommand) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    ASSERT_EQ(Vallum({"completion", shell}), 0);
    EXPECT_THAT(out_.str(), HasSubstr("import")) << shell;
  }
  EXPECT_EQ(Vallum({"completion", "tcsh"}), 2);
}

TEST_F(CliTest, BashCompletionOffersSubcommandsAndOptions) {
  ASSERT_EQ(Vallum({"completion", "bash"}), 0);
  Write("complete.sh",
        out_.str() +
            "COMP_WORDS=(vallum instance create --wa); COMP_CWORD=3; _vallum\n"
            "echo \"${COMPREPLY[@]}\"\n"
            "COMP_WORDS=(vallum -o json inst); COMP_CWORD=3; _vallum\n"
            "echo \"${COMPREPLY[@]}\"\n",
        0644);
  std::FILE* pipe = ::popen(("bash " + Path("complete.sh")).c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  char text[256] = {};
  const size_t count = std::fread(text, 1, sizeof text - 1, pipe);
  ::pclose(pipe);
  EXPECT_EQ(std::string_view(text, count), "--wait\ninstance\n");
}

TEST_F(CliTest, ManualPageDescribesEveryCommand) {
  ASSERT_EQ(Vallum({"man"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr(".SS vallum instance create"));
  EXPECT_THAT(out_.str(), HasSubstr("vallum policy test gold \\-\\-file gold.toml\n"));
  EXPECT_THAT(out_.str(), HasSubstr("EXIT STATUS"));
}

TEST_F(CliTest, HelpOfAListHasAFieldOfItsKind) {
  EXPECT_EQ(Vallum({"host", "list", "--help"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("status.trust.level=TRUST_UNTRUSTED"));
}

TEST_F(CliTest, HelpIsOfTheCommandThatWasNamed) {
  EXPECT_EQ(Vallum({"instance", "create", "--help"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("--boot-mode"));
}

}  // namespace
}  // namespace vallum::cli

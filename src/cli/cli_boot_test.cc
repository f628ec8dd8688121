// SPDX-License-Identifier: Apache-2.0
// Waiting for boots, watching them, and what they are compared with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <string>
#include <vector>

#include "base/text.h"
#include "cli/cli_rig.h"

namespace vallum::cli {
namespace {

using http::Method;
using http::Request;
using http::Response;
using testing::HasSubstr;

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

}  // namespace
}  // namespace vallum::cli

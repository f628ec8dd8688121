// SPDX-License-Identifier: Apache-2.0
// How answers read: tables, CSV, YAML, JSON, and what `show` says.
#include "cli/output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "cli/commands.h"

namespace vallum::cli {
namespace {

using ::testing::HasSubstr;

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

}  // namespace
}  // namespace vallum::cli

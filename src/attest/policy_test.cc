// SPDX-License-Identifier: Apache-2.0
#include "attest/policy.h"

#include <gtest/gtest.h>

#include <string>

#include "attest/facts.h"
#include "attest/reason.h"

namespace vallum::attest {
namespace {

std::string Hex(char digit, size_t size = 32) { return std::string(2 * size, digit); }

std::string MakeValidPolicy() {
  return R"(name = "hosts"
version = 3
description = "a \"test\""
max-age-seconds = 3600

[tpm]
banks = ["sha256"]
firmware = [7]

[pcr.0]
rule = "golden"
values = [ { sha256 = ")" +
         Hex('a') + R"(", what = "BIOS 1" } ]

[pcr.4]
rule = "events"
signed-images = "accepted"
accept = [ { sha256 = ")" +
         Hex('b') + R"(", what = "shim" } ]

[pcr.7]
rule = "secure-boot"
signers = [")" +
         Hex('c') + R"("]
sbat-level = 2023012900

[pcr.8]
rule = "events"
commands = "any"
command-lines = "checked"

[pcr.10]
rule = "ima"

[pcr.11]
rule = "reference"

[pcr.14]
rule = "ignored"
because = "nobody enrols keys here"

[command-line]
required = ["lockdown=integrity"]
forbidden = ["init"]
other-arguments = "accepted"

[facts]
lockdown = ["integrity"]
swap = ["none", "encrypted"]
cpu-features = ["smep"]

[ima]
allow-list = "debian-12"
allow-list-sha256 = ")" +
         Hex('d') + R"("

[[component]]
name = "650-kernel"
[[component.variant]]
name = "a"
records = [ { pcr = 11, sha256 = ")" +
         Hex('e') + R"(" } ]
)";
}

// Replaces the first occurrence.
std::string With(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

std::string ErrorOf(const std::string& text) {
  const auto policy = ParsePolicy(text);
  return policy.has_value() ? "" : policy.error().Describe();
}

TEST(Policy, ValidPolicyIsRead) {
  const auto policy = ParsePolicy(MakeValidPolicy());
  ASSERT_TRUE(policy.has_value()) << policy.error().Describe();
  EXPECT_EQ(policy->name, "hosts");
  EXPECT_EQ(policy->version, 3U);
  EXPECT_EQ(policy->PcrMask(), 0x4d91U);
  EXPECT_TRUE(policy->NeedsEventLog());
  ASSERT_NE(policy->ImaPcr(), nullptr);
  EXPECT_EQ(*policy->ImaPcr(), 10U);
  const auto& events = std::get<EventsRule>(policy->pcrs.at(4));
  EXPECT_TRUE(events.accept.Has(HashAlgorithm::kSha256, *FromHex(Hex('b'))));
  EXPECT_FALSE(events.accept.Has(HashAlgorithm::kSha256, *FromHex(Hex('a'))));
  EXPECT_FALSE(events.accept.Has(HashAlgorithm::kSha384, *FromHex(Hex('b'))));
}

TEST(Policy, FormattedPolicyIsReadBackTheSame) {
  const auto policy = ParsePolicy(MakeValidPolicy());
  ASSERT_TRUE(policy.has_value());
  const auto again = ParsePolicy(FormatPolicy(*policy, {{"pcr.4", "why\nso"}}));
  ASSERT_TRUE(again.has_value()) << again.error().Describe();
  EXPECT_EQ(*again, *policy);
  EXPECT_EQ(PolicyDigest(*again), PolicyDigest(*policy));
}

TEST(Policy, JsonIsTheSameModel) {
  const auto policy = ParsePolicy(R"({"name": "x", "version": 1, "pcr": {"7": {"rule": "golden",
      "values": [{"sha256": ")" + Hex('a') +
                                  R"("}]}}})");
  ASSERT_TRUE(policy.has_value()) << policy.error().Describe();
  EXPECT_EQ(policy->PcrMask(), 0x80U);
  EXPECT_EQ(*ParsePolicy(FormatPolicy(*policy)), *policy);
}

TEST(Policy, UnknownKeyIsNamedWithItsLine) {
  EXPECT_NE(ErrorOf(With(MakeValidPolicy(), "swap = [", "swop = [")).find("facts.swop (line 46)"),
            std::string::npos)
      << ErrorOf(With(MakeValidPolicy(), "swap = [", "swop = ["));
}

TEST(Policy, NameTwiceInJsonIsRefused) {
  EXPECT_NE(ErrorOf(R"({"name": "x", "name": "y", "version": 1})"), "");
}

TEST(Policy, DateIsRefused) { EXPECT_NE(ErrorOf("name = 1979-05-27\nversion = 1\n"), ""); }

struct Broken {
  const char* why;
  const char* from;
  const char* to;
};

TEST(Policy, WhatCouldNeverBeMetOrMeansNothingIsRefused) {
  static constexpr Broken kCases[] = {
      {"no version", "version = 3", ""},
      {"negative version", "version = 3", "version = -3"},
      {"empty name", "name = \"hosts\"", "name = \"\""},
      {"PCR 24", "[pcr.14]", "[pcr.24]"},
      {"PCR 07", "[pcr.14]", "[pcr.014]"},
      {"unknown rule", "rule = \"golden\"", "rule = \"any\""},
      {"short digest", "sha256 = \"aaaa", "sha256 = \"aa"},
      {"golden without the quoted bank", "banks = [\"sha256\"]", "banks = [\"sha384\"]"},
      {"bank twice", "banks = [\"sha256\"]", "banks = [\"sha256\", \"sha256\"]"},
      {"SHA-1 bank that is refused", "banks = [\"sha256\"]", "banks = [\"sha256\", \"sha1\"]"},
      {"no signers", "signers = [", "kek = ["},
      {"secure-boot on PCR 6", "[pcr.7]", "[pcr.6]"},
      {"ignored without a reason", "nobody enrols keys here", " "},
      {"command list without listed", "commands = \"any\"", "command-list = [\"x\"]"},
      {"command-line that nothing checks", "command-lines = \"checked\"", ""},
      {"ima without a PCR", "rule = \"ima\"", "rule = \"ignored\"\nbecause = \"x\""},
      {"components without a PCR", "rule = \"reference\"", "rule = \"ignored\"\nbecause = \"x\""},
      {"lockdown mode", "lockdown = [\"integrity\"]", "lockdown = [\"total\"]"},
      {"number as text", "sbat-level = 2023012900", "sbat-level = \"2023\""},
      {"record of PCR 30", "{ pcr = 11", "{ pcr = 30"},
  };
  for (const Broken& each : kCases) {
    EXPECT_NE(ErrorOf(With(MakeValidPolicy(), each.from, each.to)), "") << each.why;
  }
}

TEST(Policy, SignedImagesNeedSecureBootsRule) {
  const std::string text = With(MakeValidPolicy(), "rule = \"secure-boot\"\nsigners = [",
                                "rule = \"ignored\"\nbecause = \"x\"\n#");
  EXPECT_NE(ErrorOf(With(text, "sbat-level", "#")).find("signed-images"), std::string::npos);
}

TEST(Reasons, EachHasANameOfItsOwnThatIsFoundAgain) {
  for (size_t i = 0; i < kReasonCount; ++i) {
    const auto id = static_cast<ReasonId>(i);
    EXPECT_EQ(ReasonFromName(ReasonName(id)), id) << i;
    EXPECT_FALSE(ReasonSentence(id).empty());
  }
  EXPECT_FALSE(ReasonFromName("nonsense").has_value());
}

TEST(Reasons, ComeInOrderAndAreBounded) {
  Reasons reasons;
  for (uint32_t i = 0; i < 2 * kMaxReasons; ++i) {
    reasons.Add({.id = ReasonId::kPcrValue, .pcr = 23 - i % 24});
  }
  const std::vector<Reason> list = std::move(reasons).TakeReasons();
  ASSERT_EQ(list.size(), kMaxReasons);
  EXPECT_EQ(list.front().pcr, 0U);
  EXPECT_EQ(list.back().id, ReasonId::kMoreReasons);
}

TEST(Facts, AreReadBackTheSame) {
  const HostFacts facts{.kernel_release = "6.1.0-18-amd64",
                        .command_line = "BOOT_IMAGE=/vmlinuz ro \"x\"",
                        .lockdown = "integrity",
                        .iommu = "on",
                        .swap = "none",
                        .kdump = "",
                        .secure_boot = "on",
                        .microcode = "0xf0",
                        .cpu_model = "c",
                        .architecture = "x86_64",
                        .boot_id = "b",
                        .cpu_features = {"smep", "smap"}};
  const auto again = ParseHostFacts(FormatHostFacts(facts));
  ASSERT_TRUE(again.has_value()) << again.error().Describe();
  EXPECT_EQ(*again, facts);
  EXPECT_EQ(MicrocodeRevision(*again), 0xf0U);
}

TEST(Facts, UnknownFactIsRefused) {
  EXPECT_FALSE(ParseHostFacts(R"({"selinux": "on"})").has_value());
  EXPECT_FALSE(ParseHostFacts(R"({"iommu": true})").has_value());
  EXPECT_FALSE(ParseHostFacts(R"({"microcode": -1})").has_value());
  EXPECT_FALSE(ParseHostFacts("[]").has_value());
}

}  // namespace
}  // namespace vallum::attest

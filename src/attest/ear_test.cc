// SPDX-License-Identifier: Apache-2.0
#include "attest/ear.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

namespace vallum::attest {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

Ear MakeValidEar() {
  Ear out{.issued_at = 1800000000, .developer = "Vallum", .build = "test", .nonce = "12345678"};
  out.submods["host1"] = AppraiseHost({.kind = HostVerdictKind::kTrusted,
                                       .reasons = {},
                                       .policy = "gold",
                                       .policy_version = 3,
                                       .hardware_tpm = true,
                                       .files_judged = true});
  return out;
}

// The valid one after one change of its JSON.
Result<Ear> ParseChanged(const std::function<void(Json&)>& change) {
  Json json = Json::parse(FormatEar(MakeValidEar()));
  change(json);
  return ParseEar(json.dump());
}

TEST(Ear, IsReadBackAsItWasWritten) {
  Ear ear = MakeValidEar();
  ear.submods["host2"] = AppraiseHost(
      {.kind = HostVerdictKind::kUntrusted, .reasons = {{.id = ReasonId::kPcrValue, .pcr = 4}}});
  const auto again = ParseEar(FormatEar(ear));
  ASSERT_TRUE(again.has_value()) << again.error().Describe();
  EXPECT_EQ(*again, ear);
}

TEST(Ear, MembersThatAreNotKnownAreLeftOut) {
  EXPECT_TRUE(ParseChanged([](Json& json) { json["ear.raw-evidence"] = "AA"; }).has_value());
}

TEST(Ear, WrongShapesAreRefused) {
  const auto refused = [](const char* what, const std::function<void(Json&)>& change) {
    SCOPED_TRACE(what);
    EXPECT_FALSE(ParseChanged(change).has_value());
  };
  refused("profile", [](Json& json) { json["eat_profile"] = "tag:example.com,2020:x"; });
  refused("no profile", [](Json& json) { json.erase("eat_profile"); });
  refused("no time", [](Json& json) { json.erase("iat"); });
  refused("time as text", [](Json& json) { json["iat"] = "now"; });
  refused("no verifier", [](Json& json) { json.erase("ear.verifier-id"); });
  refused("no build", [](Json& json) { json["ear.verifier-id"].erase("build"); });
  refused("no submods", [](Json& json) { json.erase("submods"); });
  refused("empty submods", [](Json& json) { json["submods"] = Json::object(); });
  refused("status", [](Json& json) { json["submods"]["host1"]["ear.status"] = "fine"; });
  refused("no status", [](Json& json) { json["submods"]["host1"].erase("ear.status"); });
  const char* const vector = "ear.trustworthiness-vector";
  refused("claim", [&](Json& json) { json["submods"]["host1"][vector]["luck"] = 2; });
  refused("value", [&](Json& json) { json["submods"]["host1"][vector]["hardware"] = 128; });
  refused("fraction", [&](Json& json) { json["submods"]["host1"][vector]["hardware"] = 2.5; });
  refused("policy", [](Json& json) { json["submods"]["host1"]["ear.appraisal-policy-id"] = 1; });
}

TEST(Ear, MoreThanItsLimitIsRefused) {
  EXPECT_EQ(ParseEar(std::string(kMaxEar + 1, ' ')).error().code(), ErrorCode::kExhausted);
}

TEST(Ear, TiersHaveTheBoundsOfTheDraft) {
  const std::vector<std::pair<int, EarStatus>> cases = {{0, EarStatus::kNone},
                                                        {1, EarStatus::kNone},
                                                        {-1, EarStatus::kNone},
                                                        {2, EarStatus::kAffirming},
                                                        {31, EarStatus::kAffirming},
                                                        {-32, EarStatus::kAffirming},
                                                        {32, EarStatus::kWarning},
                                                        {95, EarStatus::kWarning},
                                                        {-33, EarStatus::kWarning},
                                                        {-96, EarStatus::kWarning},
                                                        {96, EarStatus::kContraindicated},
                                                        {127, EarStatus::kContraindicated},
                                                        {-97, EarStatus::kContraindicated},
                                                        {-128, EarStatus::kContraindicated}};
  for (const auto& [value, tier] : cases)
    EXPECT_EQ(TierOf(static_cast<int8_t>(value)), tier) << value;
}

TEST(Ear, EachVerdictHasItsStatus) {
  const auto status = [](HostVerdictKind kind) {
    return AppraiseHost({.kind = kind, .reasons = {}}).status;
  };
  EXPECT_EQ(status(HostVerdictKind::kTrusted), EarStatus::kAffirming);
  EXPECT_EQ(status(HostVerdictKind::kStale), EarStatus::kWarning);
  EXPECT_EQ(status(HostVerdictKind::kUntrusted), EarStatus::kContraindicated);
  EXPECT_EQ(status(HostVerdictKind::kUnknown), EarStatus::kNone);
}

TEST(Ear, NoClaimIsWorseThanTheStatusForAnyReason) {
  for (size_t i = 0; i < kReasonCount; ++i) {
    for (const std::optional<uint32_t> pcr :
         {std::optional<uint32_t>(), std::optional<uint32_t>(0), std::optional<uint32_t>(7)}) {
      const EarAppraisal appraisal =
          AppraiseHost({.kind = HostVerdictKind::kUntrusted,
                        .reasons = {{.id = static_cast<ReasonId>(i), .pcr = pcr}}});
      EXPECT_EQ(appraisal.status, EarStatus::kContraindicated);
      for (const auto& value : appraisal.vector.values) {
        EXPECT_TRUE(!value.has_value() || TierOf(*value) == EarStatus::kContraindicated);
      }
      ASSERT_EQ(appraisal.reasons.size(), 1U);
    }
  }
}

TEST(Ear, NothingIsClaimedOfHardwareThatIsAProgram) {
  const EarAppraisal appraisal =
      AppraiseHost({.kind = HostVerdictKind::kTrusted, .reasons = {}, .hardware_tpm = false});
  EXPECT_FALSE(appraisal.vector[EarClaim::kHardware].has_value());
  EXPECT_EQ(appraisal.vector[EarClaim::kExecutables], 3) << "at boot alone";
}

TEST(Ear, EvidenceThatDoesNotVerifyContraindicatesEachClaim) {
  const EarAppraisal appraisal = AppraiseHost(
      {.kind = HostVerdictKind::kUntrusted,
       .reasons = {{.id = ReasonId::kQuoteSignature}, {.id = ReasonId::kPcrValue, .pcr = 0}}});
  for (const auto& value : appraisal.vector.values) EXPECT_EQ(value, 99);
}

TEST(Ear, ReasonsContradictTheClaimThatTheyAreAbout) {
  const auto claim = [](ReasonId id, std::optional<uint32_t> pcr) {
    const EarAppraisal appraisal =
        AppraiseHost({.kind = HostVerdictKind::kUntrusted, .reasons = {{.id = id, .pcr = pcr}}});
    for (size_t i = 0; i < kEarClaimCount; ++i) {
      if (appraisal.vector.values[i].has_value()) return EarClaimName(static_cast<EarClaim>(i));
    }
    return std::string_view("none");
  };
  EXPECT_EQ(claim(ReasonId::kPcrValue, 0), "hardware");
  EXPECT_EQ(claim(ReasonId::kPcrValue, 7), "configuration");
  EXPECT_EQ(claim(ReasonId::kPcrValue, 9), "executables");
  EXPECT_EQ(claim(ReasonId::kSecureBootOff, 7), "configuration");
  EXPECT_EQ(claim(ReasonId::kImaFileUnknown, 10), "executables");
  EXPECT_EQ(claim(ReasonId::kAkDiffers, {}), "instance-identity");
}

TEST(Ear, WhatIsSignedNamesAlgorithmAndChain) {
  const std::string input = EarSigningInput(MakeValidEar(), {Bytes(3, std::byte{1})});
  const std::string header(AsText(*FromBase64(input.substr(0, input.find('.')))));
  EXPECT_EQ(Json::parse(header), Json::parse(R"({"alg":"ES256","typ":"JWT","x5c":["AQEB"]})"));
  EXPECT_EQ(AsText(*FromBase64(input.substr(input.find('.') + 1))), FormatEar(MakeValidEar()));
}

std::string ReadText(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// ---- the shared vectors ----

class EarVectors : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* given = std::getenv("VALLUM_VECTORS");
    if (given == nullptr) GTEST_SKIP() << "VALLUM_VECTORS is absent";
    dir_ = given;
    manifest_ = Json::parse(ReadText(dir_ + "/manifest.json"));
  }
  std::string dir_;
  Json manifest_;
};

TEST_F(EarVectors, ClaimsSayWhatTheManifestExpects) {
  size_t count = 0;
  for (const Json& entry : manifest_) {
    if (entry["kind"] != "ear_claims") continue;
    SCOPED_TRACE(entry["file"]);
    ++count;
    const auto ear = ParseEar(ReadText(dir_ + "/" + entry["file"].get<std::string>()));
    ASSERT_TRUE(ear.has_value()) << ear.error().Describe();
    EXPECT_EQ(entry["expect"]["profile"], std::string(kEarProfile));
    Json statuses = Json::object();
    for (const auto& [name, appraisal] : ear->submods) {
      statuses[name] = EarStatusName(appraisal.status);
    }
    EXPECT_EQ(statuses, entry["expect"]["statuses"]);
  }
  EXPECT_GT(count, 0U);
}

TEST_F(EarVectors, ResultsOfTheReferenceVerifierAreNoBetterThanTheirClaims) {
  size_t count = 0;
  for (const Json& entry : manifest_) {
    if (entry["kind"] != "ear_result") continue;
    SCOPED_TRACE(entry["file"]);
    ++count;
    const auto submods = ParseEarSubmods(ReadText(dir_ + "/" + entry["file"].get<std::string>()));
    ASSERT_TRUE(submods.has_value()) << submods.error().Describe();
    for (const auto& [name, appraisal] : *submods) {
      EXPECT_GE(appraisal.status, appraisal.vector.Tier()) << name;
    }
  }
  EXPECT_GT(count, 0U);
}

}  // namespace
}  // namespace vallum::attest

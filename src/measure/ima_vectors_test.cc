// SPDX-License-Identifier: Apache-2.0
// Every IMA log of the shared test vectors, against what their manifest says of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "measure/ima_allow_list.h"
#include "measure/ima_assessment.h"
#include "measure/ima_log.h"
#include "measure/ima_replay.h"
#include "measure/ima_signature.h"
#include "measure/ima_template_hash.h"

namespace vallum::measure {
namespace {

using Json = nlohmann::json;

constexpr std::array kBanks = {HashAlgorithm::kSha1, HashAlgorithm::kSha256, HashAlgorithm::kSha384,
                               HashAlgorithm::kSha512};

std::string VectorsDir() {
  const char* given = std::getenv("VALLUM_VECTORS");
  return given == nullptr ? "" : given;
}

Bytes ReadVector(const std::string& file) {
  std::ifstream in(VectorsDir() + "/" + file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return ToBytes(AsBytes(text.str()));
}

ImaTemplateHash TemplateHashOf(const Json& expect) {
  const std::string name = expect.value("template_hash", "");
  return name == "sha1"     ? ImaTemplateHash::kSha1
         : name == "sha256" ? ImaTemplateHash::kSha256
                            : ImaTemplateHash::kDetect;
}

class ImaVectors : public ::testing::Test {
 protected:
  void SetUp() override {
    if (VectorsDir().empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
    for (const Json& entry : Json::parse(AsText(ReadVector("manifest.json")))) {
      if (entry["kind"] == "ima_log") logs_.push_back(entry);
      if (entry["kind"] == "ima_runtime_policy") policies_.push_back(entry);
    }
    ASSERT_GE(logs_.size(), 13U);
    ASSERT_GE(policies_.size(), 3U);
  }

  // Calls check(log, expectations) for each log that must parse.
  template <typename Check>
  void ForEachGood(Check check) {
    for (const Json& vector : logs_) {
      if (vector["expect"]["parse"] == "reject") continue;
      SCOPED_TRACE(vector["file"].get<std::string>());
      const Bytes bytes = ReadVector(vector["file"]);
      const auto log = ImaLog::Parse(bytes, ImaTemplateHash::kDetect);
      ASSERT_TRUE(log.has_value()) << log.error().Describe();
      check(*log, vector["expect"]);
    }
  }

  std::vector<Json> logs_;
  std::vector<Json> policies_;
};

TEST_F(ImaVectors, ParseOrAreRefusedAsTheManifestSays) {
  for (const Json& vector : logs_) {
    const Bytes bytes = ReadVector(vector["file"]);
    for (const auto hash : {ImaTemplateHash::kDetect, TemplateHashOf(vector["expect"])}) {
      const auto log = ImaLog::Parse(bytes, hash);
      EXPECT_EQ(log.has_value(), vector["expect"]["parse"] != "reject")
          << vector["file"] << (log.has_value() ? "" : log.error().Describe());
    }
  }
}

TEST_F(ImaVectors, LayoutIsWhatTheManifestSays) {
  ForEachGood([](const ImaLog& log, const Json& expect) {
    EXPECT_EQ(log.entries().size(), expect["entries"]);
    EXPECT_EQ(log.tail_size(), expect.value("trailing_bytes", size_t{0}));
    if (expect.contains("form")) {
      EXPECT_EQ(log.form() == ImaLogForm::kBinary ? "binary" : "ascii", expect["form"]);
    }
    if (expect.contains("template_hash")) {
      EXPECT_EQ(log.template_hash_size(), expect["template_hash"] == "sha1" ? 20U : 32U);
    }
    std::vector<std::string> in_order;
    for (const ImaEntry& entry : log.entries()) in_order.push_back(log.FormatOf(entry).name);
    if (expect.contains("templates_in_order")) {
      EXPECT_EQ(Json(in_order), expect["templates_in_order"]);
    }
    if (expect.contains("templates")) {
      EXPECT_EQ(Json(std::set<std::string>(in_order.begin(), in_order.end())),
                Json(expect["templates"].get<std::set<std::string>>()));
    }
  });
}

TEST_F(ImaVectors, TemplateHashesAndViolationsAreWhatTheManifestSays) {
  ForEachGood([](const ImaLog& log, const Json& expect) {
    if (!expect.contains("template_hash_ok")) return;
    const ImaTemplateHashReport report = CheckTemplateHashes(log);
    EXPECT_EQ(report.agreeing, expect["template_hash_ok"]);
    std::vector<size_t> violations;
    for (size_t i = 0; i < log.entries().size(); ++i) {
      if (log.entries()[i].violation) violations.push_back(i);
    }
    if (expect["violations"].is_array()) {
      EXPECT_EQ(Json(violations), expect["violations"]);
    } else {
      EXPECT_EQ(violations.size(), expect["violations"]);
    }
    EXPECT_EQ(report.violations, violations.size());
    EXPECT_EQ(report.agreeing + report.violations + report.mismatches.size(), log.entries().size());
  });
}

TEST_F(ImaVectors, ReplayGivesPcr10OfTheManifestInEachBank) {
  size_t compared = 0;
  ForEachGood([&compared](const ImaLog& log, const Json& expect) {
    for (const HashAlgorithm bank : kBanks) {
      const std::string name(HashAlgorithmName(bank));
      if (!expect.contains("pcr10") || !expect["pcr10"].contains(name)) continue;
      const ImaPcrValue quoted{bank, *FromHex(expect["pcr10"][name].get<std::string>())};
      const auto replay =
          ReplayImaLog(log, StartOfImaReplay(std::span(&bank, 1)), std::span(&quoted, 1));
      ASSERT_TRUE(replay.has_value()) << replay.error().Describe();
      EXPECT_TRUE(replay->Reached()) << name << ": " << replay->refusal;
      EXPECT_EQ(replay->proven, log.entries().size());
      ++compared;
    }
  });
  EXPECT_GE(compared, 28U);
}

TEST_F(ImaVectors, SignaturesAreJudgedAsTheManifestSays) {
  size_t judged = 0;
  ForEachGood([&judged](const ImaLog& log, const Json& expect) {
    for (const Json& signature : expect.value("signatures", Json::array())) {
      const ImaEntry& entry = log.entries()[signature["entry"].get<size_t>()];
      const ByteView field = log.FieldOf(entry, ImaField::kSignature);
      ++judged;
      if (signature.value("verdict", "") == "reject") {
        EXPECT_FALSE(ParseImaSignature(field).has_value());
        continue;
      }
      const auto header = ParseImaSignature(field);
      ASSERT_TRUE(header.has_value());
      ImaKeys keys;
      EXPECT_EQ(keys.Verify(field, entry.digest), ImaSignatureVerdict::kUnknownKey);
      ASSERT_TRUE(keys.Add(ReadVector(signature["verified_by"])).has_value());
      EXPECT_EQ(keys.KeyIds(), std::vector<std::string>{signature["key_id"]});
      EXPECT_EQ(keys.Verify(field, entry.digest), ImaSignatureVerdict::kGood);
      Bytes other = ToBytes(entry.digest.bytes);
      other[0] ^= std::byte{1};
      EXPECT_EQ(keys.Verify(field,
                            {.type = entry.digest.type, .hash = entry.digest.hash, .bytes = other}),
                ImaSignatureVerdict::kBad);
    }
  });
  EXPECT_GE(judged, 3U);
}

TEST_F(ImaVectors, RuntimePoliciesAreReadAndAllowWhatTheManifestSays) {
  for (const Json& vector : policies_) {
    SCOPED_TRACE(vector["file"].get<std::string>());
    const Bytes text = ReadVector(vector["file"]);
    const auto list = ImportKeylimePolicy(AsText(text));
    ASSERT_TRUE(list.has_value()) << list.error().Describe();
    const Json document = Json::parse(AsText(text));
    EXPECT_EQ((*list)->files().names(), document["digests"].size());
    for (const Json& file : vector["expect"].value("allows", Json::array())) {
      SCOPED_TRACE(file.get<std::string>());
      const Bytes bytes = ReadVector(file);
      const auto log = ImaLog::Parse(bytes, ImaTemplateHash::kDetect);
      ASSERT_TRUE(log.has_value());
      const auto assessment = AssessImaEntries(
          {.log = *log, .proven = log->entries().size(), .list = **list}, ImaAssessmentState());
      EXPECT_TRUE(assessment.Accepted());
      EXPECT_EQ(assessment.by_digest, log->entries().size());
    }
  }
}

TEST_F(ImaVectors, PolicyOfAnotherHostAcceptsNothing) {
  const Bytes text = ReadVector("ima/keylime-policy-sha256.json");
  const Bytes bytes = ReadVector("ima/hpe-ima_log.txt");
  const auto list = ImportKeylimePolicy(AsText(text));
  const auto log = ImaLog::Parse(bytes, ImaTemplateHash::kDetect);
  ASSERT_TRUE(list.has_value() && log.has_value());
  const auto assessment = AssessImaEntries(
      {.log = *log, .proven = log->entries().size(), .list = **list}, ImaAssessmentState());
  EXPECT_EQ(assessment.finding_count, log->entries().size());
  EXPECT_EQ(assessment.findings.size(), kMaxImaFindings);
}

TEST_F(ImaVectors, BootAggregateIsThatOfTheQuotedPcrs) {
  const Bytes bytes = ReadVector("ima/hpe-ima_log.txt");
  const auto log = ImaLog::Parse(bytes, ImaTemplateHash::kDetect);
  ASSERT_TRUE(log.has_value());
  ImaBootPcrs pcrs{.bank = HashAlgorithm::kSha256, .values = {}};
  for (const Json& entry : Json::parse(AsText(ReadVector("manifest.json")))) {
    if (entry["file"] != "quotes/hpe/pcrs.bin") continue;
    for (uint32_t i = 0; i < kBootAggregatePcrs; ++i) {
      pcrs.values.push_back(
          *FromHex(entry["expect"]["pcrs"]["sha256"][std::to_string(i)].get<std::string>()));
    }
  }
  ASSERT_EQ(pcrs.values.size(), kBootAggregatePcrs);
  EXPECT_EQ(ToHex(ImaBootAggregate(pcrs, kBootAggregatePcrs)),
            ToHex(log->entries()[0].digest.bytes));
}

// What the IBM log proves: two logs of the same boot, with template hashes of two sizes.
TEST_F(ImaVectors, LogsThatDifferInTemplateHashesAloneAreReadAlike) {
  const Bytes a = ReadVector("ima/ibm-sha1.bin");
  const Bytes b = ReadVector("ima/ibm-sha256.bin");
  const auto first = ImaLog::Parse(a, ImaTemplateHash::kDetect);
  const auto second = ImaLog::Parse(b, ImaTemplateHash::kDetect);
  ASSERT_TRUE(first.has_value() && second.has_value());
  ASSERT_EQ(first->entries().size(), second->entries().size());
  for (size_t i = 0; i < first->entries().size(); ++i) {
    EXPECT_EQ(first->entries()[i].path, second->entries()[i].path);
    EXPECT_TRUE(
        std::ranges::equal(first->entries()[i].template_data, second->entries()[i].template_data));
  }
}

}  // namespace
}  // namespace vallum::measure

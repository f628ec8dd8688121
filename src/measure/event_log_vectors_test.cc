// SPDX-License-Identifier: Apache-2.0
// Every event log of the shared test vectors, against what their manifest says of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "measure/event_content.h"
#include "measure/event_data.h"
#include "measure/event_describe.h"
#include "measure/event_log.h"
#include "measure/event_log_replay.h"
#include "measure/event_log_secure_boot.h"

namespace vallum::measure {
namespace {

using Json = nlohmann::json;

std::string VectorsDir() {
  const char* given = std::getenv("VALLUM_VECTORS");
  return given == nullptr ? "" : given;
}

Bytes ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return ToBytes(AsBytes(text.str()));
}

std::vector<Json> ReadVectors() {
  std::vector<Json> out;
  const Json manifest = Json::parse(AsText(ReadFile(VectorsDir() + "/manifest.json")));
  for (const Json& entry : manifest) {
    if (entry["kind"] == "eventlog" || entry["kind"] == "cc_eventlog") out.push_back(entry);
  }
  return out;
}

EventLogKind KindOf(const Json& vector) {
  return vector["kind"] == "cc_eventlog" ? EventLogKind::kConfidential : EventLogKind::kTpm;
}

std::string FormatName(const EventLog& log) {
  if (log.kind() == EventLogKind::kConfidential) return "cc_event_log";
  return log.format() == EventLogFormat::kSha1 ? "sha1_legacy" : "crypto_agile";
}

class EventLogVectors : public ::testing::Test {
 protected:
  void SetUp() override {
    if (VectorsDir().empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
    vectors_ = ReadVectors();
    ASSERT_GE(vectors_.size(), 44U);
  }

  // Calls check(log, expectations) for each log that must parse.
  template <typename Check>
  void ForEachGood(Check check) {
    for (const Json& vector : vectors_) {
      if (vector["expect"]["parse"] != "ok") continue;
      SCOPED_TRACE(vector["file"].get<std::string>());
      const Bytes bytes = ReadFile(VectorsDir() + "/" + vector["file"].get<std::string>());
      const auto log = EventLog::Parse(bytes, KindOf(vector));
      ASSERT_TRUE(log.has_value()) << log.error().Describe();
      check(*log, vector["expect"]);
    }
  }

  std::vector<Json> vectors_;
};

TEST_F(EventLogVectors, ParseOrAreRefusedAsTheManifestSays) {
  for (const Json& vector : vectors_) {
    const Bytes bytes = ReadFile(VectorsDir() + "/" + vector["file"].get<std::string>());
    const auto log = EventLog::Parse(bytes, KindOf(vector));
    EXPECT_EQ(log.has_value(), vector["expect"]["parse"] == "ok")
        << vector["file"] << (log.has_value() ? "" : log.error().Describe());
  }
}

TEST_F(EventLogVectors, LayoutIsWhatTheManifestSays) {
  ForEachGood([](const EventLog& log, const Json& expect) {
    EXPECT_EQ(log.events().size(), expect["events"]);
    EXPECT_EQ(Json(FormatName(log)), expect["format"]);
    std::vector<std::string> banks;
    for (const LogBank& bank : log.banks()) banks.push_back(bank.Name());
    EXPECT_EQ(Json(banks), expect["banks"]);
    if (!expect.contains("log_bytes")) return;
    EXPECT_EQ(log.size(), expect["log_bytes"]);
    EXPECT_EQ(log.tail_size(), expect["trailing_bytes"]);
    static const std::map<LogTail, Json> kFills = {{LogTail::kNothing, nullptr},
                                                   {LogTail::kZeros, "0x00"},
                                                   {LogTail::kOnes, "0xFF"},
                                                   {LogTail::kVendorInfo, "garbage"}};
    EXPECT_EQ(kFills.at(log.tail()), expect["trailing_fill"]);
    const auto locality = log.startup_locality();
    EXPECT_EQ(locality.has_value() ? Json(*locality) : Json(), expect["startup_locality"]);
    EXPECT_EQ(log.has_hcrtm_event(), expect["hcrtm_event"]);
    if (expect["spec_id"].is_null()) {
      EXPECT_FALSE(log.spec_id().has_value());
      return;
    }
    ASSERT_TRUE(log.spec_id().has_value());
    EXPECT_EQ(log.spec_id()->platform_class, expect["spec_id"]["platform_class"]);
    EXPECT_EQ(log.spec_id()->errata, expect["spec_id"]["errata"]);
    EXPECT_EQ(log.spec_id()->uintn_size, expect["spec_id"]["uintn"]);
    EXPECT_EQ(log.spec_id()->vendor_info_size, expect["spec_id"]["vendor_info_size"]);
  });
}

TEST_F(EventLogVectors, ReplayGivesTheRegistersOfTheManifest) {
  size_t compared = 0;
  ForEachGood([&compared](const EventLog& log, const Json& expect) {
    const Json& all = expect[log.kind() == EventLogKind::kTpm ? "pcrs" : "registers"];
    for (const LogBank& bank : log.banks()) {
      if (!bank.hash.has_value()) {
        EXPECT_EQ(bank.Name(), "sm3_256");  // no bank that Vallum computes
        continue;
      }
      const auto replay = ReplayEventLog(log, *bank.hash);
      ASSERT_TRUE(replay.has_value()) << replay.error().Describe();
      const Json& expected = all[bank.Name()];
      for (uint32_t i = 0; i < PcrIndex::kCount; ++i) {
        const std::string name = std::to_string(i);
        EXPECT_EQ(replay->extends[i] > 0, expected.contains(name)) << bank.Name() << " " << i;
        if (!expected.contains(name)) continue;
        EXPECT_EQ(Json(ToHex(replay->values[i])), expected[name]) << bank.Name() << " " << i;
        ++compared;
      }
    }
  });
  EXPECT_GT(compared, 500U);
}

TEST_F(EventLogVectors, DigestsOfDataAreJudgedAsTheManifestSays) {
  ForEachGood([](const EventLog& log, const Json& expect) {
    if (!expect.contains("digests_checked_against_event_data")) return;
    const ContentReport report = CheckContents(log);
    const size_t sm3 = log.banks().size() == 3 && !log.banks()[2].hash.has_value() ? 1 : 0;
    EXPECT_EQ(report.checked, expect["digests_checked_against_event_data"]) << sm3;
    std::multiset<std::string> found;
    std::multiset<std::string> expected;
    for (const ContentMismatch& each : report.mismatches) {
      found.insert(std::to_string(each.event) + " " + std::string(HashAlgorithmName(each.bank)));
      EXPECT_NE(DescribeMismatch(log, each).find("digest"), std::string::npos);
    }
    for (const Json& each : expect["digest_mismatches"]) {
      expected.insert(std::to_string(each["event"].get<size_t>()) + " " +
                      each["bank"].get<std::string>());
    }
    EXPECT_EQ(found, expected);
  });
}

TEST_F(EventLogVectors, SecureBootIsWhatTheManifestSays) {
  static const std::map<std::string, LoggedSecureBoot> kStates = {
      {"on", LoggedSecureBoot::kOn},
      {"off", LoggedSecureBoot::kOff},
      {"empty_variable", LoggedSecureBoot::kEmptyVariable},
      {"not_measured", LoggedSecureBoot::kNotMeasured}};
  ForEachGood([](const EventLog& log, const Json& expect) {
    for (const LogBank& bank : log.banks()) {
      if (!bank.hash.has_value()) continue;
      const LoggedSecureBootPolicy policy = ReadSecureBootPolicy(log, *bank.hash);
      EXPECT_EQ(policy.state, kStates.at(expect["secure_boot"]));
    }
  });
}

TEST_F(EventLogVectors, EveryEventHasAPrintableDescription) {
  ForEachGood([](const EventLog& log, const Json&) {
    for (const LoggedEvent& event : log.events()) {
      const std::string text = DescribeEvent(log, event);
      EXPECT_FALSE(text.empty());
      EXPECT_EQ(text.find("malformed"), std::string::npos) << text;
      EXPECT_TRUE(std::ranges::none_of(text, [](unsigned char c) { return c < 0x20; })) << text;
    }
  });
}

TEST_F(EventLogVectors, SecondSeparatorIsNoticedAndTheOtherLogIsClean) {
  for (const auto& [file, problems] : std::map<std::string, bool>{
           {"cc-cos-113-dupe-separator.bin", true}, {"cc-cos-113-tdx.bin", false}}) {
    const Bytes bytes = ReadFile(VectorsDir() + "/eventlogs/" + file);
    const auto log = EventLog::Parse(bytes, EventLogKind::kConfidential);
    ASSERT_TRUE(log.has_value());
    const auto policy = ReadSecureBootPolicy(*log, HashAlgorithm::kSha384);
    EXPECT_EQ(!policy.problems.empty(), problems) << file;
  }
}

TEST_F(EventLogVectors, CcelTableIsRead) {
  const auto table = ParseCcelTable(ReadFile(VectorsDir() + "/eventlogs/cc-cos-113-table.bin"));
  ASSERT_TRUE(table.has_value()) << table.error().Describe();
  EXPECT_EQ(table->type, 2);
  EXPECT_EQ(table->log_size, 262144U);
  EXPECT_EQ(table->log_address, 3202084864U);
}

// The log, the TPM's quote over SHA-256 PCRs 0 to 16, and damage to the log with who must notice.
class QuotedEventLog : public ::testing::Test {
 protected:
  void SetUp() override {
    if (VectorsDir().empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
    const Json manifest = Json::parse(AsText(ReadFile(VectorsDir() + "/manifest.json")));
    for (const Json& entry : manifest) {
      if (entry["file"] == "quotes/hpe/message.bin") expect_ = entry["expect"];
    }
    ASSERT_FALSE(expect_.is_null());
    bytes_ = ReadFile(VectorsDir() + "/quotes/hpe/uefi_log.bin");
    const Json& replayed = expect_["checks"]["uefi_replay_equals_quoted_pcrs"];
    for (const Json& index : replayed) {
      const std::string name = std::to_string(index.get<uint32_t>());
      known_.push_back({.index = index.get<uint32_t>(),
                        .value = *FromHex(expect_["pcrs"]["sha256"][name].get<std::string>())});
    }
  }

  // "" if nothing notices, else "log_parse", "log_replay_pcrN" or "content".
  static std::string Verdict(const Bytes& bytes, const std::vector<KnownRegister>& known) {
    const auto log = EventLog::Parse(bytes, EventLogKind::kTpm);
    if (!log.has_value()) return "log_parse";
    const auto compared = CompareEventLog(*log, HashAlgorithm::kSha256, known);
    if (!compared->Agrees()) {
      return "log_replay_pcr" + std::to_string(compared->first_difference->index);
    }
    return CheckContents(*log).mismatches.empty() ? "" : "content";
  }

  Json expect_;
  Bytes bytes_;
  std::vector<KnownRegister> known_;
};

TEST_F(QuotedEventLog, ReplaysToTheQuotedPcrs) {
  EXPECT_EQ(Verdict(bytes_, known_), "");
  const auto log = EventLog::Parse(bytes_, EventLogKind::kTpm);
  EXPECT_TRUE(CompareEventLog(*log, HashAlgorithm::kSha256, known_)->unproven.empty());
}

TEST_F(QuotedEventLog, DamageIsNoticedWhereTheManifestSays) {
  size_t tried = 0;
  for (const Json& mutation : expect_["must_reject_single_byte_mutations"]) {
    if (mutation["file"] != "uefi_log") continue;
    Bytes damaged = bytes_;
    damaged[mutation["offset"].get<size_t>()] ^= static_cast<std::byte>(mutation["xor"].get<int>());
    EXPECT_EQ(Json(Verdict(damaged, known_)), mutation["rejected_by"]) << mutation;
    ++tried;
  }
  EXPECT_GE(tried, 12U);
}

TEST_F(QuotedEventLog, DamageThatTheQuoteDoesNotCoverIsNoticedInTheContents) {
  size_t tried = 0;
  for (const Json& mutation : expect_["mutations_a_minimal_verifier_misses"]) {
    if (mutation["file"] != "uefi_log") continue;
    Bytes damaged = bytes_;
    damaged[mutation["offset"].get<size_t>()] ^= static_cast<std::byte>(mutation["xor"].get<int>());
    EXPECT_EQ(Verdict(damaged, known_), "content") << mutation;
    ++tried;
  }
  EXPECT_GE(tried, 2U);
}

TEST_F(EventLogVectors, MissingExitBootServicesIsNamedAsTheCause) {
  const Bytes bytes = ReadFile(VectorsDir() + "/eventlogs/ebs_event_missing.bin");
  const auto log = EventLog::Parse(bytes, EventLogKind::kTpm);
  ASSERT_TRUE(log.has_value());
  const KnownRegister quoted{.index = 5,
                             .value = *FromHex("31245808d6d35849bc394f6343f2b3ff908ed5e3")};
  const auto compared = CompareEventLog(*log, HashAlgorithm::kSha1, std::span(&quoted, 1));
  ASSERT_FALSE(compared->Agrees());
  EXPECT_NE(compared->first_difference->reason.find("ExitBootServices"), std::string::npos);
}

}  // namespace
}  // namespace vallum::measure

// SPDX-License-Identifier: Apache-2.0
// `policy import-pcrlock`: from a folder to verdicts over a host's log; `policy import-whitelist`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "attest/rules.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "cli/cli_rig.h"
#include "measure/event_log_builder.h"
#include "measure/event_log_replay.h"

namespace vallum::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;

std::string Record(int pcr, std::string_view hashed, const std::string& bank = "sha256") {
  const HashAlgorithm algorithm = bank == "sha1" ? HashAlgorithm::kSha1 : kBank;
  return R"({"pcr":)" + std::to_string(pcr) + R"(,"digests":[{"hashAlg":")" + bank +
         R"(","digest":")" + ToHex(Digest(algorithm, AsBytes(hashed))) + R"("}]})";
}

std::string Component(const std::string& records) { return R"({"records":[)" + records + "]}"; }

class ImportPcrlock : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    std::filesystem::create_directories(dir_ / "pcrlock.d/650-kernel.pcrlock.d");
    Write("pcrlock.d/630-loader.pcrlock", Component(Record(4, "loader")), 0644);
    Write("pcrlock.d/650-kernel.pcrlock.d/6.1.pcrlock", Component(Record(4, "6.1")), 0644);
    Write("pcrlock.d/650-kernel.pcrlock.d/6.12.pcrlock",
          Component(Record(4, "6.12") + "," + Record(9, "initrd")), 0644);
  }
  int Import(std::vector<std::string> more = {}) {
    std::vector<std::string> args = {"policy", "import-pcrlock", Path("pcrlock.d")};
    args.insert(args.end(), more.begin(), more.end());
    return Vallum(args);
  }
  // Whether a boot that measured these into PCR 4 meets the policy that was printed.
  bool Meets(const std::vector<std::string>& measured) const {
    const auto policy = attest::ParsePolicy(out_.str());
    EXPECT_TRUE(policy.has_value()) << policy.error().Describe();
    measure::EventLogBuilder builder({kBank});
    for (const std::string& each : measured) {
      builder.AddText(4, measure::EventType::kBootServicesApplication, each);
    }
    const auto log = measure::EventLog::Parse(builder.bytes(), measure::EventLogKind::kTpm);
    EXPECT_TRUE(log.has_value());
    const auto replay = measure::ReplayEventLog(*log, kBank);
    attest::PcrBanks quoted;
    for (const auto& [pcr, rule] : policy->pcrs) {
      quoted[kBank].emplace(*PcrIndex::Create(pcr), replay->values[pcr]);
    }
    attest::Reasons reasons;
    const uint32_t proven = attest::ProveEventLog(*policy, quoted, *log, reasons);
    attest::JudgePcrs(*policy, {.quoted = quoted, .log = &*log, .proven = proven}, {}, reasons);
    return reasons.empty();
  }
};

TEST_F(ImportPcrlock, BootOfOneVariantOfEachComponentMeetsThePolicy) {
  ASSERT_EQ(Import({"--pcr", "4", "--name", "gold"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("name = \"gold\""));
  EXPECT_TRUE(Meets({"loader", "6.1"}));
  EXPECT_TRUE(Meets({"loader", "6.12"}));
  EXPECT_FALSE(Meets({"loader", "6.6"}));
  EXPECT_FALSE(Meets({"6.1", "loader"}));
  EXPECT_FALSE(Meets({"loader"}));
}

TEST_F(ImportPcrlock, EveryMeasuredPcrGetsARuleUnlessSomeAreNamed) {
  ASSERT_EQ(Import(), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("[pcr.4]"));
  EXPECT_THAT(out_.str(), HasSubstr("[pcr.9]"));
  EXPECT_THAT(out_.str(), HasSubstr("# one variant of each of 630-loader, 650-kernel"));
  ASSERT_EQ(Import({"--pcr", "9"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), Not(HasSubstr("[pcr.4]")));
  EXPECT_THAT(out_.str(), Not(HasSubstr("630-loader")));
}

TEST_F(ImportPcrlock, PcrThatNoComponentMeasuresIsRefused) {
  EXPECT_EQ(Import({"--pcr", "4", "--pcr", "11"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("no component measures PCR 11"));
}

TEST_F(ImportPcrlock, RecordWithoutAStrongBankIsRefusedWithItsFile) {
  Write("pcrlock.d/650-kernel.pcrlock.d/5.10.pcrlock", Component(Record(4, "5.10", "sha1")), 0644);
  EXPECT_EQ(Import(), 2);
  EXPECT_THAT(err_.str(), HasSubstr("650-kernel.pcrlock.d/5.10.pcrlock"));
}

TEST_F(ImportPcrlock, FileThatIsDamagedIsRefusedWithItsPath) {
  Write("pcrlock.d/700-odd.pcrlock", "{", 0644);
  EXPECT_EQ(Import(), 2);
  EXPECT_THAT(err_.str(), HasSubstr("700-odd.pcrlock"));
}

TEST_F(ImportPcrlock, FolderWithoutComponentsIsRefused) {
  std::filesystem::create_directory(Path("empty"));
  EXPECT_EQ(Vallum({"policy", "import-pcrlock", Path("empty")}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("no .pcrlock file"));
  EXPECT_NE(Vallum({"policy", "import-pcrlock", Path("absent")}), 0);
  EXPECT_THAT(err_.str(), HasSubstr("absent"));
}

TEST_F(ImportPcrlock, EarlierFolderCountsAndALinkToDevNullTakesAComponentAway) {
  std::filesystem::create_directory(Path("etc"));
  Write("etc/630-loader.pcrlock", Component(Record(4, "own")), 0644);
  Write("etc/README", "", 0644);
  ASSERT_EQ(Vallum({"policy", "import-pcrlock", Path("etc"), Path("pcrlock.d"), "--pcr", "4"}), 0)
      << err_.str();
  EXPECT_THAT(err_.str(), HasSubstr("passed over"));
  EXPECT_TRUE(Meets({"own", "6.1"}));
  std::filesystem::remove(Path("etc/630-loader.pcrlock"));
  std::filesystem::create_symlink("/dev/null", Path("etc/630-loader.pcrlock"));
  ASSERT_EQ(Vallum({"policy", "import-pcrlock", Path("etc"), Path("pcrlock.d"), "--pcr", "4"}), 0)
      << err_.str();
  EXPECT_TRUE(Meets({"6.1"}));
}

TEST_F(ImportPcrlock, ComponentsAreInTheOrderOfTheirFilesNamesInTheDocumentToo) {
  Write("pcrlock.d/650-kernel-cmdline.pcrlock", Component(Record(4, "cmdline")), 0644);
  Write("pcrlock.d/999-emptied.pcrlock", "", 0644);
  ASSERT_EQ(Import({"--pcr", "4"}), 0) << err_.str();
  EXPECT_THAT(err_.str(), HasSubstr("999-emptied.pcrlock: it is empty"));
  EXPECT_TRUE(Meets({"loader", "cmdline", "6.1"}));
  EXPECT_FALSE(Meets({"loader", "6.1", "cmdline"}));
}

class ImportWhitelist : public CliTest {
 protected:
  static std::string Bean(const std::string& pcr, const std::string& digest) {
    return R"({"pcrName":")" + pcr + R"(","pcrDigest":")" + digest +
           R"(","mleName":"BIOS","mleVersion":"1.62","oemName":"ACME"})";
  }
  int Import(const std::string& beans) {
    Write("pcrs.json", R"({"pcrBean":[)" + beans + "]}", 0644);
    return Vallum({"policy", "import-whitelist", Path("pcrs.json"), "--name", "gold"});
  }
};

TEST_F(ImportWhitelist, ValuesBecomeGoldenRulesOfAPolicyThatParses) {
  ASSERT_EQ(Import(Bean("0", std::string(64, 'a')) + "," + Bean("0", std::string(64, 'b')) + "," +
                   Bean("17", std::string(64, 'c'))),
            0)
      << err_.str();
  const auto policy = attest::ParsePolicy(out_.str());
  ASSERT_TRUE(policy.has_value()) << policy.error().Describe();
  EXPECT_EQ(policy->name, "gold");
  EXPECT_EQ(policy->PcrMask(), 1U | 1U << 17U);
  EXPECT_EQ(std::get<attest::GoldenRule>(policy->pcrs.at(0)).values.list().size(), 2U);
  EXPECT_THAT(out_.str(), HasSubstr("BIOS 1.62"));
}

TEST_F(ImportWhitelist, ListThatSaysTooLittleIsRefusedInWords) {
  EXPECT_EQ(Import(Bean("0", std::string(64, 'a')) + "," + Bean("1", std::string(40, 'b'))), 2);
  EXPECT_THAT(err_.str(), HasSubstr("there is no bank of which every PCR has a value"));
  EXPECT_EQ(Import(Bean("24", std::string(64, 'a'))), 2);
  EXPECT_THAT(err_.str(), HasSubstr("is no PCR"));
  EXPECT_EQ(Import(R"({"pcrName":"1"})"), 2);
  EXPECT_THAT(err_.str(), HasSubstr("pcrDigest is missing"));
  EXPECT_EQ(Import(""), 2);
  EXPECT_THAT(err_.str(), HasSubstr("the list is empty"));
  Write("other.json", "{}", 0644);
  EXPECT_EQ(Vallum({"policy", "import-whitelist", Path("other.json")}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("/WLMService/resources/mles/whitelist/pcr"));
}

}  // namespace
}  // namespace vallum::cli

// SPDX-License-Identifier: Apache-2.0
// Whole evidence of a host, from the shared test vectors: quote, event log and IMA's list.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "attest/evidence_bundle.h"
#include "attest/host_verification.h"
#include "attest/learn.h"
#include "attest/serialized_pcrs.h"
#include "attest/tpm_public.h"

namespace vallum::attest {
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

// The files of one host, by the names that the manifest gives to their parts.
using Files = std::map<std::string, Bytes>;

struct Judged {
  Verdict verdict;
  HostState state;
};

class HostVectors : public ::testing::Test {
 protected:
  void SetUp() override {
    if (VectorsDir().empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
    const Json manifest = Json::parse(AsText(ReadFile(VectorsDir() + "/manifest.json")));
    for (const Json& entry : manifest) {
      if (entry["kind"] != "tpm_quote_message" || !entry["expect"].contains("uefi_log")) continue;
      expect_ = entry["expect"];
      files_["message"] = Read(entry["file"]);
    }
    ASSERT_FALSE(expect_.is_null());
    files_["signature"] = Read(expect_["signature"]);
    files_["ak"] = Read(expect_["ak"]);
    files_["pcrs"] = Read(expect_["pcrs_file"]);
    files_["uefi_log"] = Read(expect_["uefi_log"]);
    files_["ima_log"] = Read(expect_["ima_log"]);
    nonce_ = *FromHex(expect_["nonce_hex"].get<std::string>());
    auto learned = LearnPolicy("learned", Tpm(files_), Evidence(files_), nonce_);
    ASSERT_TRUE(learned.has_value()) << learned.error().Describe();
    learned_ = *std::move(learned);
    auto list = measure::ImportDigestList(learned_.ima_list);
    ASSERT_TRUE(list.has_value()) << list.error().Describe();
    policy_ = PreparePolicy(learned_.policy, *list);
  }

  static Bytes Read(const Json& name) {
    return ReadFile(VectorsDir() + "/" + name.get<std::string>());
  }
  static BoundTpm Tpm(const Files& files) {
    return {.key = QuoteKey::Create(ParseTpm2bPublic(files.at("ak")).value()).value(),
            .kind = TpmKind::kHardware};
  }
  static HostEvidence Evidence(const Files& files) {
    return {.quote = files.at("message"),
            .signature = files.at("signature"),
            .pcrs = ParseSerializedPcrs(files.at("pcrs")).value(),
            .event_log = files.at("uefi_log"),
            .ima_log = files.at("ima_log"),
            .facts = {}};
  }
  HostJudgement Judge(const Files& files, const HostState& state = {}) const {
    return VerifyHost(Tpm(files), Evidence(files), state, *policy_, nonce_);
  }
  static std::string Words(const Verdict& verdict) {
    std::string out;
    for (const Reason& each : verdict.reasons) out += DescribeReason(each) + "\n";
    return out;
  }

  Json expect_;
  Files files_;
  Bytes nonce_;
  LearnedPolicy learned_;
  SharedPolicy policy_;
};

TEST_F(HostVectors, DraftAdmitsAnEmulatedTpmOnlyWhereTheHostHasOne) {
  EXPECT_EQ(learned_.policy.emulated_tpm, EmulatedTpm::kRefused);
  BoundTpm emulated = Tpm(files_);
  emulated.kind = TpmKind::kEmulated;
  const auto learned = LearnPolicy("learned", emulated, Evidence(files_), nonce_);
  ASSERT_TRUE(learned.has_value());
  EXPECT_EQ(learned->policy.emulated_tpm, EmulatedTpm::kAllowed);
  EXPECT_NE(learned->document.find("this host's TPM is a program"), std::string::npos);
}

TEST_F(HostVectors, HostIsTrustedUnderThePolicyLearnedFromIt) {
  const HostJudgement judged = Judge(files_);
  EXPECT_EQ(judged.verdict.kind, HostVerdictKind::kTrusted) << Words(judged.verdict);
  EXPECT_TRUE(judged.verdict.reasons.empty());
  const auto again = ParsePolicy(learned_.document);
  ASSERT_TRUE(again.has_value()) << again.error().Describe();
  EXPECT_EQ(*again, learned_.policy) << learned_.document;
}

TEST_F(HostVectors, LearnedRulesOutliveAnUpdateWhereTheyCan) {
  const auto kind = [&](uint32_t pcr) { return PcrRuleName(learned_.policy.pcrs.at(pcr)); };
  for (const uint32_t pcr : {0U, 2U, 7U, 16U}) EXPECT_EQ(kind(pcr), "golden") << pcr;
  for (const uint32_t pcr : {4U, 5U, 8U, 9U}) EXPECT_EQ(kind(pcr), "events") << pcr;
  EXPECT_EQ(kind(1), "ignored");
  EXPECT_EQ(kind(10), "ima");
  EXPECT_FALSE(learned_.policy.command_line.allowed.empty());
  // GRUB measured the line, and the kernel's stub its digest.
  for (const uint32_t pcr : {8U, 9U}) {
    EXPECT_EQ(std::get<EventsRule>(learned_.policy.pcrs.at(pcr)).command_lines,
              CommandLines::kChecked);
  }
}

TEST_F(HostVectors, EachByteThatTheManifestChangesIsNoticedAtItsStage) {
  static const std::map<std::string, std::vector<ReasonId>> kStages = {
      {"signature",
       {ReasonId::kQuoteSignature, ReasonId::kQuoteMalformed, ReasonId::kQuoteUnsupported}},
      {"pcr_digest", {ReasonId::kPcrDigest, ReasonId::kPcrNotQuoted, ReasonId::kQuoteSelection}},
      {"log_parse", {ReasonId::kEventLogMalformed}},
      {"ima_replay", {ReasonId::kImaReplay}},
      {"ima_parse", {ReasonId::kImaLogMalformed}}};
  size_t tried = 0;
  for (const Json& mutation : expect_["must_reject_single_byte_mutations"]) {
    SCOPED_TRACE(mutation.dump());
    Files damaged = files_;
    damaged[mutation["file"].get<std::string>()][mutation["offset"].get<size_t>()] ^=
        static_cast<std::byte>(mutation["xor"].get<int>());
    const std::string stage = mutation["rejected_by"].get<std::string>();
    const auto ak = ParseTpm2bPublic(damaged["ak"]);
    const auto pcrs = ParseSerializedPcrs(damaged["pcrs"]);
    ++tried;
    if (!ak.has_value() || !QuoteKey::Create(*ak).has_value()) {
      EXPECT_EQ(stage, "signature");
      continue;
    }
    if (!pcrs.has_value()) {
      EXPECT_TRUE(stage == "pcr_format" || stage == "pcr_digest");
      continue;
    }
    const HostJudgement judged = Judge(damaged);
    ASSERT_EQ(judged.verdict.kind, HostVerdictKind::kUntrusted);
    const Reason& first = judged.verdict.reasons.front();
    if (stage.starts_with("log_replay_pcr")) {
      EXPECT_EQ(first.id, ReasonId::kEventLogReplay) << Words(judged.verdict);
      EXPECT_EQ("log_replay_pcr" + std::to_string(*first.pcr), stage);
      continue;
    }
    ASSERT_TRUE(kStages.contains(stage));
    const auto& ids = kStages.at(stage);
    EXPECT_NE(std::find(ids.begin(), ids.end(), first.id), ids.end()) << Words(judged.verdict);
    EXPECT_EQ(judged.state.boot.has_value(), stage.starts_with("ima")) << "believed nothing";
    EXPECT_FALSE(judged.state.ima.has_value() && stage.starts_with("ima"));
  }
  EXPECT_GE(tried, 60U);
}

// A bank that is not quoted is proven by nobody, and that is said; what the quoted bank's digests
// cover is refused.
TEST_F(HostVectors, DamageThatTheQuoteDoesNotCoverIsNoticed) {
  for (const Json& mutation : expect_["mutations_a_minimal_verifier_misses"]) {
    SCOPED_TRACE(mutation.dump());
    Files damaged = files_;
    damaged[mutation["file"].get<std::string>()][mutation["offset"].get<size_t>()] ^=
        static_cast<std::byte>(mutation["xor"].get<int>());
    const HostJudgement judged = Judge(damaged);
    const bool other_bank =
        mutation["why"].get<std::string>().find("sha384 digest") != std::string::npos;
    EXPECT_EQ(judged.verdict.kind,
              other_bank ? HostVerdictKind::kTrusted : HostVerdictKind::kUntrusted);
    if (other_bank) {
      ASSERT_FALSE(judged.verdict.notes.empty());
      EXPECT_EQ(judged.verdict.notes.front().id, ReasonId::kEventLogBank);
    }
  }
}

TEST_F(HostVectors, NothingNewIsTrustedWithoutLogs) {
  const HostJudgement first = Judge(files_);
  ASSERT_EQ(first.verdict.kind, HostVerdictKind::kTrusted);
  Files quote_only = files_;
  quote_only["uefi_log"].clear();
  quote_only["ima_log"].clear();
  const HostJudgement again = Judge(quote_only, first.state);
  EXPECT_EQ(again.verdict.kind, HostVerdictKind::kTrusted) << Words(again.verdict);
  EXPECT_EQ(again.state.boot, first.state.boot);
  EXPECT_EQ(again.state.ima, first.state.ima);
}

TEST_F(HostVectors, HostThatWasNeverJudgedIsNotTrustedWithoutLogs) {
  Files quote_only = files_;
  quote_only["uefi_log"].clear();
  quote_only["ima_log"].clear();
  const HostJudgement judged = Judge(quote_only);
  ASSERT_EQ(judged.verdict.reasons.size(), 2U) << Words(judged.verdict);
  EXPECT_EQ(judged.verdict.reasons[0].id, ReasonId::kEventLogAbsent);
  EXPECT_EQ(judged.verdict.reasons[1].id, ReasonId::kImaLogAbsent);
}

TEST_F(HostVectors, OtherPolicyIsJudgedAnew) {
  const HostJudgement first = Judge(files_);
  AttestationPolicy changed = learned_.policy;
  changed.pcrs.at(16) = IgnoredRule{.because = "a test"};
  const SharedPolicy other = PreparePolicy(changed, policy_->allow_list);
  Files quote_only = files_;
  quote_only["uefi_log"].clear();
  quote_only["ima_log"].clear();
  const HostJudgement judged =
      VerifyHost(Tpm(files_), Evidence(quote_only), first.state, *other, nonce_);
  EXPECT_EQ(judged.verdict.kind, HostVerdictKind::kUntrusted);
  EXPECT_FALSE(EvidenceFor(*other, first.state).known_reset_count.has_value());
  EXPECT_EQ(EvidenceFor(*other, first.state).ima_from, 0U);
  EXPECT_EQ(EvidenceFor(*policy_, first.state).known_reset_count, 43U);
  EXPECT_EQ(EvidenceFor(*policy_, first.state).ima_from, 780U);
}

TEST_F(HostVectors, PcrWithoutARuleIsAReason) {
  AttestationPolicy changed = learned_.policy;
  changed.pcrs.erase(16);
  const SharedPolicy other = PreparePolicy(changed, policy_->allow_list);
  const HostJudgement judged = VerifyHost(Tpm(files_), Evidence(files_), {}, *other, nonce_);
  ASSERT_EQ(judged.verdict.reasons.size(), 1U) << Words(judged.verdict);
  EXPECT_EQ(judged.verdict.reasons[0].id, ReasonId::kPcrWithoutRule);
  EXPECT_EQ(judged.verdict.reasons[0].pcr, 16U);
}

TEST_F(HostVectors, EmptyPolicyTrustsNobody) {
  AttestationPolicy empty;
  empty.banks = {HashAlgorithm::kSha256};
  const SharedPolicy other = PreparePolicy(empty, nullptr);
  EXPECT_EQ(VerifyHost(Tpm(files_), Evidence(files_), {}, *other, nonce_).verdict.kind,
            HostVerdictKind::kUntrusted);
}

TEST_F(HostVectors, OtherNonceIsRefused) {
  const HostJudgement judged =
      VerifyHost(Tpm(files_), Evidence(files_), {}, *policy_, Bytes(20, std::byte{7}));
  ASSERT_FALSE(judged.verdict.reasons.empty());
  EXPECT_EQ(judged.verdict.reasons[0].id, ReasonId::kQuoteNonce);
}

TEST_F(HostVectors, BundleIsReadBackAndJudgedTheSame) {
  EvidenceBundle bundle{.ak_public = ParseTpm2bPublic(files_["ak"]).value().encoded,
                        .ek_certificate = {},
                        .tpm = TpmKind::kHardware,
                        .nonce = nonce_,
                        .quote = files_["message"],
                        .signature = files_["signature"],
                        .pcrs = ParseSerializedPcrs(files_["pcrs"]).value(),
                        .event_log = files_["uefi_log"],
                        .ima_log = files_["ima_log"],
                        .ima_before = {},
                        .facts = {},
                        .policy = "learned"};
  const auto file = FormatBundle(bundle);
  ASSERT_TRUE(file.has_value());
  EXPECT_LT(file->size(), files_["uefi_log"].size() + files_["ima_log"].size());
  const auto again = ParseBundle(*file);
  ASSERT_TRUE(again.has_value()) << again.error().Describe();
  EXPECT_EQ(*again, bundle);
  const auto verdict = VerifyBundle(*again, *policy_);
  ASSERT_TRUE(verdict.has_value()) << verdict.error().Describe();
  EXPECT_EQ(verdict->kind, HostVerdictKind::kTrusted) << Words(*verdict);
  AttestationPolicy strict = learned_.policy;
  strict.command_line.required = {"lockdown=integrity"};
  const auto outcome = TryPolicy(*PreparePolicy(strict, policy_->allow_list), {{"h1", &bundle}});
  ASSERT_EQ(outcome.size(), 1U);
  EXPECT_EQ(outcome[0].verdict.reasons.front().id, ReasonId::kArgumentMissing);
}

}  // namespace
}  // namespace vallum::attest

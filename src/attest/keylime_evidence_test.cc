// SPDX-License-Identifier: Apache-2.0
#include "attest/keylime_evidence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "attest/learn.h"
#include "attest/quote_builder.h"
#include "attest/serialized_pcrs.h"
#include "measure/event_log_builder.h"

namespace vallum::attest {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

constexpr auto kSha256 = HashAlgorithm::kSha256;

Bytes Tpm2b(const Bytes& content) {
  Bytes out = {std::byte(content.size() >> 8U), std::byte(content.size() & 0xFFU)};
  out.insert(out.end(), content.begin(), content.end());
  return out;
}

std::string QuoteText(const Bytes& message, const Bytes& signature, const Bytes& pcrs) {
  return "r" + ToBase64(message) + ":" + ToBase64(signature) + ":" + ToBase64(pcrs);
}

// What a client sends of a TPM whose PCRs 0 and 22 hold ones and twos.
Json MakeValidQuestion() {
  static const SoftwareKey key = SoftwareKey::MakeRsa(KeyScheme::kRsassa, kSha256);
  const PcrBanks pcrs = {{kSha256,
                          {{PcrIndex::Of<0>(), Bytes(32, std::byte{0x11})},
                           {PcrIndex::Of<22>(), Bytes(32, std::byte{0x22})}}}};
  Attestation attestation;
  attestation.qualified_signer = Bytes(34, std::byte{1});
  attestation.nonce = ToBytes(AsBytes("a nonce of a client"));
  attestation.clock = {.clock = 5, .reset_count = 1, .safe = true};
  attestation.banks = SelectAll(pcrs);
  attestation.pcr_digest = PcrDigest(kSha256, pcrs);
  const Bytes message = BuildAttestation(attestation);
  const std::string ak = ToBase64(Tpm2b(key.Public()));
  return {{"type", "tpm"},
          {"data",
           {{"quote", QuoteText(message, key.Sign(message), SerializePcrs(pcrs))},
            {"nonce", "a nonce of a client"},
            {"hash_alg", "sha256"},
            {"tpm_ak", ak},
            {"tpm_ek", ak},
            {"tpm_policy", R"({"22":[")" + std::string(64, '2') + R"("],"mask":"0x400001"})"}}}};
}

Json Answer(const Json& question, int status = 200) {
  const KeylimeReply reply = VerifyKeylimeEvidence(question.dump());
  EXPECT_EQ(reply.status, status) << reply.body.substr(0, 2000);
  return Json::parse(reply.body);
}

std::vector<std::string> Types(const Json& answer) {
  std::vector<std::string> out;
  for (const Json& each : answer["results"]["failures"]) out.push_back(each["type"]);
  return out;
}

TEST(KeylimeEvidence, GoodEvidenceIsValidAndEchoed) {
  const Json question = MakeValidQuestion();
  const Json answer = Answer(question);
  EXPECT_EQ(answer["code"], 200);
  EXPECT_EQ(answer["status"], "Success");
  EXPECT_EQ(answer["results"]["valid"], true) << answer.dump();
  EXPECT_THAT(answer["results"]["failures"], IsEmpty());
  EXPECT_EQ(answer["results"]["claims"], question["data"]);
}

TEST(KeylimeEvidence, PoliciesMayBeObjects) {
  Json question = MakeValidQuestion();
  question["data"]["tpm_policy"] = {{"22", {std::string(64, '2')}}};
  EXPECT_EQ(Answer(question)["results"]["valid"], true);
}

TEST(KeylimeEvidence, OtherValueIsAnInvalidPcr) {
  Json question = MakeValidQuestion();
  question["data"]["tpm_policy"] = {{"22", {std::string(64, '3')}}};
  const Json answer = Answer(question);
  EXPECT_EQ(answer["results"]["valid"], false);
  EXPECT_THAT(Types(answer), ElementsAre("pcr_validation.invalid_pcr_22"));
  EXPECT_EQ(answer["results"]["claims"], Json::object());
  EXPECT_THAT(answer["results"]["failures"][0]["context"]["message"].get<std::string>(),
              HasSubstr("22"));
}

TEST(KeylimeEvidence, PcrThatIsNotQuotedIsMissing) {
  Json question = MakeValidQuestion();
  question["data"]["tpm_policy"] = {{"7", {std::string(64, '3')}}};
  EXPECT_THAT(Types(Answer(question)), Contains("pcr_validation.missing_pcrs"));
  question["data"]["tpm_policy"] = {{"mask", "0x80"}};
  EXPECT_THAT(Types(Answer(question)), Contains("pcr_validation.missing_pcrs"));
}

TEST(KeylimeEvidence, OtherNonceIsNotBelieved) {
  Json question = MakeValidQuestion();
  question["data"]["nonce"] = "another nonce";
  EXPECT_THAT(Types(Answer(question)), ElementsAre("qoute_validation.quote_validation"));
}

TEST(KeylimeEvidence, NonceInHexadecimalStandsForItsBytes) {
  Json question = MakeValidQuestion();
  question["data"]["nonce"] = ToHex(AsBytes("a nonce of a client"));
  EXPECT_EQ(Answer(question)["results"]["valid"], true);
  question["data"]["nonce"] = ToHex(AsBytes("a nonce of another"));
  EXPECT_EQ(Answer(question)["results"]["valid"], false);
}

TEST(KeylimeEvidence, OtherKeyIsNotBelieved) {
  Json question = MakeValidQuestion();
  const SoftwareKey other = SoftwareKey::MakeRsa(KeyScheme::kRsassa, kSha256);
  question["data"]["tpm_ak"] = ToBase64(Tpm2b(other.Public()));
  EXPECT_THAT(Types(Answer(question)), ElementsAre("qoute_validation.quote_validation"));
}

TEST(KeylimeEvidence, EvidenceThatCannotBeReadIsAFailure) {
  for (const char* name : {"quote", "tpm_ak", "tpm_ek"}) {
    SCOPED_TRACE(name);
    Json question = MakeValidQuestion();
    question["data"][name] = "r:::!";
    EXPECT_THAT(Types(Answer(question)), Contains("qoute_validation.quote_validation"));
  }
  Json question = MakeValidQuestion();
  question["data"]["mb_log"] = "!!";
  EXPECT_THAT(Types(Answer(question)), ElementsAre("measured_boot.parser.tpm2_eventlog"));
}

TEST(KeylimeEvidence, RuntimePolicyAsksForPcr10AndItsList) {
  Json question = MakeValidQuestion();
  question["data"]["runtime_policy"] =
      R"({"meta":{"version":1},"digests":{},"excludes":[],"keyrings":{},"ima":{},"ima-buf":{},"verification-keys":""})";
  EXPECT_THAT(Types(Answer(question)), Contains("pcr_validation.missing_pcrs"));
}

TEST(KeylimeEvidence, QuestionsThatCannotBeDecidedAreRefusedInWords) {
  const auto status = [](const std::string& body) {
    const KeylimeReply reply = VerifyKeylimeEvidence(body);
    EXPECT_EQ(reply.status, 400) << body;
    return Json::parse(reply.body)["status"].get<std::string>();
  };
  EXPECT_EQ(status(R"({"data":{"quote":"q"}})"), "missing parameter 'type'");
  EXPECT_EQ(status(R"({"type":"tpm"})"), "missing parameter 'data'");
  EXPECT_EQ(status(R"({"type":"sgx","data":{"quote":"q"}})"), "invalid evidence type");
  EXPECT_THAT(status(R"({"type":"tee","data":{"quote":"q"}})"), HasSubstr("not supported"));
  status("not json");
  status("[]");
  for (const char* name : {"quote", "nonce", "hash_alg", "tpm_ek", "tpm_ak", "tpm_policy"}) {
    Json question = MakeValidQuestion();
    question["data"].erase(name);
    const Json answer = Answer(question, 400);
    EXPECT_EQ(answer["status"], "Bad Request");
    EXPECT_EQ(answer["results"]["valid"], false);
    EXPECT_THAT(answer["results"]["failures"][0]["context"]["message"].get<std::string>(),
                HasSubstr(name));
  }
}

TEST(KeylimeEvidence, PoliciesThatCannotBeAppliedAreRefused) {
  const auto refused = [](const char* name, const Json& value) {
    Json question = MakeValidQuestion();
    question["data"][name] = value;
    EXPECT_EQ(Answer(question, 400)["results"]["valid"], false) << name << value.dump();
  };
  refused("tpm_policy", "{}");
  refused("tpm_policy", "[]");
  refused("tpm_policy", {{"24", {std::string(64, '2')}}});
  refused("tpm_policy", {{"1", {"22"}}});
  refused("tpm_policy", {{"1", {2}}});
  refused("tpm_policy", {{"1", {std::string(64, '2')}}, {"01", {std::string(64, '2')}}});
  refused("tpm_policy", {{"mask", "0x1000000"}});
  refused("tpm_policy", {{"mask", -1}});
  refused("runtime_policy", "nonsense");
  refused("mb_policy", {{"has_secureboot", true}});
  refused("mb_policy", "[]");
  refused("hash_alg", "md5");
  refused("nonce", std::string(1000, 'n'));
}

TEST(KeylimeEvidence, ReferenceStateIsRefusedByTheNamesOfItsMembers) {
  Json question = MakeValidQuestion();
  question["data"]["mb_policy"] = {{"has_secureboot", true}, {"kernels", Json::array()}};
  EXPECT_THAT(
      Answer(question, 400)["results"]["failures"][0]["context"]["message"].get<std::string>(),
      HasSubstr("this one has has_secureboot, kernels"));
}

TEST(KeylimeEvidence, BootPolicyWithoutALogIsAFailure) {
  Json question = MakeValidQuestion();
  question["data"]["mb_policy"] = "{}";
  EXPECT_THAT(Types(Answer(question)), ElementsAre("pcr_validation.unused_pcr_0"));
}

TEST(KeylimeEvidence, BootPolicyNeedsTheFirmwaresPcrsInTheQuote) {
  measure::EventLogBuilder log({kSha256});
  log.AddText(4, measure::EventType::kEfiAction, "an invented boot").AddSeparator(4);
  Json question = MakeValidQuestion();
  question["data"]["tpm_policy"] = R"({"22":[")" + std::string(64, '2') + R"("]})";
  question["data"]["mb_policy"] = "{}";
  question["data"]["mb_list"] = ToBase64(log.bytes());
  EXPECT_THAT(Types(Answer(question)), Contains("pcr_validation.missing_pcrs"));
}

TEST(KeylimeEvidence, VersionIsTheOneServed) {
  EXPECT_EQ(Json::parse(KeylimeVersion().body), Json::parse(R"({"code":200,"status":"Success",
                            "results":{"current_version":"2.5","supported_versions":["2.5"]}})"));
}

// ---- the shared vectors ----

Bytes ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return ToBytes(AsBytes(text.str()));
}

class KeylimeVectors : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* given = std::getenv("VALLUM_VECTORS");
    if (given == nullptr) GTEST_SKIP() << "VALLUM_VECTORS is absent";
    dir_ = given;
    manifest_ = Json::parse(AsText(ReadFile(dir_ + "/manifest.json")));
  }
  Bytes Read(const Json& name) const { return ReadFile(dir_ + "/" + name.get<std::string>()); }

  // The question after a message of the manifest, with the values that it expects as policy.
  Json QuestionOf(const Json& entry) const {
    const Json& expect = entry["expect"];
    const auto bank = expect["pcrs"].begin();
    Json policy = Json::object();
    for (const auto& [pcr, value] : bank.value().items()) {
      if (pcr != "10") policy[pcr] = {value};
    }
    return {{"type", "tpm"},
            {"data",
             {{"quote", QuoteText(Read(entry["file"]), Read(expect["signature"]),
                                  Read(expect["pcrs_file"]))},
              {"nonce", expect["nonce_hex"]},
              {"hash_alg", bank.key()},
              {"tpm_ak", ToBase64(Read(expect["ak"]))},
              {"tpm_ek", ToBase64(Read(expect["ak"]))},
              {"tpm_policy", policy}}}};
  }
  // With what the manifest has of boot and files.
  Json WholeQuestionOf(const Json& entry) const {
    const Json& expect = entry["expect"];
    Json question = QuestionOf(entry);
    Json& data = question["data"];
    data["mb_policy"] = "{}";
    data["mb_list"] = ToBase64(Read(expect["uefi_log"]));
    const Bytes ima = Read(expect["ima_log"]);
    data["ima_measurement_list"] = std::string(AsText(ima));
    data["runtime_policy"] = RuntimePolicyOf(entry).dump();
    return question;
  }
  // A runtime policy of the files that a host measured.
  Json RuntimePolicyOf(const Json& entry) const {
    const Json& expect = entry["expect"];
    const Bytes log = Read(expect["uefi_log"]);
    const Bytes ima = Read(expect["ima_log"]);
    const Bytes message = Read(entry["file"]);
    const Bytes signature = Read(expect["signature"]);
    const BoundTpm tpm{
        .key = QuoteKey::Create(ParseTpm2bPublic(Read(expect["ak"])).value()).value(),
        .kind = TpmKind::kHardware};
    const auto learned =
        LearnPolicy("x", tpm,
                    {.quote = message,
                     .signature = signature,
                     .pcrs = ParseSerializedPcrs(Read(expect["pcrs_file"])).value(),
                     .event_log = log,
                     .ima_log = ima,
                     .facts = {}},
                    *FromHex(expect["nonce_hex"].get<std::string>()));
    EXPECT_TRUE(learned.has_value());
    Json digests = Json::object();
    std::istringstream lines(learned->ima_list);
    for (std::string line; std::getline(lines, line);) {
      const size_t space = line.find(' ');
      if (line.empty() || line[0] == '#' || space == std::string::npos) continue;
      digests[line.substr(space + 2)].push_back(line.substr(0, space));
    }
    return {{"meta", {{"version", 1}}},
            {"release", 0},
            {"digests", digests},
            {"excludes", Json::array()},
            {"keyrings", Json::object()},
            {"ima", {{"ignored_keyrings", Json::array()}, {"log_hash_alg", "sha1"}}},
            {"ima-buf", Json::object()},
            {"verification-keys", ""}};
  }

  std::string dir_;
  Json manifest_;
};

TEST_F(KeylimeVectors, QuotesThatTheManifestAcceptsAreValid) {
  size_t count = 0;
  for (const Json& entry : manifest_) {
    if (entry["kind"] != "tpm_quote_message" || !entry["expect"].contains("pcrs_file") ||
        !entry["expect"].contains("ak")) {
      continue;
    }
    SCOPED_TRACE(entry["file"]);
    ++count;
    const Json answer = Answer(QuestionOf(entry));
    EXPECT_EQ(answer["results"]["valid"], true) << answer["results"]["failures"].dump();
  }
  EXPECT_GT(count, 0U);
}

TEST_F(KeylimeVectors, WholeEvidenceIsValidAndItsMutationsAreNot) {
  for (const Json& entry : manifest_) {
    if (entry["kind"] != "tpm_quote_message" || !entry["expect"].contains("uefi_log")) continue;
    const Json& expect = entry["expect"];
    const Json whole = WholeQuestionOf(entry);
    const Json answer = Answer(whole);
    ASSERT_EQ(answer["results"]["valid"], true) << answer["results"]["failures"].dump();
    size_t tried = 0;
    for (const Json& mutation : expect["must_reject_single_byte_mutations"]) {
      SCOPED_TRACE(mutation.dump());
      std::map<std::string, Bytes> files = {
          {"message", Read(entry["file"])},       {"signature", Read(expect["signature"])},
          {"pcrs", Read(expect["pcrs_file"])},    {"ak", Read(expect["ak"])},
          {"uefi_log", Read(expect["uefi_log"])}, {"ima_log", Read(expect["ima_log"])}};
      files.at(mutation["file"])[mutation["offset"].get<size_t>()] ^=
          static_cast<std::byte>(mutation["xor"].get<int>());
      Json question = whole;
      Json& data = question["data"];
      data["quote"] = QuoteText(files["message"], files["signature"], files["pcrs"]);
      data["tpm_ak"] = ToBase64(files["ak"]);
      data["mb_list"] = ToBase64(files["uefi_log"]);
      data["ima_measurement_list"] = std::string(AsText(files["ima_log"]));
      // What is no UTF-8 any more cannot be sent at all.
      const std::string body = question.dump(-1, ' ', false, Json::error_handler_t::replace);
      const KeylimeReply reply = VerifyKeylimeEvidence(body);
      EXPECT_EQ(Json::parse(reply.body)["results"]["valid"], false);
      ++tried;
    }
    EXPECT_GE(tried, 60U);
  }
}

TEST_F(KeylimeVectors, FileThatThePolicyDoesNotKnowIsNamed) {
  for (const Json& entry : manifest_) {
    if (entry["kind"] != "tpm_quote_message" || !entry["expect"].contains("uefi_log")) continue;
    Json question = WholeQuestionOf(entry);
    Json policy = Json::parse(question["data"]["runtime_policy"].get<std::string>());
    const auto first = policy["digests"].begin();  // boot_aggregate comes behind the paths
    const std::string path = first.key();
    policy["digests"].erase(first);
    question["data"]["runtime_policy"] = policy;
    const Json answer = Answer(question);
    EXPECT_EQ(answer["results"]["valid"], false);
    EXPECT_THAT(Types(answer), Contains("ima.validation.ima-ng.not_in_allowlist"));
    EXPECT_THAT(answer["results"]["failures"].dump(),
                HasSubstr("File not found in allowlist: " + path));
  }
}

}  // namespace
}  // namespace vallum::attest

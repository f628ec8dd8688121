// SPDX-License-Identifier: Apache-2.0
// Evidence of the shared test vectors in the forms of other verifiers, and that every kind of
// vector about hosts has a test.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attest/ek_chain.h"
#include "attest/golden.h"
#include "attest/quote.h"
#include "attest/quote_key.h"
#include "attest/rules.h"
#include "measure/bank_hasher.h"
#include "measure/event_log.h"
#include "measure/event_log_secure_boot.h"
#include "measure/extend_log.h"

namespace vallum::attest {
namespace {

using Json = nlohmann::json;

std::string VectorsDir() {
  const char* given = std::getenv("VALLUM_VECTORS");
  return given == nullptr ? "" : given;
}

Bytes ReadVector(const std::string& name) {
  std::ifstream in(VectorsDir() + "/" + name, std::ios::binary);
  EXPECT_TRUE(in.is_open()) << name;
  std::ostringstream text;
  text << in.rdbuf();
  return ToBytes(AsBytes(text.str()));
}

Json ReadJson(const std::string& name) { return Json::parse(AsText(ReadVector(name))); }

std::string Text(const Json& json) { return json.get<std::string>(); }

Bytes FromBase64Text(const Json& json) {
  const auto bytes = FromBase64(Text(json));
  EXPECT_TRUE(bytes.has_value());
  return bytes.value_or(Bytes());
}

class EvidenceVectors : public ::testing::Test {
 protected:
  void SetUp() override {
    if (VectorsDir().empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
    manifest_ = ReadJson("manifest.json");
  }
  Json Only(const std::string& kind) const {
    Json out;
    for (const Json& entry : manifest_) {
      if (entry["kind"] != kind) continue;
      EXPECT_TRUE(out.is_null()) << "two of " << kind;
      out = entry;
    }
    EXPECT_FALSE(out.is_null()) << "none of " << kind;
    return out;
  }

  Json manifest_;
};

// Where a test reads the kind. One that none reads, or a new one, fails the test below.
struct Kind {
  std::string_view folder;
  std::string_view kind;
  std::string_view reader;
};
constexpr std::array kKinds = {
    Kind{"ekcerts", "ek_or_ca_certificate", "ek_certificate_vectors_test.cc"},
    Kind{"ekcerts", "expected_parse", "platform_certificate_vectors_test.cc, beside its file"},
    Kind{"ekcerts", "tcg_platform_attribute_certificate", "platform_certificate_vectors_test.cc"},
    Kind{"eventlogs", "cc_eventlog", "measure/event_log_vectors_test.cc"},
    Kind{"eventlogs", "ccel_acpi_table", "measure/event_log_vectors_test.cc, beside its log"},
    Kind{"eventlogs", "eventlog", "measure/event_log_vectors_test.cc"},
    Kind{"ima", "ima_log", "measure/ima_vectors_test.cc"},
    Kind{"ima", "ima_runtime_policy", "measure/ima_vectors_test.cc"},
    Kind{"ima", "public_key", "measure/ima_vectors_test.cc, as the keys of signatures"},
    Kind{"quotes", "azure_vtpm_quote", "here"},
    Kind{"quotes", "coco_tpm_evidence", "here"},
    Kind{"quotes", "eventlog", "measure/event_log_vectors_test.cc"},
    Kind{"quotes", "keylime_refstate", "here"},
    Kind{"quotes", "raw_rsa_signature", "quote_vectors_test.cc, with its message"},
    Kind{"quotes", "secl_verifier_case", "here, but for the files that kUnread names"},
    Kind{"quotes", "spki", "quote_vectors_test.cc"},
    Kind{"quotes", "tpm2_tools_serialized_pcrs", "quote_vectors_test.cc"},
    Kind{"quotes", "tpm2b_public", "quote_vectors_test.cc"},
    Kind{"quotes", "tpm_name", "quote_vectors_test.cc"},
    Kind{"quotes", "tpm_quote_message", "quote_vectors_test.cc"},
    Kind{"quotes", "tpmt_signature", "quote_vectors_test.cc"},
};
constexpr std::string_view kSecl = "quotes/secl-intel20/";
constexpr std::array<std::string_view, 6> kReadSecl = {
    "host_manifest.json",    "trust_report.json", "PrivacyCA.pem",
    "flavor-signer.crt.pem", "cms-ca-cert.pem",   "tag-cacerts.pem"};
// Intel SecL's own form of a policy, with a signature over its canonical JSON: no part of Vallum
// reads flavors. What of it decides here, the PCRs' values, the report repeats.
constexpr std::array<std::string_view, 1> kUnreadSecl = {"signed_flavors.json"};

TEST_F(EvidenceVectors, EveryKindHasAReader) {
  for (const Json& entry : manifest_) {
    const std::string file = Text(entry["file"]);
    const std::string folder = file.substr(0, file.find('/'));
    if (folder != "quotes" && folder != "eventlogs" && folder != "ima" && folder != "ekcerts") {
      continue;
    }
    const std::string kind = Text(entry["kind"]);
    EXPECT_TRUE(std::ranges::any_of(
        kKinds, [&](const Kind& each) { return each.folder == folder && each.kind == kind; }))
        << file << ": nothing reads the kind " << kind;
    if (kind != "secl_verifier_case") continue;
    const std::string name = file.substr(file.rfind('/') + 1);
    EXPECT_TRUE(std::ranges::find(kReadSecl, name) != kReadSecl.end() ||
                std::ranges::find(kUnreadSecl, name) != kUnreadSecl.end())
        << file;
  }
}

// One quote with its key, in whatever form it came.
struct WholeQuote {
  QuoteKey key;
  Bytes message;
  Bytes signature;
  SignatureFormat format = SignatureFormat::kTpmt;
  PcrBanks pcrs;
  Bytes nonce;

  bool Accepted() const {
    std::vector<measure::BankSelection> selection;
    for (const auto& [bank, values] : pcrs) {
      selection.push_back({.bank = bank, .pcrs = {}});
      for (const auto& [pcr, value] : values) selection.back().pcrs.push_back(pcr);
    }
    return VerifyQuote(key,
                       {.message = message, .signature = signature, .format = format, .pcrs = pcrs},
                       {.nonce = nonce,
                        .pcrs = selection,
                        .signer = AnySigner{},
                        .previous = FirstQuote{},
                        .sha1 = Sha1Policy::kRefused})
        .Accepted();
  }
};

void ExpectFields(const Bytes& message, const Json& expect) {
  const auto quote = ParseAttestation(message);
  ASSERT_TRUE(quote.has_value()) << quote.error().Describe();
  EXPECT_EQ(Json(ToHex(quote->nonce)), expect["nonce_hex"]);
  EXPECT_EQ(Json(ToHex(quote->qualified_signer)), expect["qualified_signer"]);
  EXPECT_EQ(Json(quote->clock.clock), expect["clock"]);
  EXPECT_EQ(Json(quote->clock.reset_count), expect["reset_count"]);
  EXPECT_EQ(Json(quote->clock.restart_count), expect["restart_count"]);
  EXPECT_EQ(Json(quote->clock.safe ? 1 : 0), expect["safe"]);
  EXPECT_EQ(Json(quote->clock.firmware_version), expect["firmware_version"]);
  EXPECT_EQ(Json(ToHex(quote->pcr_digest)), expect["pcr_digest"]);
}

void ExpectEveryPcrMatters(const WholeQuote& quote) {
  EXPECT_TRUE(quote.Accepted());
  for (const auto& [bank, values] : quote.pcrs) {
    for (const auto& [pcr, value] : values) {
      WholeQuote changed = quote;
      changed.pcrs[bank][pcr][0] ^= std::byte{1};
      EXPECT_FALSE(changed.Accepted()) << pcr.value();
    }
  }
  WholeQuote changed = quote;
  changed.nonce.push_back({});
  EXPECT_FALSE(changed.Accepted());
}

// "bincode": lengths of 64 bits before what they count.
Bytes TakeCounted(ByteCursor& cursor, size_t each = 1) {
  const auto count = cursor.ReadU64Le();
  EXPECT_TRUE(count.has_value());
  const auto bytes = cursor.ReadBytes(static_cast<size_t>(*count) * each);
  EXPECT_TRUE(bytes.has_value());
  return ToBytes(*bytes);
}

TEST_F(EvidenceVectors, AzuresQuoteIsReadAndBelieved) {
  const Json entry = Only("azure_vtpm_quote");
  const Json& expect = entry["expect"];
  const Bytes file = ReadVector(Text(entry["file"]));
  ByteCursor cursor(file);
  const Bytes signature = TakeCounted(cursor);
  const Bytes message = TakeCounted(cursor);
  const Bytes pcrs = TakeCounted(cursor, 32);
  EXPECT_EQ(cursor.remaining(), 0U);
  ExpectFields(message, expect);
  WholeQuote quote{
      .key = QuoteKey::CreateUnchecked(PublicKey::FromPem(AsText(ReadVector(expect["ak"]))).value())
                 .value(),
      .message = message,
      .signature = signature,
      .format = SignatureFormat::kPlain,
      .pcrs = {},
      .nonce = FromHex(Text(expect["nonce_hex"])).value()};
  for (uint32_t pcr = 0; pcr < PcrIndex::kCount; ++pcr) {
    const Bytes value = ToBytes(ByteView(pcrs).subspan(size_t{pcr} * 32, 32));
    EXPECT_EQ(Json(ToHex(value)), expect["pcrs"]["sha256"][std::to_string(pcr)]);
    quote.pcrs[HashAlgorithm::kSha256].emplace(*PcrIndex::Create(pcr), value);
  }
  ExpectEveryPcrMatters(quote);
}

TEST_F(EvidenceVectors, ConfidentialContainersEvidenceIsReadAndBelieved) {
  const Json entry = Only("coco_tpm_evidence");
  const Json& expect = entry["expect"];
  const Json evidence = ReadJson(Text(entry["file"]));
  const Json& parts = evidence["tpm_quote"];
  WholeQuote quote{.key = QuoteKey::CreateUnchecked(
                              PublicKey::FromSpki(FromBase64Text(evidence["ak_public"])).value())
                              .value(),
                   .message = FromBase64Text(parts["message"]),
                   .signature = FromBase64Text(parts["signature"]),
                   .pcrs = {},
                   .nonce = FromHex(Text(expect["nonce_hex"])).value()};
  ExpectFields(quote.message, expect);
  uint32_t pcr = 0;
  for (const Json& value : parts["pcrs"]) {
    quote.pcrs[HashAlgorithm::kSha256].emplace(*PcrIndex::Create(pcr++),
                                               FromHex(Text(value)).value());
  }
  ExpectEveryPcrMatters(quote);
  // "must_reject": signature and key of another host.
  WholeQuote other = quote;
  other.signature = ReadVector("quotes/hpe/signature.bin");
  EXPECT_FALSE(other.Accepted());
  other = quote;
  other.key =
      QuoteKey::Create(ParseTpm2bPublic(ReadVector("quotes/hpe/ak.tpm2b_public")).value()).value();
  EXPECT_FALSE(other.Accepted());
}

// What a reference state of Keylime names, apart from keys: digests of what was measured.
void CollectDigests(const Json& json, std::set<std::string>& out) {
  for (const Json& each : json) {
    if (each.is_structured()) {
      CollectDigests(each, out);
    } else if (each.is_string() && Text(each).starts_with("0x") && Text(each).size() == 66) {
      out.insert(Text(each).substr(2));
    }
  }
}

TEST_F(EvidenceVectors, ReferenceStateNamesWhatItsHostMeasured) {
  const Json entry = Only("keylime_refstate");
  const Json state = ReadJson(Text(entry["file"]));
  const Bytes bytes = ReadVector("quotes/hpe/uefi_log.bin");
  const auto log = measure::EventLog::Parse(bytes, measure::EventLogKind::kTpm);
  ASSERT_TRUE(log.has_value()) << log.error().Describe();
  std::set<std::string> measured;
  for (const measure::LoggedEvent& event : log->events()) {
    measured.insert(ToHex(log->DigestOf(event, HashAlgorithm::kSha256)));
  }
  std::set<std::string> named;
  for (const char* part : {"scrtm_and_bios", "mokdig", "mokxdig", "kernels"}) {
    CollectDigests(state[part], named);
  }
  EXPECT_GE(named.size(), 10U);
  for (const std::string& each : named) EXPECT_TRUE(measured.contains(each)) << each;

  const auto policy = measure::ReadSecureBootPolicy(*log, HashAlgorithm::kSha256);
  EXPECT_EQ(policy.state == measure::LoggedSecureBoot::kOn, state["has_secureboot"].get<bool>());
}

// ---- Intel SecL ----

std::string SeclFile(std::string_view name) { return std::string(kSecl) + std::string(name); }

PcrBanks PcrsOf(const Json& manifest) {
  PcrBanks out;
  for (const char* list : {"sha1pcrs", "sha2pcrs"}) {
    for (const Json& each : manifest["pcr_manifest"][list]) {
      const auto pcr = static_cast<uint32_t>(std::stoul(Text(each["index"]).substr(4)));
      out[measure::ParseBankName(Text(each["pcr_bank"]) == "SHA1" ? "sha1" : "sha256").value()]
          .emplace(*PcrIndex::Create(pcr), FromHex(Text(each["value"])).value());
    }
  }
  return out;
}

// "PcrEventLogIntegrity": each list of events replays to the value of its PCR.
TEST_F(EvidenceVectors, SeclsEventsReplayToItsPcrs) {
  const Json manifest = ReadJson(SeclFile("host_manifest.json"));
  const PcrBanks pcrs = PcrsOf(manifest);
  size_t replayed = 0;
  for (const auto& [name, lists] : manifest["pcr_manifest"]["pcr_event_log_map"].items()) {
    const HashAlgorithm bank = name == "SHA1" ? HashAlgorithm::kSha1 : HashAlgorithm::kSha256;
    for (const Json& list : lists) {
      const PcrIndex pcr = *PcrIndex::Create(list["pcr"]["index"].get<uint32_t>());
      Bytes value(DigestSize(bank));
      measure::BankHasher hasher(bank);
      for (const Json& event : list["tpm_events"]) {
        if (event["type_name"] != "EV_NO_ACTION") {
          hasher.Extend(value, FromHex(Text(event["measurement"])).value());
          continue;
        }
        // It carries where PCR 0 starts.
        EXPECT_EQ(event["tags"][0], "StartupLocality3");
        value.back() = std::byte{3};
      }
      EXPECT_EQ(ToHex(value), ToHex(pcrs.at(bank).at(pcr))) << name << " PCR " << pcr.value();
      ++replayed;
    }
  }
  EXPECT_GE(replayed, 21U);
}

// What the report says that each PCR must be, as golden values of one MLE.
std::vector<WhitelistEntry> SeclConstants(const Json& report) {
  std::vector<WhitelistEntry> out;
  for (const auto& [part, verdict] : report.items()) {
    if (!verdict.is_object() || !verdict.contains("rules")) continue;
    for (const Json& each : verdict["rules"]) {
      const Json& rule = each["rule"];
      if (!Text(rule["rule_name"]).ends_with(".PcrMatchesConstant")) continue;
      EXPECT_EQ(each["trusted"], true);
      out.push_back({.pcr_name = std::to_string(rule["pcr"]["index"].get<int>()),
                     .digest = Text(rule["measurement"]),
                     .mle = part});
    }
  }
  return out;
}

TEST_F(EvidenceVectors, SeclsHostHasTheValuesThatItsReportTrusts) {
  const Json report = ReadJson(SeclFile("trust_report.json"));
  const auto rules = GoldenFromWhitelist(SeclConstants(report));
  ASSERT_TRUE(rules.has_value()) << rules.error().Describe();
  EXPECT_EQ(rules->size(), 8U);  // PCRs 0 to 7
  AttestationPolicy policy;
  policy.name = "secl";
  policy.version = 1;
  policy.banks = {HashAlgorithm::kSha256};
  policy = WithGoldenRules(std::move(policy), *rules).value();
  PcrBanks quoted;
  const PcrBanks pcrs = PcrsOf(ReadJson(SeclFile("host_manifest.json")));
  for (const auto& [pcr, value] : pcrs.at(HashAlgorithm::kSha256)) {
    if (policy.pcrs.contains(pcr.value())) quoted[HashAlgorithm::kSha256].emplace(pcr, value);
  }
  const auto judge = [&] {
    Reasons reasons;
    JudgePcrs(policy, {.quoted = quoted, .log = nullptr, .proven = 0}, {}, reasons);
    return std::move(reasons).TakeReasons();
  };
  EXPECT_TRUE(judge().empty());
  for (auto& [pcr, value] : quoted[HashAlgorithm::kSha256]) {
    value[31] ^= std::byte{1};
    const std::vector<Reason> reasons = judge();
    ASSERT_EQ(reasons.size(), 1U);
    EXPECT_EQ(reasons[0].id, ReasonId::kPcrValue);
    EXPECT_EQ(reasons[0].pcr, pcr.value());
    value[31] ^= std::byte{1};
  }
}

CertificateBundle SeclCertificates(std::string_view name) {
  CertificateBundle out = ReadCertificateBundle(ReadVector(SeclFile(name)));
  EXPECT_FALSE(out.certificates.empty()) << name;
  EXPECT_TRUE(out.problems.empty()) << name;
  return out;
}

// The authority that certified the host's key is not in the case: nothing in it may vouch for it.
TEST_F(EvidenceVectors, SeclsAttestationKeyIsNotBelievedByAnAuthorityThatDidNotCertifyIt) {
  const Json manifest = ReadJson(SeclFile("host_manifest.json"));
  const auto aik = TpmCertificate::Parse(FromBase64Text(manifest["aik_certificate"]));
  ASSERT_TRUE(aik.has_value()) << aik.error().Describe();
  EXPECT_EQ(aik->issuer(), "CN=HVS Privacy Certificate");
  const TpmCertificate::Time then = aik->not_before() + std::chrono::hours(1);
  for (const std::string_view name :
       {"PrivacyCA.pem", "cms-ca-cert.pem", "tag-cacerts.pem", "flavor-signer.crt.pem"}) {
    const EkTrust trust(SeclCertificates(name).certificates, {});
    EXPECT_FALSE(
        VerifyTpmCertificate(*aik, TpmKeyRole::kAttestation, trust, then, Sha1Policy::kRefused)
            .Accepted())
        << name;
  }
}

TEST_F(EvidenceVectors, SeclsFlavorSignerIsCertifiedByItsOwnAuthorityAlone) {
  const std::vector<TpmCertificate> chain = SeclCertificates("flavor-signer.crt.pem").certificates;
  ASSERT_EQ(chain.size(), 2U);
  const TpmCertificate::Time then = chain[0].not_before() + std::chrono::hours(1);
  const auto verdict = [&](std::string_view root, TpmCertificate::Time now) {
    return VerifyIssuerCertificate(chain[0],
                                   EkTrust(SeclCertificates(root).certificates, {chain[1]}), now,
                                   Sha1Policy::kRefused);
  };
  const auto believed = verdict("cms-ca-cert.pem", then);
  EXPECT_TRUE(believed.Accepted()) << believed.rejections[0].what;
  EXPECT_EQ(believed.chain.size(), 3U);
  EXPECT_TRUE(verdict("tag-cacerts.pem", then).Has(EkCertificateReason::kIssuerUnknown));
  EXPECT_TRUE(verdict("cms-ca-cert.pem", chain[0].not_after() + std::chrono::hours(1))
                  .Has(EkCertificateReason::kExpired));
}

}  // namespace
}  // namespace vallum::attest

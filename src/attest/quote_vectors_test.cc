// SPDX-License-Identifier: Apache-2.0
// Every quote of the shared test vectors, against what their manifest says of it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "attest/keylime_quote.h"
#include "attest/quote.h"
#include "attest/quote_key.h"
#include "attest/serialized_pcrs.h"
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
  std::ostringstream text;
  text << in.rdbuf();
  return ToBytes(AsBytes(text.str()));
}

std::string Text(const Json& json) { return json.get<std::string>(); }

PcrBanks ExpectedPcrs(const Json& expect) {
  PcrBanks out;
  for (const auto& [bank, values] : expect["pcrs"].items()) {
    for (const auto& [pcr, value] : values.items()) {
      out[measure::ParseBankName(bank).value()].emplace(
          PcrIndex::Create(static_cast<uint32_t>(std::stoul(pcr))).value(),
          FromHex(Text(value)).value());
    }
  }
  return out;
}

std::vector<measure::BankSelection> SelectionOf(const PcrBanks& pcrs) {
  std::vector<measure::BankSelection> out;
  for (const auto& [bank, values] : pcrs) {
    out.push_back({bank, {}});
    for (const auto& [pcr, value] : values) out.back().pcrs.push_back(pcr);
  }
  return out;
}

Result<QuoteKey> ReadKey(const std::string& name, const Bytes& bytes) {
  if (name.ends_with(".pem")) {
    ASSIGN_OR_RETURN(PublicKey key, PublicKey::FromPem(AsText(bytes)));
    return QuoteKey::CreateUnchecked(std::move(key));
  }
  if (name.ends_with(".der")) {
    ASSIGN_OR_RETURN(PublicKey key, PublicKey::FromSpki(bytes));
    return QuoteKey::CreateUnchecked(std::move(key));
  }
  ASSIGN_OR_RETURN(const TpmPublic key, ParseTpm2bPublic(bytes));
  return QuoteKey::Create(key);
}

// Which part of the evidence a reason is about, in the manifest's words.
std::string StageOf(QuoteReason reason) {
  switch (reason) {
    case QuoteReason::kSignatureMalformed:
    case QuoteReason::kSignatureSchemeMismatch:
    case QuoteReason::kSha1Signature:
    case QuoteReason::kSignatureInvalid:
      return "signature";
    case QuoteReason::kNotTpmGenerated:
    case QuoteReason::kNotAQuote:
    case QuoteReason::kMessageMalformed:
    case QuoteReason::kNonceMismatch:
    case QuoteReason::kSignerMismatch:
      return "message";
    case QuoteReason::kPcrNotQuoted:
    case QuoteReason::kPcrValueMissing:
    case QuoteReason::kPcrDigestMismatch:
    case QuoteReason::kSha1Bank:
      return "pcr_digest";
    case QuoteReason::kResetCountWentBackwards:
    case QuoteReason::kRestartCountWentBackwards:
    case QuoteReason::kClockWentBackwards:
      return "clock";
  }
  return "";
}

struct Bundle {
  Bytes message;
  Bytes signature;
  SignatureFormat format = SignatureFormat::kTpmt;
  std::string ak_name;
  Bytes ak;
  Bytes pcrs_file;  // serialized; empty: only the manifest has the values
  PcrBanks pcrs;
  QuoteExpectation expectation;

  // "" when accepted, else the stage that rejects.
  std::string Verdict() const {
    const auto key = ReadKey(ak_name, ak);
    if (!key.has_value()) return "ak";
    PcrBanks values = pcrs;
    if (!pcrs_file.empty()) {
      const auto parsed = ParseSerializedPcrs(pcrs_file);
      if (!parsed.has_value()) return "pcr_format";
      values = *parsed;
    }
    const QuoteVerdict verdict =
        VerifyQuote(*key, {message, signature, format, values}, expectation);
    return verdict.Accepted() ? "" : StageOf(verdict.rejections[0].reason);
  }
};

class QuoteVectors : public ::testing::Test {
 protected:
  void SetUp() override {
    if (VectorsDir().empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
    manifest_ = Json::parse(AsText(ReadVector("manifest.json")));
  }

  std::vector<Json> OfKind(const std::string& kind) const {
    std::vector<Json> out;
    for (const Json& entry : manifest_) {
      if (entry["kind"] == kind) out.push_back(entry);
    }
    return out;
  }

  static Bundle ReadBundle(const Json& entry) {
    const Json& expect = entry["expect"];
    Bundle out;
    out.message = ReadVector(Text(entry["file"]));
    out.signature = ReadVector(Text(expect["signature"]));
    if (expect.contains("signature_format")) out.format = SignatureFormat::kPlain;
    out.ak_name = Text(expect["ak"]);
    out.ak = ReadVector(out.ak_name);
    if (expect.contains("pcrs_file")) out.pcrs_file = ReadVector(Text(expect["pcrs_file"]));
    // The Azure bundle's values are listed beside its other form only.
    if (expect.contains("pcrs")) out.pcrs = ExpectedPcrs(expect);
    out.expectation.nonce = FromHex(Text(expect["nonce_hex"])).value();
    out.expectation.pcrs = SelectionOf(out.pcrs);
    return out;
  }

  std::vector<Bundle> Bundles() const {
    std::vector<Bundle> out;
    for (const Json& entry : OfKind("tpm_quote_message")) {
      Bundle bundle = ReadBundle(entry);
      if (bundle.pcrs.empty()) {
        for (const Json& other : OfKind("azure_vtpm_quote")) {
          bundle.pcrs = ExpectedPcrs(other["expect"]);
        }
        bundle.expectation.pcrs = SelectionOf(bundle.pcrs);
      }
      out.push_back(std::move(bundle));
    }
    return out;
  }

  Json manifest_;
};

TEST_F(QuoteVectors, VerdictsAreThoseOfTheManifest) {
  size_t accepted = 0;
  const std::vector<Json> entries = OfKind("tpm_quote_message");
  const std::vector<Bundle> bundles = Bundles();
  for (size_t i = 0; i < entries.size(); ++i) {
    EXPECT_EQ(bundles[i].Verdict().empty(), entries[i]["expect"]["verdict"] == "accepted")
        << entries[i]["file"] << ": " << bundles[i].Verdict();
    ++accepted;
  }
  EXPECT_GE(accepted, 4U);
}

TEST_F(QuoteVectors, FieldsAreThoseOfTheManifest) {
  for (const Json& entry : OfKind("tpm_quote_message")) {
    SCOPED_TRACE(Text(entry["file"]));
    const Json& expect = entry["expect"];
    const auto quote = ParseAttestation(ReadVector(Text(entry["file"])));
    ASSERT_TRUE(quote.has_value()) << quote.error().Describe();
    EXPECT_EQ(Json(ToHex(quote->nonce)), expect["nonce_hex"]);
    if (!expect.contains("clock")) continue;
    EXPECT_EQ(Json(ToHex(quote->qualified_signer)), expect["qualified_signer"]);
    EXPECT_EQ(Json(quote->clock.clock), expect["clock"]);
    EXPECT_EQ(Json(quote->clock.reset_count), expect["reset_count"]);
    EXPECT_EQ(Json(quote->clock.restart_count), expect["restart_count"]);
    EXPECT_EQ(Json(quote->clock.safe ? 1 : 0), expect["safe"]);
    EXPECT_EQ(Json(quote->clock.firmware_version), expect["firmware_version"]);
    EXPECT_EQ(Json(ToHex(quote->pcr_digest)), expect["pcr_digest"]);
    Json banks = Json::array();
    for (const QuotedBank& bank : quote->banks) {
      Json pcrs = Json::array();
      for (const PcrIndex pcr : bank.pcrs) pcrs.push_back(pcr.value());
      banks.push_back({{"bank", HashAlgorithmName(*bank.bank)}, {"pcrs", pcrs}});
    }
    EXPECT_EQ(Json(banks), expect["pcr_selection"]);
  }
}

TEST_F(QuoteVectors, MutationsAreRejectedWhereTheManifestSays) {
  size_t tried = 0;
  for (const Json& entry : OfKind("tpm_quote_message")) {
    if (!entry["expect"].contains("must_reject_single_byte_mutations")) continue;
    for (const Json& mutation : entry["expect"]["must_reject_single_byte_mutations"]) {
      Bundle bundle = ReadBundle(entry);
      const std::string file = Text(mutation["file"]);
      Bytes* bytes = file == "message"     ? &bundle.message
                     : file == "signature" ? &bundle.signature
                     : file == "ak"        ? &bundle.ak
                     : file == "pcrs"      ? &bundle.pcrs_file
                                           : nullptr;
      if (bytes == nullptr) continue;  // logs: see measure
      bytes->at(mutation["offset"].get<size_t>()) ^=
          static_cast<std::byte>(mutation["xor"].get<int>());
      EXPECT_EQ(Json(bundle.Verdict()), mutation["rejected_by"]) << mutation;
      ++tried;
    }
  }
  EXPECT_GE(tried, 52U);
}

TEST_F(QuoteVectors, EverySignedByteMatters) {
  for (const Bundle& bundle : Bundles()) {
    for (size_t i = 0; i < bundle.message.size(); ++i) {
      Bundle changed = bundle;
      changed.message[i] ^= std::byte{0x10};
      EXPECT_EQ(changed.Verdict(), "signature") << i;
    }
  }
}

TEST_F(QuoteVectors, PartsOfDifferentBundlesDoNotFit) {
  const std::vector<Bundle> bundles = Bundles();
  for (const Bundle& one : bundles) {
    for (const Bundle& other : bundles) {
      if (one.message == other.message) continue;
      Bundle mixed = one;
      mixed.ak_name = other.ak_name;
      mixed.ak = other.ak;
      EXPECT_EQ(mixed.Verdict(), "signature");
      mixed = one;
      mixed.signature = other.signature;
      mixed.format = other.format;
      EXPECT_EQ(mixed.Verdict(), "signature");
      mixed = one;
      mixed.expectation.nonce = other.expectation.nonce;
      EXPECT_EQ(mixed.Verdict(), "message");
    }
  }
}

TEST_F(QuoteVectors, SignaturesAreReadAsTheManifestSays) {
  for (const Json& entry : OfKind("tpmt_signature")) {
    const Bytes bytes = ReadVector(Text(entry["file"]));
    const auto signature = ParseSignature(bytes);
    ASSERT_TRUE(signature.has_value()) << entry["file"];
    EXPECT_EQ(Json(HashAlgorithmName(signature->hash)), entry["expect"]["hash"]);
    EXPECT_EQ(KeySchemeName(signature->scheme), "RSASSA");
    EXPECT_EQ(entry["expect"]["scheme"], "rsassa");
  }
}

TEST_F(QuoteVectors, SerializedPcrsAreReadAsTheManifestSays) {
  for (const Json& entry : OfKind("tpm2_tools_serialized_pcrs")) {
    Bytes bytes = ReadVector(Text(entry["file"]));
    const auto parsed = ParseSerializedPcrs(bytes);
    ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
    EXPECT_EQ(*parsed, ExpectedPcrs(entry["expect"]));
    bytes.push_back({});
    EXPECT_FALSE(ParseSerializedPcrs(bytes).has_value());
    bytes.resize(bytes.size() - 2);
    EXPECT_FALSE(ParseSerializedPcrs(bytes).has_value());
  }
}

TEST_F(QuoteVectors, PublicKeysAreReadAsTheManifestSays) {
  for (const Json& entry : OfKind("tpm2b_public")) {
    SCOPED_TRACE(Text(entry["file"]));
    const Json& expect = entry["expect"];
    const auto key = ParseTpm2bPublic(ReadVector(Text(entry["file"])));
    ASSERT_TRUE(key.has_value()) << key.error().Describe();
    EXPECT_EQ(Json(ToHex(key->Name())), expect["name"]);
    EXPECT_EQ(key->attributes, std::stoul(Text(expect["attributes"]), nullptr, 16));
    EXPECT_EQ(Json(PublicKey::FromTpm(*key).value().ToPem()), expect["spki_pem"]);
    if (expect.contains("hash")) {
      EXPECT_EQ(Json(HashAlgorithmName(*key->scheme_hash)), expect["hash"]);
    }
    const auto made = QuoteKey::Create(*key);
    EXPECT_EQ(made.has_value(), !expect.contains("verdict_as_quote_key"));
    if (!made.has_value()) {
      EXPECT_NE(made.error().message().find("decrypt key, not a signing key"), std::string::npos);
    }
  }
}

TEST_F(QuoteVectors, NamesAreThoseOfTheirKeys) {
  for (const Json& entry : OfKind("tpm_name")) {
    const std::string words = Text(entry["expect"]["equals"]);
    const std::string of = "name of ";
    ASSERT_TRUE(words.starts_with(of));
    const auto key = ParseTpm2bPublic(ReadVector(words.substr(of.size())));
    EXPECT_EQ(key->Name(), ReadVector(Text(entry["file"])));
  }
}

TEST_F(QuoteVectors, SubjectPublicKeysAreReadAsTheManifestSays) {
  for (const Json& entry : OfKind("spki")) {
    const Bytes bytes = ReadVector(Text(entry["file"]));
    const auto key = Text(entry["file"]).ends_with(".pem") ? PublicKey::FromPem(AsText(bytes))
                                                           : PublicKey::FromSpki(bytes);
    ASSERT_TRUE(key.has_value()) << key.error().Describe();
    EXPECT_EQ(key->IsRsa(), entry["expect"]["type"] == "rsa");
    EXPECT_EQ(Json(key->Bits()), entry["expect"]["bits"]);
  }
}

// The attestation key was made below the endorsement key of the same TPM.
TEST_F(QuoteVectors, QualifiedSignerIsTheKeysBelowTheEndorsementKey) {
  const auto ek = ParseTpm2bPublic(ReadVector("quotes/keylime/ek.tpm2b_public"));
  const auto ak = ParseTpm2bPublic(ReadVector("quotes/keylime/ak.tpm2b_public"));
  const auto quote = ParseAttestation(ReadVector("quotes/keylime/message.bin"));
  ASSERT_TRUE(ek.has_value() && ak.has_value() && quote.has_value());
  EXPECT_EQ(ToHex(quote->qualified_signer),
            ToHex(QualifiedName(QualifiedName(Hierarchy::kEndorsement, *ek), *ak)));
}

TEST_F(QuoteVectors, KeylimesEnvelopeHoldsTheSameParts) {
  for (const Bundle& bundle : Bundles()) {
    if (bundle.pcrs_file.empty()) continue;
    const std::string text = "r" + ToBase64(bundle.message) + ":" + ToBase64(bundle.signature) +
                             ":" + ToBase64(bundle.pcrs_file);
    const auto quote = ParseKeylimeQuote(text);
    ASSERT_TRUE(quote.has_value());
    EXPECT_EQ(quote->message, bundle.message);
    EXPECT_EQ(quote->signature, bundle.signature);
    EXPECT_EQ(quote->pcrs, bundle.pcrs_file);
  }
}

}  // namespace
}  // namespace vallum::attest

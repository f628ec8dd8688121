// SPDX-License-Identifier: Apache-2.0
// Clients of other systems: OpenAttestation, Keylime, relying parties that read EAR.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "attest/ear.h"
#include "attest/policy.h"
#include "base/bytes.h"
#include "base/text.h"
#include "controller/resource_store.h"
#include "controller/rest_rig.h"
#include "controller/statement_signer.h"

namespace vallum::controller {
namespace {

using http::Method;
using nlohmann::json;
using ::testing::HasSubstr;

constexpr const char* kPoll = "/AttestationService/resources/PollHosts";
constexpr const char* kOem = "/WLMService/resources/oem";
constexpr const char* kMles = "/WLMService/resources/mles";
constexpr const char* kPcr = "/WLMService/resources/mles/whitelist/pcr";

class RestClientsTest : public RestRigTest {
 protected:
  // A host of a trusted pool, as the attestor would have left it.
  void MakeHost(const std::string& name, v1::TrustLevel level,
                std::chrono::seconds lease = std::chrono::hours(1)) {
    ResourceStore& resources = rig_.controller().resources();
    if (!resources.Get<v1::Pool>("vault").has_value()) {
      v1::Pool pool;
      pool.mutable_metadata()->set_name("vault");
      pool.mutable_spec()->set_trusted_service(true);
      pool.mutable_spec()->set_attestation_policy("gold");
      ASSERT_TRUE(resources.Create(pool).has_value());
      v1::AttestationPolicy policy;
      policy.mutable_metadata()->set_name("gold");
      policy.mutable_status()->set_active_version(3);
      ASSERT_TRUE(resources.Create(policy).has_value());
    }
    v1::Host host;
    host.mutable_metadata()->set_name(name);
    host.mutable_spec()->set_pool("vault");
    v1::HostTrust& trust = *host.mutable_status()->mutable_trust();
    trust.set_level(level);
    trust.set_policy("gold");
    trust.set_policy_version(3);
    trust.mutable_verify_time()->set_seconds(1452774050);
    trust.mutable_verify_time()->set_nanos(679000000);
    *trust.mutable_lease_expire_time() = ToTimestamp(rig_.clock().Now() + lease);
    host.mutable_status()->mutable_identity()->set_ak_name("000b00");
    if (level == v1::TRUST_UNTRUSTED) {
      v1::TrustReason& reason = *trust.add_reasons();
      reason.set_id("pcr-value");
      reason.set_pcr(7);
    }
    host.mutable_status()->set_state(v1::HOST_MAINTENANCE);
    const auto made = resources.Create(host);
    ASSERT_TRUE(made.has_value()) << made.error().Describe();
    ASSERT_TRUE(rig_.controller().view().WaitFor(made->metadata().revision()).has_value());
  }

  void MakeMle() {
    ASSERT_EQ(Admin(Method::kPost, kOem, R"({"Name":"ACME","Description":"x"})").body, "True");
    const http::Response made =
        Admin(Method::kPost, kMles,
              R"({"Name":"bios","Version":"1","OemName":"ACME","Attestation_Type":"PCR",)"
              R"("MLE_Type":"BIOS","Description":"","MLE_Manifests":[{"Name":"0","Value":")" +
                  std::string(64, 'a') + R"("}]})");
    ASSERT_EQ(made.body, "True");
    EXPECT_EQ(made.status, 200);
  }
  v1::AttestationPolicy Whitelist() {
    auto policy = rig_.controller().resources().Get<v1::AttestationPolicy>("oat-whitelist");
    EXPECT_TRUE(policy.has_value());
    return policy.value_or(v1::AttestationPolicy{});
  }
};

// ---- OpenAttestation ----

TEST_F(RestClientsTest, PolledHostsAreAnsweredInOrderWithTheirTrust) {
  MakeHost("h1", v1::TRUST_TRUSTED);
  MakeHost("h2", v1::TRUST_UNTRUSTED);
  MakeHost("h3", v1::TRUST_STALE);
  const http::Response response =
      Admin(Method::kPost, kPoll, R"({"hosts":["h2","h1","h3","nobody"],"pcrmask":"0"})");
  ASSERT_EQ(response.status, 200) << response.body;
  const json hosts = Body(response)["hosts"];
  ASSERT_EQ(hosts.size(), 4U);
  const json first = {
      {"host_name", "h2"}, {"trust_lvl", "untrusted"}, {"vtime", "2016-01-14T12:20:50.679+0000"}};
  EXPECT_EQ(hosts[0], first);
  EXPECT_EQ(hosts[1]["trust_lvl"], "trusted");
  EXPECT_EQ(hosts[2]["trust_lvl"], "unknown");
  EXPECT_EQ(hosts[3]["trust_lvl"], "unknown");
  EXPECT_EQ(hosts[3]["vtime"], "1970-01-01T00:00:00.000+0000");
}

TEST_F(RestClientsTest, HostWhoseLeaseIsOverIsNoLongerCalledTrusted) {
  MakeHost("h1", v1::TRUST_TRUSTED, std::chrono::seconds(0));
  const json hosts = Body(Admin(Method::kPost, kPoll, R"({"hosts":"h1"})"))["hosts"];
  EXPECT_EQ(hosts[0]["trust_lvl"], "unknown");
}

TEST_F(RestClientsTest, OneBareNameIsAnsweredAsAList) {
  MakeHost("h1", v1::TRUST_TRUSTED);
  const json hosts = Body(Admin(Method::kPost, kPoll, R"({"hosts":"h1"})"))["hosts"];
  ASSERT_EQ(hosts.size(), 1U);
  EXPECT_EQ(hosts[0]["trust_lvl"], "trusted");
}

TEST_F(RestClientsTest, HostTrustIsAnsweredAsTheQueryApiHasIt) {
  MakeHost("h1", v1::TRUST_TRUSTED);
  const std::string path = "/AttestationService/resources/hosts/trust?hostName=";
  EXPECT_EQ(Admin(Method::kGet, path + "h1").body,
            R"({"hostname":"h1","trust":{"bios":true,"vmm":true,"location":false}})");
  const http::Response nobody = Admin(Method::kGet, path + "nobody");
  EXPECT_EQ(nobody.status, 404);
  EXPECT_EQ(Body(nobody)["error_code"], "1006");
}

TEST_F(RestClientsTest, WhitelistBecomesADraftOfAPolicy) {
  MakeMle();
  const v1::AttestationPolicy policy = Whitelist();
  EXPECT_EQ(policy.status().active_version(), 0) << "somebody must activate it";
  const auto parsed = attest::ParsePolicy(policy.spec().document());
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(parsed->PcrMask(), 1U);
}

TEST_F(RestClientsTest, WhitelistSurvivesARestart) {
  MakeMle();
  rest_.reset();
  rig_.Stop();
  rig_.Start();
  StartRest(*authority_->IssueServer({{"localhost"}, {"127.0.0.1"}}), {});
  admin_ = ClientFor(v1::ROLE_ADMIN, "");
  EXPECT_EQ(Body(Admin(Method::kGet, std::string(kMles) + "?searchCriteria=bio"))["mleBean"].size(),
            1U);
}

TEST_F(RestClientsTest, ValuesAreAddedEditedListedAndDeleted) {
  MakeMle();
  const auto body = [](const std::string& pcr, char digit) {
    return R"({"pcrName":")" + pcr + R"(","pcrDigest":")" + std::string(64, digit) +
           R"(","mleName":"bios","mleVersion":"1","oemName":"ACME"})";
  };
  EXPECT_EQ(Admin(Method::kPost, kPcr, body("4", 'b')).body, "True");
  EXPECT_EQ(Admin(Method::kPut, kPcr, body("4", 'c')).body, "True");
  const json pcrs = Body(Admin(Method::kGet, std::string(kPcr) + "?searchCriteria="))["pcrBean"];
  ASSERT_EQ(pcrs.size(), 2U);
  EXPECT_EQ(pcrs[1]["pcrDigest"], std::string(64, 'c'));
  const std::string one = std::string(kPcr) + "?pcrName=4&mleName=bios&mleVersion=1&oemName=ACME";
  EXPECT_EQ(Admin(Method::kDelete, one).body, "True");
  EXPECT_EQ(Admin(Method::kDelete, one).status, 404);
  EXPECT_EQ(attest::ParsePolicy(Whitelist().spec().document())->PcrMask(), 1U);
}

TEST_F(RestClientsTest, DraftsThatWereReplacedAreRetired) {
  MakeMle();
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(
        Admin(Method::kPut, kOem, R"({"Name":"ACME","Description":")" + std::to_string(i) + "\"}")
            .body,
        "True");
  }
  int drafts = 0;
  const v1::AttestationPolicy policy = Whitelist();
  for (const auto& version : policy.status().versions()) {
    drafts += version.state() == v1::POLICY_DRAFT ? 1 : 0;
  }
  EXPECT_EQ(drafts, 1);
}

TEST_F(RestClientsTest, ActiveVersionStaysWhileTheListIsEdited) {
  MakeMle();
  ASSERT_TRUE(rig_.controller().policies().Activate("oat-whitelist", 0).has_value());
  const int32_t active = Whitelist().status().active_version();
  EXPECT_EQ(Admin(Method::kPut, kOem, R"({"Name":"ACME","Description":"other"})").body, "True");
  EXPECT_EQ(Admin(Method::kPut, kOem, R"({"Name":"ACME","Description":"another"})").body, "True");
  EXPECT_EQ(Whitelist().status().active_version(), active);
}

TEST_F(RestClientsTest, PolicyThatSomebodyElseWroteIsNotOverwritten) {
  v1::AttestationPolicy policy;
  policy.mutable_metadata()->set_name("oat-whitelist");
  policy.mutable_spec()->set_document("name = \"oat-whitelist\"\nversion = 1\n");
  ASSERT_TRUE(rig_.controller().policies().Create(policy, "somebody").has_value());
  const http::Response response = Admin(Method::kPost, kOem, R"({"Name":"ACME"})");
  EXPECT_EQ(response.status, 409);
  EXPECT_THAT(Body(response)["error_message"].get<std::string>(), HasSubstr("not written by"));
}

TEST_F(RestClientsTest, WhatIsAddedTwiceIsADataError) {
  EXPECT_EQ(Admin(Method::kPost, kOem, R"({"Name":"ACME"})").status, 200);
  const http::Response again = Admin(Method::kPost, kOem, R"({"Name":"ACME"})");
  EXPECT_EQ(again.status, 409);
  EXPECT_EQ(Body(again)["error_code"], "1006");
  EXPECT_EQ(Admin(Method::kPost, kOem, "[[[[[[[[").status, 400);
}

TEST_F(RestClientsTest, ReadingTakesARoleOfTheDeploymentAndWritingAnAdministrator) {
  const std::string poll = R"({"hosts":"h1"})";
  for (const v1::Role role : {v1::ROLE_AUDITOR, v1::ROLE_OPERATOR}) {
    const auto client = ClientFor(role, "");
    EXPECT_EQ(Send(*client, Method::kPost, kPoll, poll).status, 200);
    EXPECT_EQ(Send(*client, Method::kGet, kOem).status, 200);
    EXPECT_EQ(Send(*client, Method::kPost, kOem, R"({"Name":"ACME"})").status, 403);
    EXPECT_EQ(Send(*client, Method::kDelete, std::string(kOem) + "?Name=ACME").status, 403);
    EXPECT_EQ(Send(*client, Method::kGet, "/version").status, 200);
  }
  const auto tenant = ClientFor(v1::ROLE_TENANT, "acme");
  EXPECT_EQ(Send(*tenant, Method::kPost, kPoll, poll).status, 403);
  EXPECT_EQ(Send(*tenant, Method::kGet, kOem).status, 403);
  EXPECT_EQ(Send(*tenant, Method::kGet, "/version").status, 403);
  EXPECT_EQ(Send(*tenant, Method::kGet, "/v1/hosts/h1/ear").status, 403);
  const auto nobody = NewClient();
  EXPECT_EQ(Send(*nobody, Method::kPost, kPoll, poll).status, 401);
  EXPECT_EQ(Send(*nobody, Method::kPost, "/v2.5/verify/evidence", "{}").status, 401);
}

// ---- Keylime ----

TEST_F(RestClientsTest, KeylimeIsAnsweredInItsEnvelope) {
  EXPECT_EQ(Body(Admin(Method::kGet, "/version"))["results"]["current_version"], "2.5");
  const http::Response refused =
      Admin(Method::kPost, "/v2.5/verify/evidence", R"({"type":"tee","data":{"nonce":"n"}})");
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(Body(refused)["code"], 400);
  EXPECT_THAT(Body(refused)["status"].get<std::string>(), HasSubstr("not supported"));
  const http::Response invalid =
      Admin(Method::kPost, "/v2.5/verify/evidence",
            R"({"type":"tpm","data":{"quote":"r::","nonce":"n","hash_alg":"sha256",)"
            R"("tpm_ak":"AA","tpm_ek":"AA","tpm_policy":{"mask":"0x1"}}})");
  EXPECT_EQ(invalid.status, 200);
  EXPECT_EQ(Body(invalid)["results"]["valid"], false);
}

TEST_F(RestClientsTest, EvidencePastItsLimitIsRefused) {
  const http::Response response =
      Admin(Method::kPost, "/v2.5/verify/evidence", std::string((size_t{16} << 20U) + 1, ' '));
  EXPECT_EQ(response.status, 413);
}

// ---- EAR ----

struct FreeCertificate {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
using CertificatePtr = std::unique_ptr<X509, FreeCertificate>;

CertificatePtr CertificateOf(const std::string& base64) {
  const Bytes der = *FromBase64(base64);
  const auto* at = reinterpret_cast<const unsigned char*>(der.data());
  return CertificatePtr(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
}

// Whether a JWT is signed, with ES256, by the key of a certificate.
bool IsSignedBy(const std::string& jwt, X509* certificate) {
  const size_t dot = jwt.rfind('.');
  const Bytes raw = *FromBase64(jwt.substr(dot + 1));
  if (raw.size() != 64) return false;
  const auto* bytes = reinterpret_cast<const unsigned char*>(raw.data());
  ECDSA_SIG* signature = ECDSA_SIG_new();
  ECDSA_SIG_set0(signature, BN_bin2bn(bytes, 32, nullptr), BN_bin2bn(bytes + 32, 32, nullptr));
  unsigned char* der = nullptr;
  const int size = i2d_ECDSA_SIG(signature, &der);
  ECDSA_SIG_free(signature);
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  const bool good = EVP_DigestVerifyInit(context, nullptr, EVP_sha256(), nullptr,
                                         X509_get0_pubkey(certificate)) == 1 &&
                    EVP_DigestVerify(context, der, static_cast<size_t>(size),
                                     reinterpret_cast<const unsigned char*>(jwt.data()), dot) == 1;
  EVP_MD_CTX_free(context);
  OPENSSL_free(der);
  return good;
}

struct Result200 {
  json header;
  attest::Ear ear;
};

Result200 ReadResult(const http::Response& response) {
  EXPECT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(response.headers.Get("content-type"), "application/eat+jwt");
  const std::vector<std::string> parts = Split(response.body, '.');
  EXPECT_EQ(parts.size(), 3U);
  if (parts.size() != 3) return {};
  Result200 out{.header = json::parse(AsText(*FromBase64(parts[0]))), .ear = {}};
  auto ear = attest::ParseEar(AsText(*FromBase64(parts[1])));
  EXPECT_TRUE(ear.has_value());
  if (ear.has_value()) out.ear = *std::move(ear);
  return out;
}

TEST_F(RestClientsTest, ResultIsSignedByAKeyThatTheDeploymentCertifiesForResults) {
  MakeHost("h1", v1::TRUST_TRUSTED);
  const http::Response response = Admin(Method::kGet, "/v1/hosts/h1/ear");
  const Result200 result = ReadResult(response);
  EXPECT_EQ(result.header["alg"], "ES256");
  ASSERT_EQ(result.header["x5c"].size(), 2U);
  const CertificatePtr signer = CertificateOf(result.header["x5c"][0]);
  const CertificatePtr issuer = CertificateOf(result.header["x5c"][1]);
  ASSERT_TRUE(signer != nullptr && issuer != nullptr);
  EXPECT_EQ(X509_verify(signer.get(), X509_get0_pubkey(issuer.get())), 1);
  char unit[80] = {};
  X509_NAME_get_text_by_NID(X509_get_subject_name(signer.get()), NID_organizationalUnitName, unit,
                            sizeof(unit));
  EXPECT_STREQ(unit, "attestation result signer");
  EXPECT_TRUE(IsSignedBy(response.body, signer.get()));
  EXPECT_FALSE(IsSignedBy(response.body, issuer.get()));
}

TEST_F(RestClientsTest, ResultSaysTheVerdict) {
  using attest::EarStatus;
  MakeHost("h1", v1::TRUST_TRUSTED);
  MakeHost("h2", v1::TRUST_UNTRUSTED);
  MakeHost("h3", v1::TRUST_STALE);
  MakeHost("h4", v1::TRUST_UNKNOWN);
  const auto appraisal = [&](const std::string& host) {
    return ReadResult(Admin(Method::kGet, "/v1/hosts/" + host + "/ear")).ear.submods[host];
  };
  EXPECT_EQ(appraisal("h1").status, EarStatus::kAffirming);
  EXPECT_EQ(appraisal("h1").policy_id, "policy:gold:3");
  EXPECT_EQ(appraisal("h2").status, EarStatus::kContraindicated);
  EXPECT_EQ(appraisal("h2").vector[attest::EarClaim::kConfiguration], 96);
  EXPECT_THAT(appraisal("h2").reasons.front(), HasSubstr("pcr-value"));
  EXPECT_EQ(appraisal("h3").status, EarStatus::kWarning);
  EXPECT_EQ(appraisal("h4").status, EarStatus::kNone);
}

TEST_F(RestClientsTest, HostThatAFormerVersionFoundGoodIsNoLongerCalledTrusted) {
  MakeHost("h1", v1::TRUST_TRUSTED);
  const auto next = rig_.controller().resources().Modify<v1::AttestationPolicy>(
      "gold", [](v1::AttestationPolicy& policy) -> Result<ResourceStore::Change> {
        policy.mutable_status()->set_active_version(4);
        return ResourceStore::Change::kWrite;
      });
  ASSERT_TRUE(next.has_value());
  ASSERT_TRUE(rig_.controller().view().WaitFor(next->metadata().revision()).has_value());
  const json hosts = Body(Admin(Method::kPost, kPoll, R"({"hosts":"h1"})"))["hosts"];
  EXPECT_EQ(hosts[0]["trust_lvl"], "unknown");
  const Result200 result = ReadResult(Admin(Method::kGet, "/v1/hosts/h1/ear"));
  EXPECT_EQ(result.ear.submods.at("h1").status, attest::EarStatus::kWarning);
}

TEST_F(RestClientsTest, ResultAnswersTheNonceOfWhoAsked) {
  MakeHost("h1", v1::TRUST_TRUSTED);
  EXPECT_EQ(ReadResult(Admin(Method::kGet, "/v1/hosts/h1/ear?nonce=abcdefgh")).ear.nonce,
            "abcdefgh");
  EXPECT_EQ(Admin(Method::kGet, "/v1/hosts/h1/ear?nonce=short").status, 400);
  EXPECT_EQ(Admin(Method::kGet, "/v1/hosts/h1/ear?nonce=" + std::string(89, 'n')).status, 400);
  EXPECT_EQ(Admin(Method::kGet, "/v1/hosts/nobody/ear").status, 404);
}

TEST_F(RestClientsTest, BytesThatAreNoSignatureHaveNoJwsForm) {
  EXPECT_FALSE(JwsSignature(Bytes(8, std::byte{0x30})).has_value());
  EXPECT_FALSE(JwsSignature({}).has_value());
}

}  // namespace
}  // namespace vallum::controller

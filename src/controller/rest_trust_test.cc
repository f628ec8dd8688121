// SPDX-License-Identifier: Apache-2.0
// The API of trusted pools, with evidence made by software.
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "attest/evidence_bundle.h"
#include "attest/quote_builder.h"
#include "base/digest.h"
#include "controller/rest_rig.h"

namespace vallum::controller {
namespace {

using http::Method;
using http::Response;
using nlohmann::json;

constexpr uint32_t kPcr = 14;
constexpr std::string_view kList =
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  /usr/bin/one\n"
    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb  /usr/bin/two\n";

// A policy that accepts one value of one PCR.
std::string Golden(std::byte value) {
  return "name = \"gold\"\nversion = 1\n[tpm]\nemulated = \"allowed\"\n[pcr.14]\nrule = "
         "\"golden\"\nvalues = [ { sha256 = \"" +
         ToHex(Bytes(32, value)) + "\" } ]\n";
}

std::string WithList(std::string_view list) {
  return "name = \"gold\"\nversion = 1\n[pcr.10]\nrule = \"ima\"\n[ima]\nallow-list = "
         "\"files\"\nallow-list-sha256 = \"" +
         ToHex(Sha256(AsBytes(list))) + "\"\n";
}

std::string Named(const std::string& name, const json& spec) {
  return json{{"metadata", {{"name", name}}}, {"spec", spec}}.dump();
}

class RestTrustTest : public RestRigTest {
 protected:
  Response CreatePolicy(const std::string& name, const std::string& document) {
    return Admin(Method::kPost, "/v1/attestationpolicies", Named(name, {{"document", document}}));
  }

  void MakeTrustedPool(const std::string& policy) {
    const Response made =
        Admin(Method::kPost, "/v1/pools",
              Named("gold", {{"trustedService", true}, {"attestationPolicy", policy}}));
    ASSERT_EQ(made.status, 201) << made.body;
  }

  // In pool gold, bound to the software key, with whole evidence of this value.
  v1::Host MakeHost(const std::string& name, std::byte value, v1::TrustLevel level) {
    v1::Host host;
    host.mutable_metadata()->set_name(name);
    host.mutable_spec()->set_pool("gold");
    const Bytes ak = ak_.Public();
    host.mutable_status()->mutable_identity()->set_ak_public(ak.data(), ak.size());
    host.mutable_status()->mutable_trust()->set_level(level);
    host = *rig_.controller().resources().Create(host);
    EXPECT_TRUE(rig_.controller().view().WaitFor(host.metadata().revision()).has_value());
    EXPECT_TRUE(rig_.controller()
                    .evidence()
                    .Put(host.metadata().uid(), EvidenceKind::kWhole, BundleOf(value))
                    .has_value());
    return host;
  }

  Bytes BundleOf(std::byte value) {
    attest::EvidenceBundle bundle;
    bundle.ak_public = ak_.Public();
    bundle.tpm = attest::TpmKind::kEmulated;
    bundle.nonce = Bytes(32, std::byte{7});
    bundle.pcrs[HashAlgorithm::kSha256][*PcrIndex::Create(kPcr)] = Bytes(32, value);
    attest::Attestation quoted;
    quoted.nonce = bundle.nonce;
    quoted.clock = {.clock = 1000, .reset_count = 1, .restart_count = 0, .safe = true};
    quoted.banks = attest::SelectAll(bundle.pcrs);
    quoted.pcr_digest = attest::PcrDigest(HashAlgorithm::kSha256, bundle.pcrs);
    bundle.quote = attest::BuildAttestation(quoted);
    bundle.signature = ak_.Sign(bundle.quote);
    return *attest::FormatBundle(bundle);
  }

  json Test(const std::string& policy, const json& body) {
    const Response response =
        Admin(Method::kPost, "/v1/attestationpolicies/" + policy + "/test", body.dump());
    EXPECT_EQ(response.status, 200) << response.body;
    return Body(response);
  }

  void MakeTrustedInstance(const std::string& name, const std::string& host) {
    v1::Instance instance;
    instance.mutable_metadata()->set_name(name);
    instance.mutable_spec()->set_pool("gold");
    instance.mutable_spec()->set_trusted_service(true);
    instance.mutable_spec()->set_power(v1::POWER_STOPPED);
    instance.mutable_status()->set_host(host);
    instance.mutable_status()->set_phase(v1::INSTANCE_STOPPED);
    instance = *rig_.controller().resources().Create(instance);
    ASSERT_TRUE(rig_.controller().view().WaitFor(instance.metadata().revision()).has_value());
  }

  bool HasEvent(const std::string& kind) {
    const json events = Body(Admin(Method::kGet, "/v1/events?limit=1000"));
    for (const json& event : events["items"]) {
      if (event["kind"] == kind) return true;
    }
    return false;
  }

  // A change is answered before the view has seen the event that tells of it.
  bool AwaitEvent(const std::string& kind) {
    return rig_.Await([&](const View&) { return HasEvent(kind); });
  }

  static Bytes ListBytes(std::string_view text) {
    const ByteView view = AsBytes(text);
    return {view.begin(), view.end()};
  }

  attest::SoftwareKey ak_ =
      attest::SoftwareKey::MakeEc(attest::EcCurve::kP256, HashAlgorithm::kSha256);
};

// ---- policies ----

TEST_F(RestTrustTest, NewPolicyIsADraftWhoseDocumentIsAskedForByVersion) {
  const Response created = CreatePolicy("gold", Golden(std::byte{1}));
  ASSERT_EQ(created.status, 201) << created.body;
  const json version = Body(created)["status"]["versions"][0];
  EXPECT_EQ(version["state"], "POLICY_DRAFT");
  EXPECT_FALSE(version.contains("document"));
  EXPECT_EQ(Body(Admin(Method::kGet, "/v1/attestationpolicies/gold/versions/1"))["document"],
            Golden(std::byte{1}));
  EXPECT_EQ(Admin(Method::kGet, "/v1/attestationpolicies/gold/versions/2").status, 404);
}

TEST_F(RestTrustTest, PolicyThatCannotBeReadIsRefusedWithPathAndLine) {
  const Response refused =
      CreatePolicy("gold", "name = \"gold\"\nversion = 1\n[pcr.14]\nrule = \"goldn\"\n");
  EXPECT_EQ(refused.status, 400);
  EXPECT_NE(Body(refused)["detail"].get<std::string>().find("line 4"), std::string::npos)
      << refused.body;
}

TEST_F(RestTrustTest, PatchOfADocumentMakesAVersionAndOnlyActivationMakesItCount) {
  CreatePolicy("gold", Golden(std::byte{1}));
  EXPECT_EQ(Admin(Method::kPost, "/v1/attestationpolicies/gold/activate").status, 200);
  const json patch = {{"spec", {{"document", Golden(std::byte{2})}}}};
  const Response patched = Admin(Method::kPatch, "/v1/attestationpolicies/gold", patch.dump());
  ASSERT_EQ(patched.status, 200) << patched.body;
  EXPECT_EQ(Body(patched)["status"]["activeVersion"], 1);
  EXPECT_EQ(Body(patched)["status"]["versions"].size(), 2U);
  EXPECT_EQ(Body(Admin(Method::kPost, "/v1/attestationpolicies/gold/activate",
                       R"({"version":2})"))["status"]["activeVersion"],
            2);
  EXPECT_TRUE(AwaitEvent("attestationpolicy.activated"));
}

TEST_F(RestTrustTest, RetiredVersionIsNeverActivatedAgain) {
  CreatePolicy("gold", Golden(std::byte{1}));
  EXPECT_EQ(Admin(Method::kPost, "/v1/attestationpolicies/gold/retire").status, 400);
  EXPECT_EQ(Admin(Method::kPost, "/v1/attestationpolicies/gold/retire", R"({"version":1})").status,
            200);
  EXPECT_EQ(Admin(Method::kPost, "/v1/attestationpolicies/gold/activate").status, 409);
}

TEST_F(RestTrustTest, DocumentOfARetiredVersionWrittenAgainIsANewVersion) {
  CreatePolicy("gold", Golden(std::byte{1}));
  Admin(Method::kPost, "/v1/attestationpolicies/gold/retire", R"({"version":1})");
  const std::string put = Named("gold", {{"document", Golden(std::byte{1})}});
  EXPECT_EQ(
      Body(Admin(Method::kPut, "/v1/attestationpolicies/gold", put))["status"]["versions"].size(),
      2U);
  EXPECT_EQ(Admin(Method::kPost, "/v1/attestationpolicies/gold/activate").status, 200);
}

TEST_F(RestTrustTest, OperatorsReadPoliciesAndAdminsWriteThem) {
  CreatePolicy("gold", Golden(std::byte{1}));
  const auto operating = ClientFor(v1::ROLE_OPERATOR, "");
  EXPECT_EQ(Send(*operating, Method::kGet, "/v1/attestationpolicies/gold").status, 200);
  EXPECT_EQ(Send(*operating, Method::kPost, "/v1/attestationpolicies",
                 Named("other", {{"document", Golden(std::byte{1})}}))
                .status,
            403);
  EXPECT_EQ(Send(*operating, Method::kPost, "/v1/attestationpolicies/gold/activate").status, 403);
  EXPECT_EQ(
      Send(*operating, Method::kPost, "/v1/attestationpolicies/gold/retire", R"({"version":1})")
          .status,
      403);
}

TEST_F(RestTrustTest, PolicyOfAPoolIsNotDeleted) {
  CreatePolicy("gold", Golden(std::byte{1}));
  MakeTrustedPool("gold");
  const Response refused = Admin(Method::kDelete, "/v1/attestationpolicies/gold");
  EXPECT_EQ(refused.status, 409);
  EXPECT_NE(refused.body.find("pool gold"), std::string::npos);
}

TEST_F(RestTrustTest, ActivePolicyIsNotDeletedUntilItIsRetired) {
  CreatePolicy("gold", Golden(std::byte{1}));
  Admin(Method::kPost, "/v1/attestationpolicies/gold/activate");
  EXPECT_EQ(Admin(Method::kDelete, "/v1/attestationpolicies/gold").status, 409);
  Admin(Method::kPost, "/v1/attestationpolicies/gold/retire", R"({"version":1})");
  EXPECT_EQ(Admin(Method::kDelete, "/v1/attestationpolicies/gold").status, 204);
}

TEST_F(RestTrustTest, TestSaysWhoWouldFallOutAndWhoWouldComeIn) {
  CreatePolicy("gold", Golden(std::byte{1}));
  MakeTrustedPool("gold");
  MakeHost("one", std::byte{1}, v1::TRUST_TRUSTED);
  MakeHost("two", std::byte{2}, v1::TRUST_UNTRUSTED);
  const json reply = Test("gold", {{"document", Golden(std::byte{2})}});
  EXPECT_EQ(reply["wouldFallOut"], 1) << reply;
  EXPECT_EQ(reply["wouldComeIn"], 1);
  ASSERT_EQ(reply["hosts"].size(), 2U);
  EXPECT_EQ(reply["hosts"][0]["then"], "TRUST_UNTRUSTED");
  EXPECT_EQ(reply["hosts"][0]["reasons"][0]["id"], "pcr-value");
  EXPECT_EQ(reply["hosts"][1]["then"], "TRUST_TRUSTED");
  const json same = Test("gold", {{"version", 1}});
  EXPECT_FALSE(same.contains("wouldFallOut")) << same;
}

TEST_F(RestTrustTest, TestOfADocumentNeedsNoPolicyYet) {
  MakeTrustedPool("");
  MakeHost("one", std::byte{1}, v1::TRUST_UNKNOWN);
  EXPECT_EQ(Test("new", {{"document", Golden(std::byte{1})}})["wouldComeIn"], 1);
  EXPECT_EQ(Admin(Method::kPost, "/v1/attestationpolicies/new/test").status, 404);
}

TEST_F(RestTrustTest, TrustedHostOfWhichNothingIsKeptWouldFallOut) {
  CreatePolicy("gold", Golden(std::byte{1}));
  MakeTrustedPool("gold");
  MakeHost("one", std::byte{1}, v1::TRUST_TRUSTED);
  MakeHost("two", std::byte{1}, v1::TRUST_UNTRUSTED);
  ASSERT_TRUE(rig_.controller().evidence().RemoveAllBut({}).has_value());
  const json reply = Test("gold", {{"version", 1}});
  EXPECT_EQ(reply["wouldFallOut"], 1) << reply;
  EXPECT_EQ(reply["hosts"][0]["then"], "TRUST_UNKNOWN");
  EXPECT_NE(reply["hosts"][0]["detail"], "");
}

TEST_F(RestTrustTest, TestSaysOfWhomNothingIsKept) {
  CreatePolicy("gold", Golden(std::byte{1}));
  MakeTrustedPool("gold");
  v1::Host host;
  host.mutable_metadata()->set_name("silent");
  host.mutable_spec()->set_pool("gold");
  host = *rig_.controller().resources().Create(host);
  ASSERT_TRUE(rig_.controller().view().WaitFor(host.metadata().revision()).has_value());
  const json reply = Test("gold", json::object());
  EXPECT_NE(reply["hosts"][0]["detail"], "");
  EXPECT_FALSE(reply.contains("wouldFallOut"));
}

// ---- hosts ----

TEST_F(RestTrustTest, EvidenceIsGivenAsItIsKept) {
  MakeTrustedPool("");
  MakeHost("one", std::byte{1}, v1::TRUST_UNKNOWN);
  const Response given = Admin(Method::kGet, "/v1/hosts/one/evidence");
  ASSERT_EQ(given.status, 200);
  EXPECT_TRUE(attest::ParseBundle(AsBytes(given.body)).has_value());
  EXPECT_EQ(Admin(Method::kGet, "/v1/hosts/one/evidence?kind=untrusted").status, 404);
  EXPECT_EQ(Admin(Method::kGet, "/v1/hosts/one/evidence?kind=best").status, 400);
  const auto tenant = ClientFor(v1::ROLE_TENANT, "acme");
  EXPECT_NE(Send(*tenant, Method::kGet, "/v1/hosts/one/evidence").status, 200);
}

TEST_F(RestTrustTest, LearnedPolicyTrustsTheHostItIsLearnedFrom) {
  MakeTrustedPool("");
  MakeHost("one", std::byte{1}, v1::TRUST_UNKNOWN);
  const Response learned = Admin(Method::kPost, "/v1/hosts/one/learn", R"({"name":"gold"})");
  ASSERT_EQ(learned.status, 200) << learned.body;
  const std::string document = Body(learned)["document"];
  // Whether an emulated TPM will do, somebody must decide.
  const json reply = Test("gold", {{"document", document}});
  for (const json& reason : reply["hosts"][0].value("reasons", json::array())) {
    EXPECT_EQ(reason["id"], "tpm-emulated");
  }
}

TEST_F(RestTrustTest, AdminApprovesTheTpmThatWasSeenAndNoOther) {
  MakeTrustedPool("");
  v1::Host host = MakeHost("one", std::byte{1}, v1::TRUST_UNKNOWN);
  const std::string ek(64, 'e');
  host.mutable_status()->mutable_pending_identity()->set_ek_sha256(ek);
  host = *rig_.controller().resources().Update(host, 0);
  ASSERT_TRUE(rig_.controller().view().WaitFor(host.metadata().revision()).has_value());
  const std::string body = json{{"ekSha256", ek.substr(0, 16)}}.dump();
  const auto operating = ClientFor(v1::ROLE_OPERATOR, "");
  EXPECT_EQ(Send(*operating, Method::kPost, "/v1/hosts/one/approve", body).status, 403);
  EXPECT_EQ(
      Admin(Method::kPost, "/v1/hosts/one/approve", R"({"ekSha256":"dddddddddddddddd"})").status,
      409);
  const Response approved = Admin(Method::kPost, "/v1/hosts/one/approve", body);
  ASSERT_EQ(approved.status, 200) << approved.body;
  EXPECT_EQ(Body(approved)["status"]["identity"]["ekSha256"], ek);
  EXPECT_EQ(Admin(Method::kPost, "/v1/hosts/one/approve", body).status, 404);
}

TEST_F(RestTrustTest, HostOfAPoolWithoutTrustIsNotAttested) {
  const auto agent = rig_.ConnectedAgent("plain");
  const Response refused = Admin(Method::kPost, "/v1/hosts/plain/attest");
  EXPECT_EQ(refused.status, 409);
  EXPECT_NE(Body(refused)["fix"].get<std::string>().find("--trusted"), std::string::npos);
}

// ---- TPM authorities ----

TEST_F(RestTrustTest, TpmAuthorityNeedsACertificateThatCanBeRead) {
  EXPECT_EQ(
      Admin(Method::kPost, "/v1/tpmauthorities", Named("lab", {{"certificatesPem", "nothing"}}))
          .status,
      400);
  const std::string broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  const Response refused =
      Admin(Method::kPost, "/v1/tpmauthorities", Named("lab", {{"certificatesPem", broken}}));
  EXPECT_EQ(refused.status, 400);
  const Response made = Admin(
      Method::kPost, "/v1/tpmauthorities",
      Named("lab",
            {{"certificatesPem", authority_->certificate_pem() + broken}, {"emulated", true}}));
  ASSERT_EQ(made.status, 201) << made.body;
  const json report = Body(Admin(Method::kGet, "/v1/tpmauthorities/lab/certificates"));
  EXPECT_EQ(report["certificates"].size(), 1U) << report;
  EXPECT_EQ(report["unreadable"].size(), 1U) << report;
}

// ---- allow lists ----

TEST_F(RestTrustTest, AllowListIsReadBeforeItIsKept) {
  Admin(Method::kPost, "/v1/allowlists", Named("files", json::object()));
  EXPECT_EQ(Upload("/v1/allowlists/files/content", ListBytes("no list\n")).status, 400);
  EXPECT_EQ(Upload("/v1/allowlists/files/content", ListBytes("# remarks\n")).status, 400);
  EXPECT_FALSE(Body(Admin(Method::kGet, "/v1/allowlists/files"))["status"].contains("sha256"));
  const Response kept = Upload("/v1/allowlists/files/content", ListBytes(kList));
  ASSERT_EQ(kept.status, 200) << kept.body;
  const json status = Body(kept)["status"];
  EXPECT_EQ(status["paths"], "2");
  EXPECT_EQ(status["sha256"], ToHex(Sha256(AsBytes(kList))));
  EXPECT_TRUE(rig_.blobs().Open(status["sha256"].get<std::string>()).has_value());
}

TEST_F(RestTrustTest, AllowListOfAPolicyIsKeptUntilTheVersionIsRetired) {
  Admin(Method::kPost, "/v1/allowlists", Named("files", json::object()));
  Upload("/v1/allowlists/files/content", ListBytes(kList));
  ASSERT_EQ(CreatePolicy("gold", WithList(kList)).status, 201);
  EXPECT_EQ(Admin(Method::kPost, "/v1/attestationpolicies/gold/activate").status, 200);
  EXPECT_EQ(Admin(Method::kDelete, "/v1/allowlists/files").status, 409);
  // Another content under the name leaves what the policy names.
  const std::string digest = ToHex(Sha256(AsBytes(kList)));
  EXPECT_EQ(
      Upload("/v1/allowlists/files/content", ListBytes(kList.substr(0, kList.size() / 2))).status,
      200);
  rig_.controller().contents().RemoveUnused(digest);
  EXPECT_TRUE(rig_.blobs().Open(digest).has_value());
  Admin(Method::kPost, "/v1/attestationpolicies/gold/retire", R"({"version":1})");
  EXPECT_FALSE(rig_.blobs().Open(digest).has_value());
  EXPECT_EQ(Admin(Method::kDelete, "/v1/allowlists/files").status, 204);
}

TEST_F(RestTrustTest, PolicyWhoseAllowListIsNotHereIsNotActivated) {
  ASSERT_EQ(CreatePolicy("gold", WithList(kList)).status, 201);
  const Response refused = Admin(Method::kPost, "/v1/attestationpolicies/gold/activate");
  EXPECT_EQ(refused.status, 404);
  EXPECT_NE(Body(refused)["fix"].get<std::string>().find("allowlist import"), std::string::npos);
}

// ---- pools ----

TEST_F(RestTrustTest, PoolNamesAPolicyThatExists) {
  EXPECT_EQ(
      Admin(Method::kPost, "/v1/pools", Named("gold", {{"attestationPolicy", "nope"}})).status,
      400);
}

TEST_F(RestTrustTest, PoolWithImpossibleTimesIsRefusedByName) {
  const json wrong[] = {
      {{"leaseSeconds", -1}},           {{"attestIntervalSeconds", -1}},
      {{"staleGraceSeconds", -1}},      {{"leaseSeconds", 240}},
      {{"unknownGraceSeconds", -1}},    {{"unknownGraceSeconds", 1000000000}},
      {{"attestIntervalSeconds", 600}}, {{"leaseSeconds", 60}, {"attestIntervalSeconds", 60}}};
  for (const json& spec : wrong) {
    const Response refused = Admin(Method::kPost, "/v1/pools", Named("gold", spec));
    EXPECT_EQ(refused.status, 400) << spec;
    EXPECT_NE(refused.body.find(spec.begin().key()), std::string::npos) << refused.body;
  }
  EXPECT_EQ(Admin(Method::kPost, "/v1/pools",
                  Named("gold", {{"leaseSeconds", 61}, {"attestIntervalSeconds", 60}}))
                .status,
            201);
}

TEST_F(RestTrustTest, PoolPromisesAtMostTenTimesTheMemoryThatIsThere) {
  const auto status = [&](double overcommit) {
    const Response made =
        Admin(Method::kPost, "/v1/pools", Named("gold", {{"memoryOvercommit", overcommit}}));
    if (made.status != 201) {
      EXPECT_NE(made.body.find("memoryOvercommit"), std::string::npos) << made.body;
    } else {
      EXPECT_EQ(Admin(Method::kDelete, "/v1/pools/gold").status, 204);
    }
    return made.status;
  };
  for (const double fits : {0.0, 1.0, 1.5, 10.0}) EXPECT_EQ(status(fits), 201) << fits;
  for (const double wrong : {-1.0, 0.5, 10.5}) EXPECT_EQ(status(wrong), 400) << wrong;
}

TEST_F(RestTrustTest, TrustedPoolWithoutAPolicyIsMadeWithAWarning) {
  MakeTrustedPool("");
  EXPECT_TRUE(AwaitEvent("pool.no-policy"));
}

TEST_F(RestTrustTest, PoolOfTrustedInstancesStaysTrustedUnlessSomebodySaysOtherwise) {
  MakeTrustedPool("");
  MakeHost("one", std::byte{1}, v1::TRUST_UNKNOWN);
  MakeTrustedInstance("vm", "one");
  const std::string patch = R"({"spec":{"trustedService":false}})";
  const Response refused = Admin(Method::kPatch, "/v1/pools/gold", patch);
  EXPECT_EQ(refused.status, 409);
  EXPECT_NE(refused.body.find("instance vm"), std::string::npos);
  EXPECT_FALSE(HasEvent("pool.trust-overridden"));
  EXPECT_EQ(Admin(Method::kPatch, "/v1/pools/gold?allowUntrusted=true", patch).status, 200);
  EXPECT_TRUE(AwaitEvent("pool.trust-overridden"));
}

TEST_F(RestTrustTest, HostOfTrustedInstancesStaysInATrustedPool) {
  MakeTrustedPool("");
  MakeHost("one", std::byte{1}, v1::TRUST_UNKNOWN);
  MakeTrustedInstance("vm", "one");
  const std::string patch = R"({"spec":{"pool":"default"}})";
  EXPECT_EQ(Admin(Method::kPatch, "/v1/hosts/one", patch).status, 409);
  EXPECT_EQ(Admin(Method::kPatch, "/v1/hosts/one?allowUntrusted=true", patch).status, 200);
  EXPECT_TRUE(AwaitEvent("host.trust-overridden"));
  EXPECT_EQ(Admin(Method::kPatch, "/v1/hosts/one", R"({"spec":{"pool":"nope"}})").status, 400);
}

// ---- metrics ----

TEST_F(RestTrustTest, HostThatMovesToAnotherTrustedPoolBeginsWithoutAVerdict) {
  ASSERT_EQ(CreatePolicy("gold", Golden(std::byte{1})).status, 201);
  MakeTrustedPool("gold");
  ASSERT_EQ(Admin(Method::kPost, "/v1/pools", Named("silver", {{"trustedService", true}})).status,
            201);
  MakeHost("node1", std::byte{1}, v1::TRUST_TRUSTED);
  const Response moved = Admin(Method::kPatch, "/v1/hosts/node1", R"({"spec":{"pool":"silver"}})");
  ASSERT_EQ(moved.status, 200) << moved.body;
  EXPECT_FALSE(Body(moved)["status"].contains("trust"));
}

TEST_F(RestTrustTest, HostOfTrustedInstancesDoesNotMoveToAnotherTrustedPool) {
  ASSERT_EQ(CreatePolicy("gold", Golden(std::byte{1})).status, 201);
  MakeTrustedPool("gold");
  ASSERT_EQ(Admin(Method::kPost, "/v1/pools", Named("silver", {{"trustedService", true}})).status,
            201);
  MakeHost("node1", std::byte{1}, v1::TRUST_TRUSTED);
  MakeTrustedInstance("web1", "node1");
  const Response moved =
      Admin(Method::kPatch, "/v1/hosts/node1?allowUntrusted=true", R"({"spec":{"pool":"silver"}})");
  EXPECT_EQ(moved.status, 409) << moved.body;
}

TEST_F(RestTrustTest, OperatorsDoNotSayWhichHostsOfAPoolAreTrusted) {
  ASSERT_EQ(CreatePolicy("gold", Golden(std::byte{1})).status, 201);
  MakeTrustedPool("gold");
  const auto operators = ClientFor(v1::ROLE_OPERATOR, "");
  const auto patch = [&](const json& spec) {
    return Send(*operators, Method::kPatch, "/v1/pools/gold", json{{"spec", spec}}.dump()).status;
  };
  EXPECT_EQ(patch({{"description", "of the vault"}}), 200);
  EXPECT_EQ(patch({{"trustedService", false}}), 403);
  EXPECT_EQ(patch({{"attestationPolicy", ""}}), 403);
  EXPECT_EQ(patch({{"leaseSeconds", 604800}}), 403);
  EXPECT_EQ(patch({{"unknownGraceSeconds", 604800}}), 403);
  EXPECT_EQ(patch({{"onUntrusted", "ON_UNTRUSTED_REPORT"}}), 403);
  EXPECT_EQ(
      Send(*operators, Method::kPost, "/v1/pools", Named("lax", {{"trustedService", true}})).status,
      403);
}

TEST_F(RestTrustTest, MetricsCountHostsByTrustAndEvidence) {
  MakeTrustedPool("");
  MakeHost("one", std::byte{1}, v1::TRUST_UNTRUSTED);
  const std::string text = Admin(Method::kGet, "/metrics").body;
  EXPECT_NE(text.find("vallum_hosts_by_trust{level=\"TRUST_UNTRUSTED\"} 1"), std::string::npos);
  EXPECT_NE(text.find("vallum_evidence_requests_total"), std::string::npos);
  EXPECT_NE(text.find("vallum_attestations_total"), std::string::npos);
}

}  // namespace
}  // namespace vallum::controller

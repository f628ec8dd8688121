// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "attest/oat_trust.h"
#include "attest/oat_whitelist.h"

namespace vallum::attest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;
using Collection = OatCollection;

// ---- hosts ----

TEST(OatTrust, OneBareNameIsAListOfOne) {
  EXPECT_THAT(*ParsePollHosts(R"({"hosts":"h1","pcrmask":"","count":2})"), ElementsAre("h1"));
  EXPECT_THAT(*ParsePollHosts(R"({"hosts":["h1","h2"]})"), ElementsAre("h1", "h2"));
}

TEST(OatTrust, BodiesWithoutNamesAreRefused) {
  for (const char* body : {"", "[]", "{}", R"({"hosts":3})", R"({"hosts":[1]})", R"({"hosts":""})",
                           R"({"hosts":[["h"]]})"}) {
    EXPECT_FALSE(ParsePollHosts(body).has_value()) << body;
  }
  EXPECT_FALSE(ParsePollHosts(R"({"hosts":")" + std::string(256, 'h') + "\"}").has_value());
}

TEST(OatTrust, MoreHostsThanTheLimitAreRefused) {
  Json body = {{"hosts", Json::array()}};
  for (size_t i = 0; i <= kMaxPolledHosts; ++i) body["hosts"].push_back("h");
  EXPECT_FALSE(ParsePollHosts(body.dump()).has_value());
}

TEST(OatTrust, AnswersHaveTheShapeThatClientsRead) {
  const WallTime time{std::chrono::milliseconds(1452774050679)};
  const std::vector<OatHost> hosts = {{"h1", HostVerdictKind::kTrusted, time},
                                      {"h2", HostVerdictKind::kUntrusted, time},
                                      {"h3", HostVerdictKind::kStale, time},
                                      {"h4"}};
  EXPECT_EQ(
      FormatPollHosts(hosts),
      R"({"hosts":[{"host_name":"h1","trust_lvl":"trusted","vtime":"2016-01-14T12:20:50.679+0000"},)"
      R"({"host_name":"h2","trust_lvl":"untrusted","vtime":"2016-01-14T12:20:50.679+0000"},)"
      R"({"host_name":"h3","trust_lvl":"unknown","vtime":"2016-01-14T12:20:50.679+0000"},)"
      R"({"host_name":"h4","trust_lvl":"unknown","vtime":"1970-01-01T00:00:00.000+0000"}]})");
  EXPECT_EQ(FormatOatHostTrust(hosts[0]),
            R"({"hostname":"h1","trust":{"bios":true,"vmm":true,"location":false}})");
  EXPECT_EQ(FormatOatHostTrust(hosts[2]),
            R"({"hostname":"h3","trust":{"bios":false,"vmm":false,"location":false}})");
}

// ---- whitelist ----

const std::string kSha256A(64, 'a');
const std::string kSha256B(64, 'B');
const std::string kSha1C(40, 'c');

OatWhitelist Add(OatWhitelist list, Collection collection, const std::string& body,
                 OatEdit edit = OatEdit::kAdd) {
  auto changed = ChangeOat(std::move(list), collection, edit, body);
  EXPECT_TRUE(changed.has_value()) << changed.error().Describe() << " " << body;
  return changed.value_or(OatWhitelist{});
}

std::string PcrBody(const std::string& pcr, const std::string& digest) {
  return R"({"pcrName":")" + pcr + R"(","pcrDigest":")" + digest +
         R"(","mleName":"bios","mleVersion":"1","oemName":"ACME"})";
}

OatWhitelist MakeValidWhitelist() {
  OatWhitelist out = Add({}, Collection::kOem, R"({"Name":"ACME","Description":"makes firmware"})");
  out = Add(out, Collection::kOs, R"({"Name":"Debian","Version":"12","Description":""})");
  out = Add(out, Collection::kMle,
            R"({"Name":"bios","Version":"1","OemName":"ACME","Attestation_Type":"PCR",)"
            R"("MLE_Type":"BIOS","Description":"","MLE_Manifests":[{"Name":"0","Value":")" +
                kSha256A + R"("}]})");
  return Add(out, Collection::kMle,
             R"({"Name":"kvm","Version":"6.1","OsName":"Debian","OsVersion":"12",)"
             R"("Attestation_Type":"PCR","MLE_Type":"VMM","Description":"the host's kernel",)"
             R"("MLE_Manifests":[{"Name":"4","Value":")" +
                 kSha256B + R"("}]})");
}

ErrorCode CodeOf(const Result<OatWhitelist>& result) {
  return result.has_value() ? ErrorCode::kInternal : result.error().code();
}

TEST(OatWhitelist, ValuesBecomeGoldenRules) {
  const auto policy = PolicyOfOat(MakeValidWhitelist(), "oat");
  ASSERT_TRUE(policy.has_value()) << policy.error().Describe();
  EXPECT_EQ(policy->PcrMask(), 0x11U);
  EXPECT_THAT(policy->banks, ElementsAre(HashAlgorithm::kSha256));
  EXPECT_EQ(policy->sha1, Sha1Use::kRefused);
  const auto& rule = std::get<GoldenRule>(policy->pcrs.at(4));
  EXPECT_TRUE(rule.values.Has(HashAlgorithm::kSha256, *FromHex(kSha256B)));
}

TEST(OatWhitelist, DocumentIsAPolicyAndHoldsTheList) {
  const OatWhitelist list = MakeValidWhitelist();
  const auto document = FormatOatDocument(list, "oat");
  ASSERT_TRUE(document.has_value());
  const auto policy = ParsePolicy(*document);
  ASSERT_TRUE(policy.has_value()) << policy.error().Describe();
  EXPECT_EQ(policy->PcrMask(), 0x11U);
  const auto again = ParseOatDocument(*document, "oat");
  ASSERT_TRUE(again.has_value()) << again.error().Describe();
  EXPECT_EQ(*again, list);
}

TEST(OatWhitelist, EmptyListIsADocumentToo) {
  const auto document = FormatOatDocument({}, "oat");
  ASSERT_TRUE(document.has_value());
  EXPECT_TRUE(ParsePolicy(*document).has_value());
  EXPECT_EQ(*ParseOatDocument(*document, "oat"), OatWhitelist{});
}

TEST(OatWhitelist, DocumentOfSomebodyElseIsNotTakenOver) {
  EXPECT_EQ(CodeOf(ParseOatDocument("name = \"oat\"\nversion = 1\n", "oat")), ErrorCode::kConflict);
  std::string document = *FormatOatDocument(MakeValidWhitelist(), "oat");
  document += "\n[pcr.7]\nrule = \"ignored\"\nbecause = \"somebody wanted it\"\n";
  EXPECT_EQ(CodeOf(ParseOatDocument(document, "oat")), ErrorCode::kConflict);
}

TEST(OatWhitelist, DescriptionCannotEndTheRemark) {
  const auto refused =
      ChangeOat({}, Collection::kOem, OatEdit::kAdd, R"({"Name":"A","Description":"x\n[pcr.0]"})");
  EXPECT_EQ(CodeOf(refused), ErrorCode::kInvalidInput);
}

TEST(OatWhitelist, Sha1AloneIsAllowedWhereThereIsNothingElse) {
  OatWhitelist list = Add(MakeValidWhitelist(), Collection::kPcr, PcrBody("0", kSha1C));
  EXPECT_THAT(PolicyOfOat(list, "oat")->banks, ElementsAre(HashAlgorithm::kSha256));
  list = Add(list, Collection::kPcr, PcrBody("0", kSha1C), OatEdit::kReplace);
  EXPECT_FALSE(PolicyOfOat(list, "oat").has_value()) << "PCR 4 has SHA-256, PCR 0 SHA-1";
  list = *RemoveOat(
      list, Collection::kMle,
      {{"mleName", "kvm"}, {"mleVersion", "6.1"}, {"osName", "Debian"}, {"osVersion", "12"}});
  const auto policy = PolicyOfOat(list, "oat");
  ASSERT_TRUE(policy.has_value());
  EXPECT_THAT(policy->banks, ElementsAre(HashAlgorithm::kSha1));
  EXPECT_EQ(policy->sha1, Sha1Use::kAllowed);
}

TEST(OatWhitelist, WhatIsThereIsNotAddedAgain) {
  const OatWhitelist list = MakeValidWhitelist();
  EXPECT_EQ(CodeOf(ChangeOat(list, Collection::kOem, OatEdit::kAdd, R"({"Name":"ACME"})")),
            ErrorCode::kConflict);
  EXPECT_EQ(CodeOf(ChangeOat(list, Collection::kPcr, OatEdit::kAdd, PcrBody("0", kSha256B))),
            ErrorCode::kConflict);
}

TEST(OatWhitelist, WhatIsNotThereIsNeitherEditedNorRemoved) {
  const OatWhitelist list = MakeValidWhitelist();
  EXPECT_EQ(CodeOf(ChangeOat(list, Collection::kOs, OatEdit::kReplace,
                             R"({"Name":"Debian","Version":"13"})")),
            ErrorCode::kNotFound);
  EXPECT_EQ(CodeOf(ChangeOat(list, Collection::kPcr, OatEdit::kReplace, PcrBody("3", kSha256A))),
            ErrorCode::kNotFound);
  EXPECT_EQ(CodeOf(RemoveOat(list, Collection::kOem, {{"Name", "Other"}})), ErrorCode::kNotFound);
  EXPECT_EQ(CodeOf(RemoveOat(list, Collection::kOem, {})), ErrorCode::kInvalidInput);
}

TEST(OatWhitelist, MakerStaysWhileItsMlesAreThere) {
  EXPECT_EQ(CodeOf(RemoveOat(MakeValidWhitelist(), Collection::kOem, {{"Name", "ACME"}})),
            ErrorCode::kConflict);
}

TEST(OatWhitelist, MleOfNobodyIsRefused) {
  const OatWhitelist list = MakeValidWhitelist();
  const auto add = [&](const std::string& body) {
    return CodeOf(ChangeOat(list, Collection::kMle, OatEdit::kAdd, body));
  };
  EXPECT_EQ(add(R"({"Name":"x","Version":"1","OemName":"Nobody","MLE_Type":"BIOS"})"),
            ErrorCode::kNotFound);
  EXPECT_EQ(add(R"({"Name":"x","Version":"1","MLE_Type":"BIOS"})"), ErrorCode::kInvalidInput);
  EXPECT_EQ(add(R"({"Name":"x","Version":"1","OemName":"ACME","MLE_Type":"VMM"})"),
            ErrorCode::kInvalidInput);
  EXPECT_EQ(add(R"({"Name":"x","Version":"1","OemName":"ACME","MLE_Type":"BIOS",)"
                R"("Attestation_Type":"MODULE"})"),
            ErrorCode::kInvalidInput);
}

TEST(OatWhitelist, ValuesThatAreNoDigestsAreRefused) {
  const OatWhitelist list = MakeValidWhitelist();
  for (const auto& body : {PcrBody("24", kSha256A), PcrBody("", kSha256A), PcrBody("1", "aa"),
                           PcrBody("1", std::string(64, 'x'))}) {
    EXPECT_EQ(CodeOf(ChangeOat(list, Collection::kPcr, OatEdit::kAdd, body)),
              ErrorCode::kInvalidInput)
        << body;
  }
}

TEST(OatWhitelist, MembersAreReadInTheCaseOfEitherRelease) {
  const OatWhitelist list = Add(
      MakeValidWhitelist(), Collection::kPcr,
      R"({"PCRName":"1","PCRDigest":")" + kSha256A +
          R"(","MLEName":"bios","MLEVersion":"1","OEMName":"ACME","OSName":"","OSVersion":""})");
  EXPECT_EQ(PolicyOfOat(list, "oat")->PcrMask(), 0x13U);
}

TEST(OatWhitelist, EditingADescriptionKeepsTheValues) {
  const OatWhitelist list =
      Add(MakeValidWhitelist(), Collection::kMle,
          R"({"Name":"bios","Version":"1","OemName":"ACME","MLE_Type":"BIOS","Description":"new"})",
          OatEdit::kReplace);
  EXPECT_EQ(PolicyOfOat(list, "oat")->PcrMask(), 0x11U);
}

TEST(OatWhitelist, ListsHaveTheKeysThatClientsRead) {
  const OatWhitelist list = MakeValidWhitelist();
  EXPECT_EQ(ListOat(list, Collection::kOem, "?"),
            R"({"oem":[{"Name":"ACME","Description":"makes firmware"}]})");
  EXPECT_EQ(ListOat(list, Collection::kOs, "DEB"),
            R"({"os":[{"Name":"Debian","Version":"12","Description":""}]})");
  const Json mles = Json::parse(ListOat(list, Collection::kMle, "kvm"));
  ASSERT_EQ(mles["mleBean"].size(), 1U);
  EXPECT_EQ(mles["mleBean"][0]["MLE_Manifests"][0]["Name"], "4");
  EXPECT_EQ(mles["mleBean"][0]["OsVersion"], "12");
  EXPECT_EQ(Json::parse(ListOat(list, Collection::kPcr, ""))["pcrBean"].size(), 2U);
  EXPECT_EQ(ListOat(list, Collection::kOem, "nobody"), R"({"oem":[]})");
}

TEST(OatWhitelist, MoreEntriesThanTheLimitAreRefused) {
  OatWhitelist list;
  for (size_t i = 0; i < kMaxOatEntries; ++i) list.oems["oem" + std::to_string(i)] = "";
  EXPECT_EQ(CodeOf(ChangeOat(list, Collection::kOem, OatEdit::kAdd, R"({"Name":"one more"})")),
            ErrorCode::kExhausted);
}

}  // namespace
}  // namespace vallum::attest

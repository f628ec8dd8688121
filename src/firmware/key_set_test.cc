// SPDX-License-Identifier: Apache-2.0
#include "firmware/key_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "firmware/test_keys.h"
#include "firmware/variable_store_editor.h"

namespace vallum::firmware {
namespace {

using formats::testing::ReadFile;
using testing::Entry;
using ::testing::HasSubstr;
using testing::TestKeys;

KeySet MakeKeySet() {
  KeySet keys;
  keys.name = "mine";
  keys.secure_boot = false;
  keys.pk = {MakeSignature(SignatureType::kX509, kGlobalVariableGuid, Bytes(300))};
  keys.db = {MakeSignature(SignatureType::kSha256, kShimLockGuid, Bytes(32)),
             MakeSignature(SignatureType::kX509Sha512, kShimLockGuid, Bytes(80))};
  keys.mokx = {MakeSignature(SignatureType::kSha1, kShimLockGuid, Bytes(20))};
  keys.sbat_level = "sbat,1,2025021800\n";
  return keys;
}

TEST(KeySetJson, SetComesBackAsItWas) {
  const KeySet keys = MakeKeySet();
  const auto parsed = ParseKeySet(ToJson(keys));
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(*parsed, keys);
}

TEST(KeySetJson, EachMemberIsNeededAndNoOtherIsTaken) {
  const auto whole = nlohmann::json::parse(ToJson(MakeKeySet()));
  for (const auto& member : whole.items()) {
    auto broken = whole;
    broken.erase(member.key());
    EXPECT_FALSE(ParseKeySet(broken.dump()).has_value()) << member.key();
    broken[member.key()] = 1;
    EXPECT_FALSE(ParseKeySet(broken.dump()).has_value()) << member.key();
    broken[member.key()] = "!";
    EXPECT_EQ(ParseKeySet(broken.dump()).has_value(), member.key() == "name") << member.key();
  }
  auto more = whole;
  more["more"] = "";
  EXPECT_FALSE(ParseKeySet(more.dump()).has_value());
  for (const char* text : {"", "[]", "{", "1", "{}"}) {
    EXPECT_FALSE(ParseKeySet(text).has_value()) << text;
  }
}

TEST(KeySetJson, LimitsHold) {
  KeySet keys = MakeKeySet();
  keys.name = std::string(kMaxKeySetName + 1, 'x');
  EXPECT_FALSE(ParseKeySet(ToJson(keys)).has_value());
  EXPECT_EQ(ParseKeySet(std::string(kMaxKeySetJson + 1, ' ')).error().code(),
            ErrorCode::kExhausted);
  keys = MakeKeySet();
  keys.db.assign(kMaxKeySetCertificates + 1, keys.pk.front());
  EXPECT_EQ(ParseKeySet(ToJson(keys)).error().code(), ErrorCode::kExhausted);
}

TEST(KeySetFromStore, InstalledTemplateIsMicrosoftsSet) {
  const auto store = VariableStore::Parse(ReadFile("/usr/share/OVMF/OVMF_VARS_4M.ms.fd"));
  if (!store.has_value()) GTEST_SKIP() << "package ovmf is not installed";
  const auto keys = KeySetFromStore(*store);
  ASSERT_TRUE(keys.has_value());
  EXPECT_EQ(keys->name, "microsoft");
  EXPECT_TRUE(keys->secure_boot);
  EXPECT_EQ(keys->db.size(), 2U);
  EXPECT_FALSE(keys->pk.empty());
  EXPECT_FALSE(keys->kek.empty());
  EXPECT_EQ(*ParseKeySet(ToJson(*keys)), *keys);
}

TEST(KeySetFromStore, OwnersListsAndLevelAreTaken) {
  const auto variable = [](const char16_t* name, const Guid& vendor, Bytes data) {
    Variable out;
    out.name = name;
    out.vendor = vendor;
    out.attributes = 7;
    out.data = std::move(data);
    return out;
  };
  const Signature entry = MakeSignature(SignatureType::kSha256, kShimLockGuid, Bytes(32));
  const auto image = MakeVariableStoreImage(
      {variable(u"MokList", kShimLockGuid, EncodeSignatureList(entry)),
       variable(u"MokListX", kShimLockGuid, EncodeSignatureLists({entry, entry})),
       variable(u"SbatLevel", kShimLockGuid, ToBytes(AsBytes("sbat,1,2025021800\n")))});
  const auto keys = KeySetFromStore(*VariableStore::Parse(*image));
  ASSERT_TRUE(keys.has_value());
  EXPECT_EQ(keys->name, "none");
  EXPECT_FALSE(keys->secure_boot);
  EXPECT_EQ(keys->mok.size(), 1U);
  EXPECT_EQ(keys->mokx.size(), 2U);
  EXPECT_EQ(keys->sbat_level, "sbat,1,2025021800\n");
}

TEST(CertificatesFromFile, PemAndDerGiveTheSame) {
  TestKeys keys;
  const Bytes a = keys.MakeAuthority("a");
  const Bytes b = keys.MakeAuthority("b");
  Bytes pem = ReadFile(keys.File("a.crt"));
  for (const char* more : {"b.key", "b.crt"}) {  // keys between certificates are passed over
    const Bytes next = ReadFile(keys.File(more));
    pem.insert(pem.end(), next.begin(), next.end());
  }
  const auto found = CertificatesFromFile(pem, kGlobalVariableGuid);
  ASSERT_TRUE(found.has_value()) << found.error().Describe();
  EXPECT_EQ(*found, (std::vector{Entry(a), Entry(b)}));
  EXPECT_EQ(*CertificatesFromFile(a, kGlobalVariableGuid), std::vector{Entry(a)});
}

TEST(CertificatesFromFile, WhatIsNoCertificateIsRefused) {
  const auto refused = [](std::string_view text) {
    return !CertificatesFromFile(AsBytes(text), kGlobalVariableGuid).has_value();
  };
  EXPECT_TRUE(refused(""));
  EXPECT_TRUE(refused("text"));
  EXPECT_TRUE(refused("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"));
  EXPECT_TRUE(refused("-----BEGIN CERTIFICATE-----\n"));
}

TEST(DebianKeySet, ComesFromDebiansShim) {
  if (testing::DebianTree().empty()) GTEST_SKIP() << "Debian's loaders are not unpacked";
  const auto keys = DebianKeySet(testing::DebianShim());
  ASSERT_TRUE(keys.has_value()) << keys.error().Describe();
  EXPECT_EQ(keys->name, "debian");
  ASSERT_EQ(keys->db.size(), 1U);
  EXPECT_THAT(DescribeSignature(keys->db.front()), HasSubstr("CN=Debian Secure Boot CA"));
  EXPECT_EQ(FindKnownCertificate(keys->db.front().data)->key_set, "debian");
}

TEST(DebianKeySet, AnotherCertificateInItsPlaceIsRefused) {
  ByteWriter section;
  section.U32Le(3).U32Le(0).U32Le(16).U32Le(19).Raw(AsBytes("abc"));
  const Bytes shim = formats::testing::MakePe({{".vendor_", section.bytes()}});
  EXPECT_FALSE(DebianKeySet(shim).has_value());
  EXPECT_FALSE(DebianKeySet(Bytes(100)).has_value());
}

}  // namespace
}  // namespace vallum::firmware

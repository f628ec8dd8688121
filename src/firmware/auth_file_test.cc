// SPDX-License-Identifier: Apache-2.0
#include "firmware/auth_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "firmware/test_keys.h"

namespace vallum::firmware {
namespace {

using formats::testing::MustRun;
using formats::testing::ReadFile;
using formats::testing::WriteFile;
using testing::Entry;
using ::testing::HasSubstr;
using testing::TestKeys;

constexpr std::string_view kPkcs7Guid = "4aafd29d-68df-49ee-8aa9-347d375665a7";

AuthTarget Target(std::string_view name, uint32_t attributes = kKeyVariableAttributes) {
  const bool global = name == "PK" || name == "KEK";
  return {name, global ? kGlobalVariableGuid : kSecurityDatabaseGuid, attributes};
}

// An update as sign-efi-sig-list makes it, by openssl.
Bytes MakeUpdate(TestKeys& keys, const AuthTarget& target, const Bytes& payload,
                 const std::string& signer) {
  ByteWriter time;
  time.U16Le(2024).U8(2).U8(29).U8(23).U8(59).U8(58).Zeros(9);
  ByteWriter content;
  for (const char c : target.name) content.U16Le(static_cast<uint8_t>(c));
  content.Raw(target.vendor.bytes).U32Le(target.attributes).Raw(time.bytes()).Raw(payload);
  WriteFile(keys.File("content"), content.bytes());
  MustRun("openssl smime -sign -binary -noattr -md sha256 -outform der -in " +
          keys.File("content") + " -signer " + keys.File(signer + ".crt") + " -inkey " +
          keys.File(signer + ".key") + " -out " + keys.File("pkcs7"));
  const Bytes pkcs7 = ReadFile(keys.File("pkcs7"));
  ByteWriter out;
  out.Raw(time.bytes()).U32Le(static_cast<uint32_t>(24 + pkcs7.size())).U16Le(0x200).U16Le(0xef1);
  return std::move(out.Raw(Guid::Parse(kPkcs7Guid)->bytes).Raw(pkcs7).Raw(payload)).Take();
}

class AuthFileTest : public ::testing::Test {
 protected:
  AuthFileTest() {
    set_.pk = {Entry(keys_.MakeAuthority("pk"))};
    set_.kek = {Entry(keys_.MakeAuthority("kek"))};
    payload_ = EncodeSignatureList(MakeSignature(SignatureType::kSha256, kShimLockGuid, Bytes(32)));
  }
  Bytes Update(const AuthTarget& target, const std::string& signer) {
    return MakeUpdate(keys_, target, payload_, signer);
  }
  bool Accepts(const Bytes& file, const AuthTarget& target) {
    const auto parsed = ParseAuthFile(file);
    EXPECT_TRUE(parsed.has_value()) << parsed.error().Describe();
    return parsed.has_value() && VerifyAuthFile(*parsed, target, set_).has_value();
  }
  TestKeys keys_;
  KeySet set_;
  Bytes payload_;
};

TEST_F(AuthFileTest, TimeAndListsAreRead) {
  const auto file = ParseAuthFile(Update(Target("dbx"), "kek"));
  ASSERT_TRUE(file.has_value()) << file.error().Describe();
  EXPECT_EQ(file->time.ToString(), "2024-02-29T23:59:58Z");
  EXPECT_EQ(file->payload, payload_);
  ASSERT_EQ(file->signatures.size(), 1U);
  EXPECT_EQ(*VerifyAuthFile(*file, Target("dbx"), set_), set_.kek.front());
}

TEST_F(AuthFileTest, KeyExchangeKeysSignDatabasesAndThePlatformKeySignsKeys) {
  for (const char* name : {"db", "dbx", "dbt"}) {
    EXPECT_TRUE(Accepts(Update(Target(name), "kek"), Target(name))) << name;
    EXPECT_FALSE(Accepts(Update(Target(name), "pk"), Target(name))) << name;
  }
  for (const char* name : {"PK", "KEK"}) {
    EXPECT_TRUE(Accepts(Update(Target(name), "pk"), Target(name))) << name;
    EXPECT_FALSE(Accepts(Update(Target(name), "kek"), Target(name))) << name;
  }
}

TEST_F(AuthFileTest, ChainCountsForDatabasesButNotForKeys) {
  keys_.MakeSigner("below-kek", "kek");
  keys_.MakeSigner("below-pk", "pk");
  EXPECT_TRUE(Accepts(Update(Target("db"), "below-kek"), Target("db")));
  EXPECT_FALSE(Accepts(Update(Target("KEK"), "below-pk"), Target("KEK")));
}

TEST_F(AuthFileTest, NameVendorAndAttributesAreSigned) {
  const Bytes file = Update(Target("db"), "kek");
  EXPECT_FALSE(Accepts(file, Target("dbx")));
  EXPECT_FALSE(Accepts(file, {"db", kGlobalVariableGuid}));
  EXPECT_FALSE(Accepts(file, Target("db", kKeyVariableAttributes | kAppendWrite)));
}

TEST_F(AuthFileTest, TimeAndPayloadAreSigned) {
  const Bytes valid = Update(Target("db"), "kek");
  for (const size_t at : {size_t{0}, size_t{6}, valid.size() - 1}) {
    Bytes file = valid;
    file[at] ^= std::byte{1};
    EXPECT_FALSE(Accepts(file, Target("db"))) << at;
  }
}

TEST_F(AuthFileTest, RefusalNamesTheSigner) {
  keys_.MakeAuthority("stranger");
  const auto file = ParseAuthFile(Update(Target("db"), "stranger"));
  const auto verified = VerifyAuthFile(*file, Target("db"), set_);
  ASSERT_FALSE(verified.has_value());
  EXPECT_EQ(verified.error().code(), ErrorCode::kDenied);
  EXPECT_THAT(verified.error().message(), HasSubstr("CN=stranger"));
  EXPECT_THAT(verified.error().fix(), HasSubstr("KEK"));
}

TEST_F(AuthFileTest, EachFieldOfTheHeaderCounts) {
  const Bytes valid = Update(Target("db"), "kek");
  // Pad1, nanosecond, time zone, daylight, pad2, length (three ways), revision, type, GUID.
  for (const size_t at : {7U, 8U, 12U, 14U, 15U, 18U, 19U, 21U, 23U, 24U}) {
    Bytes file = valid;
    file[at] ^= std::byte{0x10};
    EXPECT_FALSE(ParseAuthFile(file).has_value()) << at;
  }
  Bytes shorter = valid;
  shorter[16] = std::byte{23};
  shorter[17] = std::byte{0};
  EXPECT_FALSE(ParseAuthFile(shorter).has_value());
  EXPECT_EQ(ParseAuthFile(Bytes(kMaxAuthFileBytes + 1)).error().code(), ErrorCode::kExhausted);
}

TEST_F(AuthFileTest, DamageIsRefusedOrDenied) {
  const Bytes valid = Update(Target("db"), "kek");
  for (size_t size = 0; size < valid.size(); size += 11) {
    const auto file = ParseAuthFile(ByteView(valid).first(size));
    EXPECT_FALSE(file.has_value() && VerifyAuthFile(*file, Target("db"), set_).has_value());
  }
  std::minstd_rand random(1);
  for (int i = 0; i < 200; ++i) {
    Bytes damaged = valid;
    damaged[random() % damaged.size()] ^= std::byte{static_cast<uint8_t>(1U << random() % 8)};
    const auto file = ParseAuthFile(damaged);
    if (!file.has_value() || !VerifyAuthFile(*file, Target("db"), set_).has_value()) continue;
    EXPECT_EQ(file->payload, payload_);
    EXPECT_EQ(file->time.ToString(), "2024-02-29T23:59:58Z");
  }
}

// What the manifest of the shared vectors says of the published updates. The certificate that must
// be trusted is the one above the signer, or the signer's own.
TEST(AuthFileVectors, PublishedUpdatesVerifyForTheirVariableOnly) {
  const std::string dir = formats::testing::VectorsDir();
  if (dir.empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
  std::ifstream in(dir + "/manifest.json");
  size_t seen = 0;
  for (const auto& vector : nlohmann::json::parse(in)) {
    if (vector["kind"] != "efi_variable_authentication_2") continue;
    const auto& expect = vector["expect"];
    const auto file = ParseAuthFile(ReadFile(dir + "/" + vector["file"].get<std::string>()));
    ASSERT_TRUE(file.has_value()) << vector["file"] << file.error().Describe();
    EXPECT_EQ(file->time.ToString(), expect["timestamp"].get<std::string>());
    EXPECT_EQ(file->payload.size(), expect["payload_bytes"].get<size_t>());
    EXPECT_EQ(file->signatures.size(), expect["lists_total"].get<size_t>());
    EXPECT_EQ(file->signature.certificates().size(), expect["signer_certificates"].size());
    KeySet keys;
    for (const Bytes& der : file->signature.certificates()) keys.kek.push_back(Entry(der));
    keys.pk = {Entry(file->signature.signers().front())};
    const auto& signed_for = expect["signature_verified_for"];
    const std::string name = signed_for["variable"];
    const auto attributes =
        static_cast<uint32_t>(std::stoul(signed_for["attributes"].get<std::string>(), nullptr, 16));
    const auto verified = VerifyAuthFile(*file, Target(name, attributes), keys);
    EXPECT_TRUE(verified.has_value()) << vector["file"] << verified.error().Describe();
    EXPECT_FALSE(VerifyAuthFile(*file, Target(name, attributes ^ kAppendWrite), keys).has_value());
    EXPECT_FALSE(VerifyAuthFile(*file, Target(name, attributes), KeySet()).has_value());
    ++seen;
  }
  EXPECT_GE(seen, 6U);
}

// Microsoft's dbx is signed below the key exchange key that machines hold.
TEST(AuthFileVectors, MicrosoftsRevocationsAreAcceptedByTheInstalledKeys) {
  const std::string dir = formats::testing::VectorsDir();
  const auto store = VariableStore::Parse(ReadFile("/usr/share/OVMF/OVMF_VARS_4M.ms.fd"));
  if (dir.empty() || !store.has_value()) GTEST_SKIP() << "VALLUM_VECTORS or ovmf is absent";
  const auto file = ParseAuthFile(ReadFile(dir + "/uefi/dbxupdate-x64-2020-10-12.auth"));
  ASSERT_TRUE(file.has_value());
  const auto verified = VerifyAuthFile(*file, Target("dbx", kKeyVariableAttributes | kAppendWrite),
                                       *KeySetFromStore(*store));
  ASSERT_TRUE(verified.has_value()) << verified.error().Describe();
  EXPECT_EQ(FindKnownCertificate(verified->data)->name, "Microsoft Corporation KEK CA 2011");
}

}  // namespace
}  // namespace vallum::firmware

// SPDX-License-Identifier: Apache-2.0
// With a real swtpm; quotes are verified by what the controller verifies them with.
#include "tpm/host_tpm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "attest/quote.h"
#include "attest/tpm_public.h"
#include "tpm/address.h"
#include "tpm/certificates.h"
#include "tpm/esys.h"
#include "tpm/marshal.h"
#include "tpm/swtpm_rig.h"

namespace vallum::tpm {
namespace {

constexpr std::string_view kNonce = "0123456789abcdef0123456789abcdef";

std::vector<measure::BankSelection> Select(std::string_view text) {
  return measure::ParsePcrSelections(text).value();
}

OpenedTpm Open(const SwtpmRig& rig, const std::optional<KeyBlobs>& kept = std::nullopt,
               std::vector<KeyKind> kinds = {KeyKind::kEccP256, KeyKind::kRsa2048}) {
  auto opened = OpenHostTpm({.address = rig.address(), .kinds = std::move(kinds)}, kept, {});
  EXPECT_TRUE(opened) << opened.error().Describe();
  return opened ? *std::move(opened) : OpenedTpm{};
}

attest::QuoteVerdict Verify(const TpmIdentity& identity, const Quote& quote,
                            const std::vector<measure::BankSelection>& selections) {
  attest::PcrBanks banks;
  for (size_t i = 0; i < selections.size(); ++i) {
    for (size_t k = 0; k < selections[i].pcrs.size(); ++k) {
      banks[selections[i].bank].emplace(selections[i].pcrs[k], quote.values.at(i).at(k));
    }
  }
  const auto key = attest::QuoteKey::Create(attest::ParseTpmtPublic(identity.ak_public).value());
  EXPECT_TRUE(key);
  return attest::VerifyQuote(*key,
                             {.message = quote.quoted,
                              .signature = quote.signature,
                              .format = attest::SignatureFormat::kTpmt,
                              .pcrs = banks},
                             {.nonce = ToBytes(AsBytes(kNonce)),
                              .pcrs = selections,
                              .signer = attest::AnySigner{},
                              .previous = attest::FirstQuote{},
                              .sha1 = attest::Sha1Policy::kRefused});
}

void ExpectGoodQuote(HostTpm& tpm, std::string_view pcrs) {
  const auto selections = Select(pcrs);
  const auto quote = tpm.MakeQuote(AsBytes(kNonce), selections);
  ASSERT_TRUE(quote) << quote.error().Describe();
  const auto verdict = Verify(tpm.identity(), *quote, selections);
  EXPECT_TRUE(verdict.Accepted()) << attest::QuoteReasonName(verdict.rejections.at(0).reason)
                                  << ": " << verdict.rejections.at(0).what;
}

TPMS_ATTEST QuotedState(HostTpm& tpm) {
  const auto quote = tpm.MakeQuote(AsBytes(kNonce), Select("sha256:0"));
  EXPECT_TRUE(quote) << quote.error().Describe();
  return quote ? UnmarshalAttest(quote->quoted).value() : TPMS_ATTEST{};
}

TPMS_CAPABILITY_DATA GetCapability(const SwtpmRig& rig, TPM2_CAP capability, uint32_t first,
                                   uint32_t count) {
  auto esys = EsysContext::Open(rig.address(), std::chrono::seconds(20), {}).value();
  TPMS_CAPABILITY_DATA* raw = nullptr;
  TPMI_YES_NO more = TPM2_NO;
  EXPECT_TRUE(esys->Call("asking", [&](ESYS_CONTEXT* context) {
    return Esys_GetCapability(context, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, capability, first,
                              count, &more, &raw);
  }));
  const EsysPtr<TPMS_CAPABILITY_DATA> data(raw);
  return *data;
}

struct Credential {
  Bytes id_object;
  Bytes secret;
};

// As a controller makes it; here another TPM context does it from the public parts alone.
Credential MakeCredential(const SwtpmRig& rig, const TpmIdentity& identity, ByteView ak_name,
                          std::string_view content) {
  auto esys = EsysContext::Open(rig.address(), std::chrono::seconds(20), {}).value();
  ByteWriter sized;
  sized.U16Be(static_cast<uint16_t>(identity.ek_public.size())).Raw(identity.ek_public);
  const TPM2B_PUBLIC area = UnmarshalPublic(sized.bytes()).value();
  ESYS_TR ek = ESYS_TR_NONE;
  EXPECT_TRUE(esys->Call("loading", [&](ESYS_CONTEXT* context) {
    return Esys_LoadExternal(context, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, nullptr, &area,
                             ESYS_TR_RH_ENDORSEMENT, &ek);
  }));
  const EsysHandle owner(*esys, ek, EsysHandle::Kind::kTransient);
  TPM2B_DIGEST secret{};
  secret.size = static_cast<uint16_t>(content.size());
  std::ranges::copy(content, secret.buffer);
  TPM2B_NAME name{};
  name.size = static_cast<uint16_t>(ak_name.size());
  std::ranges::transform(ak_name, name.name,
                         [](std::byte octet) { return std::to_integer<uint8_t>(octet); });
  TPM2B_ID_OBJECT* raw_blob = nullptr;
  TPM2B_ENCRYPTED_SECRET* raw_secret = nullptr;
  EXPECT_TRUE(esys->Call("making", [&](ESYS_CONTEXT* context) {
    return Esys_MakeCredential(context, ek, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &secret,
                               &name, &raw_blob, &raw_secret);
  }));
  const EsysPtr<TPM2B_ID_OBJECT> blob(raw_blob);
  const EsysPtr<TPM2B_ENCRYPTED_SECRET> encrypted(raw_secret);
  ByteWriter id_object;
  id_object.U16Be(blob->size).Raw(std::as_bytes(std::span(blob->credential, blob->size)));
  ByteWriter out;
  out.U16Be(encrypted->size).Raw(std::as_bytes(std::span(encrypted->secret, encrypted->size)));
  return {std::move(id_object).Take(), std::move(out).Take()};
}

TEST(HostTpmTest, EccKeySignsWhatThePcrsHold) {
  const SwtpmRig rig;
  const OpenedTpm opened = Open(rig);
  ASSERT_TRUE(opened.tpm);
  EXPECT_EQ(opened.origin, KeyOrigin::kFirst);
  rig.Tool({"tpm2_pcrevent", "4", rig.directory() / "swtpm.log"});
  ExpectGoodQuote(*opened.tpm, "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,23");
}

TEST(HostTpmTest, Sha384BankIsQuotedBesideSha256) {
  const SwtpmRig rig;
  const OpenedTpm opened = Open(rig);
  ASSERT_TRUE(opened.tpm);
  ExpectGoodQuote(*opened.tpm, "sha256:0,7+sha384:0,1,2,3,4,5,6,7,8,9");
}

TEST(HostTpmTest, RsaKeySignsWhereThatIsWanted) {
  const SwtpmRig rig;
  const OpenedTpm opened = Open(rig, std::nullopt, {KeyKind::kRsa2048});
  ASSERT_TRUE(opened.tpm);
  EXPECT_TRUE(std::holds_alternative<attest::RsaPublic>(
      attest::ParseTpmtPublic(opened.tpm->identity().ak_public)->key));
  ExpectGoodQuote(*opened.tpm, "sha256:0,7");
}

TEST(HostTpmTest, NameIsWhatTheVerifierComputes) {
  const SwtpmRig rig;
  const OpenedTpm opened = Open(rig);
  ASSERT_TRUE(opened.tpm);
  EXPECT_EQ(opened.tpm->identity().ak_name,
            attest::ParseTpmtPublic(opened.tpm->identity().ak_public)->Name());
  EXPECT_EQ(opened.tpm->identity().ak_name, KeyName(opened.key.public_area).value());
}

TEST(HostTpmTest, QuoteAnswersTheNonceItWasGiven) {
  const SwtpmRig rig;
  const OpenedTpm opened = Open(rig);
  ASSERT_TRUE(opened.tpm);
  const auto quote = opened.tpm->MakeQuote(AsBytes("another nonce of 20 "), Select("sha256:0"));
  ASSERT_TRUE(quote);
  EXPECT_TRUE(Verify(opened.tpm->identity(), *quote, Select("sha256:0"))
                  .Has(attest::QuoteReason::kNonceMismatch));
}

TEST(HostTpmTest, BankThatTheTpmLacksIsNamed) {
  SwtpmRig rig;
  rig.Tool({"tpm2_pcrallocate", "sha256:all+sha384:none+sha1:none+sha512:none"});
  rig.Restart();
  const OpenedTpm opened = Open(rig);
  ASSERT_TRUE(opened.tpm);
  const auto quote = opened.tpm->MakeQuote(AsBytes(kNonce), Select("sha256:0+sha384:0"));
  ASSERT_FALSE(quote);
  EXPECT_EQ(quote.error().code(), ErrorCode::kInvalidInput);
  EXPECT_NE(quote.error().Describe().find("sha384"), std::string::npos);
}

TEST(HostTpmTest, KeyIsTheSameAfterReopening) {
  const SwtpmRig rig;
  OpenedTpm first = Open(rig);
  ASSERT_TRUE(first.tpm);
  const TpmIdentity before = first.tpm->identity();
  first.tpm.reset();
  const OpenedTpm second = Open(rig, first.key);
  ASSERT_TRUE(second.tpm);
  EXPECT_EQ(second.origin, KeyOrigin::kKept);
  EXPECT_EQ(second.tpm->identity().ak_public, before.ak_public);
  EXPECT_EQ(second.tpm->identity().ek_public, before.ek_public);
  ExpectGoodQuote(*second.tpm, "sha256:0");
}

TEST(HostTpmTest, ObjectsThatAnEarlierProcessLeftAreRemoved) {
  const SwtpmRig rig;
  const OpenedTpm killed = Open(rig);
  ASSERT_TRUE(killed.tpm);
  const OpenedTpm next = Open(rig, killed.key);
  ASSERT_TRUE(next.tpm);
  EXPECT_EQ(next.origin, KeyOrigin::kKept);
  ExpectGoodQuote(*next.tpm, "sha256:0");
}

TEST(HostTpmTest, SessionsAreFlushedAndTwoKeysStayLoaded) {
  const SwtpmRig rig;
  OpenedTpm first = Open(rig);
  ASSERT_TRUE(first.tpm);
  first.tpm.reset();
  const OpenedTpm opened = Open(rig, first.key);
  ASSERT_TRUE(opened.tpm);
  const TpmIdentity& identity = opened.tpm->identity();
  const Credential credential = MakeCredential(rig, identity, identity.ak_name, "the secret");
  ASSERT_TRUE(opened.tpm->ActivateCredential(credential.id_object, credential.secret));
  EXPECT_EQ(GetCapability(rig, TPM2_CAP_HANDLES, TPM2_LOADED_SESSION_FIRST, 8).data.handles.count,
            0U);
  EXPECT_EQ(GetCapability(rig, TPM2_CAP_HANDLES, TPM2_TRANSIENT_FIRST, 8).data.handles.count, 2U);
}

void ExpectKeyOfTheEndorsementHierarchy(SwtpmRig& rig) {
  KeyBlobs kept;
  TPMS_ATTEST before{};
  {
    const OpenedTpm first = Open(rig);
    ASSERT_TRUE(first.tpm);
    kept = first.key;
    before = QuotedState(*first.tpm);
  }
  const TPMS_CAPABILITY_DATA stated =
      GetCapability(rig, TPM2_CAP_TPM_PROPERTIES, TPM2_PT_FIRMWARE_VERSION_1, 2);
  EXPECT_EQ(before.firmwareVersion,
            uint64_t{stated.data.tpmProperties.tpmProperty[0].value} << 32U |
                stated.data.tpmProperties.tpmProperty[1].value);
  {
    const OpenedTpm another = Open(rig);
    ASSERT_TRUE(another.tpm);
    EXPECT_NE(another.key.public_area, kept.public_area);
    const TPMS_ATTEST now = QuotedState(*another.tpm);
    EXPECT_EQ(now.firmwareVersion, before.firmwareVersion);
    EXPECT_EQ(now.clockInfo.resetCount, before.clockInfo.resetCount);
    EXPECT_EQ(now.clockInfo.restartCount, before.clockInfo.restartCount);
  }
  rig.Restart();
  const OpenedTpm again = Open(rig, kept);
  ASSERT_TRUE(again.tpm);
  EXPECT_EQ(again.origin, KeyOrigin::kKept);
  const TPMS_ATTEST after = QuotedState(*again.tpm);
  EXPECT_EQ(after.clockInfo.resetCount, before.clockInfo.resetCount + 1);
  EXPECT_EQ(after.firmwareVersion, before.firmwareVersion);
}

TEST(HostTpmTest, KeysUnderAnEccEndorsementKeyQuoteCountersAndFirmwareAsTheyAre) {
  SwtpmRig rig;
  ExpectKeyOfTheEndorsementHierarchy(rig);
}

// TPM 2.0 Library, part 3, 24.6, "TPM2_Clear": ehProof, from which a storage key of the endorsement
// hierarchy has what protects its children, is changed, and the counters begin anew.
TEST(HostTpmTest, KeyOfAClearedTpmIsMadeAnewUnderTheSameEndorsementKey) {
  SwtpmRig rig;
  rig.Restart();
  KeyBlobs kept;
  Bytes ek;
  {
    const OpenedTpm first = Open(rig);
    ASSERT_TRUE(first.tpm);
    kept = first.key;
    ek = first.tpm->identity().ek_public;
    EXPECT_GT(QuotedState(*first.tpm).clockInfo.resetCount, 0U);
  }
  rig.Tool({"tpm2_clear"});
  const OpenedTpm second = Open(rig, kept);
  ASSERT_TRUE(second.tpm);
  EXPECT_EQ(second.origin, KeyOrigin::kRemade);
  EXPECT_NE(second.key.public_area, kept.public_area);
  EXPECT_EQ(second.tpm->identity().ek_public, ek);
  EXPECT_EQ(QuotedState(*second.tpm).clockInfo.resetCount, 0U);
  ExpectGoodQuote(*second.tpm, "sha256:0");
}

TEST(HostTpmTest, TpmThatIsClearedWhileItIsOpenIsToBeOpenedAnew) {
  const SwtpmRig rig;
  const OpenedTpm opened = Open(rig);
  ASSERT_TRUE(opened.tpm);
  rig.Tool({"tpm2_clear"});
  const auto quote = opened.tpm->MakeQuote(AsBytes(kNonce), Select("sha256:0"));
  ASSERT_FALSE(quote);
  EXPECT_EQ(quote.error().code(), ErrorCode::kUnavailable) << quote.error().Describe();
}

TEST(HostTpmTest, KeyUnderTheStorageKeyIsReplacedByOneUnderTheEndorsementKey) {
  const SwtpmRig rig;
  const auto file = [&rig](const char* name) { return (rig.directory() / name).string(); };
  rig.Tool({"tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", file("srk.ctx")});
  rig.Tool({"tpm2_flushcontext", "-t"});
  rig.Tool({"tpm2_create", "-C", file("srk.ctx"), "-G", "ecc256:ecdsa-sha256:null", "-a",
            "restricted|sign|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda", "-u",
            file("ak.pub"), "-r", file("ak.priv")});
  rig.Tool({"tpm2_flushcontext", "-t"});
  const auto read = [&file](const char* name) {
    std::ifstream in(file(name), std::ios::binary);
    const std::string content((std::istreambuf_iterator<char>(in)), {});
    return ToBytes(AsBytes(content));
  };
  const KeyBlobs old{read("ak.pub"), read("ak.priv")};
  const OpenedTpm opened = Open(rig, old);
  ASSERT_TRUE(opened.tpm);
  EXPECT_EQ(opened.origin, KeyOrigin::kRemade);
  EXPECT_NE(opened.key.public_area, old.public_area);
  const TpmIdentity& identity = opened.tpm->identity();
  const Credential credential = MakeCredential(rig, identity, identity.ak_name, "the secret");
  EXPECT_TRUE(opened.tpm->ActivateCredential(credential.id_object, credential.secret));
}

TEST(HostTpmTest, PasswordOfTheEndorsementHierarchyIsAnErrorThatKeepsTheKey) {
  const SwtpmRig rig;
  KeyBlobs kept;
  {
    const OpenedTpm first = Open(rig);
    ASSERT_TRUE(first.tpm);
    kept = first.key;
  }
  rig.Tool({"tpm2_createek", "-G", "ecc", "-c", "0x81010016"});
  rig.Tool({"tpm2_changeauth", "-c", "e", "secret"});
  const auto refused = OpenHostTpm({.address = rig.address()}, kept, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kDenied);
  EXPECT_NE(refused.error().fix().find("tpm2_changeauth"), std::string::npos);
  rig.Tool({"tpm2_changeauth", "-c", "e", "-p", "secret"});
  EXPECT_EQ(Open(rig, kept).origin, KeyOrigin::kKept);
}

TEST(HostTpmTest, KeyOfAReplacedTpmIsMadeAnewAndTheEndorsementKeyIsAnother) {
  SwtpmRig rig;
  KeyBlobs kept;
  Bytes ek;
  {
    const OpenedTpm first = Open(rig);
    ASSERT_TRUE(first.tpm);
    kept = first.key;
    ek = first.tpm->identity().ek_public;
  }
  rig.Replace();
  const OpenedTpm second = Open(rig, kept);
  ASSERT_TRUE(second.tpm);
  EXPECT_EQ(second.origin, KeyOrigin::kRemade);
  EXPECT_NE(second.tpm->identity().ek_public, ek);
}

TEST(HostTpmTest, DamagedKeyFileIsAnError) {
  const SwtpmRig rig;
  const auto opened = OpenHostTpm({.address = rig.address()}, KeyBlobs{Bytes(5), Bytes(5)}, {});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), ErrorCode::kInvalidInput);
}

TEST(HostTpmTest, CredentialForBothKeysIsOpened) {
  const SwtpmRig rig;
  const OpenedTpm opened = Open(rig);
  ASSERT_TRUE(opened.tpm);
  const TpmIdentity& identity = opened.tpm->identity();
  const Credential credential = MakeCredential(rig, identity, identity.ak_name, "the secret");
  const auto secret = opened.tpm->ActivateCredential(credential.id_object, credential.secret);
  ASSERT_TRUE(secret) << secret.error().Describe();
  EXPECT_TRUE(secret->Equals(SecretBytes(AsBytes("the secret"))));
  ExpectGoodQuote(*opened.tpm, "sha256:0");
}

TEST(HostTpmTest, CredentialForAnotherAttestationKeyIsRefused) {
  const SwtpmRig rig;
  const OpenedTpm opened = Open(rig);
  ASSERT_TRUE(opened.tpm);
  Bytes name = opened.tpm->identity().ak_name;
  name.back() ^= std::byte{1};
  const Credential credential = MakeCredential(rig, opened.tpm->identity(), name, "the secret");
  const auto secret = opened.tpm->ActivateCredential(credential.id_object, credential.secret);
  ASSERT_FALSE(secret);
  EXPECT_EQ(secret.error().code(), ErrorCode::kDenied);
  ExpectGoodQuote(*opened.tpm, "sha256:0");
}

TEST(HostTpmTest, CredentialThatIsNoneIsRefused) {
  const SwtpmRig rig;
  const OpenedTpm opened = Open(rig);
  ASSERT_TRUE(opened.tpm);
  const auto secret = opened.tpm->ActivateCredential(Bytes(7), Bytes(2));
  ASSERT_FALSE(secret);
  EXPECT_EQ(secret.error().code(), ErrorCode::kInvalidInput);
}

TEST(HostTpmTest, PersistentEndorsementKeyThatMatchesIsTaken) {
  const SwtpmRig rig;
  rig.Tool({"tpm2_createek", "-G", "ecc", "-c", "0x81010016", "-u", rig.directory() / "ek.pub"});
  const OpenedTpm opened = Open(rig);
  ASSERT_TRUE(opened.tpm);
  std::ifstream file(rig.directory() / "ek.pub", std::ios::binary);
  const std::string stored((std::istreambuf_iterator<char>(file)), {});
  EXPECT_EQ(ToHex(AsBytes(stored)).substr(4), ToHex(opened.tpm->identity().ek_public));
  const TpmIdentity& identity = opened.tpm->identity();
  const Credential credential = MakeCredential(rig, identity, identity.ak_name, "the secret");
  EXPECT_TRUE(opened.tpm->ActivateCredential(credential.id_object, credential.secret));
}

// What an index holds: a certificate, as far as its header says, and filling.
std::string FakeCertificate(char content) {
  return std::string("\x30\x82\x01\x00", 4) + std::string(256, content);
}

void WriteIndex(const SwtpmRig& rig, const std::string& index, const std::string& content) {
  const std::string path = rig.directory() / ("nv" + index);
  std::ofstream(path, std::ios::binary) << content;
  rig.Tool({"tpm2_nvdefine", index, "-C", "o", "-s", std::to_string(content.size()), "-a",
            "ownerread|authread|ownerwrite|authwrite|no_da"});
  rig.Tool({"tpm2_nvwrite", index, "-C", "o", "-i", path});
}

TEST(HostTpmTest, RsaEndorsementKeyIsTakenWhereItAloneHasACertificate) {
  const SwtpmRig rig;
  WriteIndex(rig, "0x01C00002", FakeCertificate('r') + std::string(40, '\xff'));
  const OpenedTpm opened = Open(rig);
  ASSERT_TRUE(opened.tpm);
  EXPECT_EQ(AsText(opened.tpm->identity().ek_certificate), FakeCertificate('r'));
  EXPECT_TRUE(std::holds_alternative<attest::RsaPublic>(
      attest::ParseTpmtPublic(opened.tpm->identity().ek_public)->key));
  const TpmIdentity& identity = opened.tpm->identity();
  const Credential credential = MakeCredential(rig, identity, identity.ak_name, "the secret");
  EXPECT_TRUE(opened.tpm->ActivateCredential(credential.id_object, credential.secret));
}

TEST(HostTpmTest, KeysUnderAnRsaEndorsementKeyQuoteCountersAndFirmwareAsTheyAre) {
  SwtpmRig rig;
  WriteIndex(rig, "0x01C00002", FakeCertificate('r'));
  ExpectKeyOfTheEndorsementHierarchy(rig);
}

TEST(HostTpmTest, EccEndorsementKeyIsTakenWhereBothHaveCertificatesAndItsChainIsRead) {
  const SwtpmRig rig;
  WriteIndex(rig, "0x01C00002", FakeCertificate('r'));
  WriteIndex(rig, "0x01C0000A", FakeCertificate('e'));
  const std::string chain = FakeCertificate('1') + FakeCertificate('2');
  WriteIndex(rig, "0x01C00100", chain.substr(0, 300));
  WriteIndex(rig, "0x01C00101", chain.substr(300));
  const OpenedTpm opened = Open(rig);
  ASSERT_TRUE(opened.tpm);
  const TpmIdentity& identity = opened.tpm->identity();
  EXPECT_EQ(AsText(identity.ek_certificate), FakeCertificate('e'));
  ASSERT_EQ(identity.ek_certificate_chain.size(), 2U);
  EXPECT_EQ(AsText(identity.ek_certificate_chain[1]), FakeCertificate('2'));
}

TEST(HostTpmTest, TpmThatDoesNotAnswerIsToldInWords) {
  const SwtpmRig rig;
  auto opened =
      OpenHostTpm({.address = rig.address(), .limit = std::chrono::seconds(1)}, std::nullopt, {});
  ASSERT_TRUE(opened);
  rig.Freeze();
  const auto quote = opened->tpm->MakeQuote(AsBytes(kNonce), Select("sha256:0"));
  ASSERT_FALSE(quote);
  EXPECT_EQ(quote.error().code(), ErrorCode::kUnavailable);
  EXPECT_NE(quote.error().Describe().find("did not answer within 1 second"), std::string::npos)
      << quote.error().Describe();
}

TEST(HostTpmTest, StopEndsWaitingForTheTpm) {
  const SwtpmRig rig;
  std::stop_source stop;
  auto opened = OpenHostTpm({.address = rig.address()}, std::nullopt, stop.get_token());
  ASSERT_TRUE(opened);
  rig.Freeze();
  stop.request_stop();
  EXPECT_FALSE(opened->tpm->MakeQuote(AsBytes(kNonce), Select("sha256:0")));
}

TEST(HostTpmTest, TpmThatIsNotThereIsNotFound) {
  const auto opened = OpenHostTpm(
      {.address = ParseTpmAddress("swtpm:path=/nowhere/tpm.sock").value()}, std::nullopt, {});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), ErrorCode::kNotFound);
}

TEST(TpmAddressTest, EachFormIsRead) {
  EXPECT_EQ(ParseTpmAddress("swtpm:path=/run/x.sock")->path, "/run/x.sock");
  EXPECT_EQ(ParseTpmAddress("device:/dev/tpm0")->path, "/dev/tpm0");
  const auto tcp = ParseTpmAddress("swtpm:host=::1,port=2321");
  ASSERT_TRUE(tcp);
  EXPECT_EQ(tcp->kind, TpmKind::kTcpSocket);
  EXPECT_EQ(tcp->host, "::1");
  EXPECT_EQ(tcp->port, "2321");
}

TEST(TpmAddressTest, WhatIsNoAddressIsRefused) {
  for (const std::string_view text :
       {"", "cmd:/bin/true", "device:tpm0", "swtpm:", "swtpm:path=", "swtpm:path=x.sock",
        "swtpm:host=h", "swtpm:port=1", "swtpm:host=h,port=1,path=/x", "swtpm:host=h,host=h,port=1",
        "swtpm:host=h,port=1,", "swtpm:host=h,port=1,more=2"}) {
    EXPECT_FALSE(ParseTpmAddress(text)) << text;
  }
}

TEST(TpmAddressTest, NoneSaysWhyThereIsNone) {
  EXPECT_EQ(ParseTpmAddress("none")->kind, TpmKind::kNone);
  EXPECT_NE(ParseTpmAddress("none")->absence, "");
}

TEST(EkCertificateTest, CertificateLongerThanItsIndexIsLeftOut) {
  const std::string cut = FakeCertificate('x').substr(0, 200);
  EXPECT_TRUE(CutCertificates(AsBytes(cut)).empty());
}

}  // namespace
}  // namespace vallum::tpm

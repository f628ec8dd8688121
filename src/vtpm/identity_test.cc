// SPDX-License-Identifier: Apache-2.0
// The keys of a vTPM, its certificate and its quotes: pure parts, and vallum-vtpm as a process with
// a real swtpm behind it.
#include "vtpm/identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/bn.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <memory>
#include <thread>

#include "vtpm/control_protocol.h"
#include "vtpm/key_command.h"
#include "vtpm/quote_maker.h"
#include "vtpm/test_support.h"
#include "vtpm/tpm_command.h"

namespace vallum::vtpm {
namespace {

using measure::StartupType;
using testing::FakeQemu;
using ::testing::HasSubstr;
using testing::MakeAuthorized;
using testing::MakeExtend;
using testing::TempDir;
using testing::VtpmUnderTest;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr uint32_t kOwner = 0x40000001;
constexpr uint32_t kLockout = 0x4000000A;
constexpr uint32_t kEndorsement = 0x4000000B;
constexpr uint32_t kPlatform = 0x4000000C;

void PowerOn(FakeQemu& qemu) {
  qemu.Init();
  qemu.Succeed(MakeStartup(StartupType::kClear));
}

QuoteRequest MakeValidRequest() {
  return {Bytes(20, std::byte{0x5a}),
          {{kBank, {PcrIndex::Of<0>(), PcrIndex::Of<7>(), PcrIndex::Of<23>()}}}};
}

Bytes MakeClear() { return MakeAuthorized(0x126, {kLockout}, {}); }

// TPM2_HierarchyChangeAuth.
Bytes MakeSetPassword(uint32_t hierarchy) {
  ByteWriter parameters;
  parameters.U16Be(6).Raw(AsBytes("secret"));
  return MakeAuthorized(0x129, {hierarchy}, parameters.bytes());
}

Bytes MakeEvict(uint32_t handle) { return MakeEvictControl(handle, handle); }

// Whether the signature over the quote is the attestation key's, as somebody else checks it.
bool SignatureIsGood(const Quote& quote) {
  const Bytes der = SubjectPublicKeyInfo(quote.ak_public).value();
  const auto* begin = reinterpret_cast<const unsigned char*>(der.data());
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
      d2i_PUBKEY(nullptr, &begin, static_cast<long>(der.size())), EVP_PKEY_free);
  ByteCursor cursor(quote.signature);
  EXPECT_EQ(cursor.ReadU16Be().value(), 0x0018);  // ECDSA
  EXPECT_EQ(cursor.ReadU16Be().value(), 0x000b);  // SHA-256
  ECDSA_SIG* signature = ECDSA_SIG_new();
  BIGNUM* numbers[2];
  for (BIGNUM*& number : numbers) {
    const ByteView bytes = cursor.ReadBytes(cursor.ReadU16Be().value()).value();
    number = BN_bin2bn(reinterpret_cast<const unsigned char*>(bytes.data()),
                       static_cast<int>(bytes.size()), nullptr);
  }
  ECDSA_SIG_set0(signature, numbers[0], numbers[1]);
  unsigned char* encoded = nullptr;
  const int size = i2d_ECDSA_SIG(signature, &encoded);
  ECDSA_SIG_free(signature);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        EVP_MD_CTX_free);
  const bool good =
      key != nullptr &&
      EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr, key.get()) == 1 &&
      EVP_DigestVerify(context.get(), encoded, static_cast<size_t>(size),
                       reinterpret_cast<const unsigned char*>(quote.quoted.data()),
                       quote.quoted.size()) == 1;
  OPENSSL_free(encoded);
  return good;
}

void ExpectGoodQuote(const VtpmUnderTest& vtpm) {
  const QuoteRequest request = MakeValidRequest();
  ControlClient client = vtpm.Client();
  const auto quote = client.MakeQuote(request);
  ASSERT_TRUE(quote.has_value()) << quote.error().Describe();
  EXPECT_TRUE(SignatureIsGood(*quote));
  EXPECT_TRUE(CheckQuoted(quote->quoted, request, quote->values).has_value());
  EXPECT_EQ(quote->ak_public, client.Identity()->ak_public);
}

ErrorCode QuoteError(const VtpmUnderTest& vtpm, const QuoteRequest& request = MakeValidRequest()) {
  const auto quote = vtpm.Client().MakeQuote(request);
  EXPECT_FALSE(quote.has_value());
  return quote.has_value() ? ErrorCode::kInternal : quote.error().code();
}

TEST(VtpmIdentity, KeysOfOtherKindsAreRefused) {
  Bytes key = KeyTemplate(KeyKind::kEndorsement);
  EXPECT_TRUE(SubjectPublicKeyInfo(key).has_value());
  key[0] = std::byte{0x01};  // RSA
  EXPECT_EQ(SubjectPublicKeyInfo(key).error().code(), ErrorCode::kInvalidInput);
  EXPECT_EQ(SubjectPublicKeyInfo({}).error().code(), ErrorCode::kInvalidInput);
  EXPECT_TRUE(MatchesTemplate(KeyKind::kAttestation, KeyTemplate(KeyKind::kAttestation)));
  EXPECT_FALSE(MatchesTemplate(KeyKind::kAttestation, KeyTemplate(KeyKind::kEndorsement)));
}

TEST(VtpmIdentity, IdentitiesAndQuotesSurviveTheWire) {
  const VtpmIdentity identity{Bytes(3, std::byte{1}), Bytes(4, std::byte{2}), {}};
  EXPECT_EQ(ParseIdentityReply(FormatIdentity(identity)).value(), identity);
  const Quote quote{Bytes(5), Bytes(6), Bytes(7), {{{PcrIndex::Of<3>(), Bytes(32)}}, {}}};
  const auto parsed = ParseQuoteReply(FormatQuote(quote));
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(parsed->quoted, quote.quoted);
  EXPECT_EQ(parsed->signature, quote.signature);
  EXPECT_EQ(parsed->values, quote.values);
  const auto request = ParseRequest(FormatRequest(MakeValidRequest()));
  ASSERT_TRUE(request.has_value()) << request.error().Describe();
  EXPECT_EQ(std::get<QuoteRequest>(*request).selections, MakeValidRequest().selections);
  EXPECT_EQ(std::get<QuoteRequest>(*request).nonce, MakeValidRequest().nonce);
  const CertificateRequest largest{Bytes(kMaxCertificate, std::byte{7})};
  const std::string line = FormatRequest(largest);
  EXPECT_LE(line.size(), kMaxRequestLine);
  EXPECT_EQ(std::get<CertificateRequest>(*ParseRequest(line)).der, largest.der);
}

TEST(VtpmIdentity, MalformedQuoteRequestsAreRefused) {
  const std::string nonce_65(130, 'a');
  for (const std::string& line :
       {std::string(R"({"op":"quote"})"), std::string(R"({"op":"quote","nonce":"aa"})"),
        std::string(R"({"op":"quote","nonce":"a","pcrs":"sha256:1"})"),
        R"({"op":"quote","nonce":")" + nonce_65 + R"(","pcrs":"sha256:1"})",
        std::string(R"({"op":"quote","nonce":"aa","pcrs":"sha256:24"})"),
        std::string(R"({"op":"certificate"})"),
        R"({"op":"certificate","der":")" + std::string(2 * kMaxCertificate + 2, 'a') + R"("})"}) {
    EXPECT_EQ(ParseRequest(line).error().code(), ErrorCode::kInvalidInput) << line;
  }
}

TEST(VtpmIdentity, SerializedPcrsHaveTheSizeThatTpm2ToolsExpect) {
  const PcrSelection all = testing::AllPcrs();
  const QuoteRequest request{{}, {{kBank, {all.begin(), all.begin() + 17}}}};
  Quote quote;
  quote.values.emplace_back();
  for (const PcrIndex pcr : request.selections[0].pcrs) {
    quote.values[0][pcr] = Bytes(32);
  }
  EXPECT_EQ(SerializePcrs(request, quote).size(), 1732U);
}

TEST(VtpmIdentity, AnAnswerThatIsNoneEndsAQuoteInWords) {
  QuoteMaker maker(MakeValidRequest(), KeyTemplate(KeyKind::kAttestation));
  const auto end = maker.OnResponse(Bytes(5));
  ASSERT_TRUE(end.has_value());
  EXPECT_FALSE(end->has_value());
}

TEST(VtpmIdentity, TheAttestationKeySignsWhatThePcrsHold) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  qemu.Succeed(MakeExtend(7, kBank, "measured"));
  ExpectGoodQuote(vtpm);
  const auto quote = vtpm.Client().MakeQuote(MakeValidRequest());
  const auto pcrs = vtpm.Client().ReadPcrs(kBank, {PcrIndex::Of<7>()});
  ASSERT_TRUE(quote.has_value() && pcrs.has_value());
  EXPECT_EQ(quote->values[0].at(PcrIndex::Of<7>()), pcrs->at(PcrIndex::Of<7>()));
}

void WriteFile(const std::string& path, ByteView bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

void WritePem(const std::string& path, ByteView der) {
  const auto* begin = reinterpret_cast<const unsigned char*>(der.data());
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
      d2i_PUBKEY(nullptr, &begin, static_cast<long>(der.size())), EVP_PKEY_free);
  std::FILE* file = std::fopen(path.c_str(), "w");
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(PEM_write_PUBKEY(file, key.get()), 1);
  std::fclose(file);
}

TEST(VtpmIdentity, Tpm2CheckquoteAcceptsAQuoteWithItsNonceAndNoOther) {
  if (access("/usr/bin/tpm2_checkquote", X_OK) != 0) {
    GTEST_SKIP() << "tpm2_checkquote (tpm2-tools) is not installed";
  }
  const TempDir dir;
  VtpmUnderTest vtpm(dir, {"--pcr-banks", "sha1,sha256"});
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  qemu.Succeed(MakeExtend(9, kBank, "measured"));
  const QuoteRequest request{
      Bytes(16, std::byte{0xab}),
      measure::ParsePcrSelections("sha256:0,1,2,3,4,5,6,7,8,9,10,23+sha1:3,10").value()};
  const auto quote = vtpm.Client().MakeQuote(request);
  ASSERT_TRUE(quote.has_value()) << quote.error().Describe();
  WriteFile(dir / "quote.msg", quote->quoted);
  WriteFile(dir / "quote.sig", quote->signature);
  WriteFile(dir / "quote.pcrs", SerializePcrs(request, *quote));
  WritePem(dir / "ak.pem", SubjectPublicKeyInfo(quote->ak_public).value());
  const auto check = [&](const std::string& nonce) {
    testing::Process tool(
        {"/usr/bin/tpm2_checkquote", "-u", dir / "ak.pem", "-m", dir / "quote.msg", "-s",
         dir / "quote.sig", "-f", dir / "quote.pcrs", "-g", "sha256", "-q", nonce},
        dir / "checkquote.log", {});
    return tool.Wait();
  };
  EXPECT_EQ(check(ToHex(request.nonce)), "exit status 0")
      << testing::ReadFile(dir / "checkquote.log");
  EXPECT_EQ(check(std::string(32, 'c')), "exit status 1");
}

TEST(VtpmIdentity, TheLongestAndTheEmptyNonceAreQuoted) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  for (const size_t size : {size_t{0}, QuoteRequest::kMaxNonce}) {
    QuoteRequest request = MakeValidRequest();
    request.nonce = Bytes(size, std::byte{9});
    const auto quote = vtpm.Client().MakeQuote(request);
    ASSERT_TRUE(quote.has_value()) << quote.error().Describe();
    EXPECT_TRUE(CheckQuoted(quote->quoted, request, quote->values).has_value());
    request.nonce.push_back(std::byte{1});
    EXPECT_FALSE(CheckQuoted(quote->quoted, request, quote->values).has_value());
  }
}

TEST(VtpmIdentity, SeveralBanksAreQuotedTogether) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir, {"--pcr-banks", "sha1,sha256"});
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  const QuoteRequest request{
      {}, measure::ParsePcrSelections("sha256:0,1,2,3,4,5,6,7,8+sha1:10").value()};
  const auto quote = vtpm.Client().MakeQuote(request);
  ASSERT_TRUE(quote.has_value()) << quote.error().Describe();
  EXPECT_TRUE(SignatureIsGood(*quote));
  EXPECT_EQ(quote->values[0].size(), 9U);
  EXPECT_EQ(quote->values[1].size(), 1U);
}

TEST(VtpmIdentity, ABankThatTheTpmLacksIsRefused) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  EXPECT_EQ(QuoteError(vtpm, {{}, measure::ParsePcrSelections("sha1:10").value()}),
            ErrorCode::kInvalidInput);
}

TEST(VtpmIdentity, BeforeFirmwareRanThereIsAnIdentityButNoQuote) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  const auto identity = vtpm.Client().Identity();
  ASSERT_TRUE(identity.has_value()) << identity.error().Describe();
  EXPECT_TRUE(MatchesTemplate(KeyKind::kEndorsement, identity->ek_public));
  EXPECT_EQ(QuoteError(vtpm), ErrorCode::kUnavailable);
}

TEST(VtpmIdentity, EachTpmHasKeysOfItsOwn) {
  const TempDir one;
  const TempDir other;
  VtpmUnderTest first(one);
  VtpmUnderTest second(other);
  EXPECT_NE(first.Client().Identity()->ek_public, second.Client().Identity()->ek_public);
  EXPECT_NE(first.Client().Identity()->ak_public, second.Client().Identity()->ak_public);
}

TEST(VtpmIdentity, StaysTheSameWhenTheGuestClearsItsTpm) {
  const TempDir dir;
  VtpmIdentity before;
  {
    VtpmUnderTest vtpm(dir);
    FakeQemu qemu(vtpm.qemu_socket());
    PowerOn(qemu);
    before = vtpm.Client().Identity().value();
    qemu.Succeed(MakeClear());
    EXPECT_NE(ResponseCode(qemu.Command(MakeReadPublic(kAkHandle))).value(), kTpmSuccess);
    ExpectGoodQuote(vtpm);
    qemu.Close();
    EXPECT_EQ(vtpm.process().Wait(), "exit status 0") << vtpm.output();
  }
  VtpmUnderTest again(dir);
  EXPECT_EQ(again.Client().Identity().value(), before);
}

TEST(VtpmIdentity, QuotesGoOnWhenTheGuestEvictsTheKey) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  qemu.Succeed(MakeEvict(kAkHandle));
  ExpectGoodQuote(vtpm);
}

TEST(VtpmIdentity, QuotesGoOnWhenTheGuestPutsAnotherKeyInItsPlace) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  qemu.Succeed(MakeEvict(kAkHandle));
  qemu.Succeed(MakeEvict(kEkHandle));
  const auto made = ParseCreatePrimaryReply(qemu.Succeed(MakeCreatePrimary(KeyKind::kEndorsement)));
  ASSERT_TRUE(made.has_value());
  qemu.Succeed(MakeEvictControl(made->handle, kAkHandle));
  qemu.Succeed(MakeFlushContext(made->handle));
  ExpectGoodQuote(vtpm);
}

TEST(VtpmIdentity, GuestsPasswordsDoNotKeepThePersistentKeyFromSigning) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  for (const uint32_t hierarchy : {kOwner, kEndorsement, kLockout}) {
    qemu.Succeed(MakeSetPassword(hierarchy));
  }
  ExpectGoodQuote(vtpm);
}

TEST(VtpmIdentity, AnEvictedKeyBehindAPasswordIsRefusedInWords) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  qemu.Succeed(MakeEvict(kAkHandle));
  qemu.Succeed(MakeSetPassword(kEndorsement));
  const auto quote = vtpm.Client().MakeQuote(MakeValidRequest());
  ASSERT_FALSE(quote.has_value());
  EXPECT_EQ(quote.error().code(), ErrorCode::kDenied);
  EXPECT_THAT(quote.error().message(), HasSubstr("the guest has set a password"));
}

TEST(VtpmIdentity, NewSeedsAreANewIdentityAtTheNextStart) {
  const TempDir dir;
  VtpmIdentity before;
  {
    VtpmUnderTest vtpm(dir);
    FakeQemu qemu(vtpm.qemu_socket());
    PowerOn(qemu);
    before = vtpm.Client().Identity().value();
    qemu.Succeed(MakeAuthorized(0x124, {kPlatform}, {}));  // TPM2_ChangeEPS
    EXPECT_EQ(QuoteError(vtpm), ErrorCode::kConflict);
    qemu.Close();
    vtpm.process().Wait();
  }
  VtpmUnderTest again(dir);
  FakeQemu qemu(again.qemu_socket());
  PowerOn(qemu);
  EXPECT_NE(again.Client().Identity()->ek_public, before.ek_public);
  ExpectGoodQuote(again);
}

TEST(VtpmIdentity, AQuoteLeavesNoObjectBehind) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  qemu.Succeed(MakeEvict(kAkHandle));
  ExpectGoodQuote(vtpm);
  EXPECT_EQ(QuoteError(vtpm, {{}, measure::ParsePcrSelections("sha1:10").value()}),
            ErrorCode::kInvalidInput);
  // TPM2_GetCapability: no transient handle.
  ByteWriter body;
  body.U32Be(1).U32Be(0x80000000).U32Be(8);
  const Bytes reply = qemu.Succeed(MakeCommand(TpmTag::kNoSessions, 0x17A, body.bytes()));
  EXPECT_EQ(ToHex(ByteView(reply).last(4)), "00000000");
}

TEST(VtpmIdentity, AGuestThatFillsTheObjectSlotsIsToldOfAndPassed) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  std::vector<uint32_t> held;
  for (;;) {
    const auto made =
        ParseCreatePrimaryReply(qemu.Command(MakeCreatePrimary(KeyKind::kEndorsement)));
    if (!made.has_value()) {
      break;
    }
    held.push_back(made->handle);
  }
  ASSERT_FALSE(held.empty());
  const auto refused = vtpm.Client().MakeQuote(MakeValidRequest());
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), ErrorCode::kUnavailable);
  EXPECT_THAT(refused.error().message(), HasSubstr("object slots"));
  qemu.Succeed(MakeFlushContext(held.back()));
  ExpectGoodQuote(vtpm);
}

TEST(VtpmIdentity, QuotesOfABusyGuestAreConsistent) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  std::atomic<bool> done = false;
  std::thread host([&] {
    for (int i = 0; i < 20; ++i) {
      ExpectGoodQuote(vtpm);
    }
    done = true;
  });
  while (!done) {
    qemu.Succeed(MakeExtend(7, kBank, "x"));
    qemu.Succeed(MakeExtend(23, kBank, "x"));
  }
  host.join();
}

TEST(VtpmIdentity, ATpmFromBeforeGetsItsKeysAtTheNextStart) {
  const TempDir dir;
  {
    VtpmUnderTest vtpm(dir);
    FakeQemu qemu(vtpm.qemu_socket());
    PowerOn(qemu);
    qemu.Succeed(MakeEvict(kAkHandle));
    qemu.Succeed(MakeEvict(kEkHandle));
    qemu.Close();
    vtpm.process().Wait();
  }
  VtpmUnderTest again(dir);
  FakeQemu qemu(again.qemu_socket());
  PowerOn(qemu);
  EXPECT_EQ(ParseReadPublicReply(qemu.Succeed(MakeReadPublic(kAkHandle))).value(),
            again.Client().Identity()->ak_public);
  ExpectGoodQuote(again);
}

// What a guest reads where TCG's profile puts the EK certificate.
Bytes ReadCertificateAsGuest(FakeQemu& qemu) {
  const auto size = ParseCertificatePublicReply(qemu.Command(MakeReadCertificatePublic()));
  Bytes der;
  while (size.has_value() && der.size() < *size) {
    const auto part = ParseReadCertificateReply(
        qemu.Succeed(MakeReadCertificate(std::min(kMaxNvPart, *size - der.size()), der.size())));
    der.insert(der.end(), part->begin(), part->end());
  }
  return der;
}

TEST(VtpmCertificate, IsWhereTheGuestLooksForItFromTheFirstStartOn) {
  const TempDir dir;
  const Bytes der(1234, std::byte{0x30});
  {
    VtpmUnderTest vtpm(dir);
    ASSERT_TRUE(vtpm.Client().PutCertificate(der).has_value());
    FakeQemu qemu(vtpm.qemu_socket());
    PowerOn(qemu);
    EXPECT_EQ(ReadCertificateAsGuest(qemu), der);
    EXPECT_EQ(vtpm.Client().Identity()->certificate, der);
    qemu.Succeed(MakeClear());
    EXPECT_EQ(ReadCertificateAsGuest(qemu), der);
    qemu.Close();
    vtpm.process().Wait();
  }
  VtpmUnderTest again(dir);
  EXPECT_EQ(again.Client().Identity()->certificate, der);
}

TEST(VtpmCertificate, CannotBeWrittenByTheGuestsPlatform) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  ASSERT_TRUE(vtpm.Client().PutCertificate(Bytes(600, std::byte{1})).has_value());
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  EXPECT_NE(ResponseCode(qemu.Command(MakeWriteCertificate(Bytes(1), 0))).value(), kTpmSuccess);
}

TEST(VtpmCertificate, IsReplacedByAnother) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  ASSERT_TRUE(vtpm.Client().PutCertificate(Bytes(600, std::byte{1})).has_value());
  ASSERT_TRUE(vtpm.Client().PutCertificate(Bytes(700, std::byte{2})).has_value());
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  EXPECT_EQ(ReadCertificateAsGuest(qemu), Bytes(700, std::byte{2}));
}

TEST(VtpmCertificate, TheMachineWaitsForIt) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir, {"--await-certificate", "60000"});
  FakeQemu qemu(vtpm.qemu_socket());
  std::thread machine([&] { PowerOn(qemu); });
  ASSERT_TRUE(vtpm.Client().PutCertificate(Bytes(900, std::byte{3})).has_value());
  machine.join();
  EXPECT_EQ(ReadCertificateAsGuest(qemu), Bytes(900, std::byte{3}));
}

TEST(VtpmCertificate, TheMachineGoesOnWithoutIfThereIsNone) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir, {"--await-certificate", "60000"});
  FakeQemu qemu(vtpm.qemu_socket());
  std::thread machine([&] { PowerOn(qemu); });
  ASSERT_TRUE(vtpm.Client().PutCertificate({}).has_value());
  machine.join();
  EXPECT_TRUE(ReadCertificateAsGuest(qemu).empty());
}

TEST(VtpmCertificate, TheMachineDoesNotWaitLongerThanItWasTold) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir, {"--await-certificate", "1"});
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
}

TEST(VtpmCertificate, OneThatComesTooLateIsTakenAtTheNextStart) {
  const TempDir dir;
  const Bytes der(800, std::byte{4});
  {
    VtpmUnderTest vtpm(dir);
    FakeQemu qemu(vtpm.qemu_socket());
    PowerOn(qemu);
    const auto late = vtpm.Client().PutCertificate(der);
    ASSERT_FALSE(late.has_value());
    EXPECT_EQ(late.error().code(), ErrorCode::kConflict);
    qemu.Close();
    vtpm.process().Wait();
  }
  VtpmUnderTest again(dir);
  ASSERT_TRUE(again.Client().PutCertificate(der).has_value());
  FakeQemu qemu(again.qemu_socket());
  PowerOn(qemu);
  EXPECT_EQ(ReadCertificateAsGuest(qemu), der);
  ExpectGoodQuote(again);
}

TEST(VtpmCertificate, OneThatTheGuestPutThereIsNotTheMakers) {
  const TempDir dir;
  {
    VtpmUnderTest vtpm(dir);
    FakeQemu qemu(vtpm.qemu_socket());
    PowerOn(qemu);
    // By the owner: OWNERWRITE, AUTHREAD, OWNERREAD.
    ByteWriter index;
    index.U32Be(kEkCertificateIndex).U16Be(0x000b).U32Be(0x00060002).U16Be(0).U16Be(8);
    ByteWriter parameters;
    parameters.U16Be(0).U16Be(static_cast<uint16_t>(index.bytes().size())).Raw(index.bytes());
    qemu.Succeed(MakeAuthorized(0x12A, {kOwner}, parameters.bytes()));
    qemu.Close();
    vtpm.process().Wait();
  }
  VtpmUnderTest again(dir);
  EXPECT_TRUE(again.Client().Identity()->certificate.empty());
  ASSERT_TRUE(again.Client().PutCertificate(Bytes(500, std::byte{5})).has_value());
  FakeQemu qemu(again.qemu_socket());
  PowerOn(qemu);
  EXPECT_EQ(ReadCertificateAsGuest(qemu), Bytes(500, std::byte{5}));
}

}  // namespace
}  // namespace vallum::vtpm

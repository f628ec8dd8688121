// SPDX-License-Identifier: Apache-2.0
#include "attest/quote.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "attest/quote_builder.h"
#include "attest/quote_key.h"

namespace vallum::attest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr auto kSha256 = HashAlgorithm::kSha256;

// Keys take long to make.
const SoftwareKey& RsaKey() {
  static const SoftwareKey key = SoftwareKey::MakeRsa(KeyScheme::kRsassa, kSha256);
  return key;
}

struct Case {
  SoftwareKey key = RsaKey();
  Attestation attestation;
  PcrBanks pcrs;
  QuoteExpectation expectation;

  QuoteVerdict Verify() const { return VerifySigned(BuildAttestation(attestation)); }
  QuoteVerdict VerifySigned(const Bytes& message) const {
    return VerifyWith(key, message, key.Sign(message));
  }
  QuoteVerdict VerifyWith(const SoftwareKey& with, const Bytes& message, const Bytes& signature,
                          SignatureFormat format = SignatureFormat::kTpmt) const {
    const auto ready = QuoteKey::Create(with.Parsed());
    EXPECT_TRUE(ready.has_value()) << ready.error().Describe();
    return VerifyQuote(*ready, {message, signature, format, pcrs}, expectation);
  }
};

Case MakeValidCase(SoftwareKey key = RsaKey(), HashAlgorithm hash = kSha256) {
  Case out;
  out.key = std::move(key);
  for (const HashAlgorithm bank : {kSha256, HashAlgorithm::kSha384}) {
    out.pcrs[bank] = {{PcrIndex::Of<0>(), Bytes(DigestSize(bank), std::byte{1})},
                      {PcrIndex::Of<7>(), Bytes(DigestSize(bank), std::byte{2})}};
  }
  out.attestation.qualified_signer = Bytes(34, std::byte{0xAA});
  out.attestation.nonce = Bytes(20, std::byte{0x55});
  out.attestation.clock = {.clock = 1000,
                           .reset_count = 5,
                           .restart_count = 2,
                           .safe = true,
                           .firmware_version = 0x20200101};
  out.attestation.banks = SelectAll(out.pcrs);
  out.attestation.pcr_digest = PcrDigest(hash, out.pcrs);
  out.expectation.nonce = out.attestation.nonce;
  out.expectation.pcrs = measure::ParsePcrSelections("sha256:0,7+sha384:0,7").value();
  out.expectation.signer = SignerNamed{out.attestation.qualified_signer};
  out.expectation.previous = out.attestation.clock;
  return out;
}

std::vector<QuoteReason> Reasons(const QuoteVerdict& verdict) {
  std::vector<QuoteReason> out;
  for (const QuoteFinding& each : verdict.rejections) out.push_back(each.reason);
  return out;
}

TEST(Quote, IsBelievedWhenEverythingHolds) {
  const Case quote = MakeValidCase();
  const QuoteVerdict verdict = quote.Verify();
  EXPECT_THAT(Reasons(verdict), ElementsAre());
  EXPECT_THAT(verdict.notes, SizeIs(0));
  EXPECT_EQ(verdict.pcrs, quote.pcrs);
  EXPECT_EQ(verdict.signed_quote->clock, quote.attestation.clock);
}

TEST(Quote, IsBelievedWithEveryScheme) {
  const SoftwareKey keys[] = {SoftwareKey::MakeRsa(KeyScheme::kRsapss, kSha256),
                              SoftwareKey::MakeRsa(KeyScheme::kRsassa, kSha256, 3072),
                              SoftwareKey::MakeEc(EcCurve::kP256, kSha256)};
  for (const SoftwareKey& key : keys) {
    EXPECT_THAT(Reasons(MakeValidCase(key).Verify()), ElementsAre());
  }
  for (const auto& [curve, hash] : {std::pair(EcCurve::kP384, HashAlgorithm::kSha384),
                                    std::pair(EcCurve::kP521, HashAlgorithm::kSha512)}) {
    EXPECT_THAT(Reasons(MakeValidCase(SoftwareKey::MakeEc(curve, hash), hash).Verify()),
                ElementsAre());
  }
}

TEST(Quote, PlainSignaturesAreReadByTheKeysScheme) {
  for (const SoftwareKey& key : {RsaKey(), SoftwareKey::MakeEc(EcCurve::kP256, kSha256)}) {
    const Case quote = MakeValidCase(key);
    const Bytes message = BuildAttestation(quote.attestation);
    Bytes signature = key.SignPlain(message);
    EXPECT_THAT(Reasons(quote.VerifyWith(key, message, signature, SignatureFormat::kPlain)),
                ElementsAre());
    signature.back() ^= std::byte{1};
    EXPECT_THAT(Reasons(quote.VerifyWith(key, message, signature, SignatureFormat::kPlain)),
                ElementsAre(QuoteReason::kSignatureInvalid));
  }
}

TEST(Quote, ByAnotherKeyIsRejected) {
  const Case quote = MakeValidCase();
  const Bytes message = BuildAttestation(quote.attestation);
  const SoftwareKey other = SoftwareKey::MakeRsa(KeyScheme::kRsassa, kSha256);
  const QuoteVerdict verdict = quote.VerifyWith(other, message, RsaKey().Sign(message));
  EXPECT_THAT(Reasons(verdict), ElementsAre(QuoteReason::kSignatureInvalid));
  EXPECT_FALSE(verdict.signed_quote.has_value());
  EXPECT_TRUE(verdict.pcrs.empty());
}

TEST(Quote, EveryChangedByteIsRejectedByTheSignature) {
  const Case quote = MakeValidCase();
  const Bytes message = BuildAttestation(quote.attestation);
  const Bytes signature = RsaKey().Sign(message);
  const QuoteKey key = QuoteKey::Create(RsaKey().Parsed()).value();
  for (size_t i = 0; i < message.size(); ++i) {
    Bytes changed = message;
    changed[i] ^= std::byte{0x80};
    EXPECT_THAT(Reasons(VerifyQuote(key, {changed, signature, SignatureFormat::kTpmt, quote.pcrs},
                                    quote.expectation)),
                ElementsAre(QuoteReason::kSignatureInvalid));
  }
  for (size_t i = 0; i < signature.size(); ++i) {
    Bytes changed = signature;
    changed[i] ^= std::byte{1};
    EXPECT_FALSE(
        VerifyQuote(key, {message, changed, SignatureFormat::kTpmt, quote.pcrs}, quote.expectation)
            .Accepted());
  }
}

TEST(Quote, WithAnotherSchemeThanTheKeysIsRejected) {
  SoftwareKey pss = RsaKey();
  pss.SetScheme(KeyScheme::kRsapss);
  const Case quote = MakeValidCase();
  const Bytes message = BuildAttestation(quote.attestation);
  EXPECT_THAT(Reasons(quote.VerifyWith(pss, message, RsaKey().Sign(message))),
              ElementsAre(QuoteReason::kSignatureSchemeMismatch));
}

TEST(Quote, WithUnreadableSignatureIsRejected) {
  const Case quote = MakeValidCase();
  const Bytes message = BuildAttestation(quote.attestation);
  Bytes longer = RsaKey().Sign(message);
  longer.push_back({});
  for (const Bytes& signature : {Bytes{}, Bytes(2000), longer}) {
    EXPECT_THAT(Reasons(quote.VerifyWith(RsaKey(), message, signature)),
                ElementsAre(QuoteReason::kSignatureMalformed));
  }
}

TEST(Quote, SignedByWayOfSha1IsRejectedUnlessThePolicySaysSo) {
  Case quote = MakeValidCase(SoftwareKey::MakeRsa(KeyScheme::kRsassa, HashAlgorithm::kSha1),
                             HashAlgorithm::kSha1);
  EXPECT_THAT(Reasons(quote.Verify()), ElementsAre(QuoteReason::kSha1Signature));
  quote.expectation.sha1 = Sha1Policy::kAccepted;
  EXPECT_THAT(Reasons(quote.Verify()), ElementsAre());
}

TEST(Quote, WithStaleNonceIsRejected) {
  Case quote = MakeValidCase();
  quote.expectation.nonce.back() ^= std::byte{1};
  const QuoteVerdict verdict = quote.Verify();
  ASSERT_THAT(Reasons(verdict), ElementsAre(QuoteReason::kNonceMismatch));
  EXPECT_EQ(verdict.rejections[0].expected, ToHex(quote.expectation.nonce));
  EXPECT_EQ(verdict.rejections[0].actual, ToHex(quote.attestation.nonce));
  EXPECT_TRUE(verdict.pcrs.empty());
}

TEST(Quote, WithLongerNonceIsRejected) {
  Case quote = MakeValidCase();
  quote.expectation.nonce.push_back({});
  EXPECT_THAT(Reasons(quote.Verify()), ElementsAre(QuoteReason::kNonceMismatch));
}

TEST(Quote, ByAKeyUnderAnotherParentIsRejected) {
  Case quote = MakeValidCase();
  quote.expectation.signer = SignerNamed{Bytes(34)};
  EXPECT_THAT(Reasons(quote.Verify()), ElementsAre(QuoteReason::kSignerMismatch));
  quote.expectation.signer = AnySigner{};
  EXPECT_TRUE(quote.Verify().Accepted());
}

TEST(Quote, SignedMessageThatNoTpmMadeIsRejected) {
  const Case quote = MakeValidCase();
  Bytes message = BuildAttestation(quote.attestation);
  message[0] = std::byte{0};
  EXPECT_THAT(Reasons(quote.VerifySigned(message)), ElementsAre(QuoteReason::kNotTpmGenerated));
  EXPECT_THAT(Reasons(quote.VerifySigned({})), ElementsAre(QuoteReason::kNotTpmGenerated));
}

TEST(Quote, SignedAttestationOfAnotherKindIsRejected) {
  const Case quote = MakeValidCase();
  Bytes message = BuildAttestation(quote.attestation);
  message[5] = std::byte{0x17};  // TPM_ST_ATTEST_CERTIFY
  EXPECT_THAT(Reasons(quote.VerifySigned(message)), ElementsAre(QuoteReason::kNotAQuote));
}

TEST(Quote, SignedMessageWithBytesTooManyOrTooFewIsRejected) {
  const Case quote = MakeValidCase();
  Bytes message = BuildAttestation(quote.attestation);
  message.push_back({});
  EXPECT_THAT(Reasons(quote.VerifySigned(message)), ElementsAre(QuoteReason::kMessageMalformed));
  message.resize(message.size() - 2);
  EXPECT_THAT(Reasons(quote.VerifySigned(message)), ElementsAre(QuoteReason::kMessageMalformed));
}

TEST(Quote, WithChangedPcrValueIsRejected) {
  Case quote = MakeValidCase();
  quote.pcrs[HashAlgorithm::kSha384][PcrIndex::Of<7>()][47] ^= std::byte{1};
  const QuoteVerdict verdict = quote.Verify();
  EXPECT_THAT(Reasons(verdict), ElementsAre(QuoteReason::kPcrDigestMismatch));
  EXPECT_EQ(verdict.rejections[0].expected, ToHex(quote.attestation.pcr_digest));
}

TEST(Quote, WithSwappedPcrValuesIsRejected) {
  Case quote = MakeValidCase();
  std::swap(quote.pcrs[kSha256][PcrIndex::Of<0>()], quote.pcrs[kSha256][PcrIndex::Of<7>()]);
  EXPECT_THAT(Reasons(quote.Verify()), ElementsAre(QuoteReason::kPcrDigestMismatch));
}

TEST(Quote, BanksAreHashedInTheOrderOfTheQuote) {
  Case quote = MakeValidCase();
  std::swap(quote.attestation.banks[0], quote.attestation.banks[1]);
  EXPECT_THAT(Reasons(quote.Verify()), ElementsAre(QuoteReason::kPcrDigestMismatch));
  Hasher hasher(kSha256);
  for (const HashAlgorithm bank : {HashAlgorithm::kSha384, kSha256}) {
    for (const auto& [pcr, value] : quote.pcrs[bank]) hasher.Update(value);
  }
  quote.attestation.pcr_digest = hasher.Finish();
  EXPECT_TRUE(quote.Verify().Accepted());
}

TEST(Quote, BankMayBeSelectedAgainWithOtherPcrs) {
  Case quote = MakeValidCase();
  auto& banks = quote.attestation.banks;
  banks.push_back(banks[0]);
  banks.front().pcrs = {PcrIndex::Of<7>()};
  banks.back().pcrs = {PcrIndex::Of<0>()};
  Hasher hasher(kSha256);
  for (const QuotedBank& each : banks) {
    for (const PcrIndex pcr : each.pcrs) hasher.Update(quote.pcrs[*each.bank][pcr]);
  }
  quote.attestation.pcr_digest = hasher.Finish();
  const QuoteVerdict verdict = quote.Verify();
  EXPECT_THAT(Reasons(verdict), ElementsAre());
  EXPECT_FALSE(verdict.Has(QuoteNote::kMorePcrsQuoted));
}

TEST(Quote, PcrThatIsSelectedTwiceIsRejected) {
  Case quote = MakeValidCase();
  quote.attestation.banks.push_back(quote.attestation.banks[0]);
  const QuoteVerdict verdict = quote.Verify();
  ASSERT_THAT(verdict.rejections, SizeIs(1));
  EXPECT_THAT(verdict.rejections[0].actual, HasSubstr("is selected twice"));
}

TEST(Quote, WithoutAValueOfAQuotedPcrIsRejected) {
  Case quote = MakeValidCase();
  quote.pcrs[kSha256].erase(PcrIndex::Of<7>());
  const QuoteVerdict verdict = quote.Verify();
  ASSERT_THAT(Reasons(verdict), ElementsAre(QuoteReason::kPcrValueMissing));
  EXPECT_EQ(verdict.rejections[0].what, "PCR 7 of bank sha256");
}

TEST(Quote, WithBytesMovedBetweenPcrsIsRejected) {
  Case quote = MakeValidCase();
  Bytes& first = quote.pcrs[kSha256][PcrIndex::Of<0>()];
  Bytes& second = quote.pcrs[kSha256][PcrIndex::Of<7>()];
  second.insert(second.begin(), first.back());
  first.pop_back();
  EXPECT_THAT(Reasons(quote.Verify()), ElementsAre(QuoteReason::kPcrValueMissing));
}

TEST(Quote, ThatLacksAnAskedPcrIsRejected) {
  Case quote = MakeValidCase();
  quote.expectation.pcrs = measure::ParsePcrSelections("sha256:0,7,11").value();
  const QuoteVerdict verdict = quote.Verify();
  ASSERT_THAT(Reasons(verdict), ElementsAre(QuoteReason::kPcrNotQuoted));
  EXPECT_EQ(verdict.rejections[0].actual, "it lacks sha256:11");
}

TEST(Quote, ThatLacksAnAskedBankIsRejected) {
  Case quote = MakeValidCase();
  quote.expectation.pcrs = measure::ParsePcrSelections("sha512:0").value();
  EXPECT_THAT(Reasons(quote.Verify()), ElementsAre(QuoteReason::kPcrNotQuoted));
}

TEST(Quote, ValuesThatAreNotQuotedAreNotBelieved) {
  Case quote = MakeValidCase();
  quote.pcrs[kSha256][PcrIndex::Of<9>()] = Bytes(32);
  quote.pcrs[HashAlgorithm::kSha512][PcrIndex::Of<0>()] = Bytes(64);
  const QuoteVerdict verdict = quote.Verify();
  EXPECT_TRUE(verdict.Accepted());
  EXPECT_FALSE(verdict.pcrs.at(kSha256).contains(PcrIndex::Of<9>()));
  EXPECT_FALSE(verdict.pcrs.contains(HashAlgorithm::kSha512));
}

TEST(Quote, OverMoreThanAskedIsNoted) {
  Case quote = MakeValidCase();
  quote.expectation.pcrs = measure::ParsePcrSelections("sha256:0").value();
  const QuoteVerdict verdict = quote.Verify();
  EXPECT_TRUE(verdict.Accepted());
  EXPECT_TRUE(verdict.Has(QuoteNote::kMorePcrsQuoted));
}

TEST(Quote, Sha1BankIsBelievedOnlyIfThePolicySaysSo) {
  Case quote = MakeValidCase();
  quote.pcrs[HashAlgorithm::kSha1] = {{PcrIndex::Of<10>(), Bytes(20)}};
  quote.attestation.banks = SelectAll(quote.pcrs);
  quote.attestation.pcr_digest = PcrDigest(kSha256, quote.pcrs);
  EXPECT_TRUE(quote.Verify().Accepted());
  EXPECT_FALSE(quote.Verify().pcrs.contains(HashAlgorithm::kSha1));
  quote.expectation.pcrs = measure::ParsePcrSelections("sha1:10").value();
  EXPECT_THAT(Reasons(quote.Verify()), ElementsAre(QuoteReason::kSha1Bank));
  quote.expectation.sha1 = Sha1Policy::kAccepted;
  EXPECT_TRUE(quote.Verify().Accepted());
  EXPECT_TRUE(quote.Verify().pcrs.contains(HashAlgorithm::kSha1));
}

TEST(Quote, OverABankThatIsNotComputedIsRejected) {
  Case quote = MakeValidCase();
  quote.attestation.banks.push_back({0x0012, std::nullopt, {PcrIndex::Of<0>()}});  // SM3
  EXPECT_THAT(Reasons(quote.Verify()), ElementsAre(QuoteReason::kPcrValueMissing));
  quote.attestation.banks.back().pcrs.clear();
  EXPECT_TRUE(quote.Verify().Accepted());
}

struct ClockCase {
  const char* name;
  ClockState now;
  std::vector<QuoteReason> reasons;
  std::vector<QuoteNote> notes;
};

// Before: clock 1000, reset count 5, restart count 2, safe.
std::vector<ClockCase> ClockCases() {
  using enum QuoteReason;
  using enum QuoteNote;
  return {
      {"ItGoesOn", {1001, 5, 2, true, 1}, {}, {}},
      {"ItStandsStill", {1000, 5, 2, true, 1}, {}, {}},
      {"ItGoesBack", {999, 5, 2, true, 1}, {kClockWentBackwards}, {}},
      {"ItGoesBackUnsafe", {999, 5, 2, false, 1}, {kClockWentBackwards}, {kClockNotSafe}},
      {"ResetCountGoesBack", {2000, 4, 9, true, 1}, {kResetCountWentBackwards}, {}},
      {"RestartCountGoesBack", {2000, 5, 1, true, 1}, {kRestartCountWentBackwards}, {}},
      {"Reboot", {2000, 6, 0, true, 1}, {}, {kRebooted}},
      {"RebootGoesBackSafe", {999, 6, 0, true, 1}, {kClockWentBackwards}, {kRebooted}},
      {"LossOfPower", {999, 6, 0, false, 1}, {}, {kClockNotSafe, kRebooted}},
      {"Resume", {1500, 5, 3, true, 1}, {}, {kRestarted}},
      {"NewFirmware", {1500, 5, 2, true, 2}, {}, {kFirmwareVersionChanged}},
  };
}

TEST(Quote, ClockIsJudgedByTheCountsAndWhetherItIsSafe) {
  for (const ClockCase& each : ClockCases()) {
    SCOPED_TRACE(each.name);
    Case quote = MakeValidCase();
    quote.expectation.previous = ClockState{1000, 5, 2, true, 1};
    quote.attestation.clock = each.now;
    const QuoteVerdict verdict = quote.Verify();
    EXPECT_EQ(Reasons(verdict), each.reasons);
    std::vector<QuoteNote> notes;
    for (const QuoteRemark& note : verdict.notes) notes.push_back(note.note);
    EXPECT_EQ(notes, each.notes);
  }
}

TEST(Quote, FirstOneHasNoPreviousClock) {
  Case quote = MakeValidCase();
  quote.expectation.previous = FirstQuote{};
  quote.attestation.clock = {};
  EXPECT_TRUE(quote.Verify().Accepted());
}

TEST(Quote, EveryReasonIsGiven) {
  Case quote = MakeValidCase();
  quote.expectation.nonce = Bytes(1);
  quote.pcrs[kSha256][PcrIndex::Of<0>()][0] ^= std::byte{1};
  quote.attestation.clock.reset_count = 1;
  EXPECT_THAT(Reasons(quote.Verify()),
              ElementsAre(QuoteReason::kNonceMismatch, QuoteReason::kPcrDigestMismatch,
                          QuoteReason::kResetCountWentBackwards));
}

TEST(Quote, ByAKeyWithoutAttributesIsNoted) {
  const Case quote = MakeValidCase();
  const Bytes message = BuildAttestation(quote.attestation);
  const auto spki = PublicKey::FromTpm(RsaKey().Parsed()).value().ToSpki();
  const QuoteKey key = QuoteKey::CreateUnchecked(PublicKey::FromSpki(spki).value()).value();
  const QuoteVerdict verdict =
      VerifyQuote(key, {message, RsaKey().Sign(message), SignatureFormat::kTpmt, quote.pcrs},
                  quote.expectation);
  EXPECT_TRUE(verdict.Accepted());
  EXPECT_TRUE(verdict.Has(QuoteNote::kKeyAttributesUnknown));
}

TEST(QuoteKey, WithoutSchemeVerifiesEveryScheme) {
  for (const KeyScheme scheme : {KeyScheme::kRsassa, KeyScheme::kRsapss}) {
    SoftwareKey rsa = RsaKey();
    rsa.SetScheme(scheme);
    const Case quote = MakeValidCase(rsa);
    const Bytes message = BuildAttestation(quote.attestation);
    const QuoteKey key =
        QuoteKey::CreateUnchecked(PublicKey::FromTpm(RsaKey().Parsed()).value()).value();
    EXPECT_TRUE(VerifyQuote(key, {message, rsa.Sign(message), SignatureFormat::kTpmt, quote.pcrs},
                            quote.expectation)
                    .Accepted());
  }
}

TEST(QuoteKey, IsSharedBetweenThreads) {
  const Case quote = MakeValidCase();
  const Bytes message = BuildAttestation(quote.attestation);
  const Bytes signature = RsaKey().Sign(message);
  const QuoteKey key = QuoteKey::Create(RsaKey().Parsed()).value();
  std::atomic<int> accepted = 0;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 50; ++j) {
        accepted += VerifyQuote(key, {message, signature, SignatureFormat::kTpmt, quote.pcrs},
                                quote.expectation)
                            .Accepted()
                        ? 1
                        : 0;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(accepted, 200);
}

TEST(QuoteKey, NeedsEachAttributeOfAnAttestationKey) {
  const std::pair<uint32_t, QuoteKeyProblem> flips[] = {
      {1U << 1U, QuoteKeyProblem::kNotFixedTpm},
      {1U << 4U, QuoteKeyProblem::kNotFixedParent},
      {1U << 5U, QuoteKeyProblem::kSensitiveDataFromOutside},
      {1U << 16U, QuoteKeyProblem::kNotRestricted},
      {1U << 17U, QuoteKeyProblem::kDecryptKey},
      {1U << 18U, QuoteKeyProblem::kNotSigningKey}};
  EXPECT_THAT(CheckQuoteKey(RsaKey().Parsed()), ElementsAre());
  for (const auto& [bit, problem] : flips) {
    SoftwareKey key = RsaKey();
    key.SetAttributes(SoftwareKey::kAttestationKey ^ bit);
    EXPECT_THAT(CheckQuoteKey(key.Parsed()), ElementsAre(problem));
    const auto made = QuoteKey::Create(key.Parsed());
    ASSERT_FALSE(made.has_value());
    EXPECT_EQ(made.error().code(), ErrorCode::kDenied);
    EXPECT_THAT(made.error().message(), HasSubstr(std::string(DescribeProblem(problem))));
  }
}

TEST(QuoteKey, NeedsASigningSchemeAndStrength) {
  SoftwareKey key = RsaKey();
  key.SetScheme(KeyScheme::kNull);
  EXPECT_THAT(CheckQuoteKey(key.Parsed()), ElementsAre(QuoteKeyProblem::kUnsuitableScheme));
  const SoftwareKey weak = SoftwareKey::MakeRsa(KeyScheme::kRsassa, kSha256, 1024);
  EXPECT_THAT(CheckQuoteKey(weak.Parsed()), ElementsAre(QuoteKeyProblem::kWeakKey));
  EXPECT_EQ(QuoteKey::CreateUnchecked(PublicKey::FromTpm(weak.Parsed()).value()).error().code(),
            ErrorCode::kDenied);
}

}  // namespace
}  // namespace vallum::attest

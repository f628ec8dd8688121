// SPDX-License-Identifier: Apache-2.0
// Verifying a quote with a key that was made ready before, beside OpenSSL's verification of an
// RSA-2048 signature alone, which it cannot do without.
#include <cstdio>

#include "attest/quote.h"
#include "attest/quote_builder.h"
#include "attest/quote_key.h"
#include "attest/serialized_pcrs.h"
#include "base/check.h"
#include "base/digest.h"
#include "median.h"
#include "rsa_reference.h"

namespace {

namespace attest = vallum::attest;
using vallum::Bytes;
using vallum::HashAlgorithm;
using vallum::PcrIndex;

constexpr int kRounds = 500;
constexpr int kTimes = 10;  // in each round: one is too short for the clock, many are interrupted
constexpr uint32_t kPcrs = 17;

template <typename Work>
double EachMs(Work work) {
  const double all = vallum::bench::MedianMs(kRounds, [&] {
    for (int i = 0; i < kTimes; ++i) work();
  });
  return all / kTimes;
}

struct Quoted {
  attest::PcrBanks pcrs;
  attest::QuoteExpectation expectation;
  Bytes message;
};

Quoted MakeQuoted() {
  Quoted out;
  attest::Attestation attestation;
  out.expectation.pcrs.push_back({HashAlgorithm::kSha256, {}});
  for (uint32_t i = 0; i < kPcrs; ++i) {
    const PcrIndex pcr = PcrIndex::Create(i).value();
    out.pcrs[HashAlgorithm::kSha256].emplace(pcr, Bytes(32, static_cast<std::byte>(i)));
    out.expectation.pcrs[0].pcrs.push_back(pcr);
  }
  attestation.qualified_signer = Bytes(34);
  attestation.nonce = Bytes(20, std::byte{7});
  attestation.banks = attest::SelectAll(out.pcrs);
  attestation.pcr_digest = attest::PcrDigest(HashAlgorithm::kSha256, out.pcrs);
  attestation.clock.safe = true;
  out.expectation.nonce = attestation.nonce;
  out.expectation.previous = attestation.clock;
  out.message = attest::BuildAttestation(attestation);
  return out;
}

double Warm(const attest::SoftwareKey& key, const Quoted& quoted) {
  const Bytes signature = key.Sign(quoted.message);
  const attest::QuoteKey ready = attest::QuoteKey::Create(key.Parsed()).value();
  return EachMs([&] {
    CHECK(attest::VerifyQuote(
              ready, {quoted.message, signature, attest::SignatureFormat::kTpmt, quoted.pcrs},
              quoted.expectation)
              .Accepted());
  });
}

}  // namespace

int main() {
  const Quoted quoted = MakeQuoted();
  const auto rsa = attest::SoftwareKey::MakeRsa(attest::KeyScheme::kRsassa, HashAlgorithm::kSha256);
  const auto ec = attest::SoftwareKey::MakeEc(attest::EcCurve::kP256, HashAlgorithm::kSha256);
  const Bytes serialized = attest::SerializePcrs(quoted.pcrs);
  const Bytes tpm_public = rsa.Public();

  const double alone = vallum::bench::RsaVerifyMs();
  const double warm = Warm(rsa, quoted);
  const double prepare = EachMs([&] {
    CHECK(attest::QuoteKey::Create(attest::ParseTpmtPublic(tpm_public).value()).has_value());
  });
  const double values = EachMs([&] { CHECK(attest::ParseSerializedPcrs(serialized).has_value()); });

  std::printf("%u PCRs of one bank, median of %d x %d\n", kPcrs, kRounds, kTimes);
  std::printf("OpenSSL, RSA-2048 verify alone (reference)  %.4f ms\n", alone);
  std::printf("quote, RSA-2048, key ready                  %.4f ms  (%.2f x)\n", warm,
              warm / alone);
  std::printf("quote, P-256, key ready                     %.4f ms\n", Warm(ec, quoted));
  std::printf("making a key ready                          %.4f ms\n", prepare);
  std::printf("parsing serialized PCRs                     %.4f ms\n", values);
  return 0;
}

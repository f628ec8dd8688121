// SPDX-License-Identifier: Apache-2.0
// A size, a message of that size, and a signature.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <utility>
#include <variant>

#include "attest/attestation.h"
#include "attest/quote.h"
#include "attest/quote_key.h"

using namespace vallum;  // NOLINT: a fuzzer

namespace {

void Expect(bool holds) {
  if (!holds) {
    std::abort();
  }
}

attest::QuoteKey MakeKey(std::variant<attest::RsaPublic, attest::EcPublic> numbers) {
  attest::TpmPublic key;
  key.key = std::move(numbers);
  return attest::QuoteKey::CreateUnchecked(attest::PublicKey::FromTpm(key).value()).value();
}

// Keys by which no input is signed.
const attest::QuoteKey& RsaKey() {
  static const attest::QuoteKey key =
      MakeKey(attest::RsaPublic{2048, 65537, Bytes(256, std::byte{0xAB})});
  return key;
}
const attest::QuoteKey& EcKey() {
  // The generator of P-256.
  static const attest::QuoteKey key = MakeKey(attest::EcPublic{
      attest::EcCurve::kP256,
      FromHex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296").value(),
      FromHex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5").value()});
  return key;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  if (input.empty() || data[0] >= size) {
    return 0;
  }
  const ByteView message = input.subspan(1, data[0]);
  const ByteView signature = input.subspan(1 + message.size());
  if (const auto quote = attest::ParseAttestation(message); quote.has_value()) {
    Expect(quote->banks.size() <= attest::kMaxQuotedBanks);
    Expect(quote->nonce.size() <= attest::kMaxNonce);
  }
  const attest::PcrBanks pcrs;
  for (const auto format : {attest::SignatureFormat::kTpmt, attest::SignatureFormat::kPlain}) {
    for (const auto* key : {&RsaKey(), &EcKey()}) {
      const auto verdict = attest::VerifyQuote(*key, {message, signature, format, pcrs}, {});
      Expect(!verdict.Accepted() && !verdict.signed_quote.has_value());
    }
  }
  return 0;
}

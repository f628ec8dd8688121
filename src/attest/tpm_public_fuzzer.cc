// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "attest/credential.h"
#include "attest/ek_template.h"
#include "attest/public_key.h"
#include "attest/quote_key.h"
#include "attest/tpm_public.h"

using namespace vallum;  // NOLINT: a fuzzer

namespace {

void Expect(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void Use(const attest::TpmPublic& key) {
  Expect(key.Name().size() <= attest::kMaxTpmName);
  static_cast<void>(attest::CheckEkPublic(key));
  const bool fit = attest::CheckQuoteKey(key).empty();
  const auto made = attest::QuoteKey::Create(key);
  Expect(fit || !made.has_value());
  static_cast<void>(attest::MakeCredential(key, Bytes(34), SecretBytes(Bytes(16, std::byte{1}))));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  for (const auto& parsed : {attest::ParseTpmtPublic(input), attest::ParseTpm2bPublic(input)}) {
    if (parsed.has_value()) {
      Use(*parsed);
    }
  }
  for (const auto& key :
       {attest::PublicKey::FromSpki(input), attest::PublicKey::FromPem(AsText(input))}) {
    if (key.has_value()) {
      Expect(attest::PublicKey::FromSpki(key->ToSpki()).has_value());
      Expect(!key->Describe().empty());
    }
  }
  return 0;
}

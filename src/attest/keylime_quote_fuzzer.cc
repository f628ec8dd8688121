// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>

#include "attest/attestation.h"
#include "attest/keylime_quote.h"
#include "attest/serialized_pcrs.h"

using namespace vallum;  // NOLINT: a fuzzer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto quote = attest::ParseKeylimeQuote(AsText(std::as_bytes(std::span(data, size))));
  if (quote.has_value()) {
    static_cast<void>(attest::ParseAttestation(quote->message));
    static_cast<void>(attest::ParseSignature(quote->signature));
    static_cast<void>(attest::ParseSerializedPcrs(quote->pcrs));
  }
  return 0;
}

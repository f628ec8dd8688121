// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "measure/ima_signature.h"

using namespace vallum;  // NOLINT: a fuzzer

// The input is a size, a key of that many bytes, and a signature.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  ByteCursor cursor(input);
  const auto key_size = cursor.ReadU16Le();
  if (!key_size.has_value()) {
    return 0;
  }
  const ByteView key = cursor.Rest().first(std::min<size_t>(*key_size, cursor.remaining()));
  const ByteView signature = cursor.Rest().subspan(key.size());
  measure::ImaKeys keys;
  static_cast<void>(keys.Add(key));
  const Bytes bytes(32);
  const measure::ImaDigest digest{
      .type = measure::ImaDigestType::kFile, .hash = measure::ImaHash::kSha256, .bytes = bytes};
  if (keys.Verify(signature, digest) == measure::ImaSignatureVerdict::kGood &&
      !measure::ParseImaSignature(signature).has_value()) {
    std::abort();
  }
  measure::ModsigBudget budget;
  static_cast<void>(keys.VerifyModsig(signature, digest, budget));
  return 0;
}

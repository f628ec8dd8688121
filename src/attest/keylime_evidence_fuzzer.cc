// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>

#include "attest/keylime_evidence.h"
#include "base/bytes.h"

using namespace vallum;  // NOLINT: a fuzzer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = AsText(std::as_bytes(std::span(data, size)));
  static_cast<void>(attest::ParseKeylimeTpmPolicy(text, HashAlgorithm::kSha256));
  static_cast<void>(attest::VerifyKeylimeEvidence(text));
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "attest/serialized_pcrs.h"

using namespace vallum;  // NOLINT: a fuzzer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  const auto parsed = attest::ParseSerializedPcrs(input);
  if (!parsed.has_value()) {
    return 0;
  }
  for (const auto& [bank, values] : *parsed) {
    for (const auto& [pcr, value] : values) {
      if (value.size() != DigestSize(bank)) {
        std::abort();
      }
    }
  }
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "attest/facts.h"
#include "attest/policy.h"
#include "base/bytes.h"

using namespace vallum;  // NOLINT: a fuzzer

// A policy that is read is written back to the same policy.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = AsText(std::as_bytes(std::span(data, size)));
  if (const auto policy = attest::ParsePolicy(text); policy.has_value()) {
    const auto again = attest::ParsePolicy(attest::FormatPolicy(*policy));
    if (!again.has_value() || !(*again == *policy)) std::abort();
  }
  if (const auto facts = attest::ParseHostFacts(text); facts.has_value()) {
    const auto again = attest::ParseHostFacts(attest::FormatHostFacts(*facts));
    if (!again.has_value() || !(*again == *facts)) std::abort();
  }
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "attest/ear.h"

using namespace vallum;  // NOLINT: a fuzzer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = AsText(std::as_bytes(std::span(data, size)));
  static_cast<void>(attest::ParseEarSubmods(text));
  const auto ear = attest::ParseEar(text);
  if (!ear.has_value()) return 0;
  const auto again = attest::ParseEar(attest::FormatEar(*ear));
  if (!again.has_value() || *again != *ear) std::abort();
  return 0;
}

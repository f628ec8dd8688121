// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "firmware/key_set.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace firmware = vallum::firmware;
  const vallum::ByteView input = std::as_bytes(std::span(data, size));
  const auto keys = firmware::ParseKeySet(vallum::AsText(input));
  if (keys.has_value()) {
    const auto again = firmware::ParseKeySet(firmware::ToJson(*keys));
    CHECK(again.has_value() && *again == *keys);
  }
  static_cast<void>(firmware::CertificatesFromFile(input, firmware::kGlobalVariableGuid));
  return 0;
}

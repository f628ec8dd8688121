// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "firmware/signature_list.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace firmware = vallum::firmware;
  const vallum::ByteView input(reinterpret_cast<const std::byte*>(data), size);
  const auto signatures = firmware::ParseSignatureLists(input);
  if (!signatures.has_value()) {
    return 0;
  }
  for (const firmware::Signature& signature : *signatures) {
    CHECK(!firmware::DescribeSignature(signature).empty());
    const auto again = firmware::ParseSignatureLists(firmware::EncodeSignatureList(signature));
    CHECK(again.has_value() && again->size() == 1 && again->front() == signature);
  }
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "tls/certificate.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const vallum::ByteView bytes(reinterpret_cast<const std::byte*>(data), size);
  static_cast<void>(vallum::tls::InspectDer(bytes).has_value());
  static_cast<void>(vallum::tls::InspectPem(vallum::AsText(bytes)).has_value());
  return 0;
}

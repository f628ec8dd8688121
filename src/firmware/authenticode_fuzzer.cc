// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "firmware/authenticode.h"

// The signature's own certificates are the ones that are trusted, so that chains are followed.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace firmware = vallum::firmware;
  const auto signature = firmware::ParseAuthenticode(std::as_bytes(std::span(data, size)));
  if (!signature.has_value()) {
    return 0;
  }
  const bool valid = firmware::VerifySignature(*signature, signature->digest).has_value();
  for (const vallum::Bytes& der : signature->message.certificates()) {
    const auto anchor = firmware::Certificate::Parse(der);
    CHECK(anchor.has_value());
    CHECK(valid || !firmware::IsTrusted(*signature, signature->digest, *anchor));
    CHECK(!anchor->ToBeSigned().empty());
    static_cast<void>(anchor->IsForModulesOnly());
    static_cast<void>(signature->message.Timestamp(*anchor));
  }
  return 0;
}

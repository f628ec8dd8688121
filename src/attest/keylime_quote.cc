// SPDX-License-Identifier: Apache-2.0
#include "attest/keylime_quote.h"

#include <string>
#include <vector>

#include "base/text.h"

namespace vallum::attest {

Result<KeylimeQuote> ParseKeylimeQuote(std::string_view text) {
  if (text.size() > kMaxKeylimeQuote) {
    return Exhausted("a quote of more than 128 KiB");
  }
  if (!text.starts_with('r')) {
    return InvalidInput("a Keylime quote begins with 'r'");
  }
  const std::vector<std::string> parts = Split(text.substr(1), ':');
  if (parts.size() != 3) {
    return InvalidInput("a Keylime quote has three parts: quote, signature, PCRs");
  }
  KeylimeQuote out;
  ASSIGN_OR_RETURN_CONTEXT(out.message, FromBase64(parts[0]), "decoding the quote");
  ASSIGN_OR_RETURN_CONTEXT(out.signature, FromBase64(parts[1]), "decoding the signature");
  ASSIGN_OR_RETURN_CONTEXT(out.pcrs, FromBase64(parts[2]), "decoding the PCRs");
  return out;
}

}  // namespace vallum::attest

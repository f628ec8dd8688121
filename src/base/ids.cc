// SPDX-License-Identifier: Apache-2.0
#include "base/ids.h"

#include <openssl/rand.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/result.h"

namespace vallum {

Bytes RandomBytes(size_t count) {
  Bytes out(count);
  CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(out.data()), static_cast<int>(count)) == 1);
  return out;
}

std::string NewUid() {
  Bytes raw = RandomBytes(16);
  raw[6] = (raw[6] & std::byte{0x0f}) | std::byte{0x40};
  raw[8] = (raw[8] & std::byte{0x3f}) | std::byte{0x80};
  const std::string hex = ToHex(raw);
  return hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) + "-" +
         hex.substr(16, 4) + "-" + hex.substr(20);
}

bool IsUid(std::string_view text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
    const char c = text[i];
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (hyphen ? c != '-' : !hex) return false;
  }
  return true;
}

Result<void> ValidateName(std::string_view kind, std::string_view name) {
  const auto alnum = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  const bool ok = !name.empty() && name.size() <= 63 && alnum(name.front()) && alnum(name.back()) &&
                  std::all_of(name.begin(), name.end(),
                              [&](char c) { return alnum(c) || c == '-' || c == '.'; });
  if (ok) return Ok();
  return InvalidInput(std::string(kind) + " name \"" + std::string(name.substr(0, 80)) +
                      "\" is not valid")
      .WithFix("use 1 to 63 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit");
}

}  // namespace vallum

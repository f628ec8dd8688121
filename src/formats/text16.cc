// SPDX-License-Identifier: Apache-2.0
#include "formats/text16.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace vallum::formats {
namespace {

void Append(std::string& out, uint32_t c) {
  const auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0U | c >> 6U);
    put(0x80U | (c & 0x3fU));
  } else if (c < 0x10000) {
    put(0xe0U | c >> 12U);
    put(0x80U | (c >> 6U & 0x3fU));
    put(0x80U | (c & 0x3fU));
  } else {
    put(0xf0U | c >> 18U);
    put(0x80U | (c >> 12U & 0x3fU));
    put(0x80U | (c >> 6U & 0x3fU));
    put(0x80U | (c & 0x3fU));
  }
}

}  // namespace

std::string Utf16ToUtf8(std::u16string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size() && text[i] != 0; ++i) {
    const uint32_t unit = text[i];
    const bool high = unit >= 0xd800 && unit < 0xdc00;
    if (high && i + 1 < text.size() && text[i + 1] >= 0xdc00 && text[i + 1] < 0xe000) {
      Append(out, 0x10000U + ((unit - 0xd800U) << 10U) + (text[i + 1] - 0xdc00U));
      ++i;
    } else {
      Append(out, unit >= 0xd800 && unit < 0xe000 ? 0xfffdU : unit);
    }
  }
  return out;
}

std::string Utf16LeToUtf8(ByteView bytes) {
  std::u16string text;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    const unsigned unit =
        std::to_integer<unsigned>(bytes[i]) | std::to_integer<unsigned>(bytes[i + 1]) << 8U;
    if (unit == 0) {
      break;
    }
    text.push_back(static_cast<char16_t>(unit));
  }
  return Utf16ToUtf8(text);
}

}  // namespace vallum::formats

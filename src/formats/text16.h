// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"

namespace vallum::formats {

// UTF-16 to UTF-8; unpaired surrogates become U+FFFD. Stops at a NUL.
std::string Utf16ToUtf8(std::u16string_view text);
// The same of little-endian code units up to the end or a zero; an odd last byte is dropped.
std::string Utf16LeToUtf8(ByteView bytes);

}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace vallum::formats {

// UTF-16 to UTF-8; unpaired surrogates become U+FFFD. Stops at a NUL.
std::string Utf16ToUtf8(std::u16string_view text);

}  // namespace vallum::formats

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace vallum {

// ASCII only; the locale is never asked.
std::string ToLower(std::string_view text);
std::string_view Trim(std::string_view text);
// "a,b,,c" by ',' gives {"a", "b", "", "c"}; the empty text gives {""}.
std::vector<std::string> Split(std::string_view text, char separator);
std::string Join(const std::vector<std::string>& parts, std::string_view separator);

// Makes untrusted text safe for a terminal or a log line: control characters and invalid UTF-8
// become \xNN, and text longer than limit bytes is cut with "...".
std::string Printable(std::string_view text, size_t limit = 200);

}  // namespace vallum

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum {

// Fills a buffer from the kernel's random source. Ends the process when that fails: there is no
// safe way on.
Bytes RandomBytes(size_t count);

// A random UUID (RFC 9562 version 4), lower case with hyphens.
std::string NewUid();
bool IsUid(std::string_view text);

// Checks a resource name: 1 to 63 of a-z, 0-9, '-', '.'; begins and ends with a letter or digit.
//   kind: for the message, such as "instance".
// Errors: kInvalidInput with the fix.
Result<void> ValidateName(std::string_view kind, std::string_view name);

}  // namespace vallum

// SPDX-License-Identifier: Apache-2.0
// What certificates say, as text; for the .cc files of this component.
#pragma once

#include <chrono>
#include <string>

#include "base/result.h"

struct X509_name_st;
struct asn1_string_st;

namespace vallum::attest {

// RFC 4514, safe to print; may be empty.
std::string NameText(const X509_name_st* name);
// "2018-09-15T04:45:09Z".
std::string TimeText(std::chrono::sys_seconds time);
// "2f", "-2f"; no leading zeros. Errors: kInvalidInput.
Result<std::string> SerialText(const asn1_string_st* serial);

}  // namespace vallum::attest

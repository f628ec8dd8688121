// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace vallum::controller {

// Whom a client certificate names, and with which key.
struct PeerIdentity {
  std::string common_name;
  std::string organizational_unit;
  std::string key_sha256;  // of the DER SubjectPublicKeyInfo, lower-case hex
};

// Reads the first certificate of a PEM text. Says nothing about who signed it: TLS did that.
// Errors: kInvalidInput. Pure; thread-safe.
Result<PeerIdentity> ReadIdentity(std::string_view certificate_pem);

}  // namespace vallum::controller

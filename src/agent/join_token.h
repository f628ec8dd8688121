// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/secret_bytes.h"

namespace vallum::agent {

// What a person carries from the controller to a new host: where the controller is, its CA, and a
// secret that is spent by joining once.
struct JoinToken {
  std::string endpoint;  // "host:port"
  SecretBytes secret;
  std::string ca_pem;
};

// Parses "vallum-join-v1." + base64url(JSON {"endpoint","secret","ca"}); white space around it is
// ignored.
// Errors: kInvalidInput, with the fix; the message never holds any part of the secret.
Result<JoinToken> ParseJoinToken(std::string_view text);

// Reads a join token from a file of at most 64 KiB.
// Errors: kNotFound, kDenied, and those of ParseJoinToken.
Result<JoinToken> ReadJoinTokenFile(const std::filesystem::path& path);

// Checks "host:port"; an IPv6 address stands in brackets. Errors: kInvalidInput.
Result<void> ValidateEndpoint(std::string_view endpoint);

}  // namespace vallum::agent

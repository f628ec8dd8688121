// SPDX-License-Identifier: Apache-2.0
#include "agent/join_token.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "agent/state_files.h"
#include "base/bytes.h"
#include "base/text.h"

namespace vallum::agent {
namespace {

constexpr std::string_view kPrefix = "vallum-join-v1.";
constexpr ByteCount kFileLimit = ByteCount::KiB(64);
constexpr size_t kSecretLimit = 1024;

Error BadToken(const std::string& what) {
  return InvalidInput("join token: " + what)
      .WithFix("make a new one with `vallum token create --role join` and copy it whole");
}

Result<std::string> StringMember(const nlohmann::json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_string() ||
      found->get_ref<const std::string&>().empty()) {
    return BadToken(std::string("its member '") + name + "' is missing or is no text");
  }
  return found->get<std::string>();
}

}  // namespace

Result<void> ValidateEndpoint(std::string_view endpoint) {
  const size_t colon = endpoint.rfind(':');
  const bool has_parts = colon != std::string_view::npos && colon > 0;
  const std::string_view port = has_parts ? endpoint.substr(colon + 1) : std::string_view();
  const bool digits =
      !port.empty() && port.size() <= 5 &&
      std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; });
  const int number = digits ? std::stoi(std::string(port)) : 0;
  const std::string_view host = has_parts ? endpoint.substr(0, colon) : std::string_view();
  const bool host_ok =
      !host.empty() && host.size() <= 253 && std::all_of(host.begin(), host.end(), [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               c == '.' || c == '-' || c == ':' || c == '[' || c == ']';
      });
  if (!host_ok || number < 1 || number > 65535) {
    return InvalidInput("controller address '" + Printable(endpoint, 80) + "' is not host:port")
        .WithFix("write it like controller.example.org:7444 or [2001:db8::1]:7444");
  }
  return Ok();
}

Result<JoinToken> ParseJoinToken(std::string_view text) {
  text = Trim(text);
  if (text.size() > kFileLimit.bytes()) {
    return BadToken("it is longer than 64 KiB");
  }
  if (text.substr(0, kPrefix.size()) != kPrefix) {
    return BadToken("it does not begin with '" + std::string(kPrefix) + "'");
  }
  auto decoded = FromBase64(text.substr(kPrefix.size()));
  if (!decoded) {
    return BadToken("it is not base64url after its prefix; it may have been cut");
  }
  auto json = nlohmann::json::parse(AsText(*decoded), nullptr, false);
  Wipe(*decoded);
  if (!json.is_object()) {
    return BadToken("its content is not a JSON object; it may have been cut");
  }
  JoinToken token;
  ASSIGN_OR_RETURN(token.endpoint, StringMember(json, "endpoint"));
  ASSIGN_OR_RETURN(token.ca_pem, StringMember(json, "ca"));
  ASSIGN_OR_RETURN(std::string secret, StringMember(json, "secret"));
  Bytes secret_bytes = ToBytes(AsBytes(secret));
  token.secret = SecretBytes::TakeAndWipe(secret_bytes);
  for (std::string* copy : {&secret, &json["secret"].get_ref<std::string&>()}) {
    Wipe(std::as_writable_bytes(std::span<char>(*copy)));
  }
  if (token.secret.size() > kSecretLimit) {
    return BadToken("its secret is longer than 1 KiB");
  }
  RETURN_IF_ERROR(ValidateEndpoint(token.endpoint)).context("reading the join token");
  if (token.ca_pem.find("-----BEGIN CERTIFICATE-----") == std::string::npos) {
    return BadToken("its member 'ca' is no PEM certificate");
  }
  return token;
}

Result<JoinToken> ReadJoinTokenFile(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(Bytes content, ReadWholeFile(path, kFileLimit));
  auto token = ParseJoinToken(AsText(content));
  Wipe(content);
  if (!token) {
    return std::move(token).error().Context("reading " + path.string());
  }
  return token;
}

}  // namespace vallum::agent

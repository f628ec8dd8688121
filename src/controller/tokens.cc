// SPDX-License-Identifier: Apache-2.0
#include "controller/tokens.h"

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/ids.h"
#include "base/secret_bytes.h"
#include "tls/file.h"

namespace vallum::controller {
namespace {

constexpr size_t kSecretBytes = 32;
constexpr const char* kAdminToken = "admin";

std::string SecretDigest(std::string_view secret) {
  const Sha256Digest digest = Sha256(AsBytes(secret));
  return std::string(AsText(digest));
}

bool Expired(const v1::Token& token, WallTime now) {
  return token.spec().has_expire_time() && FromTimestamp(token.spec().expire_time()) <= now;
}

Result<void> CheckSpec(const v1::TokenSpec& spec, WallTime now) {
  if (spec.role() == v1::ROLE_UNSPECIFIED || !v1::Role_IsValid(spec.role())) {
    return InvalidInput("the token has no role")
        .WithFix("set spec.role to admin, operator, auditor, tenant or join");
  }
  if (spec.role() == v1::ROLE_TENANT && spec.tenant().empty()) {
    return InvalidInput("a token with the role tenant names no tenant").WithFix("set spec.tenant");
  }
  if (spec.has_expire_time() && FromTimestamp(spec.expire_time()) <= now) {
    return InvalidInput("spec.expire_time is in the past").WithFix("choose a later time");
  }
  return Ok();
}

Error NotAccepted() {
  return Denied("the token is unknown, expired or not meant for this")
      .WithFix("use a token made by `vallum token create`");
}

}  // namespace

Result<v1::Token> Tokens::Create(std::string name, const v1::TokenSpec& spec) {
  RETURN_IF_ERROR(CheckSpec(spec, resources_.clock().Now()));
  const std::string secret = ToBase64Url(RandomBytes(kSecretBytes));
  v1::Token token;
  token.mutable_metadata()->set_name(name.empty() ? "token-" + NewUid() : std::move(name));
  *token.mutable_spec() = spec;
  token.mutable_status()->set_secret_sha256(SecretDigest(secret));
  ASSIGN_OR_RETURN(v1::Token stored, resources_.Create(std::move(token)));
  RETURN_IF_ERROR(view_.WaitFor(stored.metadata().revision()));
  v1::Token reply = Redacted(std::move(stored));
  reply.mutable_status()->set_secret(secret);
  return reply;
}

Result<Principal> Tokens::Authenticate(std::string_view secret) const {
  const std::string digest = SecretDigest(secret);
  std::shared_ptr<const v1::Token> match;
  // Every token is looked at, whichever matches.
  for (const auto& token : view_.All<v1::Token>()) {
    if (ConstantTimeEqual(AsBytes(token->status().secret_sha256()), AsBytes(digest))) {
      match = token;
    }
  }
  if (match == nullptr || match->spec().role() == v1::ROLE_JOIN ||
      Expired(*match, resources_.clock().Now())) {
    return NotAccepted();
  }
  return Principal{.name = match->metadata().name(),
                   .role = match->spec().role(),
                   .tenant = match->spec().tenant()};
}

Result<v1::Token> Tokens::FindJoin(std::string_view secret) {
  const std::string digest = SecretDigest(secret);
  std::string name;
  for (const auto& token : view_.All<v1::Token>()) {
    if (ConstantTimeEqual(AsBytes(token->status().secret_sha256()), AsBytes(digest))) {
      name = token->metadata().name();
    }
  }
  if (name.empty()) {
    return NotAccepted();
  }
  ASSIGN_OR_RETURN(v1::Token token, resources_.Get<v1::Token>(name));
  if (token.spec().role() != v1::ROLE_JOIN || token.status().secret_sha256() != digest ||
      Expired(token, resources_.clock().Now())) {
    return NotAccepted();
  }
  return token;
}

v1::Token Tokens::Spent(v1::Token token, std::string_view used_by) {
  token.mutable_status()->set_used(true);
  token.mutable_status()->set_used_by(std::string(used_by));
  return token;
}

bool Tokens::HasAdmin() const {
  const std::vector<std::shared_ptr<const v1::Token>> tokens = view_.All<v1::Token>();
  return std::any_of(tokens.begin(), tokens.end(),
                     [](const auto& token) { return token->spec().role() == v1::ROLE_ADMIN; });
}

Result<void> Tokens::Bootstrap(const std::filesystem::path& state_dir) {
  const std::filesystem::path path = state_dir / "admin.token";
  std::error_code ignored;
  const bool have_file = std::filesystem::exists(path, ignored);
  // An operator who deletes "admin" after making another does not want it back.
  if (HasAdmin()) {
    // Its secret cannot be told again; an operator may have taken the file away on purpose.
    return Ok();
  }
  if (have_file) {
    // Left by a first start that ended before its commit: that secret opens nothing.
    std::filesystem::remove(path, ignored);
  }
  // The file comes first: a crash in between leaves a file to replace, not a lost secret.
  Bytes secret = ToBytes(AsBytes(ToBase64Url(RandomBytes(kSecretBytes))));
  Bytes line = secret;
  line.push_back(std::byte{'\n'});
  RETURN_IF_ERROR(tls::WriteFileAtomically(path, line, 0600));
  v1::Token token;
  token.mutable_metadata()->set_name(kAdminToken);
  token.mutable_spec()->set_role(v1::ROLE_ADMIN);
  token.mutable_spec()->set_description("made at first start; its secret is in admin.token");
  token.mutable_status()->set_secret_sha256(SecretDigest(AsText(secret)));
  Wipe(secret);
  Wipe(line);
  ASSIGN_OR_RETURN(const v1::Token stored, resources_.Create(std::move(token)));
  return view_.WaitFor(stored.metadata().revision());
}

v1::Token Tokens::Redacted(v1::Token token) {
  token.mutable_status()->clear_secret();
  token.mutable_status()->clear_secret_sha256();
  return token;
}

std::string JoinString(std::string_view endpoint, std::string_view secret,
                       std::string_view ca_pem) {
  const nlohmann::json json = {{"endpoint", endpoint}, {"secret", secret}, {"ca", ca_pem}};
  return "vallum-join-v1." + ToBase64Url(AsBytes(json.dump()));
}

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.h"
#include "controller/principal.h"
#include "controller/resource_store.h"
#include "controller/view.h"

namespace vallum::controller {

// Bearer tokens of people and programs, and join tokens of agents. Only the SHA-256 of a secret is
// stored. Thread-safe; writes block on the store.
class Tokens {
 public:
  Tokens(ResourceStore& resources, const View& view) : resources_(resources), view_(view) {}

  // Makes a token with a random secret of 32 bytes (base64url). status.secret is set in the reply
  // and nowhere else; the view has seen the token when this returns.
  //   name: empty: one is made up.
  // Errors: kInvalidInput (role missing, ROLE_TENANT without tenant, expired already), kConflict.
  Result<v1::Token> Create(std::string name, const v1::TokenSpec& spec);

  // Finds who presents the secret; compares in constant time.
  // Errors: kDenied, the same words for unknown, expired and join tokens.
  Result<Principal> Authenticate(std::string_view secret) const;

  // Finds a join token that may still be spent, from the store itself. The caller spends it by
  // putting Spent(token) in a Txn that compares its revision. Errors: kDenied.
  Result<v1::Token> FindJoin(std::string_view secret);
  static v1::Token Spent(v1::Token token, std::string_view used_by);

  // Whether any token of ROLE_ADMIN exists.
  bool HasAdmin() const;
  // At first start: makes the token "admin" and writes its secret to <state_dir>/admin.token, mode
  // 0600. Does nothing when there is a token of ROLE_ADMIN. Errors: the store's, the file's.
  Result<void> Bootstrap(const std::filesystem::path& state_dir);

  // A token as clients may see it: without secret and digest.
  static v1::Token Redacted(v1::Token token);

 private:
  ResourceStore& resources_;
  const View& view_;
};

// The one string that is given to a new host: "vallum-join-v1." + base64url(JSON {endpoint, secret,
// ca}).
std::string JoinString(std::string_view endpoint, std::string_view secret, std::string_view ca_pem);

}  // namespace vallum::controller

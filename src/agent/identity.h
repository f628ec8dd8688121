// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "agent/join_token.h"
#include "base/clock.h"
#include "base/result.h"
#include "base/secret_bytes.h"

namespace grpc {
class Channel;
}

namespace vallum::agent {

// Who the agent is to its controller, kept in <state-dir>/identity: agent.key (0600, PKCS#8, never
// leaves the host) and identity.json (everything else, replaced as one file).
struct Identity {
  std::string host;
  std::string endpoint;
  std::string pool;
  std::string certificate_pem;
  std::string ca_pem;
  SecretBytes private_key_pem;
};

// How long an identity is still good for, in words for the operator.
struct IdentityHealth {
  bool valid = false;       // may be used to dial
  bool renew_soon = false;  // less than a third of its life is left
  std::string detail;       // "certificate of node1 is valid until 2026-01-02T03:04:05.000Z"
};

// Reads the identity that an earlier enrolment stored.
// Errors: kNotFound (never enrolled); kCorrupt (a file is missing or damaged, key and certificate
// do not belong together, the certificate names another host), each with the fix.
Result<Identity> LoadIdentity(const std::filesystem::path& state_dir, const std::string& host);

// Judges the certificate's dates and that the CA signed it. Pure.
IdentityHealth CheckIdentity(const Identity& identity, WallTime now);

// Joins: has this host's key certified by the controller named in the token, and stores the result.
// The key is made when there is none; one that is there stays, since to the controller a host is
// its key. Until it succeeds, an older identity stays as it is.
//   host: the name to join as; see ValidateName.
// Errors: kDenied (token unknown, used or expired), kConflict (another host has that name),
// kUnavailable (controller not reached), kInvalidInput (its answer makes no sense), those of the
// file system. Blocks for up to 30 s.
Result<Identity> Enrol(const std::filesystem::path& state_dir, const std::string& host,
                       const JoinToken& token, const Clock& clock);

// Has the same key certified anew, without a token, and stores the result.
//   channel: made with the current identity.
// Errors: kDenied (the controller no longer knows this host with this key), kUnavailable,
// kInvalidInput, those of the file system. Blocks for up to 30 s.
Result<Identity> Renew(const std::filesystem::path& state_dir, const Identity& current,
                       const std::shared_ptr<grpc::Channel>& channel, const Clock& clock);

}  // namespace vallum::agent

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "base/digest.h"
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

// ReadIdentity, which OpenSSL 3.0 takes half a millisecond for, once for each certificate: an agent
// shows the same one with every call. Remembers what a certificate says and nothing else: whether
// it is still good is asked each time. Thread-safe.
class PeerIdentities {
 public:
  // More than the agents that one controller serves; about 0.3 KiB each.
  static constexpr size_t kMost = 32'768;
  explicit PeerIdentities(size_t most = kMost) : most_(most) {}

  // Errors: kInvalidInput, which is not remembered.
  Result<PeerIdentity> Read(std::string_view certificate_pem);
  size_t size() const;

 private:
  const size_t most_;
  mutable std::mutex mutex_;
  std::map<Sha256Digest, PeerIdentity> known_;  // by the text's digest
};

}  // namespace vallum::controller

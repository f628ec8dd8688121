// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <string>

#include "attest/tpm_public.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "base/secret_bytes.h"
#include "controller/event_log.h"
#include "controller/resource_store.h"
#include "controller/view.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::controller {

// Makes hosts known by their TPMs. A host is its endorsement key: one whose key is certified by a
// TpmAuthority is bound at once, another waits for `vallum host approve`, and so does every other
// key that comes under the same name. Which attestation key belongs to it the TPM proves by opening
// a credential (TPM 2.0 part 1, section 24). Thread-safe; calls block on the store.
class TpmBindings {
 public:
  static constexpr std::chrono::seconds kChallengeLife{120};  // slow TPMs take seconds
  static constexpr size_t kMaxChallenges = 20'000;
  // An agent binds when it connects.
  static constexpr std::chrono::seconds kPaceWindow{60};
  static constexpr int kMaxPerWindow = 20;

  // All outlive it.
  TpmBindings(ResourceStore& resources, const View& view, EventLog& events, const Clock& clock)
      : resources_(resources), view_(view), events_(events), clock_(clock) {}

  // Errors: kInvalidInput (a key of another kind, an attestation key that is not fit), kExhausted.
  Result<v1::TpmChallenge> Begin(const std::string& host, const v1::TpmIdentity& identity);
  // Errors: kDenied (another secret, no such challenge, too late), and the store's.
  Result<v1::TpmBinding> Finish(const std::string& host, const v1::TpmProof& proof);
  // Makes the host's pending TPM its own.
  //   ek_sha256: of the one that was seen.
  // Errors: kNotFound (no TPM waits), kConflict (another one waits than was seen).
  Result<v1::Host> Approve(const std::string& host, const std::string& ek_sha256,
                           const std::string& user);

 private:
  struct Challenge {
    std::string host;
    MonotonicTime ends;
    SecretBytes secret;
    v1::HostIdentity identity;
  };
  struct Begun {
    MonotonicTime since;
    int count = 0;
  };
  Result<void> CheckPace(const std::string& host);
  // Who vouches for the endorsement key; false: nobody, and identity.detail says why.
  bool Certify(const v1::TpmIdentity& sent, const attest::TpmPublic& ek,
               v1::HostIdentity& identity) const;
  // What keeps a TPM that somebody vouches for from being the host's; empty: nothing.
  std::string Objection(const v1::Host& host, const v1::HostIdentity& identity) const;
  void Tell(std::string_view kind, std::string_view severity, const std::string& host,
            const std::string& user, const std::string& message);

  ResourceStore& resources_;
  const View& view_;
  EventLog& events_;
  const Clock& clock_;
  // Held while a key becomes a host's: two hosts are never bound to one key at the same moment.
  std::mutex binding_;
  std::mutex mutex_;
  std::map<std::string, Begun> begun_;           // guarded by mutex_; by host
  std::map<std::string, Challenge> challenges_;  // guarded by mutex_; by id
};

}  // namespace vallum::controller

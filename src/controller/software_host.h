// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attest/attestation.h"
#include "attest/quote.h"
#include "attest/quote_builder.h"
#include "base/bytes.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::controller {

// A host without a TPM that answers requests for evidence as one with a TPM would: quotes are real,
// by a key in software. For tests and benchmarks.
class SoftwareHost {
 public:
  // With one bank. The events and policies below are of SHA-256.
  explicit SoftwareHost(HashAlgorithm bank = HashAlgorithm::kSha256);

  // Every PCR that may be asked for: 0 to 23, zeros at first.
  void SetPcr(uint32_t pcr, char fill);
  void Reboot(const std::string& boot_id);
  // Starts a loader as firmware does: measured into PCR 4, with an event log from then on.
  void StartLoader(const std::string& loader);
  // What a host that lies does: measures without the log's knowledge, leaves the log's end out.
  void ExtendSecretly(uint32_t pcr, const std::string& content);
  void CutLog() { event_log_ = cut_log_; }
  const std::string& boot_id() const { return boot_id_; }
  attest::ClockState& clock() { return clock_; }
  const attest::SoftwareKey& key() const { return key_; }
  void ReplaceKey() { key_ = MakeKey(); }

  // The identity that binding would have stored.
  v1::HostIdentity Identity() const;
  std::vector<v1::EvidenceChunk> Answer(const v1::RequestEvidence& request);

  // Golden values for PCR 0 and 7, as the host has them now.
  std::string PolicyDocument() const;
  // The same, and the loader by its digest in the event log.
  std::string PolicyDocument(const std::string& loader) const;

 private:
  static attest::SoftwareKey MakeKey();
  static std::vector<v1::EvidenceChunk> Refusal(const v1::RequestEvidence& request,
                                                HashAlgorithm bank);
  std::string PcrHex(uint32_t pcr) const;

  attest::SoftwareKey key_;
  HashAlgorithm bank_;
  attest::PcrBanks pcrs_;
  attest::ClockState clock_;
  std::string boot_id_ = "boot-1";
  Bytes event_log_;
  Bytes cut_log_;  // without its last event
};

}  // namespace vallum::controller

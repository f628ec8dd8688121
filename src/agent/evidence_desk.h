// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "agent/evidence_maker.h"
#include "agent/trust_link.h"
#include "base/result.h"
#include "tpm/host_tpm.h"

namespace vallum::agent {

// The attestation key in <state-dir>/identity: ak.pub and ak.priv, of use to this TPM alone.
// Errors of loading: as ReadWholeFile; nothing when there is none.
Result<std::optional<tpm::KeyBlobs>> LoadKeyBlobs(const std::filesystem::path& state_dir);
Result<void> StoreKeyBlobs(const std::filesystem::path& state_dir, const tpm::KeyBlobs& key);

struct EvidenceDeskOptions {
  std::filesystem::path state_dir;
  std::filesystem::path root;  // under which /proc and /sys lie
  std::string boot_id;
  // Opens the TPM. Errors: kNotFound, saying why this host has none; those of OpenHostTpm.
  std::function<Result<tpm::OpenedTpm>(const std::optional<tpm::KeyBlobs>&, const std::stop_token&)>
      open;
  // The name of the attestation key, once the TPM is open.
  std::function<void(const Bytes&)> on_key;
  // For the operator. Good news and bad.
  std::function<void(const std::string&)> inform;
  std::function<void(const std::string&)> warn;
};

// Speaks to the host's TPM: binds it to the host at the controller, and answers requests for
// evidence. Requests that wait while a quote is made are answered by one quote together, those that
// ask for the same PCRs: a slow TPM needs seconds for each. Owns the one thread that uses the TPM.
// Public methods return at once. Thread-safe.
class EvidenceDesk {
 public:
  static constexpr size_t kMaxWaiting = 64;

  //   link: outlives the desk.
  EvidenceDesk(EvidenceDeskOptions options, TrustLink& link);
  ~EvidenceDesk();
  EvidenceDesk(const EvidenceDesk&) = delete;
  EvidenceDesk& operator=(const EvidenceDesk&) = delete;

  // One that finds too many waiting before it is dropped, which is said in the log.
  void Ask(const v1::RequestEvidence& request);
  // Binds the TPM if that has not been done yet; tries until it is.
  void Bind();

 private:
  using SteadyTime = std::chrono::steady_clock::time_point;
  void Run(const std::stop_token& stop);
  // What is to be done next; both empty at the end.
  struct Work {
    std::vector<v1::RequestEvidence> requests;
    bool bind = false;
  };
  Work NextWork(const std::stop_token& stop);
  Result<tpm::HostTpm*> OpenTpm(const std::stop_token& stop);
  void TryBinding(const std::stop_token& stop);
  Result<v1::TpmBinding> BindOnce(const std::stop_token& stop);
  void Answer(const std::vector<v1::RequestEvidence>& requests, const std::stop_token& stop);
  // Whether it was asked for a binding that has not been accepted yet.
  bool IsToBind();
  // One quote for all of them, by a key that the controller has taken.
  Result<QuotedState> Quote(const std::vector<v1::RequestEvidence>& requests,
                            const std::stop_token& stop);
  Result<QuotedState> MakeState(tpm::HostTpm& tpm,
                                const std::vector<v1::RequestEvidence>& requests);
  void Send(const v1::RequestEvidence& request, const Result<QuotedState>& state,
            const std::stop_token& stop);
  void ForgetBinding();

  const EvidenceDeskOptions options_;
  TrustLink& link_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<v1::RequestEvidence> waiting_;  // guarded by mutex_
  std::optional<SteadyTime> bind_at_;        // guarded by mutex_
  bool bound_ = false;                       // guarded by mutex_
  std::unique_ptr<tpm::HostTpm> tpm_;        // the thread's own, as the next
  std::optional<tpm::KeyBlobs> key_;
  int failures_ = 0;
  std::jthread thread_;
};

}  // namespace vallum::agent

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "base/units.h"
#include "measure/extend_log.h"
#include "vtpm/identity.h"

namespace vallum::vtpm {

enum class TpmState {
  kOff,      // not initialised: QEMU has not reset it yet, or stopped it
  kReset,    // initialised, waiting for the firmware's TPM2_Startup
  kStarted,  // TPM2_Startup succeeded
};
std::string_view TpmStateName(TpmState state);  // "off", "reset", "started"

struct VtpmStatus {
  TpmState tpm = TpmState::kOff;
  bool qemu_connected = false;
  pid_t pid = 0;                // vallum-vtpm
  pid_t swtpm_pid = 0;          // its child
  uint64_t first_sequence = 0;  // oldest record that can still be asked for
  uint64_t last_sequence = 0;   // newest record, 0: none
  uint64_t guest_commands = 0;  // TPM commands answered since vallum-vtpm started
  std::string record_error;     // why the record file is incomplete; empty: it is whole
};

struct RecordBatch {
  std::vector<measure::ExtendRecord> records;  // in order
  uint64_t first_sequence = 0;  // greater than the one asked for + 1: records in between are gone
  uint64_t last_sequence = 0;   // newest of all; greater than records.back(): ask again
};

using PcrSelection = std::vector<PcrIndex>;

// Asks one vallum-vtpm over its control socket. Owns the connection; after an error that is not
// about the request itself the connection is unusable: connect anew. Not thread-safe; calls block.
class ControlClient {
 public:
  // Connects.
  //   timeout: for connecting and for each answer.
  // Errors: kNotFound (no such socket); kUnavailable (nobody listens: vallum-vtpm has ended; or
  // too slow); kDenied; kInvalidInput (the path is too long for a socket).
  static Result<ControlClient> Connect(const std::string& socket_path,
                                       std::chrono::milliseconds timeout);
  // Takes over a connected descriptor.
  static ControlClient FromDescriptor(int fd, std::chrono::milliseconds timeout);

  ~ControlClient();
  ControlClient(ControlClient&& other) noexcept;
  ControlClient& operator=(ControlClient&& other) noexcept;
  ControlClient(const ControlClient&) = delete;
  ControlClient& operator=(const ControlClient&) = delete;

  // Ends the call that another thread is in, and every later one, with kUnavailable. The one method
  // that may be called meanwhile.
  void Interrupt();

  // Errors of all calls: kUnavailable (too slow, or vallum-vtpm ended), kCorrupt (an answer that
  // is no answer of vallum-vtpm).
  Result<VtpmStatus> Status();

  // Records with a greater sequence number, oldest first, at most kMaxBatch of them.
  static constexpr size_t kMaxBatch = 256;
  Result<RecordBatch> RecordsSince(uint64_t sequence);
  // The same, but waits until there is at least one. An empty batch: none came in time.
  //   wait: at most kMaxWait.
  static constexpr std::chrono::milliseconds kMaxWait{60'000};
  Result<RecordBatch> WaitForRecords(uint64_t sequence, std::chrono::milliseconds wait);

  // Reads PCRs from the TPM itself, between two commands of the guest, as one consistent set.
  // Errors: also kUnavailable (the TPM is not started), kInvalidInput (a bank that it lacks).
  Result<std::map<PcrIndex, Bytes>> ReadPcrs(HashAlgorithm bank, const PcrSelection& pcrs);

  // The TPM's keys and the certificate that it carries, as found at its start.
  // Errors: also kUnavailable, kDenied (why the keys could not be had, in words), kInvalidInput
  // (vallum-vtpm is older than this call).
  Result<VtpmIdentity> Identity();
  // Has the TPM sign PCR values, between two commands of the guest.
  // Errors: also those of QuoteMaker::OnResponse; kUnavailable (the TPM is not started).
  Result<Quote> MakeQuote(const QuoteRequest& request);
  // Gives the TPM its EK certificate, before the guest's machine is powered on.
  //   der: empty if there is none for now: a machine that waits for it goes on without.
  // Errors: also kConflict (too late: to be given at the next start).
  Result<void> PutCertificate(ByteView der);

  // Ends the TPM: state saved, QEMU's connection closed, vallum-vtpm exits. For cleaning up only:
  // a vallum-vtpm ends by itself after QEMU.
  Result<void> Stop();

 private:
  ControlClient(int fd, std::chrono::milliseconds timeout) : fd_(fd), timeout_(timeout) {}
  Result<std::string> Call(const std::string& request, std::chrono::milliseconds timeout);
  Result<void> Send(std::string_view bytes, std::chrono::steady_clock::time_point deadline);
  Result<std::string> ReceiveLine(std::chrono::steady_clock::time_point deadline);

  int fd_ = -1;
  std::chrono::milliseconds timeout_;
  std::string received_;
};

}  // namespace vallum::vtpm

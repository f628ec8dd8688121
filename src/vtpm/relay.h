// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <deque>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "vtpm/channel.h"
#include "vtpm/control_server.h"
#include "vtpm/identity.h"
#include "vtpm/pcr_reader.h"
#include "vtpm/quote_maker.h"
#include "vtpm/record_file.h"
#include "vtpm/swtpm.h"
#include "vtpm/tpm_tracker.h"

namespace vallum::vtpm {

// Why a relay ended. Only the first two are as they should be.
enum class EndCause {
  kQemuGone,
  kStopped,   // asked by a client or by a signal
  kNoQemu,    // nobody connected in time
  kTpmLost,   // swtpm ended, or does not speak its protocol
  kProtocol,  // QEMU sent what cannot be relayed
};

struct RelayEnd {
  EndCause cause = EndCause::kQemuGone;
  std::string reason;  // in words
};

// Serves one QEMU with one swtpm: hands over every control message and every TPM command unchanged
// and one at a time, records what they did to PCRs before the guest sees the answer, and slips in
// the host's own PCR_Read and quotes while nothing else is under way. One thread, never blocks on a
// peer.
class Relay final : public ControlBackend {
 public:
  //   qemu_listener: closed after the first connection: there is one QEMU.
  //   stop_fd: becomes readable when the relay is to end (a signalfd).
  //   swtpm, record: outlive the relay.
  Relay(UniqueFd qemu_listener, UniqueFd control_listener, UniqueFd stop_fd, Swtpm& swtpm,
        RecordFile& record);

  // Serves until the end. QEMU's connections are closed, swtpm still runs (unless it was lost).
  //   connect_timeout: how long to wait for QEMU.
  RelayEnd Run(std::chrono::milliseconds connect_timeout);

  // Ends the TPM as its owner's orderly power-off would: an unfinished command is awaited, a
  // running TPM shut down, swtpm ended. Returns how swtpm ended.
  std::string EndTpm();

  // The state that swtpm loads holds PCR values that nobody recorded.
  void ExpectForeignState() { tracker_.ExpectForeignState(); }

  // Who this TPM is, or why that is not known.
  void SetIdentity(Result<VtpmIdentity> identity) { identity_ = std::move(identity); }
  // If the TPM carries no EK certificate: does not let QEMU initialise it until a client has given
  // one, or said that there is none, for this long at most.
  void AwaitCertificate(std::chrono::milliseconds limit);

  VtpmStatus Status() const override;
  RecordBatch RecordsSince(uint64_t sequence) const override;
  void ReadPcrs(ClientId client, const PcrsRequest& request) override;
  Result<VtpmIdentity> Identity() const override { return identity_; }
  void MakeQuote(ClientId client, const QuoteRequest& request) override;
  void PutCertificate(ClientId client, const CertificateRequest& request) override;
  void Stop() override { End(EndCause::kStopped, "asked to stop"); }

 private:
  using Time = std::chrono::steady_clock::time_point;
  // What the data channel to swtpm is busy with.
  enum class Busy { kNot, kGuest, kGuestUnframed, kHost, kHostBanks };
  struct HostJob {
    ClientId client;
    std::variant<PcrReader, QuoteMaker> work;
    Time deadline;
    Bytes Next() const;
    // The line to answer the client with; empty: send Next() again.
    std::optional<std::string> OnResponse(ByteView response);
  };
  struct CertificateJob {
    ClientId client;
    Bytes der;
  };

  void PollOnce(Time connect_deadline);
  int PollTimeout(Time connect_deadline) const;
  void HandlePoll(const std::vector<pollfd>& items);
  void AcceptQemu();
  void OnQemuControl(short events);
  void OnQemuData(short events);
  void OnSwtpmControl(short events);
  void OnSwtpmData(short events);
  void OnTpmLost(const std::string& reason);
  void Pump();
  bool PumpCertificate();
  bool PumpControl();
  bool PumpBanks();
  bool PumpData();
  bool PumpJobs();
  void SendControl(Bytes request, ControlCommand command);
  void TakeDataDescriptor();
  void ShutDownBeforeQemuDoes();
  void ExpireJobs(Time now);
  void FinishUnframed();
  void FinishCommand(const Bytes& response);
  void FinishGuestCommand(const Bytes& response);
  void FinishJob(const Bytes& response);
  void AddJob(ClientId client, std::variant<PcrReader, QuoteMaker> work);
  Result<void> WriteCertificate(ByteView der);
  void Append(std::vector<measure::RecordBody> bodies);
  void End(EndCause cause, std::string reason);

  UniqueFd qemu_listener_;
  UniqueFd stop_fd_;
  Swtpm& swtpm_;
  RecordFile& record_;
  ControlServer server_;
  TpmTracker tracker_;

  Channel qemu_control_;
  Channel qemu_data_;
  Channel swtpm_control_;
  Channel swtpm_data_;
  std::optional<ControlCommand> control_busy_;
  Bytes control_request_;
  Busy data_busy_ = Busy::kNot;
  Bytes guest_command_;
  std::deque<HostJob> jobs_;
  std::deque<CertificateJob> certificates_;
  Result<VtpmIdentity> identity_ = Unavailable("the TPM's identity was not read");
  bool untouched_ = true;           // QEMU has neither initialised the TPM nor given it a state
  std::optional<Time> held_until_;  // QEMU's initialisation, for the certificate
  uint64_t guest_commands_ = 0;
  bool new_records_ = false;
  std::vector<pollfd> poll_items_;
  std::optional<RelayEnd> end_;
};

}  // namespace vallum::vtpm

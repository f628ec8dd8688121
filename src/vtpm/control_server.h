// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "vtpm/control_protocol.h"
#include "vtpm/unique_fd.h"

namespace vallum::vtpm {

using ClientId = uint64_t;

// What the control socket's clients can ask of the one who serves the TPM.
class ControlBackend {
 public:
  virtual ~ControlBackend() = default;
  virtual VtpmStatus Status() const = 0;
  virtual RecordBatch RecordsSince(uint64_t sequence) const = 0;
  // The answer comes later, by ControlServer::Reply.
  virtual void ReadPcrs(ClientId client, const PcrsRequest& request) = 0;
  virtual Result<VtpmIdentity> Identity() const = 0;
  // Answered later, too.
  virtual void MakeQuote(ClientId client, const QuoteRequest& request) = 0;
  virtual void PutCertificate(ClientId client, const CertificateRequest& request) = 0;
  virtual void Stop() = 0;
};

// The clients of the control socket: reads their lines, answers what can be answered at once,
// holds those that wait. Never blocks: a client that does not read is not read from either.
// Owns the listener and the connections. Not thread-safe.
class ControlServer {
 public:
  static constexpr size_t kMaxClients = 16;
  using Time = std::chrono::steady_clock::time_point;

  //   backend: outlives the server.
  ControlServer(UniqueFd listener, ControlBackend& backend)
      : listener_(std::move(listener)), backend_(backend) {}

  // Adds what is to be polled; HandlePoll gets the same items back with their results.
  void AddPollItems(std::vector<pollfd>& items);
  void HandlePoll(std::span<const pollfd> items, Time now);

  // When a waiting client's time is over; empty: nobody waits.
  std::optional<Time> NextDeadline() const;
  // Answers those whose time is over.
  void HandleTime(Time now);
  // Answers those who wait for records, if there are any for them.
  void HandleNewRecords();
  // Sends an answer that comes later. The client may have gone meanwhile.
  void Reply(ClientId client, std::string line);

 private:
  struct Client {
    UniqueFd fd;
    std::string input;
    std::string output;
    bool awaits_reply = false;
    std::optional<uint64_t> awaits_records_after;
    Time deadline;
    bool gone = false;

    bool busy() const {
      return !output.empty() || awaits_reply || awaits_records_after.has_value();
    }
  };

  void Accept();
  void Read(Client& client);
  void Serve(ClientId id, Client& client, Time now);
  void Handle(ClientId id, Client& client, const std::string& line, Time now);
  static void Flush(Client& client);
  void DropGone();

  UniqueFd listener_;
  ControlBackend& backend_;
  std::map<ClientId, Client> clients_;
  ClientId next_id_ = 1;
  std::vector<ClientId> polled_;
};

}  // namespace vallum::vtpm

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "controller/console_hub.h"
#include "controller/gateway_impl.h"
#include "controller/metrics.h"
#include "vallum/v1/agent.grpc.pb.h"

namespace vallum::controller {

// One console: the pipe that the REST layer holds, joined to the agent's stream. All state of both
// is here, under one lock.
class ConsoleLink final : public ConsolePipe, public std::enable_shared_from_this<ConsoleLink> {
 public:
  ConsoleLink(std::string host, Metrics& metrics);
  ~ConsoleLink() override;

  Result<void> Write(ByteView data) override;
  void WhenWritable(std::function<void()> handler) override;
  void Read(ReadHandler handler) override;
  void Close() override;

  const std::string& host() const { return host_; }
  // Ends the console unless the agent has opened its end by then.
  void StartTimer(std::chrono::seconds timeout);
  void End(const std::string& reason);

  // From the agent's stream. Attach takes over: it starts to read.
  void Attach(ConsoleReactor* reactor);
  void OnFrame(const v1::ConsoleFrame& frame);
  void OnReadEnd();
  void OnWritten();
  void OnDone();

 private:
  struct Wakeup;  // the rest: with mutex_ held
  void EndLocked(const std::string& reason);
  void Pump();
  Wakeup Due();

  const std::string host_;
  Metrics& metrics_;
  grpc::Alarm timer_;
  std::mutex mutex_;  // guards the members below
  ConsoleReactor* reactor_ = nullptr;
  bool opened_ = false;    // the agent came
  bool reading_ = false;   // a read of the stream is under way
  bool writing_ = false;   // a write of the stream is under way
  bool finished_ = false;  // Finish was called: nothing may be started
  std::string for_guest_;
  std::string from_guest_;
  ReadHandler read_handler_;
  std::function<void()> writable_handler_;
  bool ended_ = false;
  std::string end_reason_;
};

// The agent's stream of one console. Deletes itself when gRPC is done with it.
class ConsoleReactor final : public grpc::ServerBidiReactor<v1::ConsoleFrame, v1::ConsoleFrame> {
 public:
  ConsoleReactor(Gateway::Impl& gateway, std::string host);
  void Begin() { ReadOn(); }
  void ReadOn() { StartRead(&incoming_); }
  void Put(std::string data);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  Gateway::Impl& gateway_;
  const std::string host_;
  std::shared_ptr<ConsoleLink> link_;
  v1::ConsoleFrame incoming_;
  v1::ConsoleFrame outgoing_;
};

}  // namespace vallum::controller

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "controller/gateway.h"
#include "controller/peer_identity.h"
#include "vallum/v1/agent.grpc.pb.h"

// The inside of gateway.cc, gateway_session.cc and gateway_console.cc; nobody else includes it.
namespace vallum::controller {

grpc::Status ToGrpcStatus(const Error& error);

class ConsoleLink;
class ConsoleReactor;
class SessionReactor;
// Counts calls under way: the gateway goes away after the last of them.
class LiveCalls {
 public:
  void Add();
  void Remove();
  void WaitForNone();

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  int live_ = 0;
};

class Gateway::Impl final : public v1::AgentGateway::CallbackService {
 public:
  Impl(const Options& options, const Parts& parts) : options_(options), parts_(parts) {}
  Result<void> Start();
  void Stop();

  grpc::ServerUnaryReactor* Enroll(grpc::CallbackServerContext* context,
                                   const v1::EnrollRequest* request,
                                   v1::EnrollReply* reply) override;
  grpc::ServerBidiReactor<v1::AgentMessage, v1::ControllerMessage>* Session(
      grpc::CallbackServerContext* context) override;
  grpc::ServerWriteReactor<v1::BlobChunk>* FetchBlob(grpc::CallbackServerContext* context,
                                                     const v1::FetchBlobRequest* request) override;
  grpc::ServerBidiReactor<v1::ConsoleFrame, v1::ConsoleFrame>* Console(
      grpc::CallbackServerContext* context) override;

  // Whom the connection belongs to: the host's name, if its certificate names an agent, the host
  // exists and joined with that key. Errors: kDenied.
  Result<std::string> IdentifyHost(const grpc::ServerContextBase& context) const;

  void Register(const std::string& host, SessionReactor* session);
  void Unregister(const std::string& host, SessionReactor* session);
  // Runs `action` on the host's session while it cannot go away. False: not connected.
  bool WithSession(std::string_view host, const std::function<void(SessionReactor&)>& action);

  Result<std::shared_ptr<ConsolePipe>> OpenConsole(std::string_view instance);
  // The console that the agent of this host was asked to open. nullptr: unknown or too late.
  std::shared_ptr<ConsoleLink> TakeConsole(const std::string& session_id, const std::string& host);

  const Options& options() const { return options_; }
  const Parts& parts() const { return parts_; }
  LiveCalls& live() { return live_; }
  int port() const { return port_; }

 private:
  struct Joining {
    std::string host;
    std::string key_sha256;
    std::string certificate_pem;
  };
  Result<v1::EnrollReply> DoEnroll(const grpc::ServerContextBase& context,
                                   const v1::EnrollRequest& request);
  Result<v1::EnrollReply> Renew(const grpc::ServerContextBase& context, const Joining& joining);
  Result<v1::EnrollReply> Join(std::string_view secret, const Joining& joining);

  Options options_;
  Parts parts_;
  int port_ = 0;
  LiveCalls live_;
  std::mutex mutex_;
  std::map<std::string, SessionReactor*, std::less<>> sessions_;
  std::map<std::string, std::shared_ptr<ConsoleLink>> opening_;  // by session id
  std::unique_ptr<grpc::Server> server_;
};

// One agent's stream. Deletes itself when gRPC is done with it.
class SessionReactor final
    : public grpc::ServerBidiReactor<v1::AgentMessage, v1::ControllerMessage> {
 public:
  SessionReactor(Gateway::Impl& gateway, grpc::CallbackServerContext& context, std::string host);
  void Begin();

  void Send(v1::ControllerMessage message);
  void SendDesired(const v1::DesiredState& desired);
  void SendInstance(const v1::DesiredInstance& desired);
  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  // An agent that does not read is dropped.
  static constexpr size_t kMaxWaiting = 10'000;
  void Handle();
  void FinishIfIdle();  // with mutex_ held

  Gateway::Impl& gateway_;
  grpc::CallbackServerContext& context_;
  const std::string host_;
  v1::AgentMessage incoming_;
  bool greeted_ = false;

  std::mutex mutex_;  // guards the members below
  std::deque<v1::ControllerMessage> outgoing_;
  std::map<std::string, std::string> last_sent_;  // by uid: the message, serialized
  bool writing_ = false;
  bool read_ended_ = false;
  bool finished_ = false;
  grpc::Status status_;
};

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

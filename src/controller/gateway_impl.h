// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/grpcpp.h>

#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/digest.h"
#include "controller/gateway.h"
#include "controller/gateway_calls.h"
#include "controller/minute_pace.h"
#include "controller/peer_identity.h"
#include "vallum/v1/agent.grpc.pb.h"

// The inside of gateway*.cc; nobody else includes it.
namespace vallum::controller {

class ConsoleLink;
class ConsoleReactor;
class EvidenceReactor;
class SessionReactor;
class Gateway::Impl final : public v1::AgentGateway::CallbackService {
 public:
  Impl(const Options& options, const Parts& parts)
      : options_(options), parts_(parts), pace_(parts.clock) {}
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
  grpc::ServerReadReactor<v1::SnapshotChunk>* UploadSnapshot(
      grpc::CallbackServerContext* context, v1::UploadSnapshotReply* reply) override;
  grpc::ServerUnaryReactor* FetchSnapshotPart(grpc::CallbackServerContext* context,
                                              const v1::FetchSnapshotPartRequest* request,
                                              v1::BlobChunk* reply) override;

  grpc::ServerUnaryReactor* IssueVtpmCertificate(grpc::CallbackServerContext* context,
                                                 const v1::IssueVtpmCertificateRequest* request,
                                                 v1::IssueVtpmCertificateReply* reply) override;
  grpc::ServerUnaryReactor* AnswerQuote(grpc::CallbackServerContext* context,
                                        const v1::QuoteAnswer* request,
                                        v1::QuoteAnswerReply* reply) override;
  grpc::ServerUnaryReactor* BeginTpmBinding(grpc::CallbackServerContext* context,
                                            const v1::TpmIdentity* request,
                                            v1::TpmChallenge* reply) override;
  grpc::ServerUnaryReactor* FinishTpmBinding(grpc::CallbackServerContext* context,
                                             const v1::TpmProof* request,
                                             v1::TpmBinding* reply) override;
  grpc::ServerReadReactor<v1::EvidenceChunk>* SubmitEvidence(
      grpc::CallbackServerContext* context, v1::SubmitEvidenceReply* reply) override;
  Result<v1::InstanceQuote> Quote(std::string_view instance, ByteView nonce, std::string_view pcrs);

  // Whom the connection belongs to: the host's name, if its certificate names an agent, the host
  // exists and joined with that key. Errors: kDenied.
  Result<std::string> IdentifyHost(const grpc::ServerContextBase& context) const;
  // Errors: kDenied (no instance that is placed on the host starts from this content); those of
  // CheckTrusted.
  Result<void> MayFetch(const std::string& host, const std::string& sha256) const;
  // What belongs to an instance of a trusted pool is for a host that this pool trusts now.
  // Errors: kDenied; kUnavailable (evidence may end it: the agent tries again).
  Result<void> CheckTrusted(const std::string& host, const v1::Instance& instance) const;
  // The same for the instance of the host with this uid, if there is one.
  Result<void> CheckTrusted(const std::string& host, std::string_view uid) const;
  // Which boot the host's session is of; nothing: it has none.
  std::optional<std::string> BootOf(const std::string& host) const;

  void BeginEvidence(const std::string& host, EvidenceReactor* stream);
  void EndEvidence(const std::string& host, const EvidenceReactor* stream);
  void CancelEvidence(const std::string& host);
  void Register(const std::string& host, SessionReactor* session);
  void Unregister(const std::string& host, SessionReactor* session);
  // Runs `action` on the host's session while it cannot go away. False: not connected.
  bool WithSession(std::string_view host, const std::function<void(SessionReactor&)>& action);

  // An instance that is on a host, which its status names. Errors: kNotFound, kConflict.
  Result<std::shared_ptr<const v1::Instance>> FindPlaced(std::string_view instance) const;
  Result<std::shared_ptr<ConsolePipe>> OpenConsole(std::string_view instance);
  // The console that the agent of this host was asked to open. nullptr: unknown or too late.
  std::shared_ptr<ConsoleLink> TakeConsole(const std::string& session_id, const std::string& host);

  const Options& options() const { return options_; }
  const Parts& parts() const { return parts_; }
  MinutePace& pace() { return pace_; }
  LiveCalls& live() { return live_; }
  int port() const { return port_; }

 private:
  struct Joining {
    std::string host;
    std::string key_sha256;
    std::string certificate_pem;
  };
  // A quote that somebody waits for.
  struct PendingQuote {
    std::string host;
    std::string instance_uid;
    std::promise<Result<v1::InstanceQuote>> answer;
  };
  void FailQuotesOf(const std::string& host);  // mutex_ is held
  // Whether the log is to be told of an instance's endorsement key, and it was another before.
  enum class KeyNews { kNone, kFirst, kAnother };
  KeyNews NewsOf(const std::string& uid, const std::string& key);
  void NoteTold(const std::string& uid, const std::string& key);
  Result<std::string> DoIssueVtpm(const std::string& host,
                                  const v1::IssueVtpmCertificateRequest& request);
  Result<void> TakeQuote(const grpc::ServerContextBase& context, const v1::QuoteAnswer& answer);
  Result<std::future<Result<v1::InstanceQuote>>> AwaitQuote(const std::string& request_id,
                                                            const v1::Instance& instance);
  Result<v1::EnrollReply> DoEnroll(const grpc::ServerContextBase& context,
                                   const v1::EnrollRequest& request);
  Result<v1::EnrollReply> Renew(const grpc::ServerContextBase& context, const Joining& joining);
  Result<v1::EnrollReply> Join(std::string_view secret, const Joining& joining);

  Options options_;
  Parts parts_;
  MinutePace pace_;  // of events that anybody, or any host, can cause
  int port_ = 0;
  LiveCalls live_;
  mutable PeerIdentities identities_;
  mutable std::mutex mutex_;
  std::map<std::string, SessionReactor*, std::less<>> sessions_;
  std::map<std::string, EvidenceReactor*> evidence_;             // by host
  std::map<std::string, std::shared_ptr<ConsoleLink>> opening_;  // by session id
  std::map<std::string, PendingQuote> quotes_;                   // by request id
  // By instance's uid: the endorsement key that the log told of last.
  std::map<std::string, std::string> told_keys_;
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
  // Of the host's kernel, as its Hello said.
  const std::string& boot_id() const { return boot_id_; }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  // An agent that does not read is dropped.
  static constexpr size_t kMaxWaiting = 10'000;
  // Errors: kInvalidInput (it says more than the store is given).
  Result<void> Handle();
  // Ends the session.
  void Refuse(const Error& why);
  void FinishIfIdle();  // with mutex_ held

  Gateway::Impl& gateway_;
  grpc::CallbackServerContext& context_;
  const std::string host_;
  v1::AgentMessage incoming_;
  bool greeted_ = false;
  std::string boot_id_;  // of Hello; before the gateway knows the session

  std::mutex mutex_;  // guards the members below
  std::deque<v1::ControllerMessage> outgoing_;
  std::map<std::string, Sha256Digest> last_sent_;  // by uid: of the message, serialized
  bool writing_ = false;
  bool read_ended_ = false;
  bool finished_ = false;
  grpc::Status status_;
};

}  // namespace vallum::controller

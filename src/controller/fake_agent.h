// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "vallum/v1/agent.grpc.pb.h"

namespace vallum::controller {

// An agent without guests: speaks the real protocol over real TLS and says what the test wants.
class FakeAgent {
 public:
  //   port: of the gateway on 127.0.0.1; by address, because Debian's c-ares leaks names it
  //   resolves.
  FakeAgent(std::string host, int port, std::string ca_pem);
  ~FakeAgent();
  FakeAgent(const FakeAgent&) = delete;
  FakeAgent& operator=(const FakeAgent&) = delete;

  // Asks for a certificate for its own key; keeps the reply.
  grpc::Status Enroll(const std::string& secret);
  // Takes the identity of another agent, as a thief or a restart would.
  void TakeIdentityOf(const FakeAgent& other);
  // As another host, with the certificate that this agent has.
  grpc::Status EnrollAs(const std::string& host, const std::string& secret);

  // Opens the session and says Hello; returns once the desired state is here.
  Result<v1::DesiredState> Connect(const v1::Hello& hello);
  void Disconnect();
  // The next message; empty: the stream has ended.
  std::optional<v1::ControllerMessage> Next();
  // The next message about an instance for which the test has a use.
  std::optional<v1::DesiredInstance> NextInstance();
  void Report(const v1::InstanceReport& report);
  void SendEvidence(const v1::BootEvidenceReport& report);
  void SendCapabilities(const v1::HostCapabilities& capabilities);
  // What the controller ends the session with; what it says until then is dropped.
  grpc::Status AwaitEnd();
  void Beat();
  grpc::Status FetchBlob(const std::string& sha256, int64_t offset, std::string& out);

  // Sends these messages as one snapshot.
  grpc::Status SendSnapshot(const std::vector<v1::SnapshotChunk>& chunks);
  struct UploadCall {
    std::unique_ptr<v1::AgentGateway::Stub> stub;
    grpc::ClientContext context;
    v1::UploadSnapshotReply reply;
    std::unique_ptr<grpc::ClientWriter<v1::SnapshotChunk>> writer;
  };
  // Sends these messages and nothing more, not even an end.
  std::unique_ptr<UploadCall> BeginSnapshot(const std::vector<v1::SnapshotChunk>& chunks);
  grpc::Status FetchPart(const std::string& instance_uid, const std::string& part,
                         std::string& out);

  struct ConsoleCall {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<v1::ConsoleFrame, v1::ConsoleFrame>> stream;
  };
  std::unique_ptr<ConsoleCall> OpenConsole(const std::string& session_id);

  grpc::Status IssueVtpm(const std::string& uid, const std::string& key_der, std::string& pem);
  grpc::Status AnswerQuote(const v1::QuoteAnswer& answer);
  // The next message of a kind; empty: the stream has ended.
  std::optional<v1::ControllerMessage> NextOf(v1::ControllerMessage::MessageCase kind);
  // Sends these messages as one answer to a request for evidence.
  grpc::Status SubmitEvidence(const std::vector<v1::EvidenceChunk>& chunks);
  // The line breaks before the evidence has ended.
  void BreakOffEvidence(const std::vector<v1::EvidenceChunk>& chunks);
  grpc::Status BeginBinding(const v1::TpmIdentity& identity, v1::TpmChallenge& challenge);
  grpc::Status FinishBinding(const v1::TpmProof& proof, v1::TpmBinding& binding);
  // The next request for a quote; empty: the stream has ended.
  std::optional<v1::MakeQuote> NextQuote();

  // A host that can do Secure Boot, with memory for `gib` GiB of instances.
  static v1::Hello MakeHello(int64_t gib = 64);
  static v1::InstanceReport MakeReport(const v1::DesiredInstance& desired, v1::InstancePhase phase);
  // The shortest record of a boot that has reached its operating system.
  static v1::BootEvidence MakeEvidence(int tpm_resets);
  // A P-256 key as SubjectPublicKeyInfo.
  static std::string MakeEndorsementKey();

 private:
  std::unique_ptr<v1::AgentGateway::Stub> Dial() const;

  std::string host_;
  int port_;
  std::string ca_pem_;
  std::string key_pem_;
  std::string csr_der_;
  std::string certificate_pem_;
  std::unique_ptr<v1::AgentGateway::Stub> stub_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::AgentMessage, v1::ControllerMessage>> stream_;
};

}  // namespace vallum::controller

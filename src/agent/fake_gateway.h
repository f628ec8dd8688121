// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tls/authority.h"
#include "vallum/v1/agent.grpc.pb.h"

namespace vallum::agent {

// A controller that speaks the real protocol over real TLS and remembers what it was told.
class FakeGateway final : public v1::AgentGateway::Service {
 public:
  explicit FakeGateway(const std::filesystem::path& directory);
  ~FakeGateway() override;

  std::string JoinToken() const;
  // Sets what an instance shall be, and says so if an agent is connected.
  void Want(const v1::DesiredInstance& desired);
  void OpenConsole(const std::string& session, const std::string& uid);
  // Whether keys of vTPMs are certified.
  void SetCertifies(bool certifies);
  int vtpm_certificates();
  const std::string& ca_pem() const { return authority_->certificate_pem(); }
  // Asks for a quote and waits for the answer; nothing after a minute.
  std::optional<v1::QuoteAnswer> AskQuote(const v1::MakeQuote& wanted);
  // Whether Welcome asks for evidence, and whether a TPM that is proven is taken.
  void SetAttested(bool attested);
  void SetTakesTpms(bool takes);
  // Waits for a TPM that has proven itself; nothing after a minute.
  std::optional<v1::TpmIdentity> WaitForBinding();
  int bindings();
  // Asks for evidence and waits for all of it; empty after a minute.
  std::vector<v1::EvidenceChunk> AskEvidence(const v1::RequestEvidence& wanted);
  void Tell(const v1::TrustNotice& notice);
  // Signs the claims as a lease.
  v1::TrustLease Sign(const v1::LeaseClaims& claims);
  // Waits until the agent has asked for a lease so often; the last reason.
  std::optional<std::string> WaitForLeaseWanted(int count);
  void AddBlob(const std::string& sha256, std::string content);
  // The next transfer ends with an error after so many bytes.
  void BreakNextTransferAfter(size_t bytes);
  // A transfer that begins from now on brings nothing and ends with CutOffInTransfer.
  void HoldTransfers();
  // Waits for a transfer; then nobody reaches this controller any more. False: there was none
  // within a minute.
  bool CutOffInTransfer();
  std::vector<int64_t> transfer_offsets();
  int enrolments();
  // Certificates issued from now on are so much older than the clock says, until set again.
  void SetCertificateAge(std::chrono::hours age);
  // Whether spent tokens are good again.
  void AllowAnotherEnrolment();
  int renewals();
  // Ends the agent's stream; it dials again.
  void DropSession();
  // Waits for capabilities whose probe "agent-certificate" is good.
  bool WaitForGoodCertificate();
  std::string peer_certificate();
  // The transport's view of who connected last.
  std::string peer_name();
  v1::HostCapabilities capabilities();

  // Waits for a report that fits; the last one, or nothing after a minute.
  std::optional<v1::InstanceReport> WaitFor(
      const std::string& uid, const std::function<bool(const v1::InstanceReport&)>& fits);
  // The same of evidence.
  std::optional<v1::BootEvidence> WaitForEvidence(
      const std::string& uid, const std::function<bool(const v1::BootEvidence&)>& fits);
  void ForgetEvidence();
  bool WaitForHellos(int count);
  bool WaitForConsole(const std::string& session);

  grpc::Status Enroll(grpc::ServerContext* context, const v1::EnrollRequest* request,
                      v1::EnrollReply* reply) override;
  grpc::Status Session(grpc::ServerContext* context,
                       grpc::ServerReaderWriter<v1::ControllerMessage, v1::AgentMessage>*) override;
  grpc::Status FetchBlob(grpc::ServerContext*, const v1::FetchBlobRequest* request,
                         grpc::ServerWriter<v1::BlobChunk>* writer) override;
  grpc::Status Console(grpc::ServerContext*,
                       grpc::ServerReaderWriter<v1::ConsoleFrame, v1::ConsoleFrame>*) override;
  grpc::Status IssueVtpmCertificate(grpc::ServerContext*,
                                    const v1::IssueVtpmCertificateRequest* request,
                                    v1::IssueVtpmCertificateReply* reply) override;
  grpc::Status BeginTpmBinding(grpc::ServerContext*, const v1::TpmIdentity* request,
                               v1::TpmChallenge* reply) override;
  grpc::Status FinishTpmBinding(grpc::ServerContext*, const v1::TpmProof* request,
                                v1::TpmBinding* reply) override;
  grpc::Status SubmitEvidence(grpc::ServerContext*, grpc::ServerReader<v1::EvidenceChunk>* reader,
                              v1::SubmitEvidenceReply*) override;
  grpc::Status AnswerQuote(grpc::ServerContext*, const v1::QuoteAnswer* request,
                           v1::QuoteAnswerReply* reply) override;

 private:
  using Stream = grpc::ServerReaderWriter<v1::ControllerMessage, v1::AgentMessage>;
  void Take(const v1::InstanceReport& report);

  class AgedClock final : public Clock {
   public:
    WallTime Now() const override { return SystemClock().Now() - age.load(); }
    MonotonicTime Monotonic() const override { return SystemClock().Monotonic(); }
    std::atomic<std::chrono::hours> age = std::chrono::hours(0);
  };

  AgedClock clock_;
  std::unique_ptr<tls::CertificateAuthority> authority_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  Stream* stream_ = nullptr;
  std::map<std::string, v1::DesiredInstance> desired_;
  std::map<std::string, v1::InstanceReport> reports_;
  std::map<std::string, v1::BootEvidence> evidence_;
  std::map<std::string, std::string> blobs_;
  std::vector<int64_t> offsets_;
  std::vector<std::string> consoles_;
  std::map<std::string, v1::QuoteAnswer> answers_;
  bool attested_ = false;
  bool takes_tpms_ = true;
  v1::TpmIdentity claimed_tpm_;
  std::optional<v1::TpmIdentity> bound_tpm_;
  int bindings_ = 0;
  std::map<std::string, std::vector<v1::EvidenceChunk>> submitted_;
  int leases_wanted_ = 0;
  std::string lease_reason_;
  bool certifies_ = true;
  int vtpm_certificates_ = 0;
  size_t break_after_ = 0;
  bool holds_transfers_ = false;
  bool cut_ = false;
  int enrolments_ = 0;
  bool token_spent_ = false;
  int renewals_ = 0;
  grpc::ServerContext* session_ = nullptr;
  std::string peer_certificate_;
  int hellos_ = 0;
  std::string peer_name_;
  v1::HostCapabilities capabilities_;
};

}  // namespace vallum::agent

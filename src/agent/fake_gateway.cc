// SPDX-License-Identifier: Apache-2.0
#include "agent/fake_gateway.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "agent/lease_maker.h"
#include "attest/credential.h"
#include "attest/tpm_public.h"
#include "base/bytes.h"
#include "base/check.h"

namespace vallum::agent {
namespace {

constexpr std::chrono::seconds kPatience{60};
constexpr const char* kSecret = "s3cret";
constexpr const char* kTpmSecret = "the secret of a credential";

}  // namespace

FakeGateway::FakeGateway(const std::filesystem::path& directory) {
  auto authority = tls::CertificateAuthority::LoadOrCreate(directory, clock_);
  CHECK(authority.has_value());
  authority_ = *std::move(authority);
  auto credentials = authority_->IssueServer({{"localhost"}, {"127.0.0.1"}});
  CHECK(credentials.has_value());
  grpc::SslServerCredentialsOptions options(GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = authority_->certificate_pem();
  options.pem_key_cert_pairs.push_back(
      {std::string(AsText(credentials->private_key_pem.Reveal(SecretAccess("test server")))),
       credentials->certificate_pem});
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::SslServerCredentials(options), &port_);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  CHECK(server_ != nullptr);
}

FakeGateway::~FakeGateway() {
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

std::string FakeGateway::JoinToken() const {
  const nlohmann::json json = {{"endpoint", "127.0.0.1:" + std::to_string(port_)},
                               {"secret", kSecret},
                               {"ca", authority_->certificate_pem()}};
  return "vallum-join-v1." + ToBase64Url(AsBytes(json.dump()));
}

void FakeGateway::Want(const v1::DesiredInstance& desired) {
  const std::lock_guard lock(mutex_);
  desired_[desired.uid()] = desired;
  if (stream_ != nullptr) {
    v1::ControllerMessage message;
    *message.mutable_instance() = desired;
    stream_->Write(message);
  }
}

void FakeGateway::OpenConsole(const std::string& session, const std::string& uid) {
  const std::lock_guard lock(mutex_);
  v1::ControllerMessage message;
  message.mutable_open_console()->set_session_id(session);
  message.mutable_open_console()->set_instance_uid(uid);
  CHECK(stream_ != nullptr);
  stream_->Write(message);
}

void FakeGateway::SetCertifies(bool certifies) {
  const std::lock_guard lock(mutex_);
  certifies_ = certifies;
}

int FakeGateway::vtpm_certificates() {
  const std::lock_guard lock(mutex_);
  return vtpm_certificates_;
}

std::optional<v1::QuoteAnswer> FakeGateway::AskQuote(const v1::MakeQuote& wanted) {
  std::unique_lock lock(mutex_);
  v1::ControllerMessage message;
  *message.mutable_make_quote() = wanted;
  CHECK(stream_ != nullptr);
  stream_->Write(message);
  const bool answered =
      changed_.wait_for(lock, kPatience, [&] { return answers_.contains(wanted.request_id()); });
  return answered ? std::optional(answers_[wanted.request_id()]) : std::nullopt;
}

grpc::Status FakeGateway::IssueVtpmCertificate(grpc::ServerContext*,
                                               const v1::IssueVtpmCertificateRequest* request,
                                               v1::IssueVtpmCertificateReply* reply) {
  const std::lock_guard lock(mutex_);
  if (!certifies_) {
    return {grpc::StatusCode::UNAVAILABLE, "no certificates today"};
  }
  const auto pem =
      authority_->IssueVtpm(AsBytes(request->ek_public_der()), "web1", request->instance_uid());
  CHECK(pem.has_value());
  reply->set_certificate_pem(*pem);
  ++vtpm_certificates_;
  return grpc::Status::OK;
}

grpc::Status FakeGateway::AnswerQuote(grpc::ServerContext*, const v1::QuoteAnswer* request,
                                      v1::QuoteAnswerReply*) {
  const std::lock_guard lock(mutex_);
  answers_[request->request_id()] = *request;
  changed_.notify_all();
  return grpc::Status::OK;
}

void FakeGateway::SetAttested(bool attested) {
  const std::lock_guard lock(mutex_);
  attested_ = attested;
}

void FakeGateway::SetTakesTpms(bool takes) {
  const std::lock_guard lock(mutex_);
  takes_tpms_ = takes;
}

std::optional<v1::TpmIdentity> FakeGateway::WaitForBinding() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kPatience, [&] { return bound_tpm_.has_value(); });
  return bound_tpm_;
}

int FakeGateway::bindings() {
  const std::lock_guard lock(mutex_);
  return bindings_;
}

grpc::Status FakeGateway::BeginTpmBinding(grpc::ServerContext*, const v1::TpmIdentity* request,
                                          v1::TpmChallenge* reply) {
  const auto ek = attest::ParseTpmtPublic(AsBytes(request->ek_public()));
  const auto ak = attest::ParseTpmtPublic(AsBytes(request->ak_public()));
  if (!ek || !ak) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "not a TPM's keys"};
  }
  const auto credential = attest::MakeCredential(*ek, ak->Name(), SecretBytes(AsBytes(kTpmSecret)));
  if (!credential) {
    return {grpc::StatusCode::INVALID_ARGUMENT, credential.error().Describe()};
  }
  const std::lock_guard lock(mutex_);
  claimed_tpm_ = *request;
  reply->set_challenge_id("challenge");
  reply->set_credential_blob(std::string(AsText(credential->id_object)));
  reply->set_encrypted_secret(std::string(AsText(credential->encrypted_secret)));
  return grpc::Status::OK;
}

grpc::Status FakeGateway::FinishTpmBinding(grpc::ServerContext*, const v1::TpmProof* request,
                                           v1::TpmBinding* reply) {
  const std::lock_guard lock(mutex_);
  if (request->challenge_id() != "challenge" || request->secret() != kTpmSecret) {
    return {grpc::StatusCode::UNAUTHENTICATED, "not the secret"};
  }
  ++bindings_;
  reply->set_accepted(takes_tpms_);
  reply->set_detail(takes_tpms_ ? "" : "run `vallum host approve`");
  if (takes_tpms_) {
    bound_tpm_ = claimed_tpm_;
  }
  changed_.notify_all();
  return grpc::Status::OK;
}

std::vector<v1::EvidenceChunk> FakeGateway::AskEvidence(const v1::RequestEvidence& wanted) {
  std::unique_lock lock(mutex_);
  v1::ControllerMessage message;
  *message.mutable_request_evidence() = wanted;
  CHECK(stream_ != nullptr);
  stream_->Write(message);
  changed_.wait_for(lock, kPatience, [&] { return submitted_.contains(wanted.request_id()); });
  return submitted_[wanted.request_id()];
}

grpc::Status FakeGateway::SubmitEvidence(grpc::ServerContext*,
                                         grpc::ServerReader<v1::EvidenceChunk>* reader,
                                         v1::SubmitEvidenceReply*) {
  std::vector<v1::EvidenceChunk> chunks;
  v1::EvidenceChunk chunk;
  while (reader->Read(&chunk)) {
    chunks.push_back(chunk);
  }
  const std::lock_guard lock(mutex_);
  if (!chunks.empty()) {
    submitted_[chunks.front().header().request_id()] = std::move(chunks);
  }
  changed_.notify_all();
  return grpc::Status::OK;
}

void FakeGateway::Tell(const v1::TrustNotice& notice) {
  const std::lock_guard lock(mutex_);
  v1::ControllerMessage message;
  *message.mutable_trust() = notice;
  CHECK(stream_ != nullptr);
  stream_->Write(message);
}

v1::TrustLease FakeGateway::Sign(const v1::LeaseClaims& claims) {
  return SignLease(authority_->IssueSigner(tls::kLeaseSignerUnit).value(), claims);
}

std::optional<std::string> FakeGateway::WaitForLeaseWanted(int count) {
  std::unique_lock lock(mutex_);
  const bool wanted = changed_.wait_for(lock, kPatience, [&] { return leases_wanted_ >= count; });
  return wanted ? std::optional(lease_reason_) : std::nullopt;
}

void FakeGateway::AddBlob(const std::string& sha256, std::string content) {
  const std::lock_guard lock(mutex_);
  blobs_[sha256] = std::move(content);
}

void FakeGateway::BreakNextTransferAfter(size_t bytes) {
  const std::lock_guard lock(mutex_);
  break_after_ = bytes;
}

void FakeGateway::HoldTransfers() {
  const std::lock_guard lock(mutex_);
  holds_transfers_ = true;
}

bool FakeGateway::CutOffInTransfer() {
  bool began = false;
  {
    std::unique_lock lock(mutex_);
    began = changed_.wait_for(lock, kPatience, [&] { return !offsets_.empty(); });
    cut_ = true;
    changed_.notify_all();
  }
  server_->Shutdown(std::chrono::system_clock::now());
  return began;
}

std::vector<int64_t> FakeGateway::transfer_offsets() {
  const std::lock_guard lock(mutex_);
  return offsets_;
}

int FakeGateway::enrolments() {
  const std::lock_guard lock(mutex_);
  return enrolments_;
}

std::string FakeGateway::peer_name() {
  const std::lock_guard lock(mutex_);
  return peer_name_;
}

v1::HostCapabilities FakeGateway::capabilities() {
  const std::lock_guard lock(mutex_);
  return capabilities_;
}

std::optional<v1::InstanceReport> FakeGateway::WaitFor(
    const std::string& uid, const std::function<bool(const v1::InstanceReport&)>& fits) {
  std::unique_lock lock(mutex_);
  const auto there = [&] {
    const auto found = reports_.find(uid);
    return found != reports_.end() && fits(found->second);
  };
  if (!changed_.wait_for(lock, kPatience, there)) {
    std::fprintf(stderr, "last report: %s\n", reports_[uid].ShortDebugString().c_str());
    return std::nullopt;
  }
  return reports_[uid];
}

std::optional<v1::BootEvidence> FakeGateway::WaitForEvidence(
    const std::string& uid, const std::function<bool(const v1::BootEvidence&)>& fits) {
  std::unique_lock lock(mutex_);
  const auto there = [&] {
    const auto found = evidence_.find(uid);
    return found != evidence_.end() && fits(found->second);
  };
  if (!changed_.wait_for(lock, kPatience, there)) {
    std::fprintf(stderr, "last evidence: %s\n", evidence_[uid].ShortDebugString().c_str());
    return std::nullopt;
  }
  return evidence_[uid];
}

void FakeGateway::ForgetEvidence() {
  const std::lock_guard lock(mutex_);
  evidence_.clear();
}

bool FakeGateway::WaitForHellos(int count) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] { return hellos_ >= count; });
}

bool FakeGateway::WaitForConsole(const std::string& session) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] {
    return std::find(consoles_.begin(), consoles_.end(), session) != consoles_.end();
  });
}

void FakeGateway::SetCertificateAge(std::chrono::hours age) { clock_.age = age; }

void FakeGateway::AllowAnotherEnrolment() {
  const std::lock_guard lock(mutex_);
  token_spent_ = false;
}

int FakeGateway::renewals() {
  const std::lock_guard lock(mutex_);
  return renewals_;
}

void FakeGateway::DropSession() {
  const std::lock_guard lock(mutex_);
  CHECK(session_ != nullptr);
  session_->TryCancel();
}

bool FakeGateway::WaitForGoodCertificate() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] {
    return std::ranges::any_of(capabilities_.probes(), [](const v1::Probe& probe) {
      return probe.name() == "agent-certificate" && probe.ok();
    });
  });
}

std::string FakeGateway::peer_certificate() {
  const std::lock_guard lock(mutex_);
  return peer_certificate_;
}

grpc::Status FakeGateway::Enroll(grpc::ServerContext* context, const v1::EnrollRequest* request,
                                 v1::EnrollReply* reply) {
  const std::lock_guard lock(mutex_);
  const auto names = context->auth_context()->FindPropertyValues("x509_common_name");
  const bool renewal = request->token().empty() && !names.empty() &&
                       std::string(names[0].data(), names[0].size()) == request->host_name();
  if (!renewal && (request->token() != kSecret || token_spent_)) {
    return {grpc::StatusCode::UNAUTHENTICATED, "the join token is used"};
  }
  auto certificate = authority_->IssueAgent(AsBytes(request->csr_der()), request->host_name());
  if (!certificate) {
    return {grpc::StatusCode::INVALID_ARGUMENT, certificate.error().Describe()};
  }
  if (renewal) {
    ++renewals_;
  } else {
    ++enrolments_;
    token_spent_ = true;
  }
  reply->set_certificate_pem(*certificate);
  reply->set_ca_pem(authority_->certificate_pem());
  reply->set_pool("default");
  return grpc::Status::OK;
}

void FakeGateway::Take(const v1::InstanceReport& report) {
  reports_[report.uid()] = report;
  changed_.notify_all();
}

grpc::Status FakeGateway::Session(grpc::ServerContext* context, Stream* stream) {
  const auto names = context->auth_context()->FindPropertyValues("x509_common_name");
  if (names.empty()) {
    return {grpc::StatusCode::UNAUTHENTICATED, "no client certificate"};
  }
  v1::AgentMessage message;
  if (!stream->Read(&message) || !message.has_hello()) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "no Hello"};
  }
  {
    const std::lock_guard lock(mutex_);
    peer_name_ = std::string(names[0].data(), names[0].size());
    session_ = context;
    for (const auto& pem : context->auth_context()->FindPropertyValues("x509_pem_cert")) {
      peer_certificate_ = std::string(pem.data(), pem.size());
    }
    v1::ControllerMessage answer;
    answer.mutable_welcome()->set_heartbeat_seconds(1);
    answer.mutable_welcome()->set_attested(attested_);
    stream->Write(answer);
    for (const auto& [uid, desired] : desired_) {
      *answer.mutable_desired()->add_instances() = desired;
    }
    stream->Write(answer);
    stream_ = stream;
    ++hellos_;
    capabilities_ = message.hello().capabilities();
    reports_.clear();  // those of an earlier session say nothing of this one
    for (const v1::InstanceReport& report : message.hello().instances()) {
      Take(report);
    }
    changed_.notify_all();
  }
  while (stream->Read(&message)) {
    const std::lock_guard lock(mutex_);
    if (message.has_report()) {
      Take(message.report());
    }
    if (message.has_lease_wanted()) {
      ++leases_wanted_;
      lease_reason_ = message.lease_wanted().reason();
      changed_.notify_all();
    }
    if (message.has_evidence()) {
      evidence_[message.evidence().uid()] = message.evidence().evidence();
      changed_.notify_all();
    }
    if (message.has_capabilities()) {
      capabilities_ = message.capabilities();
      changed_.notify_all();
    }
  }
  const std::lock_guard lock(mutex_);
  if (stream_ == stream) {
    stream_ = nullptr;
    session_ = nullptr;
  }
  return grpc::Status::OK;
}

grpc::Status FakeGateway::FetchBlob(grpc::ServerContext*, const v1::FetchBlobRequest* request,
                                    grpc::ServerWriter<v1::BlobChunk>* writer) {
  std::string content;
  size_t limit = 0;
  {
    std::unique_lock lock(mutex_);
    offsets_.push_back(request->offset());
    changed_.notify_all();
    if (holds_transfers_) {
      changed_.wait(lock, [&] { return cut_; });
      return {grpc::StatusCode::UNAVAILABLE, "cut off on purpose"};
    }
    content = blobs_[request->sha256()];
    limit = std::exchange(break_after_, 0);
  }
  constexpr size_t kChunk = size_t{64} << 10U;
  v1::BlobChunk chunk;
  size_t sent = 0;
  for (auto at = static_cast<size_t>(request->offset()); at < content.size(); at += kChunk) {
    chunk.set_data(content.substr(at, kChunk));
    writer->Write(chunk);
    sent += chunk.data().size();
    if (limit != 0 && sent >= limit) {
      return {grpc::StatusCode::UNAVAILABLE, "broken on purpose"};
    }
  }
  return grpc::Status::OK;
}

grpc::Status FakeGateway::Console(
    grpc::ServerContext*, grpc::ServerReaderWriter<v1::ConsoleFrame, v1::ConsoleFrame>* stream) {
  v1::ConsoleFrame frame;
  if (stream->Read(&frame)) {
    const std::lock_guard lock(mutex_);
    consoles_.push_back(frame.session_id() + (frame.error().empty() ? "" : ": refused"));
    changed_.notify_all();
  }
  return grpc::Status::OK;
}

}  // namespace vallum::agent

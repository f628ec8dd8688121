// SPDX-License-Identifier: Apache-2.0
#include "controller/fake_agent.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "measure/event_digest.h"
#include "tls/certificate.h"

namespace vallum::controller {

FakeAgent::FakeAgent(std::string host, int port, std::string ca_pem)
    : host_(std::move(host)), port_(port), ca_pem_(std::move(ca_pem)) {
  const Result<tls::KeyAndCsr> made = tls::MakeKeyAndCsr(host_);
  CHECK(made.has_value());
  key_pem_ = AsText(made->private_key_pem.Reveal(SecretAccess("a test's own key")));
  csr_der_ = AsText(made->csr_der);
}

FakeAgent::~FakeAgent() { Disconnect(); }

std::unique_ptr<v1::AgentGateway::Stub> FakeAgent::Dial() const {
  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = ca_pem_;
  if (!certificate_pem_.empty()) {
    tls.pem_private_key = key_pem_;
    tls.pem_cert_chain = certificate_pem_;
  }
  // Each agent of a test has a connection of its own.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return v1::AgentGateway::NewStub(grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port_),
                                                             grpc::SslCredentials(tls), arguments));
}

grpc::Status FakeAgent::Enroll(const std::string& secret) { return EnrollAs(host_, secret); }

grpc::Status FakeAgent::EnrollAs(const std::string& host, const std::string& secret) {
  grpc::ClientContext context;
  v1::EnrollRequest request;
  request.set_token(secret);
  request.set_host_name(host);
  request.set_csr_der(csr_der_);
  v1::EnrollReply reply;
  const grpc::Status status = Dial()->Enroll(&context, request, &reply);
  if (status.ok()) {
    certificate_pem_ = reply.certificate_pem();
  }
  return status;
}

void FakeAgent::TakeIdentityOf(const FakeAgent& other) {
  key_pem_ = other.key_pem_;
  csr_der_ = other.csr_der_;
  certificate_pem_ = other.certificate_pem_;
}

Result<v1::DesiredState> FakeAgent::Connect(const v1::Hello& hello) {
  Disconnect();
  stub_ = Dial();
  context_ = std::make_unique<grpc::ClientContext>();
  stream_ = stub_->Session(context_.get());
  v1::AgentMessage message;
  *message.mutable_hello() = hello;
  stream_->Write(message);
  while (std::optional<v1::ControllerMessage> next = Next()) {
    if (next->has_desired()) {
      return next->desired();
    }
  }
  const grpc::Status status = stream_->Finish();
  stream_.reset();
  return Denied(status.error_message());
}

void FakeAgent::Disconnect() {
  if (stream_ == nullptr) {
    return;
  }
  context_->TryCancel();
  static_cast<void>(stream_->Finish());
  stream_.reset();
}

std::optional<v1::ControllerMessage> FakeAgent::Next() {
  v1::ControllerMessage message;
  if (!stream_->Read(&message)) {
    return std::nullopt;
  }
  return message;
}

std::optional<v1::DesiredInstance> FakeAgent::NextInstance() {
  while (std::optional<v1::ControllerMessage> next = Next()) {
    if (next->has_instance()) {
      return next->instance();
    }
  }
  return std::nullopt;
}

void FakeAgent::Report(const v1::InstanceReport& report) {
  v1::AgentMessage message;
  *message.mutable_report() = report;
  stream_->Write(message);
}

void FakeAgent::SendEvidence(const v1::BootEvidenceReport& report) {
  v1::AgentMessage message;
  *message.mutable_evidence() = report;
  stream_->Write(message);
}

void FakeAgent::SendCapabilities(const v1::HostCapabilities& capabilities) {
  v1::AgentMessage message;
  *message.mutable_capabilities() = capabilities;
  stream_->Write(message);
}

grpc::Status FakeAgent::AwaitEnd() {
  while (Next().has_value()) {
  }
  grpc::Status status = stream_->Finish();
  stream_.reset();
  return status;
}

void FakeAgent::Beat() {
  v1::AgentMessage message;
  message.mutable_heartbeat()->set_disk_free_bytes(int64_t{1} << 40);
  stream_->Write(message);
}

grpc::Status FakeAgent::FetchBlob(const std::string& sha256, int64_t offset, std::string& out) {
  const auto stub = Dial();
  grpc::ClientContext context;
  v1::FetchBlobRequest request;
  request.set_sha256(sha256);
  request.set_offset(offset);
  const auto reader = stub->FetchBlob(&context, request);
  v1::BlobChunk chunk;
  while (reader->Read(&chunk)) {
    out += chunk.data();
  }
  return reader->Finish();
}

grpc::Status FakeAgent::SendSnapshot(const std::vector<v1::SnapshotChunk>& chunks) {
  const auto stub = Dial();
  grpc::ClientContext context;
  v1::UploadSnapshotReply reply;
  const auto writer = stub->UploadSnapshot(&context, &reply);
  for (const v1::SnapshotChunk& chunk : chunks) {
    if (!writer->Write(chunk)) break;
  }
  writer->WritesDone();
  return writer->Finish();
}

std::unique_ptr<FakeAgent::UploadCall> FakeAgent::BeginSnapshot(
    const std::vector<v1::SnapshotChunk>& chunks) {
  auto call = std::make_unique<UploadCall>();
  call->stub = Dial();
  call->writer = call->stub->UploadSnapshot(&call->context, &call->reply);
  for (const v1::SnapshotChunk& chunk : chunks) call->writer->Write(chunk);
  return call;
}

grpc::Status FakeAgent::FetchPart(const std::string& instance_uid, const std::string& part,
                                  std::string& out) {
  grpc::ClientContext context;
  v1::FetchSnapshotPartRequest request;
  request.set_instance_uid(instance_uid);
  request.set_part(part);
  v1::BlobChunk reply;
  const grpc::Status status = Dial()->FetchSnapshotPart(&context, request, &reply);
  out = reply.data();
  return status;
}

std::unique_ptr<FakeAgent::ConsoleCall> FakeAgent::OpenConsole(const std::string& session_id) {
  auto call = std::make_unique<ConsoleCall>();
  call->stream = stub_->Console(&call->context);
  v1::ConsoleFrame first;
  first.set_session_id(session_id);
  call->stream->Write(first);
  return call;
}

grpc::Status FakeAgent::IssueVtpm(const std::string& uid, const std::string& key_der,
                                  std::string& pem) {
  grpc::ClientContext context;
  v1::IssueVtpmCertificateRequest request;
  request.set_instance_uid(uid);
  request.set_ek_public_der(key_der);
  v1::IssueVtpmCertificateReply reply;
  grpc::Status status = Dial()->IssueVtpmCertificate(&context, request, &reply);
  pem = reply.certificate_pem();
  return status;
}

grpc::Status FakeAgent::AnswerQuote(const v1::QuoteAnswer& answer) {
  grpc::ClientContext context;
  v1::QuoteAnswerReply reply;
  return Dial()->AnswerQuote(&context, answer, &reply);
}

std::optional<v1::ControllerMessage> FakeAgent::NextOf(v1::ControllerMessage::MessageCase kind) {
  std::optional<v1::ControllerMessage> message = Next();
  while (message && message->message_case() != kind) {
    message = Next();
  }
  return message;
}

grpc::Status FakeAgent::SubmitEvidence(const std::vector<v1::EvidenceChunk>& chunks) {
  grpc::ClientContext context;
  v1::SubmitEvidenceReply reply;
  const auto stub = Dial();
  const auto writer = stub->SubmitEvidence(&context, &reply);
  for (const v1::EvidenceChunk& chunk : chunks) {
    if (!writer->Write(chunk)) break;
  }
  writer->WritesDone();
  return writer->Finish();
}

void FakeAgent::BreakOffEvidence(const std::vector<v1::EvidenceChunk>& chunks) {
  grpc::ClientContext context;
  v1::SubmitEvidenceReply reply;
  const auto stub = Dial();
  const auto writer = stub->SubmitEvidence(&context, &reply);
  for (const v1::EvidenceChunk& chunk : chunks) {
    if (!writer->Write(chunk)) break;
  }
  context.TryCancel();
  static_cast<void>(writer->Finish());
}

grpc::Status FakeAgent::BeginBinding(const v1::TpmIdentity& identity, v1::TpmChallenge& challenge) {
  grpc::ClientContext context;
  return Dial()->BeginTpmBinding(&context, identity, &challenge);
}

grpc::Status FakeAgent::FinishBinding(const v1::TpmProof& proof, v1::TpmBinding& binding) {
  grpc::ClientContext context;
  return Dial()->FinishTpmBinding(&context, proof, &binding);
}

std::optional<v1::MakeQuote> FakeAgent::NextQuote() {
  const std::optional<v1::ControllerMessage> message = NextOf(v1::ControllerMessage::kMakeQuote);
  return message ? std::optional(message->make_quote()) : std::nullopt;
}

v1::Hello FakeAgent::MakeHello(int64_t gib) {
  v1::Hello hello;
  hello.set_agent_version("test");
  v1::HostCapabilities& capabilities = *hello.mutable_capabilities();
  for (const char* trait :
       {"VALLUM_FIRMWARE_UEFI", "VALLUM_SMM", "COMPUTE_SECURITY_UEFI_SECURE_BOOT",
        "COMPUTE_SECURITY_TPM_2_0", "COMPUTE_SECURITY_TPM_CRB"}) {
    capabilities.add_traits(trait);
  }
  capabilities.set_cpus(64);
  // What is kept for the host comes on top.
  capabilities.set_memory_bytes((gib + 4) << 30);
  capabilities.set_disk_free_bytes(int64_t{1} << 40);
  capabilities.set_accelerator("tcg");
  return hello;
}

v1::BootEvidence FakeAgent::MakeEvidence(int tpm_resets) {
  v1::BootEvidence evidence;
  evidence.set_tpm_resets(tpm_resets);
  evidence.set_left_firmware(true);
  v1::MeasuredEvent& event = *evidence.add_events();
  event.set_pcr(5);
  event.set_digest(std::string(AsText(
      measure::ActionDigest(HashAlgorithm::kSha256, "Exit Boot Services Returned with Success"))));
  return evidence;
}

std::string FakeAgent::MakeEndorsementKey() {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(key, &der);
  std::string text(reinterpret_cast<const char*>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  EVP_PKEY_free(key);
  return text;
}

v1::InstanceReport FakeAgent::MakeReport(const v1::DesiredInstance& desired,
                                         v1::InstancePhase phase) {
  v1::InstanceReport report;
  report.set_uid(desired.uid());
  report.mutable_status()->set_phase(phase);
  report.mutable_status()->set_observed_generation(desired.generation());
  report.mutable_status()->set_observed_reboot_count(desired.spec().reboot_count());
  return report;
}

}  // namespace vallum::controller

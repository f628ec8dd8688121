// SPDX-License-Identifier: Apache-2.0
#include "agent/gateway.h"

#include <grpcpp/grpcpp.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <chrono>
#include <utility>

#include "base/text.h"

namespace vallum::agent {
namespace {

constexpr std::chrono::seconds kEnrollTimeout{30};
constexpr std::chrono::seconds kAnswerTimeout{10};

grpc::ChannelArguments ChannelSettings() {
  grpc::ChannelArguments settings;
  // A controller that vanished without a FIN is noticed within a minute.
  settings.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
  settings.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 15000);
  settings.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
  // Session paces attempts itself (ReconnectDelay); the channel must not add its two minutes.
  settings.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  settings.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  // Despite its name: how long an attempt, with its TLS handshake, may take.
  settings.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 20'000);
  // Desired state of a whole host arrives in one message.
  settings.SetMaxReceiveMessageSize(64 << 20);
  // The controller is named by the operator; a proxy from the environment has no business here.
  settings.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return settings;
}

ErrorCode CodeOf(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
      return ErrorCode::kDenied;
    case grpc::StatusCode::ALREADY_EXISTS:
    case grpc::StatusCode::ABORTED:
      return ErrorCode::kConflict;
    case grpc::StatusCode::NOT_FOUND:
      return ErrorCode::kNotFound;
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::OUT_OF_RANGE:
    case grpc::StatusCode::UNIMPLEMENTED:
      return ErrorCode::kInvalidInput;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return ErrorCode::kExhausted;
    case grpc::StatusCode::DATA_LOSS:
      return ErrorCode::kCorrupt;
    case grpc::StatusCode::OK:
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DO_NOT_USE:
      return ErrorCode::kUnavailable;
  }
  return ErrorCode::kUnavailable;
}

template <typename T, void (*Free)(T*)>
struct OpenSslFree {
  void operator()(T* object) const { Free(object); }
};

}  // namespace

Error FromStatus(const grpc::Status& status, std::string_view doing) {
  Error error(CodeOf(status.error_code()), status.error_message().empty()
                                               ? "the controller ended the call without a reason"
                                               : Printable(status.error_message(), 500));
  return std::move(error).Context(std::string(doing));
}

std::shared_ptr<grpc::Channel> MakeChannel(const Identity& identity) {
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = identity.ca_pem;
  options.pem_cert_chain = identity.certificate_pem;
  options.pem_private_key = std::string(
      AsText(identity.private_key_pem.Reveal(SecretAccess("giving gRPC the client key"))));
  auto channel = grpc::CreateCustomChannel(identity.endpoint, grpc::SslCredentials(options),
                                           ChannelSettings());
  Wipe(std::as_writable_bytes(std::span<char>(options.pem_private_key)));
  return channel;
}

Result<v1::EnrollReply> CallRenew(const std::shared_ptr<grpc::Channel>& channel,
                                  const std::string& host, ByteView csr_der) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kEnrollTimeout);
  v1::EnrollRequest request;
  request.set_host_name(host);
  request.set_csr_der(csr_der.data(), csr_der.size());
  v1::EnrollReply reply;
  const grpc::Status status = v1::AgentGateway::NewStub(channel)->Enroll(&context, request, &reply);
  return status.ok() ? Result<v1::EnrollReply>(std::move(reply))
                     : FromStatus(status, "renewing the certificate of " + host);
}

Result<v1::EnrollReply> CallEnroll(const JoinToken& token, const std::string& host,
                                   ByteView csr_der) {
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = token.ca_pem;
  auto channel =
      grpc::CreateCustomChannel(token.endpoint, grpc::SslCredentials(options), ChannelSettings());
  const auto stub = v1::AgentGateway::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kEnrollTimeout);
  v1::EnrollRequest request;
  request.set_token(
      std::string(AsText(token.secret.Reveal(SecretAccess("spending the join token")))));
  request.set_host_name(host);
  request.set_csr_der(csr_der.data(), csr_der.size());
  v1::EnrollReply reply;
  const grpc::Status status = stub->Enroll(&context, request, &reply);
  Wipe(std::as_writable_bytes(std::span<char>(*request.mutable_token())));
  if (status.ok()) {
    return reply;
  }
  Error error = FromStatus(status, "joining " + token.endpoint + " as " + host);
  switch (error.code()) {
    case ErrorCode::kDenied:
      return std::move(error).WithFix(
          "the join token is unknown, used or expired; make a new one "
          "with `vallum token create --role join`");
    case ErrorCode::kConflict:
      return std::move(error).WithFix(
          "give this host another --name, or remove the old host with "
          "`vallum host delete " +
          host + "`");
    case ErrorCode::kUnavailable:
      return std::move(error).WithFix("check that this host reaches " + token.endpoint +
                                      " and that the controller runs");
    case ErrorCode::kInvalidInput:
    case ErrorCode::kNotFound:
    case ErrorCode::kCorrupt:
    case ErrorCode::kExhausted:
    case ErrorCode::kInternal:
      return error;
  }
  return error;
}

Result<std::string> CallIssueVtpm(const std::shared_ptr<grpc::Channel>& channel,
                                  const std::string& instance_uid, ByteView key_der,
                                  std::chrono::milliseconds timeout, const std::stop_token& stop) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  const std::stop_callback cancel(stop, [&context] { context.TryCancel(); });
  v1::IssueVtpmCertificateRequest request;
  request.set_instance_uid(instance_uid);
  request.set_ek_public_der(key_der.data(), key_der.size());
  v1::IssueVtpmCertificateReply reply;
  const grpc::Status status =
      v1::AgentGateway::NewStub(channel)->IssueVtpmCertificate(&context, request, &reply);
  return status.ok() ? Result<std::string>(std::move(*reply.mutable_certificate_pem()))
                     : FromStatus(status, "asking the controller for an EK certificate");
}

Result<void> CallAnswerQuote(const std::shared_ptr<grpc::Channel>& channel,
                             const v1::QuoteAnswer& answer, const std::stop_token& stop) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kAnswerTimeout);
  const std::stop_callback cancel(stop, [&context] { context.TryCancel(); });
  v1::QuoteAnswerReply reply;
  const grpc::Status status =
      v1::AgentGateway::NewStub(channel)->AnswerQuote(&context, answer, &reply);
  return status.ok() ? Ok() : Result<void>(FromStatus(status, "sending a quote"));
}

bool KeyMatchesCertificate(std::string_view key_pem, std::string_view certificate_pem) {
  using Bio = std::unique_ptr<BIO, OpenSslFree<BIO, BIO_free_all>>;
  using Key = std::unique_ptr<EVP_PKEY, OpenSslFree<EVP_PKEY, EVP_PKEY_free>>;
  using Certificate = std::unique_ptr<X509, OpenSslFree<X509, X509_free>>;
  const Bio key_bio(BIO_new_mem_buf(key_pem.data(), static_cast<int>(key_pem.size())));
  const Bio certificate_bio(
      BIO_new_mem_buf(certificate_pem.data(), static_cast<int>(certificate_pem.size())));
  if (!key_bio || !certificate_bio) {
    return false;
  }
  const Key key(PEM_read_bio_PrivateKey(key_bio.get(), nullptr, nullptr, nullptr));
  const Certificate certificate(
      PEM_read_bio_X509(certificate_bio.get(), nullptr, nullptr, nullptr));
  return key && certificate && X509_check_private_key(certificate.get(), key.get()) == 1;
}

}  // namespace vallum::agent

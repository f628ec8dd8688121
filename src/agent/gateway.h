// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

#include "agent/identity.h"
#include "agent/join_token.h"
#include "base/bytes.h"
#include "base/result.h"
#include "vallum/v1/agent.grpc.pb.h"

namespace vallum::agent {

// The one channel of the agent to its controller: mutual TLS, keep-alive, reconnects by itself.
// Dials on first use. Thread-safe.
std::shared_ptr<grpc::Channel> MakeChannel(const Identity& identity);

// The channel that new calls use, replaced when the certificate is renewed; calls under way keep
// theirs. Thread-safe.
class ChannelSlot {
 public:
  explicit ChannelSlot(std::shared_ptr<grpc::Channel> channel) : channel_(std::move(channel)) {}
  std::shared_ptr<grpc::Channel> Get() const {
    const std::lock_guard lock(mutex_);
    return channel_;
  }
  void Replace(std::shared_ptr<grpc::Channel> channel) {
    const std::lock_guard lock(mutex_);
    channel_ = std::move(channel);
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<grpc::Channel> channel_;
};

// Has the key of the channel's own certificate certified anew. Errors: see Renew. Blocks for up to
// 30 s.
Result<v1::EnrollReply> CallRenew(const std::shared_ptr<grpc::Channel>& channel,
                                  const std::string& host, ByteView csr_der);

// Spends a join token over TLS rooted in the token's CA, without a client certificate.
// Errors: see Enrol. Blocks for up to 30 s.
Result<v1::EnrollReply> CallEnroll(const JoinToken& token, const std::string& host,
                                   ByteView csr_der);

// Has the endorsement key of an instance's vTPM certified. Errors: kDenied (the instance is not
// placed here), kInvalidInput, kUnavailable. Blocks until the timeout, or until the token says
// stop.
//   key_der: SubjectPublicKeyInfo. Returns the certificate as PEM.
Result<std::string> CallIssueVtpm(const std::shared_ptr<grpc::Channel>& channel,
                                  const std::string& instance_uid, ByteView key_der,
                                  std::chrono::milliseconds timeout, const std::stop_token& stop);

// Sends the answer to a request for a quote. Errors: kNotFound (nobody waits), kUnavailable. Blocks
// for up to 10 s.
Result<void> CallAnswerQuote(const std::shared_ptr<grpc::Channel>& channel,
                             const v1::QuoteAnswer& answer, const std::stop_token& stop);

// The error that a gRPC status stands for.
Error FromStatus(const grpc::Status& status, std::string_view doing);

// True when the certificate's public key is that of the private key; false also when either does
// not parse.
bool KeyMatchesCertificate(std::string_view key_pem, std::string_view certificate_pem);

}  // namespace vallum::agent

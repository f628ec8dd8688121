// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "agent/identity.h"
#include "agent/join_token.h"
#include "base/bytes.h"
#include "base/result.h"
#include "vallum/v1/agent.grpc.pb.h"

namespace vallum::agent {

// The one channel of the agent to its controller: mutual TLS, keep-alive, reconnects by itself.
// Dials on first use. Thread-safe.
std::shared_ptr<grpc::Channel> MakeChannel(const Identity& identity);

// Spends a join token over TLS rooted in the token's CA, without a client certificate.
// Errors: see Enrol. Blocks for up to 30 s.
Result<v1::EnrollReply> CallEnroll(const JoinToken& token, const std::string& host,
                                   ByteView csr_der);

// The error that a gRPC status stands for.
Error FromStatus(const grpc::Status& status, std::string_view doing);

// True when the certificate's public key is that of the private key; false also when either does
// not parse.
bool KeyMatchesCertificate(std::string_view key_pem, std::string_view certificate_pem);

}  // namespace vallum::agent

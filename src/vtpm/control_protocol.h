// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>

#include "base/bytes.h"
#include "base/result.h"
#include "vtpm/control_client.h"

// The lines of JSON that go over vallum-vtpm's control socket: one request, one reply, in turn.
// Formatting and parsing of both sides are here, so that they cannot drift apart. Pure.
namespace vallum::vtpm {

inline constexpr size_t kMaxRequestLine = 8192;
inline constexpr size_t kMaxReplyLine = size_t{512} << 10U;

struct StatusRequest {};
struct RecordsRequest {
  uint64_t since = 0;
  std::chrono::milliseconds wait{0};  // 0: answer at once
};
struct PcrsRequest {
  HashAlgorithm bank = HashAlgorithm::kSha256;
  PcrSelection pcrs;  // 1 to 24, no duplicates
};
struct IdentityRequest {};
struct CertificateRequest {
  Bytes der;  // empty: there is none now, do not wait
};
struct StopRequest {};
using ControlRequest = std::variant<StatusRequest, RecordsRequest, PcrsRequest, IdentityRequest,
                                    QuoteRequest, CertificateRequest, StopRequest>;

// The request as a line of JSON with its '\n'.
std::string FormatRequest(const ControlRequest& request);
// Parses a request without its '\n'. Untrusted.
// Errors: kInvalidInput (no JSON object, unknown op, a field out of range).
Result<ControlRequest> ParseRequest(std::string_view line);

// Replies, each a line of JSON with its '\n'. Of an error the code, the description and the fix go
// over.
std::string FormatError(const Error& error);
std::string FormatStatus(const VtpmStatus& status);
std::string FormatRecords(const RecordBatch& batch);
std::string FormatPcrs(const std::map<PcrIndex, Bytes>& values);
std::string FormatIdentity(const VtpmIdentity& identity);
std::string FormatQuote(const Quote& quote);
std::string FormatDone();

// Each parses the reply to one kind of request. An error that the other side reported comes back
// with its code. Errors: also kCorrupt (not a reply to that request).
Result<VtpmStatus> ParseStatusReply(std::string_view line);
Result<RecordBatch> ParseRecordsReply(std::string_view line);
Result<std::map<PcrIndex, Bytes>> ParsePcrsReply(std::string_view line);
Result<VtpmIdentity> ParseIdentityReply(std::string_view line);
Result<Quote> ParseQuoteReply(std::string_view line);
Result<void> ParseDoneReply(std::string_view line);

}  // namespace vallum::vtpm

// SPDX-License-Identifier: Apache-2.0
#include "agent/evidence_maker.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/host_facts_reader.h"
#include "agent/ima_list.h"
#include "base/text.h"
#include "store/file.h"

namespace vallum::agent {
namespace {

constexpr const char* kEventLog = "sys/kernel/security/tpm0/binary_bios_measurements";
constexpr const char* kImaList = "sys/kernel/security/ima/binary_runtime_measurements";
constexpr size_t kPiece = size_t{1} << 20U;

std::string Text(ByteView bytes) { return std::string(AsText(bytes)); }

// A file of the kernel's, whose size is not known before. Errors: kExhausted.
Result<Bytes> ReadKernelFile(const std::filesystem::path& path, ByteCount limit) {
  ASSIGN_OR_RETURN(const store::UniqueFd fd, store::OpenFile(path, O_RDONLY));
  Bytes content;
  Bytes buffer(size_t{64} << 10U);
  for (;;) {
    const ssize_t count = read(fd.get(), buffer.data(), buffer.size());
    if (count == 0) {
      return content;
    }
    if (count < 0 && errno != EINTR) {
      return ErrnoError(errno, "read " + path.string());
    }
    content.insert(content.end(), buffer.begin(), buffer.begin() + std::max<ssize_t>(0, count));
    if (content.size() > limit.bytes()) {
      return Exhausted(path.string() + " has more than " + std::to_string(limit.bytes()) +
                       " bytes");
    }
  }
}

bool IsAbsent(const Error& error) {
  return error.code() == ErrorCode::kNotFound || error.code() == ErrorCode::kDenied;
}

v1::EvidenceHeader MakeHeader(const v1::RequestEvidence& request, const QuotedState& state) {
  v1::EvidenceHeader header;
  header.set_request_id(request.request_id());
  header.set_quoted(Text(state.quote.quoted));
  header.set_signature(Text(state.quote.signature));
  for (const Bytes& nonce : state.nonces) {
    header.add_nonces(Text(nonce));
  }
  for (size_t i = 0; i < state.selections.size(); ++i) {
    v1::QuotedBank& bank = *header.add_banks();
    bank.set_bank(std::string(HashAlgorithmName(state.selections[i].bank)));
    for (const PcrIndex pcr : state.selections[i].pcrs) {
      bank.add_pcrs(pcr.value());
    }
    for (const Bytes& value : state.quote.values[i]) {
      bank.add_values(Text(value));
    }
  }
  return header;
}

// Reads the event log if it is wanted and there is one; says in the header what came of it.
Result<Bytes> ReadEventLog(const v1::RequestEvidence& request, const QuotedState& state,
                           const std::filesystem::path& root, v1::EvidenceHeader& header) {
  if (!request.event_log() && request.known_reset_count() == state.quote.reset_count) {
    return Bytes();
  }
  auto log = ReadKernelFile(root / kEventLog, kMaxEventLog);
  if (!log && IsAbsent(log.error())) {
    header.set_event_log_detail("this host has no event log: " + log.error().Describe());
    return Bytes();
  }
  if (log) {
    header.set_event_log_size(static_cast<int64_t>(log->size()));
    if (log->empty()) {
      header.set_event_log_detail("the event log of this host is empty");
    }
  }
  return log;
}

// Finds out which entries there are to send.
Result<ImaRange> MeasureImaList(const v1::RequestEvidence& request, const std::string& boot_id,
                                const std::filesystem::path& root, v1::EvidenceHeader& header) {
  ImaRange range{.from = 0, .until = 0};
  if (request.ima_from() < 0) {
    return range;
  }
  range.from = request.known_boot_id() == boot_id ? request.ima_from() : 0;
  const auto count_only = [](ByteView) { return Ok(); };
  auto extent = WalkImaList(root / kImaList, {.from = range.from}, count_only);
  if (extent && extent->entries < range.from) {
    // It does not have what is known of it: the controller shall see all of it.
    range.from = 0;
    extent = WalkImaList(root / kImaList, {.from = 0}, count_only);
  }
  if (!extent && IsAbsent(extent.error())) {
    header.set_ima_detail("this host has no IMA list: " + extent.error().Describe());
    return ImaRange{.from = 0, .until = 0};
  }
  if (!extent) {
    return std::move(extent).error();
  }
  if (extent->wanted_bytes > kMaxImaPart.bytes()) {
    return Exhausted("the IMA list has " + std::to_string(extent->wanted_bytes) +
                     " bytes that are not known yet, over the limit of " +
                     std::to_string(kMaxImaPart.bytes()))
        .WithFix("measure less (the host's IMA policy), or reboot the host");
  }
  range.until = extent->entries;
  header.set_ima_from(range.from);
  header.set_ima_entries(range.until - range.from);
  return range;
}

Result<void> SendOrStop(const TrustLink::Send& send, const v1::EvidenceChunk& chunk) {
  return send(chunk) ? Ok() : Result<void>(Unavailable("the controller stopped listening"));
}

}  // namespace

v1::EvidenceChunk MakeProblem(const Error& error) {
  v1::EvidenceChunk chunk;
  v1::Problem& problem = *chunk.mutable_problem();
  problem.set_code(std::string(ErrorCodeName(error.code())));
  problem.set_detail(Printable(error.Describe(), 500));
  problem.set_fix(Printable(error.fix(), 500));
  return chunk;
}

Result<void> SendEvidence(const v1::RequestEvidence& request, const QuotedState& state,
                          const std::filesystem::path& root, const std::string& boot_id,
                          const TrustLink::Send& send) {
  v1::EvidenceHeader header = MakeHeader(request, state);
  header.set_boot_id(boot_id);
  ASSIGN_OR_RETURN(const Bytes log, ReadEventLog(request, state, root, header));
  ASSIGN_OR_RETURN(const ImaRange range, MeasureImaList(request, boot_id, root, header));
  *header.mutable_facts() = ReadHostFacts(root);
  v1::EvidenceChunk chunk;
  *chunk.mutable_header() = std::move(header);
  RETURN_IF_ERROR(SendOrStop(send, chunk));
  for (size_t at = 0; at < log.size(); at += kPiece) {
    chunk.set_event_log(Text(ByteView(log).subspan(at, std::min(kPiece, log.size() - at))));
    RETURN_IF_ERROR(SendOrStop(send, chunk));
  }
  if (range.until == range.from) {
    return Ok();
  }
  RETURN_IF_ERROR(WalkImaList(root / kImaList, range, [&](ByteView piece) {
    chunk.set_ima_list(Text(piece));
    return SendOrStop(send, chunk);
  }));
  return Ok();
}

}  // namespace vallum::agent

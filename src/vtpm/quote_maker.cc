// SPDX-License-Identifier: Apache-2.0
#include "vtpm/quote_maker.h"

#include <algorithm>
#include <array>
#include <utility>

#include "vtpm/key_command.h"
#include "vtpm/tpm_command.h"

namespace vallum::vtpm {
namespace {

constexpr int kMaxRetries = 5;
// Part 2, section 6.6.3: TPM_RC_YIELDED, TPM_RC_CANCELED, TPM_RC_TESTING, TPM_RC_RETRY.
constexpr std::array<uint32_t, 4> kAgain = {0x908, kTpmCanceled, 0x90A, 0x922};

}  // namespace

QuoteMaker::QuoteMaker(QuoteRequest request, Bytes ak_public)
    : request_(std::move(request)), reader_(NextReader()) {
  quote_.ak_public = std::move(ak_public);
}

PcrReader QuoteMaker::NextReader() const {
  const measure::BankSelection& selection = request_.selections[quote_.values.size()];
  return PcrReader(PcrsRequest{selection.bank, selection.pcrs});
}

Bytes QuoteMaker::Next() const {
  switch (step_) {
    case Step::kReadPcrs:
      return reader_.Next();
    case Step::kReadPublic:
      return MakeReadPublic(kAkHandle);
    case Step::kCreatePrimary:
      return MakeCreatePrimary(KeyKind::kAttestation);
    case Step::kQuote:
      return MakeQuote(transient_.value_or(kAkHandle), request_);
    case Step::kFlush:
      return MakeFlushContext(transient_.value_or(0));
  }
  return {};
}

std::optional<Result<Quote>> QuoteMaker::OnResponse(ByteView response) {
  const auto code = ResponseCode(response);
  if (code.has_value() && std::ranges::find(kAgain, *code) != kAgain.end() &&
      retries_++ < kMaxRetries) {
    return std::nullopt;
  }
  const bool flushed = step_ == Step::kFlush;
  if (!flushed) {
    if (const auto advanced = Advance(response); !advanced.has_value()) {
      error_ = advanced.error();
    }
  }
  if (!signed_ && !error_.has_value()) {
    return std::nullopt;
  }
  // The guest's next command finds as many free slots as the one before.
  if (transient_.has_value() && !flushed) {
    step_ = Step::kFlush;
    return std::nullopt;
  }
  return error_.has_value() ? Result<Quote>(*error_) : Result<Quote>(std::move(quote_));
}

Result<void> QuoteMaker::Advance(ByteView response) {
  switch (step_) {
    case Step::kReadPcrs:
      return TakePcrs(response);
    case Step::kReadPublic: {
      const auto found = ParseReadPublicReply(response);
      const bool ours = found.has_value() && *found == quote_.ak_public;
      step_ = ours ? Step::kQuote : Step::kCreatePrimary;
      return Ok();
    }
    case Step::kCreatePrimary:
      return TakeCreatedKey(response);
    case Step::kQuote:
      return TakeQuote(response);
    case Step::kFlush:
      break;
  }
  return Ok();
}

Result<void> QuoteMaker::TakePcrs(ByteView response) {
  ASSIGN_OR_RETURN(auto values, reader_.OnResponse(response));
  if (!values.has_value()) {
    return Ok();
  }
  quote_.values.push_back(*std::move(values));
  if (quote_.values.size() < request_.selections.size()) {
    reader_ = NextReader();
  } else {
    step_ = Step::kReadPublic;
  }
  return Ok();
}

Result<void> QuoteMaker::TakeCreatedKey(ByteView response) {
  ASSIGN_OR_RETURN(const PrimaryKey key, ParseCreatePrimaryReply(response));
  transient_ = key.handle;
  if (key.tpm_public != quote_.ak_public) {
    return Conflict("the guest has given its TPM a new identity since it was started")
        .WithFix("stop the instance and start it again: it then gets a new EK certificate");
  }
  step_ = Step::kQuote;
  return Ok();
}

Result<void> QuoteMaker::TakeQuote(ByteView response) {
  ASSIGN_OR_RETURN(QuoteReply reply, ParseQuoteReply(response));
  RETURN_IF_ERROR(CheckQuoted(reply.quoted, request_, quote_.values));
  quote_.quoted = std::move(reply.quoted);
  quote_.signature = std::move(reply.signature);
  signed_ = true;
  return Ok();
}

}  // namespace vallum::vtpm

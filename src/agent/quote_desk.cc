// SPDX-License-Identifier: Apache-2.0
#include "agent/quote_desk.h"

#include <chrono>
#include <utility>

#include "agent/vtpm_keeper.h"
#include "base/text.h"
#include "measure/pcr_selection.h"
#include "vtpm/control_client.h"

namespace vallum::agent {
namespace {

constexpr std::chrono::milliseconds kQuoteTimeout{6000};

v1::InstanceQuote ToMessage(const vtpm::QuoteRequest& request, const vtpm::Quote& quote) {
  const auto text = [](const Bytes& bytes) { return std::string(AsText(bytes)); };
  v1::InstanceQuote message;
  message.set_pcr_selection(measure::FormatPcrSelections(request.selections));
  message.set_quoted(text(quote.quoted));
  message.set_signature(text(quote.signature));
  message.set_pcrs(text(vtpm::SerializePcrs(request, quote)));
  ByteWriter ak;  // TPM2B_PUBLIC
  ak.U16Be(static_cast<uint16_t>(quote.ak_public.size())).Raw(quote.ak_public);
  message.set_ak_public(text(ak.bytes()));
  for (size_t i = 0; i < request.selections.size(); ++i) {
    for (const auto& [pcr, value] : quote.values[i]) {
      v1::PcrValue& item = *message.add_values();
      item.set_index(static_cast<int32_t>(pcr.value()));
      item.set_bank(std::string(HashAlgorithmName(request.selections[i].bank)));
      item.set_digest(ToHex(value));
    }
  }
  return message;
}

}  // namespace

QuoteDesk::QuoteDesk(const ChannelSlot& channel, Locate locate)
    : channel_(channel),
      locate_(std::move(locate)),
      thread_([this](const std::stop_token& stop) { Run(stop); }) {}

QuoteDesk::~QuoteDesk() {
  thread_.request_stop();
  thread_.join();
}

void QuoteDesk::Ask(const v1::MakeQuote& wanted) {
  const std::lock_guard lock(mutex_);
  if (waiting_.size() < kMaxWaiting) {
    waiting_.push_back(wanted);
    asked_.notify_all();
  }
}

void QuoteDesk::Run(const std::stop_token& stop) {
  for (;;) {
    v1::MakeQuote wanted;
    {
      std::unique_lock lock(mutex_);
      if (!asked_.wait(lock, stop, [this] { return !waiting_.empty(); })) {
        return;
      }
      wanted = std::move(waiting_.front());
      waiting_.pop_front();
    }
    v1::QuoteAnswer answer;
    answer.set_request_id(wanted.request_id());
    auto quote = Make(wanted);
    if (quote.has_value()) {
      *answer.mutable_quote() = *std::move(quote);
    } else {
      v1::Problem& problem = *answer.mutable_problem();
      problem.set_code(std::string(ErrorCodeName(quote.error().code())));
      problem.set_detail(Printable(quote.error().Describe(), 500));
      problem.set_fix(quote.error().fix());
    }
    // Nobody may wait any more, or the controller is gone: then nobody can be told, either.
    static_cast<void>(CallAnswerQuote(channel_.Get(), answer, stop));
  }
}

Result<v1::InstanceQuote> QuoteDesk::Make(const v1::MakeQuote& wanted) const {
  vtpm::QuoteRequest request;
  request.nonce = ToBytes(AsBytes(wanted.nonce()));
  if (request.nonce.size() > vtpm::QuoteRequest::kMaxNonce) {
    return InvalidInput("the nonce has " + std::to_string(request.nonce.size()) +
                        " bytes, a quote takes " + std::to_string(vtpm::QuoteRequest::kMaxNonce));
  }
  ASSIGN_OR_RETURN(request.selections, measure::ParsePcrSelections(wanted.pcrs()));
  ASSIGN_OR_RETURN(const RunningVtpm running, locate_(wanted.instance_uid()));
  ASSIGN_OR_RETURN_CONTEXT(auto client,
                           vtpm::ControlClient::Connect(running.control_socket, kQuoteTimeout),
                           "reaching the instance's vTPM");
  ASSIGN_OR_RETURN(const vtpm::Quote quote, client.MakeQuote(request));
  if (quote.values.size() != request.selections.size()) {
    return Corrupt("the vTPM answered about other PCR banks than it was asked for");
  }
  ASSIGN_OR_RETURN(const Bytes ak, vtpm::SubjectPublicKeyInfo(quote.ak_public));
  v1::InstanceQuote message = ToMessage(request, quote);
  message.set_ak_public_pem(PublicKeyPem(ak));
  message.set_ek_certificate(running.ek_certificate);
  return message;
}

}  // namespace vallum::agent
